"""`Data`: two splits of images with labels, and what a recipe needs to know of them."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Protocol, overload

import torch
from torch import Tensor

from metaformer.data.splits import Encoded, Images

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is: ("checking images", 640, 5000)."""


Label = str | tuple[str, ...]
"""The class of an image by name, or where an image may have several, all that it has, be it none."""


def names_of(labels: Iterable[Label]) -> set[str]:
    """The classes that occur in labels."""
    return {name for label in labels for name in ((label,) if isinstance(label, str) else label)}


@dataclass(frozen=True, eq=False)
class Data:
    """A classification data set: two splits, and what a recipe needs to know of them."""

    train: Images | Encoded
    val: Images | Encoded
    classes: tuple[str, ...]
    channels: int
    image_size: int | None
    """Side in pixels that models are fed by default; None where images have many sizes and the model decides."""
    mirrors: bool
    """Whether an image keeps its meaning in a mirror."""
    mean: tuple[float, ...] = ()
    """Mean of the training pixels per channel, in units of 0 to 1."""
    std: tuple[float, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    """Images that were left out, each with its reason."""
    drawn: tuple[tuple[str, str], ...] = ()
    """Where no split was given, so one was drawn: every image with its part, train or val. Paths from the source on."""
    notes: tuple[str, ...] = ()
    """What a person should know of how the images were taken, a sentence each."""

    @property
    def multi(self) -> bool:
        """Whether an image may have several classes, or none."""
        return self.val.labels.ndim == 2


@dataclass(frozen=True, eq=False)
class Listing:
    """The labelled images of a source before anybody has looked at them."""

    items: Sequence[Path | bytes]
    keys: Sequence[str]
    """A name for each that stays the same when the source is moved: a path from the source on, or a row."""
    labels: Sequence[Label]
    """The class of each, by name; where `multi` says so, the classes of each."""
    classes: tuple[str, ...] | None
    """The order of the classes; None for alphabetical."""
    parts: Sequence[str] | None
    """`train` or `val` for each; None where the source does not say."""
    notes: tuple[str, ...] = ()
    multi: bool = False

    def name(self, i: int) -> str:
        """What a person would look for: the path, or the key."""
        item = self.items[i] if isinstance(self.items, list) else None
        return str(item) if isinstance(item, Path) else self.keys[i]

    def take(self, keep: Sequence[int]) -> "Listing":
        """The images whose numbers are in `keep`, in that order."""
        items = [self.items[i] for i in keep] if isinstance(self.items, list) else Taken(self.items, keep)
        keys, labels = [self.keys[i] for i in keep], [self.labels[i] for i in keep]
        parts = None if self.parts is None else [self.parts[i] for i in keep]
        return replace(self, items=items, keys=keys, labels=labels, parts=parts)


class Taken(Sequence[Path | bytes]):
    """Some items of a sequence that is not copied, because its items are large."""

    def __init__(self, items: Sequence[Path | bytes], numbers: Sequence[int]) -> None:
        self.items, self.numbers = items, torch.tensor(numbers, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, i: int) -> Path | bytes: ...
    @overload
    def __getitem__(self, i: slice) -> "Taken": ...
    def __getitem__(self, i: int | slice) -> "Path | bytes | Taken":
        if isinstance(i, slice):
            return Taken(self.items, self.numbers[i].tolist())
        return self.items[int(self.numbers[i])]


def statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of (N, C, H, W) bytes, in units of 0 to 1."""
    counts = [torch.bincount(pixels[:, c].flatten(), minlength=256).double() for c in range(pixels.shape[1])]
    values = torch.arange(256).double() / 255
    means = [float((count * values).sum() / count.sum()) for count in counts]
    squares = [float((count * values**2).sum() / count.sum()) for count in counts]
    stds = [max(square - mean**2, 1e-12) ** 0.5 for mean, square in zip(means, squares, strict=True)]
    return tuple(means), tuple(stds)


def in_memory(train: Images, val: Images, classes: tuple[str, ...], *, image_size: int, mirrors: bool) -> Data:
    """A data set whose splits are in memory."""
    mean, std = statistics(train.pixels)
    return Data(train, val, classes, train.pixels.shape[1], image_size, mirrors, mean, std)


def with_channels(data: Data, channels: int) -> Data:
    """The same images in grey (1) or in colour (3), whatever they are stored as.

    Grey has one mean for all three channels; the mean of colour turned grey is that of the weights 0.299, 0.587, 0.114,
    its standard deviation the mean of the channels'.
    """
    if data.channels == channels:
        return data
    mean, std = data.mean, data.std
    if channels == 3:
        mean, std = mean * 3, std * 3
    elif mean:
        mean = (sum(value * weight for value, weight in zip(mean, LUMA, strict=True)),)
        std = (sum(std) / 3,)
    splits = (_with_channels(split, channels) for split in (data.train, data.val))
    return replace(data, train=next(splits), val=next(splits), channels=channels, mean=mean, std=std)


LUMA = (0.299, 0.587, 0.114)


def _with_channels(split: Images | Encoded, channels: int) -> Images | Encoded:
    if isinstance(split, Encoded):
        return replace(split, channels=channels)
    if channels == 3:
        return replace(split, pixels=split.pixels.expand(-1, 3, -1, -1).contiguous())
    weighted = torch.stack([split.pixels[:, c].float() * weight for c, weight in enumerate(LUMA)]).sum(0)
    return replace(split, pixels=weighted.round().to(torch.uint8).unsqueeze(1))


class Drawn(Protocol):
    """A data set of which a split may have been drawn."""

    @property
    def drawn(self) -> tuple[tuple[str, str], ...]: ...


def split_csv(data: Drawn) -> str:
    """`drawn` as the text of a CSV file with the columns path and part; `read_split` reads it."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "part"), *data.drawn])
    return text.getvalue()


def read_split(file: Path) -> dict[str, str]:
    """Part by path, from a file that `split_csv` made. Raises ValueError where it is damaged."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.reader(lines))
    if rows[:1] != [["path", "part"]] or not all(len(row) == 2 and row[1] in ("train", "val") for row in rows[1:]):
        raise ValueError(f"{file} is damaged: it is not a list of paths, each with train or val")
    return dict(rows[1:])
