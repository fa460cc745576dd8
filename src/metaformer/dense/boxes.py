"""The arithmetic of detectors on boxes (N, 4) of corners x1, y1, x2, y2: anchors, codes, who is matched with whom.

As mmdetection 2.19 has it, with which the published detectors were trained; docs/detect.md has where torchvision differs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RATIOS = (0.5, 1.0, 2.0)
"""Height over width of the anchors at each place."""
CODE_LIMIT = math.log(1000 / 16)
"""A box is at most so much wider or narrower than its anchor, as a logarithm."""
BACKGROUND, BETWEEN = -1, -2
"""What a box is matched with that is no object, or that is neither one nor surely none."""
ONES = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Anchors:
    """Boxes around the corner of every cell, of the sides `scales` · stride and of three shapes each."""

    strides: tuple[int, ...]
    scales: tuple[float, ...]

    @property
    def per_place(self) -> int:
        return len(self.scales) * len(RATIOS)

    def base(self, stride: int, device: torch.device | None = None) -> Tensor:
        """(A, 4): those around the origin, the ratios in order and the scales in order within each."""
        height = torch.tensor(RATIOS, device=device).sqrt()[:, None]
        sides = torch.tensor(self.scales, device=device)[None] * stride
        half = torch.stack([sides / height, sides * height], -1).flatten(0, 1) / 2
        return torch.cat([-half, half], 1)

    def grid(self, shapes: Sequence[tuple[int, int]], device: torch.device) -> list[Tensor]:
        """For each level of height and width (H · W · A, 4), row by row."""
        levels = []
        for stride, (height, width) in zip(self.strides, shapes, strict=True):
            rows, columns = (torch.arange(side, device=device) * stride for side in (height, width))
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            corner = torch.stack([x, y, x, y], -1).view(-1, 1, 4)
            levels.append((corner + self.base(stride, device)).view(-1, 4))
        return levels

    def in_image(self, shapes: Sequence[tuple[int, int]], size: tuple[int, int], device: torch.device) -> list[Tensor]:
        """For each level (H · W · A,): whether the cell begins within a height and width of `size`."""
        levels = []
        for stride, (height, width) in zip(self.strides, shapes, strict=True):
            rows = torch.arange(height, device=device) * stride < size[0]
            columns = torch.arange(width, device=device) * stride < size[1]
            levels.append((rows[:, None] & columns).flatten().repeat_interleave(self.per_place))
        return levels


def encode(anchors: Tensor, boxes: Tensor, stds: Sequence[float] = ONES) -> Tensor:
    """(N, 4): how the boxes differ from the anchors, in centre over side and in log side, over `stds`; arXiv 1311.2524."""
    sides, wanted = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    shift = ((boxes[:, :2] + boxes[:, 2:]) - (anchors[:, :2] + anchors[:, 2:])) / 2 / sides
    return torch.cat([shift, (wanted / sides).log()], 1) / anchors.new_tensor(stds)


def decode(anchors: Tensor, codes: Tensor, stds: Sequence[float] = ONES) -> Tensor:
    """(..., 4): the boxes of which codes (..., 4) say how they differ from anchors (..., 4)."""
    codes = codes * codes.new_tensor(stds)
    sides = anchors[..., 2:] - anchors[..., :2]
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2 + codes[..., :2] * sides
    half = sides * codes[..., 2:].clamp(-CODE_LIMIT, CODE_LIMIT).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def match(overlaps: Tensor, *, high: float, low: float, least: float | None) -> Tensor:
    """(A,): with which of G objects each of A boxes is matched, by their overlaps (G, A); BACKGROUND, or BETWEEN.

    A box of an overlap of `high` and more has its best object, one below `low` is background. Then every object takes
    the boxes that it overlaps most, if by `least` at least: the last object where there are several. None leaves that out.
    """
    if not len(overlaps):
        return overlaps.new_full((overlaps.shape[1],), BACKGROUND, dtype=torch.long)
    best, found = overlaps.max(0)
    found = torch.where(best >= high, found, torch.where(best < low, BACKGROUND, BETWEEN))
    if least is None or not overlaps.shape[1]:
        return found
    most = overlaps.amax(1, keepdim=True)
    theirs = (overlaps == most) & (most >= least) & (most > 0)
    last = len(overlaps) - 1 - theirs.flip(0).byte().argmax(0)
    return torch.where(theirs.any(0), last, found)


def draw(matched: Tensor, most: int, share: float) -> tuple[Tensor, Tensor]:
    """Places of `most` boxes at random, matched ones and background: at most `share` of them matched, the rest background."""
    positive, negative = torch.where(matched >= 0)[0], torch.where(matched == BACKGROUND)[0]
    positive = _some(positive, int(most * share))
    return positive, _some(negative, most - len(positive))


def _some(places: Tensor, most: int) -> Tensor:
    if len(places) <= most:
        return places
    return places[torch.randperm(len(places), device=places.device)[:most]]


def real(boxes: Tensor) -> Tensor:
    """(..., ): whether a box has an area."""
    return (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
