"""Label PNGs → maps of regions: which class every pixel is of, whatever the numbers or colours in the file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaformer.data.annotations import same_shape
from metaformer.data.decode import orientation, stored
from metaformer.data.truth import VOID
from metaformer.data.upright import SIDEWAYS, turned_map

Colour = tuple[int, int, int]
NOT_ASKED = ("void", "unlabelled", "unlabeled", "ignore", "ignored")
"""What a class list calls pixels that nobody is asked about, in any case of letters."""
CLASS_FILES = ("classes.txt", "labels.txt", "class_names.txt", "label_colors.txt", "labelmap.txt")


@dataclass(frozen=True)
class Coding:
    """What the numbers or colours of label PNGs stand for."""

    classes: tuple[str, ...]
    values: Mapping[int, int]
    """From a stored number to a class, or VOID. Others but 255 are strange, and void too."""
    colours: Mapping[Colour, int] | None = None
    """The same for files of colours."""

    def __post_init__(self) -> None:
        if len(self.classes) > VOID:
            raise ValueError(f"{len(self.classes):,} classes of regions; at most {VOID} are possible")

    def read(self, file: Path) -> tuple[NDArray[np.uint8], int]:
        """The map of a file, (H, W), and how many of its pixels are strange. Raises ValueError with the reason alone."""
        pixels = stored(file)
        if pixels.ndim == 3 and self.colours is not None:
            packed = (pixels.astype(np.int64) * (65536, 256, 1)).sum(-1)
            return _looked_up(packed, {(r << 16) + (g << 8) + b: c for (r, g, b), c in self.colours.items()})
        if pixels.ndim == 3:
            if (pixels != pixels[..., :1]).any():
                raise ValueError(f"its label has colours: write them into the class list, a line for each as {COLOUR_LINE!r}")
            pixels = pixels[..., 0]
        return _looked_up(pixels.astype(np.int64), {VOID: VOID, **self.values})


COLOUR_LINE = "128 64 128 road"


def _looked_up(pixels: NDArray[np.int64], known: Mapping[int, int]) -> tuple[NDArray[np.uint8], int]:
    """Classes by stored numbers, VOID for what is not known, and how many pixels that is."""
    keys = np.array(sorted(known), np.int64)
    classes = np.array([known[key] for key in keys.tolist()], np.uint8)
    if not len(keys):
        return np.full(pixels.shape, VOID, np.uint8), pixels.size
    place = np.searchsorted(keys, pixels).clip(max=len(keys) - 1)
    right = keys[place] == pixels
    return np.where(right, classes[place], np.uint8(VOID)), pixels.size - int(right.sum())


@dataclass(frozen=True, eq=False)
class Maps:
    """The label files of many images."""

    root: Path
    names: Sequence[str]
    coding: Coding

    def __len__(self) -> int:
        return len(self.names)

    def take(self, images: Sequence[int]) -> "Maps":
        """Those of some images, in this order."""
        return Maps(self.root, [self.names[i] for i in images], self.coding)

    def relabelled(self, numbers: Sequence[int], classes: tuple[str, ...]) -> "Maps":
        """With class c called `numbers[c]`, of these classes."""
        new = {VOID: VOID} | dict(enumerate(numbers))
        values = {value: new[c] for value, c in self.coding.values.items()}
        colours = self.coding.colours
        painted = None if colours is None else {colour: new[c] for colour, c in colours.items()}
        return Maps(self.root, self.names, Coding(classes, values, painted))

    def read(self, i: int, item: Path, width: int, height: int) -> Tensor:
        """(H, W) of bytes: the regions of image i as it is shown, of this size. Raises ValueError that says why not."""
        file = self.root / self.names[i]
        try:
            found, _ = self.coding.read(file)
            return torch.from_numpy(np.ascontiguousarray(_fitted(found, item, width, height)))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error


def _fitted(found: NDArray[Any], item: Path, width: int, height: int) -> NDArray[Any]:
    """A map that was drawn on the image before it was turned, or in another size, on the image as it is shown."""
    size = (found.shape[1], found.shape[0])
    if size == (width, height):
        return found
    turn = orientation(item)[1] if size == (height, width) else None
    if turn in SIDEWAYS:
        assert turn is not None
        return turned_map(found, turn)
    if not same_shape(size, (width, height)):
        raise ValueError(f"a label of {size[0]} × {size[1]} pixels for an image of {width} × {height}")
    rows, columns = (((2 * np.arange(new) + 1) * old) // (2 * new) for new, old in ((height, size[1]), (width, size[0])))
    return found[rows[:, None], columns]


# --- class lists ------------------------------------------------------------------------------------------------------


def read_classes(file: Path) -> Coding:
    """A class a line: its name, or a number and the name, or a colour (three numbers) before or after the name.

    Without numbers the first line is 0. Lines called void, unlabelled or ignore are pixels that nobody is asked about.
    Raises ValueError that names the line.
    """
    rows = [row for row in map(_line, _lines(file)) if row[0]]
    if not rows:
        raise ValueError(f"{file} names no class")
    names = [name for name, _, _ in rows if name.lower() not in NOT_ASKED]
    again = [name for i, name in enumerate(names) if name in names[:i]]
    if again:
        raise ValueError(f"{file} names class {again[0]!r} twice")
    number = {name: c for c, name in enumerate(names)}
    values = {i if value is None else value: number.get(name, VOID) for i, (name, value, _) in enumerate(rows)}
    colours = {colour: number.get(name, VOID) for name, _, colour in rows if colour is not None}
    return Coding(tuple(names), values, colours or None)


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text in UTF-8: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _line(line: str) -> tuple[str, int | None, Colour | None]:
    """Name, number and colour of a line."""
    three = r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})"
    if found := re.fullmatch(rf"{three}[\s,:]+(\D.*)", line):
        return found[4].strip(), None, (int(found[1]), int(found[2]), int(found[3]))
    if found := re.fullmatch(rf"(.*?[^\d\s])[\s,:]+{three}(?::.*)?", line):
        return found[1].rstrip(" ,:"), None, (int(found[2]), int(found[3]), int(found[4]))
    if found := re.fullmatch(r"(\d+)[\s,:]+(.+)", line):
        return found[2].strip(), int(found[1]), None
    return line, None, None
