"""Pictures of what is in an image: boxes, masks or coloured regions over it, names that do not overlap, and a legend."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from metaformer.data.truth import VOID
from metaformer.infer.palette import VOID_COLOUR, Colour, ink, palette

Array = NDArray[Any]
Box = tuple[float, float, float, float]

LEAST = 960
"""Pixels of the longer side to which a smaller image is enlarged, so that there is room for names."""
FILL, TINT = 0.4, 0.7
"""How much of a mask, and of a region, is its colour."""


@dataclass(frozen=True)
class Measures:
    """Sizes in pixels that suit a picture."""

    line: int
    text: int

    @classmethod
    def of(cls, size: tuple[int, int]) -> "Measures":
        """For a picture of that width and height."""
        side = (size[0] * size[1]) ** 0.5
        return cls(max(2, round(side / 320)), max(13, round(side / 52)))

    @property
    def gap(self) -> int:
        """Between a text and what is around it."""
        return max(2, self.text // 5)


def draw_objects(
    image: Image.Image,
    boxes: Array,
    labels: Array,
    classes: Sequence[str],
    *,
    scores: Array | None = None,
    masks: Array | None = None,
    crowd: Array | None = None,
    legend: bool = True,
    side: int | None = None,
) -> Image.Image:
    """The image with boxes (N, 4), x1, y1, x2, y2 in its pixels, of `labels` (N,), and masks (N, H, W) where there are any.

    Those that `crowd` (N,) says to be many in one have no mask, and their names say it.
    Names stand at their boxes, with the score; where there is no room that another name has not taken, the surer one has it.
    Below, the legend says which colours are there, and how many of each. The picture's longer side has `side` pixels; else
    as many as the image's, or 960 where these are fewer.
    """
    drawn, scale = at_side(image, side)
    measures, colours = Measures.of(drawn.size), palette(len(classes))
    order = np.arange(len(labels)) if scores is None else np.argsort(-scores, kind="stable")
    crowd = np.zeros(len(labels), bool) if crowd is None else crowd
    if masks is not None:
        drawn = _with_masks(drawn, [(masks[i], colours[labels[i]]) for i in order[::-1] if not crowd[i]], measures.line)
    places: list[Box] = [tuple(box) for box in (boxes * scale).tolist()]
    for place in order[::-1]:
        _outline(ImageDraw.Draw(drawn), places[place], colours[labels[place]], measures.line)
    names = [classes[label] + (" (crowd)" if crowd[i] else "") for i, label in enumerate(labels)]
    names = names if scores is None else [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
    _tag(drawn, [(names[i], places[i], colours[labels[i]]) for i in order], measures)
    if not legend or not len(labels):
        return drawn
    counts = enumerate(np.bincount(labels).tolist())
    entries = [(f"{classes[c]} × {n}" if n > 1 else classes[c], colours[c]) for c, n in counts if n]
    return with_legend(drawn, entries, measures)


def draw_regions(
    image: Image.Image, regions: Array, classes: Sequence[str], *, legend: bool = True, side: int | None = None
) -> Image.Image:
    """The image in grey, its regions (H, W) in the colours of their classes; of no class, and so without, where they are 255.

    Below, the legend says which colours are there. `side` as in `draw_objects`.
    """
    drawn, _ = at_side(image, side)
    measures, colours = Measures.of(drawn.size), palette(len(classes))
    there = np.array(Image.fromarray(regions.astype(np.uint8)).resize(drawn.size, Image.Resampling.NEAREST))
    table = np.full((256, 3), VOID_COLOUR, np.float32)
    table[: len(colours)] = colours
    grey = np.asarray(drawn.convert("L"), np.float32)[..., None]
    void = (there == VOID)[..., None]  # the others keep little of the light, which would make one colour of two
    tinted = np.where(void, 0.5 * grey + 64, (1 - TINT) * (0.5 * grey + 64) + TINT * table[there])
    tinted[_seams(there, max(1, measures.line // 2))] = 255
    drawn = Image.fromarray(tinted.round().astype(np.uint8))
    if not legend:
        return drawn
    entries = [(classes[c], colours[c]) for c in np.unique(there).tolist() if c != VOID]
    return with_legend(drawn, entries, measures)


def at_side(image: Image.Image, side: int | None = None) -> tuple[Image.Image, float]:
    """A copy in colour whose longer side has `side` pixels, 960 or more where that is not said, and how much larger it is."""
    scale = max(1.0, LEAST / max(image.size)) if side is None else side / max(image.size)
    image = image.convert("RGB")
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return (image.copy() if size == image.size else image.resize(size, Image.Resampling.BICUBIC)), scale


def _with_masks(drawn: Image.Image, masks: Iterable[tuple[Array, Colour]], line: int) -> Image.Image:
    """Masks' colours over the picture, one after the other, with edges of full colour."""
    pixels = np.array(drawn)
    for mask, colour in masks:
        inside = mask.astype(bool)
        if inside.shape != pixels.shape[:2]:
            inside = np.asarray(Image.fromarray(inside).convert("L").resize(drawn.size, Image.Resampling.BILINEAR)) > 127
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if not len(rows):
            continue
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside = np.pad(inside[part], line)
        edge = (inside & _grown(~inside, line))[line:-line, line:-line]
        strength = np.where(edge, 1.0, FILL * inside[line:-line, line:-line])[..., None]
        pixels[part] = (pixels[part] * (1 - strength) + np.array(colour) * strength).round().astype(np.uint8)
    return Image.fromarray(pixels)


