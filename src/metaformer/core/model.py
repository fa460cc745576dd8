"""MetaFormer: one general block, any token mixer. A config is data and says everything; the model is built from it.

v1 is arXiv 2111.11418 (PoolFormer), v2 is arXiv 2210.13452 (MetaFormer Baselines).
"""

from collections import OrderedDict
from dataclasses import MISSING, dataclass, fields
from itertools import islice
from math import inf
from numbers import Integral, Real
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metaformer.core import layers, mixers, spec
from metaformer.core.layers import MLP, Activation, DropPath, Head, HeadSpec, LayerNorm, LinearHead, Norm, Scale, StarReLU
from metaformer.core.mixers import Mixer, PositionEmbedding

# fmt: off
NORMS = (layers.MLN, layers.LayerNorm, layers.BatchNorm, layers.NoNorm)
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


class Residual(nn.Module):
    """shortcut · x + DropPath(scale · branch(norm(x))): half a block."""

    def __init__(self, dim: int, norm: Norm, branch: nn.Module, scale: Scale, drop_path: float, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.norm = norm(dim)
        self.branch = branch
        self.drop_path = DropPath(drop_path)
        self.scale = _scale(dim, scale.branch)
        self.shortcut_scale = _scale(dim, scale.shortcut if residual else None)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(self.norm(x))
        if self.scale is not None:
            y = y * self.scale.view(-1, 1, 1)
        y = self.drop_path(y)
        if not self.residual:
            return y
        return y + (x if self.shortcut_scale is None else x * self.shortcut_scale.view(-1, 1, 1))


def _scale(dim: int, init: float | None) -> nn.Parameter | None:
    return None if init is None else nn.Parameter(torch.full((dim,), float(init)))


class Block(nn.Module):
    """Norm, token mixer, residual; norm, channel MLP, residual: the general block, section 3.1 of v1."""

    def __init__(self, dim: int, mixer: Mixer, config: MetaFormerConfig, scale: Scale, drop_path: float) -> None:
        super().__init__()

        def residual(branch: nn.Module) -> Residual:
            return Residual(dim, config.norm, branch, scale, drop_path, residual=config.residual)

        self.mixer = residual(mixer(dim))
        self.mlp = nn.Identity()
        if config.mlp_ratio:
            self.mlp = residual(MLP(dim, config.mlp_ratio, config.activation, bias=config.mlp_bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.mixer(x))


def make_stem(config: MetaFormerConfig) -> nn.Module:
    """Convolution of kernel 7, then norm. Padding is 2 at stride 4, as published; 3 at strides 1 and 2, which keep borders."""
    padding = 2 if config.stem_stride == 4 else 3
    conv = nn.Conv2d(config.in_chans, config.dims[0], 7, config.stem_stride, padding)
    return nn.Sequential(OrderedDict(conv=_patch(conv, config), norm=config.patch_norm(config.dims[0])))


def make_downsample(dim: int, out: int, config: MetaFormerConfig) -> nn.Module:
    """Norm, then convolution of kernel 3, stride 2, padding 1."""
    conv = nn.Conv2d(dim, out, 3, 2, 1)
    return nn.Sequential(OrderedDict(norm=config.patch_norm(dim), conv=_patch(conv, config)))


def _patch(conv: nn.Conv2d, config: MetaFormerConfig) -> nn.Conv2d:
    return layers.init_weights(conv) if config.patch_init == "truncated" else conv


class Stage(nn.Module):
    """The stem or a downsampling, a position embedding if there is one, then blocks."""

    def __init__(self, embed: nn.Module, pos_embed: nn.Module, blocks: list[Block]) -> None:
        super().__init__()
        self.embed = embed
        self.pos_embed = pos_embed
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, *, checkpointing: bool = False) -> Tensor:
        x = self.pos_embed(self.embed(x))
        for block in self.blocks:
            x = cast(Tensor, checkpoint(block, x, use_reentrant=False)) if checkpointing else block(x)
        return x


class MetaFormer(nn.Module):
    """Stages, then the head. `features(x)` gives the map of each stage; calling gives logits (B, num_classes).

    Takes (B, in_chans, H, W) of any H and W. With `checkpointing = True`, blocks are computed again in the backward pass,
    which trades time for memory. The initialisation draws from torch's global generator: seed it to repeat a model.
    """

    def __init__(self, config: MetaFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        last = sum(config.depths) - 1
        block_mixers = iter(enumerate(config.block_mixers()))
        stages = []
        for i, (depth, dim) in enumerate(zip(config.depths, config.dims, strict=True)):
            grid = config.pos_embed[i]
            stages.append(
                Stage(
                    make_downsample(config.dims[i - 1], dim, config) if i else make_stem(config),
                    PositionEmbedding(dim, grid) if grid else nn.Identity(),
                    [
                        Block(dim, mixer, config, config.scales[i], config.drop_path * n / max(1, last))
                        for n, mixer in islice(block_mixers, depth)
                    ],
                )
            )
        self.stages = nn.ModuleList(stages)
        classifier = config.head(config.dims[-1], config.num_classes, config.head_dropout) if config.num_classes else None
        self.head = Head(config.dims[-1], config.head_norm, classifier, pool_first=config.pool_first)
        self.to(memory_format=cast(Any, torch.channels_last))

    def features(self, x: Tensor) -> list[Tensor]:
        """The stages' maps, (B, dims[i], H / stride, W / stride): strides 4, 8, 16, 32 with a stem stride of 4.

        Raises ValueError for images of other channels, or so small that no token is left.
        """
        chans, least = self.config.in_chans, 3 if self.config.stem_stride == 4 else 1
        if x.ndim != 4 or x.shape[1] != chans or x.shape[2] < least or x.shape[3] < least:
            raise ValueError(f"images {tuple(x.shape)}: this model takes (B, {chans}, H, W), H and W at least {least}")
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in self.stages:
            x = stage(x, checkpointing=self.checkpointing and self.training)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)[-1])
