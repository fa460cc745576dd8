"""Images with their truth beside the answer, as a person compares them: objects with boxes and masks, or regions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from metaformer.data.outlines import coco_masks
from metaformer.data.truth import Scene
from metaformer.infer.draw import Measures, at_side, beside, draw_objects, draw_regions, with_legend
from metaformer.infer.palette import palette
from metaformer.lab import plots
from metaformer.lab.pictures import as_image
from metaformer.tasks.coco import DetectionEvaluation, Kind, Pair, Things
from metaformer.tasks.mistakes import confusion

SIDE = 640
"""Longer side of a picture on the page, in pixels."""


def objects_beside(image: Image.Image, one: Pair, classes: Sequence[str], least: float, *, side: int = SIDE) -> Image.Image:
    """The image with what is there, and with what was found that scores `least` or more."""
    there = _drawn(image, one.there, np.ones(len(one.there), bool), classes, side, scored=False)
    kept = one.found.scores >= least
    found = _drawn(image, one.found, kept, classes, side, scored=True)
    return _labelled([("truth", there), ("found", found)], classes, one.there.labels, one.found.labels[kept])


def regions_beside(
    image: Image.Image, there: NDArray[Any], found: NDArray[Any], classes: Sequence[str], *, side: int = SIDE
) -> Image.Image:
    """The image with the regions (H, W) that are there, and with those that were found."""
    truth, answer = (draw_regions(image, regions, classes, legend=False, side=side) for regions in (there, found))
    return _labelled([("image", at_side(image, side)[0]), ("truth", truth), ("found", answer)], classes, there, found)


def truth_of(scene: Scene, classes: Sequence[str], *, side: int = SIDE) -> Image.Image:
    """The image of a scene with what is true of it."""
    image = as_image(scene.image)
    if isinstance(scene.truth, torch.Tensor):
        return draw_regions(image, scene.truth.numpy(), classes, legend=False, side=side)
    boxes, labels, crowd = (values.numpy() for values in (scene.truth.boxes, scene.truth.labels, scene.truth.crowd))
    masks = None if scene.truth.masks is None else scene.truth.masks.numpy()
    return draw_objects(image, boxes, labels, classes, masks=masks, crowd=crowd, legend=False, side=side)


def _labelled(pictures: Sequence[tuple[str, Image.Image]], classes: Sequence[str], *labels: NDArray[Any]) -> Image.Image:
    """Pictures side by side, with a legend of the classes that occur in them."""
    colours, measures = palette(len(classes)), Measures.of(pictures[0][1].size)
    present = np.unique(np.concatenate([some.ravel() for some in labels])).tolist()
    return with_legend(beside(pictures), [(classes[c], colours[c]) for c in present if c < len(classes)], measures)


def _drawn(
    image: Image.Image, things: Things, keep: NDArray[np.bool_], classes: Sequence[str], side: int, *, scored: bool
) -> Image.Image:
    """Those things that are kept, drawn."""
    boxes = things.boxes[keep]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    masks = None
    if things.masks is not None:
        runs = [rle for rle, kept in zip(things.masks, keep.tolist(), strict=True) if kept]
        masks = coco_masks().decode(runs).transpose(2, 0, 1) if runs else None
    return draw_objects(
        image, corners, things.labels[keep], classes,
        scores=things.scores[keep] if scored else None, masks=masks, crowd=things.crowd[keep], legend=False, side=side,
    )  # fmt: skip


def background_confusion(done: DetectionEvaluation, least: float, path: Path, kind: Kind = "box") -> None:
    """A PNG of what is found as what; the last row is what was found where nothing is, the last column what was missed."""
    plots.confusion(torch.from_numpy(confusion(done, least, kind)), (*done.classes, "background"), path)


def sheet(pictures: Sequence[Image.Image], path: Path, *, gap: int = 16) -> None:
    """Pictures one below the other, as a PNG, under a temporary name first."""
    wide = max((picture.width for picture in pictures), default=1)
    page = Image.new("RGB", (wide, max(1, sum(picture.height + gap for picture in pictures) - gap)), "white")
    top = 0
    for picture in pictures:
        page.paste(picture, (0, top))
        top += picture.height + gap
    temporary = path.with_name(path.name + ".tmp")
    page.save(temporary, format="png")
    temporary.replace(path)