def _grown(mask: Array, by: int) -> Array:
    """A mask that reaches `by` pixels further to all sides."""
    for axis in (0, 1):
        reach = 0
        while reach < by:
            step = min(by - reach, 2 * reach + 1)
            mask = mask | _shifted(mask, step, axis) | _shifted(mask, -step, axis)
            reach += step
    return mask


def _shifted(mask: Array, by: int, axis: int) -> Array:
    moved = np.zeros_like(mask)
    to, of = (slice(by, None), slice(None, -by)) if by > 0 else (slice(None, by), slice(-by, None))
    if axis == 0:
        moved[to] = mask[of]
    else:
        moved[:, to] = mask[:, of]
    return moved


def _seams(regions: Array, width: int) -> Array:
    """Where one region ends and another begins."""
    seam = np.zeros(regions.shape, bool)
    seam[1:] |= regions[1:] != regions[:-1]
    seam[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    return _grown(seam, width // 2)


def _outline(pen: ImageDraw.ImageDraw, box: Box, colour: Colour, line: int) -> None:
    """A box with a thin white rim, which parts it from what has its colour."""
    x1, y1, x2, y2 = box[0], box[1], max(box[0], box[2] - 1), max(box[1], box[3] - 1)
    rim = max(1, line // 3)
    pen.rectangle((x1 - rim, y1 - rim, x2 + rim, y2 + rim), outline="white", width=rim)
    pen.rectangle((x1, y1, x2, y2), outline=colour, width=line)


def _tag(drawn: Image.Image, objects: Iterable[tuple[str, Box, Colour]], measures: Measures) -> None:
    """Writes names at their boxes, the first ones first, none over another."""
    pen, font, gap = ImageDraw.Draw(drawn), _font(measures.text), measures.gap
    high = measures.text + 2 * gap
    taken: list[Box] = []
    for name, box, colour in objects:
        text = _fit(name, drawn.width - 2 * gap, font)
        wide = font.getlength(text) + 2 * gap
        place = next((p for p in _places(box, wide, high, drawn.size) if not any(_meet(p, other) for other in taken)), None)
        if place is None:
            continue
        taken.append(place)
        pen.rectangle((*place[:2], place[2] - 1, place[3] - 1), fill=colour)
        middle = (place[0] + gap, (place[1] + place[3]) / 2)
        pen.text(middle, text, fill=ink(colour), font=font, anchor="lm")


def _places(box: Box, wide: float, high: float, size: tuple[int, int]) -> Iterable[Box]:
    """Where a name of that size may stand, in the picture: at the box's upper edge best, then at its lower one."""
    x1, y1, x2, y2 = box
    for y in (y1 - high, y1, y2 - high, y2):
        for x in (x1, x2 - wide):
            left = min(max(x, 0), size[0] - wide)
            if y >= 0 and y + high <= size[1]:
                yield (round(left), round(y), round(left + wide), round(y + high))


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def with_legend(drawn: Image.Image, entries: Sequence[tuple[str, Colour]], measures: Measures) -> Image.Image:
    """The picture on white with a legend below: a patch of each colour and its name, as many in a row as there is room for."""
    font, gap = _font(measures.text), measures.gap
    high, between = measures.text + 3 * gap, 2 * measures.text
    wide = max(drawn.width, LEAST // 2)
    rows: list[list[tuple[float, str, Colour]]] = [[]]
    x = margin = float(gap)
    for name, colour in entries:
        text = _fit(name, wide - 2 * measures.text, font)
        length = 1.5 * measures.text + font.getlength(text)
        if x > margin and x + length > wide:
            rows.append([])
            x = margin
        rows[-1].append((x, text, colour))
        x += length + between
    page = Image.new("RGB", (wide, drawn.height + (high * len(rows) + 2 * gap if entries else 0)), "white")
    page.paste(drawn, ((wide - drawn.width) // 2, 0))
    pen = ImageDraw.Draw(page)
    for number, row in enumerate(rows):
        middle = drawn.height + 2 * gap + high * (number + 0.5)
        for x, text, colour in row:
            half = measures.text / 2
            pen.rectangle((x, middle - half, x + measures.text, middle + half), fill=colour)
            pen.text((x + 1.5 * measures.text, middle), text, fill="black", font=font, anchor="lm")
    return page


def beside(pictures: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures side by side on white, each with its title above."""
    measures = Measures.of(pictures[0][1].size)
    font, gap, top = _font(measures.text), measures.text // 2, 2 * measures.text
    wide = sum(picture.width for _, picture in pictures) + gap * (len(pictures) - 1)
    page = Image.new("RGB", (wide, top + max(picture.height for _, picture in pictures)), "white")
    pen, x = ImageDraw.Draw(page), 0
    for title, picture in pictures:
        pen.text((x, top / 2), _fit(title, picture.width, font), fill="black", font=font, anchor="lm")
        page.paste(picture, (x, top))
        x += picture.width + gap
    return page


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which comes with matplotlib and knows more letters than Pillow's own."""
    found = find_spec("matplotlib")
    for folder in (found.submodule_search_locations if found else None) or ():
        file = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(file, size)
    return ImageFont.load_default(size)


def _fit(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text in one line, or its beginning where there is no room for more."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    keep = next((n for n in range(len(text) - 1, 0, -1) if font.getlength(text[:n] + "…") <= width), 0)
    return text[:keep] + "…"
