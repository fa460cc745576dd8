"""Our models under timm's roof: `metaformer.timm.register()`, then `timm.create_model("mf_caformer_s18", pretrained=True)`.

timm has caformer_s18 and others itself, so ours begin with `mf_`; a name of timm's own is never taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.model import MetaFormer
from metaformer.weights.catalogue import MEAN, ROWS, STD, Published
from metaformer.weights.files import unwrap
from metaformer.weights.formats import rename
from metaformer.weights.match import find_format
from metaformer.zoo import ZOO, get_config

PREFIX = "mf_"
POOLS = ("avg", "")
default_cfgs: dict[str, Any] = {}
"""Where timm looks for what a model's weights are; `register` fills it."""


def register() -> list[str]:
    """Makes every model of the zoo known to timm, as `mf_` and its name; returns the names. A second call does nothing new.

    `timm.create_model` then takes timm's own options for them: pretrained, num_classes, in_chans, drop_rate,
    drop_path_rate, global_pool, features_only, out_indices. Tags are those of `metaformer weights`: mf_caformer_s18.in1k_384.
    """
    from timm.models import generate_default_cfgs, is_model, register_model

    default_cfgs.update(generate_default_cfgs({key: value for model in ZOO for key, value in _cfgs(model)}))
    for model in ZOO:
        if not is_model(PREFIX + model):
            register_model(_entry_point(model))
    return [PREFIX + model for model in ZOO]


