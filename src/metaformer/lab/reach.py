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
    centre: tuple[int, int]
    """Where the central place lies in the input."""

    def side(self, part: float) -> int:
        """Of the smallest square around the centre that holds so great a part of the field; at most the input's longer side."""
        held = squares(self.field, self.centre)
        return min(2 * int((held < part - 1e-9).sum()) + 1, max(self.field.shape))


def squares(field: Tensor, centre: tuple[int, int]) -> Tensor:
    """What squares of sides 1, 3, 5 ... around the centre hold of the field, up to the whole."""
    rows = (torch.arange(field.shape[0]) - centre[0]).abs()
    columns = (torch.arange(field.shape[1]) - centre[1]).abs()
    ring = torch.maximum(rows[:, None], columns[None])
    return torch.zeros(int(ring.max()) + 1, dtype=field.dtype).index_add_(0, ring.flatten(), field.flatten()).cumsum(0)


@torch.inference_mode(False)
@torch.enable_grad()
def fields(function: Callable[[Tensor], Sequence[Tensor]], x: Tensor) -> list[tuple[Tensor, tuple[int, int]]]:
    """For each map (B, C, h, w) that `function` makes of x (B, C', H, W): the field (H, W), and the centre in it.

    The field is |∂(v · y) / ∂x|, y the channels of the map's central place and v a normal vector drawn anew for each image,
    summed over input channels and over images, divided by its sum. Its expectation is proportional to the root of the sum over
    y's channels of the squared slopes: a sum of y itself, as of normalised channels, might have none.
    """
    draw = torch.Generator().manual_seed(0)
    parts = [_slopes(function, some.detach().clone().requires_grad_(), draw) for some in x.split(AT_ONCE)]
    found = []
    for one in zip(*parts, strict=True):
        field = torch.stack([slope for slope, _ in one]).sum(0)
        found.append((field / field.sum().clamp(min=torch.finfo(torch.double).tiny), one[0][1]))
    return found


def _slopes(
    function: Callable[[Tensor], Sequence[Tensor]], x: Tensor, draw: torch.Generator
) -> list[tuple[Tensor, tuple[int, int]]]:
    """By map the slopes' sizes (H, W), summed over images, and the centre."""
    found = []
    for y in function(x):
        row, column = y.shape[2] // 2, y.shape[3] // 2
        v = torch.randn(y.shape[:2], generator=draw).to(y)
        (slope,) = torch.autograd.grad((y[:, :, row, column] * v).sum(), x, retain_graph=True)
        sides = zip((row, column), x.shape[2:], y.shape[2:], strict=True)
        high, wide = (int((at + 0.5) * whole / places) for at, whole, places in sides)
        found.append((slope.abs().sum(1).cpu().double().sum(0), (high, wide)))
    return found


def reach(model: nn.Module, images: Tensor) -> list[Reach]:
    """Of each level of the model, over the pixels of the images (B, C, H, W)."""
    found = fields(lambda x: level_maps(model, x), images)
    return [Reach(name, *one) for name, one in zip(level_names(model), found, strict=True)]


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
        ((field, centre),) = fields(lambda x, blocks=blocks: [blocks(x)], entered)
        found.append(Reach(f"stage {number}", field, centre))
        with torch.no_grad():
            x = blocks(entered)
    return found
