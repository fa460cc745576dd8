"""Moves of a scene: image, boxes and masks, or image and map, by one call of torchvision's for all of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from metaformer.data.truth import VOID, Objects, Scene

LEAST = 1.0
"""Pixels a side that an object must keep: with less it is dropped, with its mask and label."""
Colour = tuple[int, int, int]


def fitted(size: tuple[int, int], short: int, long: int) -> tuple[int, int]:
    """The height and width at which the short side is `short`, or the long one `long` where it would be longer than that."""
    height, width = size
    scale = min(short / min(size), long / max(size))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resized(scene: Scene, height: int, width: int) -> Scene:
    """Stretched to a size."""
    if (height, width) == (scene.height, scene.width):
        return scene
    functional = _functional()
    return _moved(scene, lambda part: functional.resize(part, [height, width], antialias=True))


def flipped(scene: Scene) -> Scene:
    """In a mirror that swaps left and right."""
    return _moved(scene, _functional().horizontal_flip)


def cropped(scene: Scene, top: int, left: int, height: int, width: int) -> Scene:
    """A part of it; no larger than it is."""
    assert 0 <= top <= scene.height - height
    assert 0 <= left <= scene.width - width
    if (height, width) == (scene.height, scene.width):
        return scene
    functional = _functional()
    return _moved(scene, lambda part: functional.crop(part, top, left, height, width), cuts=True)


def padded(scene: Scene, height: int, width: int, colour: Colour) -> Scene:
    """On a larger canvas, at its top left; nobody is asked about the rest."""
    return on_canvas([(scene, 0, 0)], height, width, colour)


def on_canvas(placed: Sequence[tuple[Scene, int, int]], height: int, width: int, colour: Colour) -> Scene:
    """Scenes side by side, each with the top and left of its place on a canvas of one colour."""
    image = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).repeat(1, height, width)
    for scene, top, left in placed:
        image[:, top : top + scene.height, left : left + scene.width] = scene.image
    truths = [scene.truth for scene, _, _ in placed]
    if isinstance(truths[0], Tensor):
        regions = torch.full((height, width), VOID, dtype=torch.uint8)
        for scene, top, left in placed:
            assert isinstance(scene.truth, Tensor)
            regions[top : top + scene.height, left : left + scene.width] = scene.truth
        return Scene(image, regions)
    functional = _functional()
    moved: list[Objects] = []
    for scene, top, left in placed:
        around = [left, top, width - left - scene.width, height - top - scene.height]
        assert isinstance(scene.truth, Objects)
        moved.append(_objects(scene, lambda part, around=around: functional.pad(part, around, fill=0)))
    return Scene(image, _together(moved))


def _functional() -> Any:
    """torchvision's functions, which a classifier has no need of."""
    from torchvision.transforms.v2 import functional

    return functional


def _tv_tensors() -> Any:
    from torchvision import tv_tensors

    return tv_tensors


def _moved(scene: Scene, move: Callable[[Any], Any], *, cuts: bool = False) -> Scene:
    tv_tensors = _tv_tensors()
    image = move(tv_tensors.Image(scene.image)).as_subclass(Tensor)
    if isinstance(scene.truth, Tensor):
        return Scene(image, move(tv_tensors.Mask(scene.truth)).as_subclass(Tensor))
    return Scene(image, _objects(scene, move, cuts=cuts))


def _objects(scene: Scene, move: Callable[[Any], Any], *, cuts: bool = False) -> Objects:
    """The objects of a scene, moved: those that are still to be seen. Where it `cuts`, boxes are drawn to what is left."""
    tv_tensors = _tv_tensors()
    before = scene.truth
    assert isinstance(before, Objects)
    moved = move(tv_tensors.BoundingBoxes(before.boxes, format="XYXY", canvas_size=(scene.height, scene.width)))
    height, width = moved.canvas_size
    boxes = moved.as_subclass(Tensor).float()
    masks = None if before.masks is None else move(tv_tensors.Mask(before.masks)).as_subclass(Tensor)
    share = _area(boxes) / _area(before.boxes).clamp(min=1e-6)
    if masks is not None and cuts:
        boxes = torch.where((share < 1 - 1e-4).unsqueeze(1), _tightened(boxes, masks), boxes)
        share = _area(boxes) / _area(before.boxes).clamp(min=1e-6)
    after = replace(before, boxes=boxes, masks=masks, areas=before.areas * share, height=height, width=width)
    seen = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= LEAST
    return after.take(seen if masks is None else seen & masks.bool().flatten(1).any(1))


def _tightened(boxes: Tensor, masks: Tensor) -> Tensor:
    """Boxes (N, 4) no larger than what is left of the masks: a cut may have taken what held a box open."""
    rows, columns = (masks.any(axis).to(torch.uint8) for axis in (2, 1))
    if not len(boxes):
        return boxes
    low = torch.stack([columns.argmax(1), rows.argmax(1)], 1)
    high = torch.stack([masks.shape[2] - columns.flip(1).argmax(1), masks.shape[1] - rows.flip(1).argmax(1)], 1)
    return torch.cat([torch.maximum(boxes[:, :2], low), torch.minimum(boxes[:, 2:], high)], 1)


def _together(parts: Sequence[Objects]) -> Objects:
    """The objects of several scenes on one canvas, under the name of the first."""
    masks = [part.masks for part in parts if part.masks is not None]
    return replace(
        parts[0],
        boxes=torch.cat([part.boxes for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        masks=torch.cat(masks) if masks else None,
        crowd=torch.cat([part.crowd for part in parts]),
        areas=torch.cat([part.areas for part in parts]),
    )


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
