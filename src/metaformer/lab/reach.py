"""How far a place of a map sees: the effective receptive field, Luo et al. 2016 (arXiv 1701.04128)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metaformer.core.model import MetaFormer, Stage
from metaformer.lab.feature_maps import level_maps, level_names

PARTS = (0.5, 0.95)
"""Parts of the whole whose squares are told."""
AT_ONCE = 4
"""Images whose slopes are in memory together."""


@dataclass(frozen=True)
class Reach:
    """What the central place of a map depends on."""

    name: str
    field: Tensor
    """(H, W) over the input: the slope's size at each place; sums to 1."""

    def side(self, part: float) -> int:
        """Of the smallest square that holds so great a part of the field, wherever it lies: where strides have even numbers of
        places, the central one does not look at the input's centre."""
        least, most = 1, max(self.field.shape)
        while least < most:
            side = (least + most) // 2
            least, most = (least, side) if fullest(self.field, side) >= part - 1e-9 else (side + 1, most)
        return least


def fullest(field: Tensor, side: int) -> float:
    """The most that a square of that side holds of a field (H, W)."""
    high, wide = (min(side, whole) for whole in field.shape)
    sums = nn.functional.pad(field.cumsum(0).cumsum(1), (1, 0, 1, 0))
    held = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    return held.max().item()


@torch.inference_mode(False)
@torch.enable_grad()
def fields(function: Callable[[Tensor], Sequence[Tensor]], x: Tensor) -> list[Tensor]:
    """For each map (B, C, h, w) that `function` makes of x (B, C', H, W): the field (H, W).

    The field is |∂(v · y) / ∂x|, y the channels of the map's central place and v a normal vector drawn anew for each image,
    summed over input channels and over images, divided by its sum. Its expectation is proportional to the root of the sum over
    y's channels of the squared slopes: a sum of y itself, as of normalised channels, might have none.
    """
    draw = torch.Generator().manual_seed(0)
    parts = [_slopes(function, some.detach().clone().requires_grad_(), draw) for some in x.split(AT_ONCE)]
    found = []
    for one in zip(*parts, strict=True):
        field = torch.stack(one).sum(0)
        found.append(field / field.sum().clamp(min=torch.finfo(torch.double).tiny))
    return found


def _slopes(function: Callable[[Tensor], Sequence[Tensor]], x: Tensor, draw: torch.Generator) -> list[Tensor]:
    """By map the slopes' sizes (H, W), summed over images."""
    found = []
    for y in function(x):
        v = torch.randn(y.shape[:2], generator=draw).to(y)
        central = y[:, :, y.shape[2] // 2, y.shape[3] // 2]
        (slope,) = torch.autograd.grad((central * v).sum(), x, retain_graph=True)
        found.append(slope.abs().sum(1).cpu().double().sum(0))
    return found


def reach(model: nn.Module, images: Tensor) -> list[Reach]:
    """Of each level of the model, over the pixels of the images (B, C, H, W)."""
    found = fields(lambda x: level_maps(model, x), images)
    return [Reach(name, field) for name, field in zip(level_names(model), found, strict=True)]


def reach_of_blocks(model: nn.Module, images: Tensor) -> list[Reach]:
    """Of each stage's blocks alone, over the places of the stage: what its token mixers reach. Empty for timm's models."""
    if not isinstance(model, MetaFormer):
        return []
    found: list[Reach] = []
    x = images
    for number, stage in enumerate(model.stages, 1):
        assert isinstance(stage, Stage)
        with torch.no_grad():
            entered = stage.pos_embed(stage.embed(x))
        blocks = nn.Sequential(*stage.blocks)
        (field,) = fields(lambda x, blocks=blocks: [blocks(x)], entered)
        found.append(Reach(f"stage {number}", field))
        with torch.no_grad():
            x = blocks(entered)
    return found
