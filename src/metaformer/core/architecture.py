"""What a MetaFormer is, as data: MetaFormerConfig, read strictly, with specs or their text, and written as JSON.

v1 is arXiv 2111.11418 (PoolFormer), v2 is arXiv 2210.13452 (MetaFormer Baselines).
"""

from dataclasses import MISSING, dataclass, fields
from math import inf
from numbers import Integral, Real
from typing import Any

from torch import nn

from metaformer.core import layers, mixers, spec
from metaformer.core.layers import Activation, HeadSpec, LayerNorm, LinearHead, Norm, Scale, StarReLU
from metaformer.core.mixers import Mixer

# fmt: off
NORMS = (layers.MLN, layers.LayerNorm, layers.BatchNorm, layers.GroupNorm, layers.NoNorm)
SLOTS: dict[str, tuple[type, ...]] = {
    "mixers": (
        mixers.Identity, mixers.Pooling, mixers.MaxPooling, mixers.Random, mixers.DepthwiseConv, mixers.SepConv,
        mixers.Attention, mixers.SpatialFC, mixers.Fourier,
    ),
    "norm": NORMS, "patch_norm": NORMS, "head_norm": NORMS,
    "activation": (layers.StarReLU, layers.SquaredReLU, layers.ReLU, layers.GELU, layers.SiLU),
    "scales": (layers.Scale,),
    "head": (layers.LinearHead, layers.MLPHead),
}
# fmt: on
"""The specs that each field of a config takes, beside code of the user's own."""

SPECS: dict[str, type] = {cls.__name__: cls for slot in SLOTS.values() for cls in slot}
"""The specs that a config's text form can name."""

NUMBERS: dict[str, type] = {
    **dict.fromkeys(("depths", "dims", "pos_embed", "stem_stride", "in_chans", "num_classes"), int),
    **dict.fromkeys(("mlp_ratio", "head_dropout", "drop_path"), float),
    **dict.fromkeys(("mlp_bias", "residual", "pool_first"), bool),
}
"""The fields that are numbers or switches."""

ROWS = ("depths", "dims", "mixers", "scales", "pos_embed")
"""The fields with an entry per stage."""


@dataclass(frozen=True, kw_only=True)
class MetaFormerConfig:
    """What a MetaFormer is. The defaults are v2's frame; specs may also be given as text, such as "Pooling(window=5)".

    `mixers` has one entry per stage or one per block, `scales` one per stage; a single one serves all stages.
    """

    depths: tuple[int, ...]
    """Blocks in each stage."""
    dims: tuple[int, ...]
    """Channels of each stage."""
    mixers: tuple[Mixer, ...]
    norm: Norm = LayerNorm(eps=1e-6)
    """Before every token mixer and channel MLP."""
    activation: Activation = StarReLU()
    mlp_ratio: float = 4.0
    """Hidden channels of the channel MLP per channel; 0 leaves the channel MLP out."""
    mlp_bias: bool = False
    scales: tuple[Scale, ...] = (Scale(), Scale(), Scale(shortcut=1.0), Scale(shortcut=1.0))
    residual: bool = True
    pos_embed: tuple[int, ...] = ()
    """Side of the grid of position embeddings on entering each stage, 0 for none."""
    stem_stride: int = 4
    patch_norm: Norm = LayerNorm(eps=1e-6)
    """After the stem's convolution and before the downsampling ones."""
    patch_init: str = "truncated"
    """Initialisation of stem and downsampling: "truncated" (normal, std 0.02) or "torch" (the library's default)."""
    head_norm: Norm = LayerNorm(eps=1e-6, bias=True)
    pool_first: bool = True
    """Mean over H, W before the head's norm (v2) or after it (v1)."""
    head: HeadSpec = LinearHead()
    head_dropout: float = 0.0
    drop_path: float = 0.0
    """Rate of the last block; it rises linearly from 0 at the first."""
    in_chans: int = 3
    num_classes: int = 1000
    """0 gives pooled, normalised features instead of logits."""

    def __post_init__(self) -> None:
        read = {f.name: _read(f.name, getattr(self, f.name)) for f in fields(self) if f.name != "patch_init"}
        stages = len(_tuple(read["depths"], 1))
        read |= {name: _tuple(read[name], stages) for name in ROWS}
        read["pos_embed"] = read["pos_embed"] or (0,) * stages
        for name, value in read.items():
            object.__setattr__(self, name, value)
        _check(self)

    def block_mixers(self) -> tuple[Mixer, ...]:
        """One mixer per block."""
        if len(self.mixers) == sum(self.depths):
            return self.mixers
        return tuple(m for m, depth in zip(self.mixers, self.depths, strict=True) for _ in range(depth))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; specs as text."""
        return {f.name: _write(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "MetaFormerConfig":
        """The config that `to_dict` wrote. Raises ValueError for unknown names and for mixers that are a user's own code."""
        known = [f.name for f in fields(cls)]
        for name in data:
            if name not in known:
                raise ValueError(f"a model has no {name!r}{spec.nearest(name, known)}")
        for f in fields(cls):
            if f.default is MISSING and f.name not in data:
                raise ValueError(f"a model needs {f.name!r}, which is not among {', '.join(data)}")
        return cls(**data)


