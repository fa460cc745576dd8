"""Images with their truth beside the answer, as a person compares them: objects with boxes and masks, or regions."""

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaformer.infer.draw import Measures, beside, draw_objects, draw_regions, with_legend
from metaformer.infer.palette import palette
from metaformer.tasks.coco import Pair, Things
from metaformer.tasks.found import coco_masks


def objects_beside(image: Image.Image, one: Pair, classes: Sequence[str], least: float, *, height: int = 480) -> Image.Image:
    """The image with what is there, and with what was found that scores `least` or more."""
    there = _drawn(image, one.there, np.ones(len(one.there), bool), classes, scored=False)
    found = _drawn(image, one.found, one.found.scores >= least, classes, scored=True)
    return _labelled([("truth", there), ("found", found)], _of(classes, one.there.labels, one.found.labels), height)


def regions_beside(
    image: Image.Image, there: NDArray[Any], found: NDArray[Any], classes: Sequence[str], *, height: int = 480
) -> Image.Image:
    """The image with the regions (H, W) that are there, and with those that were found."""
    drawn = [
        (title, draw_regions(image, regions, classes, legend=False)) for title, regions in (("truth", there), ("found", found))
    ]
    return _labelled([("image", image), *drawn], _of(classes, there, found), height)


def _of(classes: Sequence[str], *labels: NDArray[Any]) -> list[tuple[str, tuple[int, int, int]]]:
    """Name and colour of the classes that occur."""
    colours = palette(len(classes))
    present = np.unique(np.concatenate([some.ravel() for some in labels])).tolist()
    return [(classes[c], colours[c]) for c in present if c < len(classes)]


def _labelled(pictures: Sequence[tuple[str, Image.Image]], entries: Sequence[tuple[str, Any]], height: int) -> Image.Image:
    page = beside(pictures, height=height)
    text = Measures(2, max(13, height // 30))
    return with_legend(page, entries, text)


def _drawn(image: Image.Image, things: Things, keep: NDArray[np.bool_], classes: Sequence[str], *, scored: bool) -> Image.Image:
    """Those things that are kept, drawn; crowds by their boxes alone."""
    boxes = things.boxes[keep]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    masks = None
    if things.masks is not None:
        runs = [rle for rle, kept in zip(things.masks, keep.tolist(), strict=True) if kept]
        masks = coco_masks().decode(runs).transpose(2, 0, 1).astype(bool) if runs else None
        if masks is not None:
            masks &= ~things.crowd[keep][:, None, None]
    scores = things.scores[keep] if scored else None
    return draw_objects(image, corners, things.labels[keep], classes, scores=scores, masks=masks, legend=False)


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


def address(picture: Image.Image) -> str:
    """The address of a picture that lies in the page itself, as a JPEG."""
    file = BytesIO()
    picture.save(file, "jpeg", optimize=True, quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