class TimmMetaFormer(MetaFormer):
    """A MetaFormer with the methods and attributes by which timm's tools work; the same parameters under the same names."""

    def __init__(self, config: MetaFormerConfig, global_pool: str = "avg") -> None:
        super().__init__(config)
        self.num_classes, self.in_chans = config.num_classes, config.in_chans
        self.num_features = self.head_hidden_size = config.dims[-1]
        self.feature_info = [
            {"num_chs": dim, "reduction": config.stem_stride * 2**i, "module": f"stages.{i}"}
            for i, dim in enumerate(config.dims)
        ]
        self.global_pool = _pool(global_pool, config.num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the last stage's map."""
        return self.features(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """A map → logits; → pooled, normalised features (B, C) with `pre_logits`; → the normalised map without pooling."""
        if not self.global_pool:
            return self.head.norm(x)
        pooled = self.head.pooled(x)
        return pooled if pre_logits else self.head.classifier(pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The maps of the stages that `indices` names, after the last map unless `intermediates_only`.

        `indices` counts the last ones if it is a number. `norm` puts the head's norm on the last stage's map. With
        `stop_early`, stages after the last one wanted are not computed, and the map returned is the last computed.
        """
        from timm.models._features import feature_take_indices

        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt={output_fmt!r}: maps are NCHW")
        taken, last = feature_take_indices(len(self.stages), indices)
        maps = self.features(x, stages=last + 1 if stop_early else None)
        wanted = [self.head.norm(maps[i]) if norm and i == len(self.stages) - 1 else maps[i] for i in taken]
        return wanted if intermediates_only else (maps[-1], wanted)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drops the stages after the last one wanted, in place, and the head; returns the indices from the beginning."""
        from timm.models._features import feature_take_indices

        taken, last = feature_take_indices(len(self.stages), indices)
        shorter = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if shorter:
            self.num_features = self.head_hidden_size = self.config.dims[last]
        if prune_norm or shorter:
            self.head.norm = nn.Identity()
        if prune_head or shorter:
            self.reset_classifier(0, "")
        return taken

    def get_classifier(self) -> nn.Module:
        """The last Linear; an Identity where there are no classes."""
        return getattr(self.head.classifier, "fc", self.head.classifier)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier for so many classes; 0 for none. `global_pool` is "avg", or "" for the unpooled map."""
        pool = _pool(self.global_pool if global_pool is None else global_pool, num_classes)
        classifier: nn.Module = nn.Identity()
        if num_classes:
            like = next(self.parameters())
            with torch.device(like.device):
                classifier = self.config.head(self.num_features, num_classes, self.config.head_dropout).to(like.dtype)
        self.head.classifier = classifier.train(self.training)
        self.config = replace(self.config, num_classes=num_classes)
        self.num_classes, self.global_pool = num_classes, pool

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Computes blocks again in the backward pass, for less memory."""
        self.checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """How parameters fall into layers, from the input on, for layer-wise learning rates: stem, then each block."""
        embed = (r"^stages\.(\d+)\.(?:embed|pos_embed)", (0,))
        blocks = r"^stages\.(\d+)" if coarse else [embed, (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^stages\.0\.embed", "blocks": blocks}

    def no_weight_decay(self) -> set[str]:
        """The position embeddings; what is one-dimensional timm leaves out itself."""
        return {name for name, _ in self.named_parameters() if ".pos_embed." in name}


def _pool(global_pool: str, num_classes: int) -> str:
    if global_pool not in POOLS or (num_classes and not global_pool):
        raise ValueError(f'global_pool={global_pool!r}: these models have "avg", and "" where num_classes=0')
    return global_pool


# --- what timm is told ------------------------------------------------------------------------------------------------


def _cfgs(model: str) -> list[tuple[str, dict[str, Any]]]:
    """Tagged names with what timm must know of the weights; one name without weights where none are published."""
    config = ZOO[model]
    common = {
        "first_conv": "stages.0.embed.conv", "classifier": "head.classifier.fc", "interpolation": "bicubic",
        "mean": MEAN, "std": STD,
    }  # fmt: skip
    sets: dict[str, Published] = {}
    for row in ROWS:
        if row.model == model:
            sets.setdefault(row.tag, row)
    if not sets:
        return [(PREFIX + model, {**common, "input_size": (3, 32, 32), "crop_pct": 1.0, "pool_size": _grid(config, 32)})]
    return [
        (
            f"{PREFIX}{model}.{tag}",
            {
                **common, **_source(row), "input_size": (3, row.size, row.size), "crop_pct": row.crop_fraction,
                "num_classes": row.num_classes, "license": row.licence.lower(), "pool_size": _grid(config, row.size),
            },
        )
        for tag, row in sets.items()
    ]  # fmt: skip


def _source(row: Published) -> dict[str, str]:
    if not row.on_hub:
        return {"url": f"{row.where}/{row.file}"}
    return {"hf_hub_id": row.where, "hf_hub_filename": row.file}


def _grid(config: MetaFormerConfig, size: int) -> tuple[int, int]:
    side = size // (config.stem_stride * 2 ** (len(config.depths) - 1))
    return side, side


def _entry_point(model: str) -> Callable[..., nn.Module]:
    """The function that timm calls, named as timm will call the model."""

    def make(pretrained: bool = False, **options: Any) -> nn.Module:  # timm hands on whatever its caller gave
        from timm.models import build_model_with_cfg

        stages = tuple(range(len(ZOO[model].depths)))
        return build_model_with_cfg(
            cast(Any, partial(_build, model)),
            PREFIX + model,
            pretrained,
            pretrained_filter_fn=to_ours,
            feature_cfg={"out_indices": stages, "feature_cls": "getter"},
            **options,
        )

    make.__name__ = make.__qualname__ = PREFIX + model
    make.__doc__ = f"{model} of metaformer."
    return make


def _build(
    model: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    global_pool: str = "avg",
) -> TimmMetaFormer:
    """timm's words for ours."""
    changes = {"num_classes": num_classes, "in_chans": in_chans, "head_dropout": drop_rate, "drop_path": drop_path_rate}
    return TimmMetaFormer(get_config(model, **changes), global_pool)


def to_ours(state: Mapping[str, Any], model: MetaFormer) -> dict[str, Tensor]:
    """Weights of any known format under our names and shapes; what does not fit is left for timm to adapt or to refuse."""
    (given, _), own = unwrap(state), model.state_dict()
    format = find_format(given) or "ours"
    names = {rename(key, format, model.config): key for key in own}
    ours = {names.get(name, name): tensor for name, tensor in given.items()}
    return {
        key: tensor.reshape(own[key].shape) if key in own and tensor.numel() == own[key].numel() else tensor
        for key, tensor in ours.items()
    }
