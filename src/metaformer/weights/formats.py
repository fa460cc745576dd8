"""How others name the same weights. A table per format renames our keys to theirs; reading uses the same table backwards."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.mixers import Attention
from metaformer.core.spec import nearest
from metaformer.dense.config import DEFAULTS, DenseConfig
from metaformer.weights import mmdet, mmseg
from metaformer.zoo import ZOO

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

# fmt: off
PARTS: list[Rule] = [  # what the second paper's code and timm call alike
    (r"\.mixer\.norm",                      r".norm1"),
    (r"\.mlp\.norm",                        r".norm2"),
    (r"\.mixer\.shortcut_scale",            r".res_scale1.scale"),
    (r"\.mlp\.shortcut_scale",              r".res_scale2.scale"),
    (r"\.mixer\.scale",                     r".layer_scale1.scale"),
    (r"\.mlp\.scale",                       r".layer_scale2.scale"),
    (r"\.mixer\.branch\.pw(\d)",            r".token_mixer.pwconv\1"),
    (r"\.mixer\.branch\.dw",                r".token_mixer.dwconv"),
    (r"\.mixer\.branch\.act",               r".token_mixer.act1"),
    (r"\.mlp\.branch",                      r".mlp"),
]

V2: list[Rule] = [  # the second paper's code
    (r"^stages\.0\.embed\.norm",            r"downsample_layers.0.post_norm"),
    (r"^stages\.(\d)\.embed\.norm",         r"downsample_layers.\1.pre_norm"),
    (r"^stages\.(\d)\.embed\.conv",         r"downsample_layers.\1.conv"),
    (r"\.blocks\.",                         r"."),
    *PARTS,
    (r"\.mixer\.branch\.weight",            r".token_mixer.random_matrix"),
    (r"\.mixer\.branch",                    r".token_mixer"),
    (r"^head\.norm",                        r"norm"),
    (r"^head\.classifier\.fc\.",            r"head.LAST"),
    (r"^head\.classifier",                  r"head"),
]

V1: list[Rule] = [  # the first paper's code: stages, downsampling and position embeddings share one list, `network`
    (r"^stages\.0\.embed\.conv",            r"patch_embed.proj"),
    (r"^stages\.(\d)\.pos_embed\.weight",   r"network.\1-1.pos_embed"),
    (r"^stages\.(\d)\.embed\.conv",         r"network.\1-0.proj"),
    (r"^stages\.(\d)\.blocks",              r"network.\1-2"),
    (r"\.mixer\.norm",                      r".norm1"),
    (r"\.mlp\.norm",                        r".norm2"),
    (r"\.mixer\.scale",                     r".layer_scale_1"),
    (r"\.mlp\.scale",                       r".layer_scale_2"),
    (r"\.mixer\.branch\.weight",            r".token_mixer.fc.weight"),
    (r"\.mixer\.branch",                    r".token_mixer"),
    (r"\.mlp\.branch",                      r".mlp"),
    (r"^head\.norm",                        r"norm"),
    (r"^head\.classifier\.fc\.",            r"head."),
]

TIMM: list[Rule] = [
    (r"^stages\.0\.embed",                  r"stem"),
    (r"^stages\.(\d)\.embed",               r"stages.\1.downsample"),
    *PARTS,
    (r"\.mixer\.branch",                    r".token_mixer"),
    (r"^head\.classifier\.fc\.",            r"head.fc.LAST"),
    (r"^head\.classifier",                  r"head.fc"),
]

TRANSFORMERS: list[Rule] = [  # PoolFormer v1 only
    (r"^stages\.(\d)\.embed\.conv",         r"poolformer.encoder.patch_embeddings.\1.projection"),
    (r"^stages\.(\d)\.blocks",              r"poolformer.encoder.block.\1"),
    (r"\.mixer\.norm",                      r".before_norm"),
    (r"\.mlp\.norm",                        r".after_norm"),
    (r"\.mixer\.scale",                     r".layer_scale_1"),
    (r"\.mlp\.scale",                       r".layer_scale_2"),
    (r"\.mlp\.branch\.fc(\d)",              r".output.conv\1"),
    (r"^head\.norm",                        r"norm"),
    (r"^head\.classifier\.fc\.",            r"classifier."),
]

MMPRETRAIN: list[Rule] = [  # PoolFormer v1 only; the norm is numbered after its place in `network`
    (r"^head\.norm",                        r"backbone.norm6"),
    (r"^head\.classifier\.fc\.",            r"head.fc."),
    *V1,
    (r"^(patch_embed|network)",             r"backbone.\1"),
]

FORMATS: dict[str, list[Rule]] = {
    "ours": [], "v2": V2, "v1": V1, "timm": TIMM, "transformers": TRANSFORMERS, "mmpretrain": MMPRETRAIN,
}

DENSE_FORMATS: dict[str, tuple[list[tuple[str, str]], tuple[str, ...]]] = {  # rules of the head, and the heads they are for
    "ours": ([], tuple(DEFAULTS)), "mmdet": (mmdet.MMDET, mmdet.HEADS), "mmseg": (mmseg.MMSEG, mmseg.HEADS),
}
BODY = "backbone.body."
"""Before our names of what a dense model has of a classifier; others say `backbone.` and go on as the first paper."""
DENSE_FREE = ("num_classes", "head_dropout", "anchor_scale", "mean", "std", "backbone")
"""Fields of a dense model that the others' code has free too, or that change no weight's meaning."""

FAMILIES: dict[str, tuple[str, ...]] = {  # which models the others' code can make
    "v2":           ("identityformer", "randformer", "poolformerv2", "convformer", "caformer"),
    "v1":           ("poolformer", "metaformer"),
    "timm":         ("poolformer", "poolformerv2", "convformer", "caformer"),
    "transformers": ("poolformer",),
    "mmpretrain":   ("poolformer",),
}
FREE = ("depths", "dims", "in_chans", "num_classes", "head_dropout", "drop_path")
"""Fields that a model of a family may have as it likes."""
# fmt: on


def check_format(format: str) -> None:
    """Raises ValueError that names the nearest right format."""
    known = [*FORMATS, *(name for name in DENSE_FORMATS if name not in FORMATS)]
    if format not in known:
        raise ValueError(f"no format {format!r}{nearest(format, known)}")


def formats_of(config: MetaFormerConfig | DenseConfig) -> list[str]:
    """The formats in which such a model may be written by somebody."""
    if isinstance(config, MetaFormerConfig):
        return list(FORMATS)
    ours_alone = not isinstance(config.backbone, MetaFormerConfig)
    return [
        format for format, (_, heads) in DENSE_FORMATS.items() if config.head in heads and (format == "ours" or not ours_alone)
    ]


def cannot_hold(format: str, config: MetaFormerConfig | DenseConfig) -> str:
    """Why `format` cannot hold a model: its code could not compute it, though the names might fit. Empty if it can."""
    if format == "ours":
        return ""
    if isinstance(config, DenseConfig):
        return _cannot_hold_dense(format, config)
    if format not in FAMILIES:
        return f"format {format!r} holds {', '.join(DENSE_FORMATS[format][1])}, and this is a classifier"
    free: dict[str, Any] = {name: getattr(config, name) for name in FREE}
    rows = [row for name, row in ZOO.items() if name.split("_")[0] in FAMILIES[format] and row.stem_stride == 4]
    if len(config.depths) == 4 and any(replace(row, **free) == config for row in rows):
        return ""
    families = ", ".join(FAMILIES[format])
    return f"format {format!r} holds {families} in the sizes that are published, and this is none; 'ours' holds every model"


def _cannot_hold_dense(format: str, config: DenseConfig) -> str:
    heads = DENSE_FORMATS[format][1] if format in DENSE_FORMATS else ()
    if config.head not in heads:
        have = f"holds {', '.join(heads)}" if heads else "holds classifiers"
        return f"format {format!r} {have}, and this is {config.head}; 'ours' holds every model"
    free = {name: getattr(config, name) for name in DENSE_FREE}
    usual = DenseConfig(head=config.head, **{**DEFAULTS[config.head], **free})
    if isinstance(config.backbone, MetaFormerConfig) and not cannot_hold("mmpretrain", config.backbone) and usual == config:
        return ""
    return f"format {format!r} holds heads as published on a poolformer, and this is none; 'ours' holds every model"


def rename(key: str, format: str, config: MetaFormerConfig | DenseConfig) -> str:
    """The name that `format` gives to our parameter `key`."""
    if isinstance(config, DenseConfig):
        return _rename_dense(key, format, config)
    for pattern, replacement in FORMATS[format]:
        key = re.sub(pattern, replacement, key)
    deep = type(config.head).__name__ == "MLPHead"
    key = key.replace("LAST", "fc2." if deep else "")
    return re.sub(r"network\.(\d)-(\d)", lambda m: f"network.{_place(int(m[1]), int(m[2]), config)}", key)


def _rename_dense(key: str, format: str, config: DenseConfig) -> str:
    if format == "ours" or not isinstance(config.backbone, MetaFormerConfig):
        return key
    if key.startswith(BODY):
        return "backbone." + rename(key.removeprefix(BODY), "v1", config.backbone)
    first = 1 if config.head == "retinanet" else 0  # stage; norms are numbered after its place in `network`
    key = re.sub(r"^backbone\.norms\.(\d)", lambda m: f"backbone.norm{2 * (int(m[1]) + first)}", key)
    for pattern, replacement in DENSE_FORMATS[format][0]:
        key = re.sub(pattern, replacement, key)
    return key


def _place(stage: int, part: int, config: MetaFormerConfig) -> int:
    """Index in v1's `network` of a stage's downsampling (part 0), position embedding (1) or blocks (2)."""
    embeddings = [bool(grid) for grid in config.pos_embed]
    before = 2 * stage - 1 + sum(embeddings[:stage])
    return before + (0, 1, 1 + embeddings[stage])[part]


def to_format(state: Mapping[str, Tensor], format: str, config: MetaFormerConfig | DenseConfig) -> dict[str, Tensor]:
    """Our state dict under another's names, in our order; 1×1 convolutions as matrices where theirs is a Linear."""
    check_format(format)
    return {rename(key, format, config): _shape(key, tensor, format, config) for key, tensor in state.items()}


def _shape(key: str, tensor: Tensor, format: str, config: MetaFormerConfig | DenseConfig) -> Tensor:
    """Published v2 has matrices everywhere, v1 in its token mixers, timm in stages of attention."""
    if isinstance(config, DenseConfig):
        return tensor
    matrix = format == "v2" or (format == "v1" and ".mixer." in key)  # mmpretrain has no mixer with weights
    if format == "timm" and ".blocks." in key:
        first = sum(config.depths[: int(key.split(".")[1])])
        matrix = isinstance(config.block_mixers()[first], Attention)
    return tensor.flatten(1) if matrix and tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor
