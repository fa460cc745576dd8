"""Images and truths so small that a test can train a detector on them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Told:
    """What a detector is told of an image."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None
    crowd: Tensor


def told(boxes: list[list[float]], labels: list[int], size: tuple[int, int], crowd: list[int] | None = None) -> Told:
    """Objects that fill their boxes."""
    box = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros(len(box), *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, box.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return Told(box, torch.tensor(labels, dtype=torch.long), masks, torch.tensor(crowd or [0] * len(box), dtype=torch.bool))


SIZES = ((64, 96), (96, 64), (64, 64))
"""Height and width of three images."""


def batch() -> tuple[list[Tensor], list[Told]]:
    """Three images of bytes: two objects and a crowd; none; one object and one without an area."""
    random = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, *size), generator=random, dtype=torch.uint8) for size in SIZES]
    truths = [
        told([[8, 8, 40, 40], [50, 10, 90, 60], [0, 0, 96, 64]], [0, 2, 1], SIZES[0], [0, 0, 1]),
        told([], [], SIZES[1]),
        told([[4, 20, 30, 60], [10, 10, 10, 30]], [1, 1], SIZES[2]),
    ]
    return images, truths


def region_maps() -> list[Tensor]:
    """For the same images three classes and a void border."""
    maps = []
    for height, width in SIZES:
        regions = (torch.arange(width)[None] * 3 // width).repeat(height, 1)
        regions[:3] = 255
        maps.append(regions)
    return maps
