"""MetaFormer: one general block, any token mixer. The model is built from its config.

v1 is arXiv 2111.11418 (PoolFormer), v2 is arXiv 2210.13452 (MetaFormer Baselines).
"""

from collections import OrderedDict
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.layers import MLP, DropPath, Head, Norm, Scale, init_weights
from metaformer.core.mixers import Mixer, PositionEmbedding


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
    return init_weights(conv) if config.patch_init == "truncated" else conv


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

    def features(self, x: Tensor, stages: int | None = None) -> list[Tensor]:
        """The stages' maps, (B, dims[i], H / stride, W / stride): strides 4, 8, 16, 32 with a stem stride of 4.

        With `stages`, only so many of the first are computed. Raises ValueError for images of other channels, or so small
        that no token is left.
        """
        chans, least = self.config.in_chans, 3 if self.config.stem_stride == 4 else 1
        if x.ndim != 4 or x.shape[1] != chans or x.shape[2] < least or x.shape[3] < least:
            raise ValueError(f"images {tuple(x.shape)}: this model takes (B, {chans}, H, W), H and W at least {least}")
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in self.stages if stages is None else self.stages[:stages]:
            x = stage(x, checkpointing=self.checkpointing and self.training)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)[-1])
