"""Batches that take as much memory as any, by which batch=auto tries how many images there is room for."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from metaformer.config import Recipe
from metaformer.data.batch import Batch
from metaformer.data.dense_loader import DenseBatch
from metaformer.data.maps import Maps
from metaformer.data.scenes import Scenes
from metaformer.data.truth import Objects

CANVAS = {"objects": 1.0, "regions": 1.0, "coco": 5 / 3, "ade20k": 1.0}
"""Both sides of the largest canvas over image_size: `coco` shows wide images beside high ones."""
MOSAIC = 4
"""Images of which one may be put together."""
LEARNT = 128
"""Objects that an image has at least, so that a second stage learns from as many as it ever does."""
SMALL = 32.0
"""Side of an object in pixels."""


def black(shape: tuple[int, int, int], label: Tensor, device: torch.device) -> Callable[[int], Batch]:
    """Batches of images (channels, side, side), each with the label (1, …) as the loss takes it."""
    return lambda count: Batch(torch.zeros(count, *shape, device=device), label.expand(count, *label.shape[1:]).to(device))


def crowded(recipe: Recipe, scenes: Scenes, device: torch.device, *, masks: bool) -> Callable[[int], DenseBatch]:
    """Batches of images on the largest canvas: all of one region, or with more objects than any of the `scenes` has."""
    assert recipe.image_size is not None
    side, truths = int(recipe.image_size * CANVAS[recipe.augment]), scenes.truths
    if isinstance(truths, Maps):
        return lambda count: DenseBatch(_zeros(count, 3, side, side, device=device), _zeros(count, side, side, device=device))
    most = max(LEARNT, MOSAIC * int(np.diff(truths.starts).max(initial=0)))
    corners = torch.rand(most, 2, generator=torch.Generator().manual_seed(0)) * max(0.0, side - SMALL)
    boxes = torch.cat([corners, corners + SMALL], 1).to(device)
    labels, none = torch.zeros(most, dtype=torch.int64, device=device), torch.zeros(most, device=device)

    def batch(count: int) -> DenseBatch:
        shapes = [_zeros(most, side, side, device=device) if masks else None for _ in range(count)]
        objects = [Objects(boxes, labels, shape, none.bool(), none, height=side, width=side) for shape in shapes]
        return DenseBatch(_zeros(count, 3, side, side, device=device), objects)

    return batch


def _zeros(*shape: int, device: torch.device) -> Tensor:
    return torch.zeros(*shape, dtype=torch.uint8, device=device)