def _tuple(value: Any, stages: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * stages


def _read(name: str, value: Any) -> Any:
    if isinstance(value, (tuple, list)) and name in ROWS:
        return tuple(_read(name, item) for item in value)
    if isinstance(value, str):
        try:
            value = spec.from_text(value, SPECS)
        except ValueError as error:
            if name not in NUMBERS:
                raise ValueError(f"{name}: {error}") from None
        if isinstance(value, tuple):
            return _read(name, value)
    return _number(name, value, NUMBERS[name]) if name in NUMBERS else _spec(name, value, SLOTS[name])


def _number(name: str, value: Any, kind: type) -> bool | int | float:
    allowed = {bool: bool, int: Integral, float: Real}[kind]
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        words = {bool: "True or False", int: "a whole number", float: "a number"}
        raise ValueError(f"{name}={value!r} is not {words[kind]}")
    return kind(value)  # 7 for numpy's int64(7)


def _spec(name: str, value: Any, slot: tuple[type, ...]) -> Any:
    ours = tuple(SPECS.values())
    if isinstance(value, type) and value in ours:
        raise ValueError(f"{name}={value.__name__} is a class: a spec has brackets, {value.__name__}(...)")
    if isinstance(value, nn.Module):
        raise ValueError(f"{name}={value!r} is a module, which all blocks would share: give its class, or lambda dim: ...")
    foreign = callable(value) and not isinstance(value, ours) and Scale not in slot
    if not isinstance(value, slot) and not foreign:
        own = "" if Scale in slot else ", or a function or class of your own that makes a module"
        raise ValueError(f"{name}={value!r} does not serve there: give {', '.join(cls.__name__ for cls in slot)}{own}")
    for f in fields(value) if isinstance(value, ours) else ():
        option = getattr(value, f.name)
        if f.name in SLOTS:
            _spec(f.name, option, SLOTS[f.name])
        elif f.type in (bool, int, float) or option is not None:
            _number(f"{type(value).__name__}'s {f.name}", option, f.type if isinstance(f.type, type) else float)
    return value


def _write(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_write(item) for item in value]
    return spec.to_text(value) if callable(value) or isinstance(value, Scale) else value


def _check(c: MetaFormerConfig) -> None:
    stages, blocks = len(c.depths), sum(c.depths)
    if not stages or len(c.dims) != stages or min(c.depths + c.dims) < 1:
        raise ValueError(f"depths {c.depths} and dims {c.dims} must be positive and one per stage")
    if len(c.mixers) not in (stages, blocks):
        raise ValueError(f"{len(c.mixers)} mixers for {stages} stages of {blocks} blocks: give one per stage or per block")
    for name in ("scales", "pos_embed"):
        if len(getattr(c, name)) != stages:
            raise ValueError(f"{name} has {len(getattr(c, name))} entries for {stages} stages: give one per stage")
    if min(c.pos_embed) < 0:
        raise ValueError(f"pos_embed={c.pos_embed}: a side is a whole number, 0 for none")
    if c.stem_stride not in (1, 2, 4):
        raise ValueError(f"stem_stride={c.stem_stride} is not one of 1, 2, 4")
    if c.patch_init not in ("truncated", "torch"):
        raise ValueError(f'patch_init={c.patch_init!r} is not one of "truncated", "torch"')
    for name in ("drop_path", "head_dropout"):
        if not 0 <= getattr(c, name) < 1:
            raise ValueError(f"{name}={getattr(c, name)} is not at least 0 and below 1")
    for name, least in (("in_chans", 1), ("num_classes", 0), ("mlp_ratio", 0)):
        if not least <= getattr(c, name) < inf:
            raise ValueError(f"{name}={getattr(c, name)} is not at least {least}")
