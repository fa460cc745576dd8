"""The backbone of a dense model: maps chosen by their stride, a norm on each, of our models or of timm's."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.layers import Norm
from metaformer.core.model import MetaFormer
from metaformer.dense.config import TIMM, TimmConfig


class Body(MetaFormer):
    """A MetaFormer without a head: `features` is all that it is asked for."""

    def __init__(self, config: MetaFormerConfig) -> None:
        super().__init__(replace(config, num_classes=0))
        del self.head
        self.strides = [config.stem_stride * 2**stage for stage in range(len(config.dims))]
        self.dims = list(config.dims)


class TimmBody(nn.Module):
    """timm's model of that name, made for its maps. Raises ValueError where timm has none, or none that gives maps."""

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        import timm

        self.config = config
        if not timm.is_model(config.name):
            near = get_close_matches(config.name, timm.list_models(), n=1, cutoff=0.6)
            meant = f", did you mean {TIMM}{near[0]}?" if near else ""
            raise ValueError(f"timm has no model {TIMM + config.name!r}{meant}")
        options: dict[str, Any] = {"features_only": True, "in_chans": config.in_chans}
        make: Any = timm.create_model
        try:
            try:
                model = make(config.name, drop_path_rate=config.drop_path, **options)
            except TypeError as error:
                if "drop_path_rate" not in str(error):
                    raise
                model = make(config.name, **options)  # not every architecture has drop path
        except (RuntimeError, AssertionError, AttributeError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{TIMM}{config.name} gives no maps: {reason}") from error
        self.model: Any = model
        self.strides: list[int] = list(model.feature_info.reduction())
        self.dims: list[int] = list(model.feature_info.channels())
        self.channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        self._checkpointing = False

    @property
    def checkpointing(self) -> bool:
        return self._checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        self._checkpointing = on
        self.model.set_grad_checkpointing(on)

    def features(self, x: Tensor) -> list[Tensor]:
        """The maps, (B, C, H, W) each."""
        maps = self.model(x)
        return [x.permute(0, 3, 1, 2) for x in maps] if self.channels_last else maps


def fill_published(backbone: "Backbone") -> None:
    """Puts the weights that timm publishes into a backbone of timm's. Raises ValueError where there are none, OSError."""
    import timm

    assert isinstance(backbone.body, TimmBody)
    name, in_chans = backbone.body.config.name, backbone.body.config.in_chans
    known = timm.get_pretrained_cfg(name)
    if known is None or not known.has_weights:
        raise ValueError(f"timm publishes no weights for {TIMM}{name}: leave weights= out, or choose another backbone")
    theirs = timm.create_model(name, features_only=True, in_chans=in_chans, pretrained=True)
    backbone.body.model.load_state_dict(theirs.state_dict())


def published_spread(name: str) -> dict[str, tuple[float, ...]]:
    """Mean and deviation of pixels, by these names, that timm's weights of a model were learnt with; empty without any."""
    import timm

    known = timm.get_pretrained_cfg(name)
    return {} if known is None else {"mean": tuple(known.mean), "std": tuple(known.std)}


class Backbone(nn.Module):
    """(B, C, H, W) → the maps of the wanted strides, each normalised by a norm of its own.

    Raises ValueError where the model has no map of such a stride.
    """

    def __init__(self, config: MetaFormerConfig | TimmConfig, strides: Sequence[int], norm: Norm) -> None:
        super().__init__()
        self.body = TimmBody(config) if isinstance(config, TimmConfig) else Body(config)
        have = self.body.strides
        if not set(strides) <= set(have):
            asked, found = (", ".join(map(str, values)) for values in (strides, have))
            raise ValueError(f"this head needs maps of strides {asked}, and the backbone has {found}: choose another one")
        last = {stride: place for place, stride in enumerate(have)}  # of several of a stride the last
        self.places = [last[stride] for stride in strides]
        self.dims = [self.body.dims[place] for place in self.places]
        self.norms = nn.ModuleList(norm(dim) for dim in self.dims)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.body.features(x)
        return [norm(maps[place]) for norm, place in zip(self.norms, self.places, strict=True)]
