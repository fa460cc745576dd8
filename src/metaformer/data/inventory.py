"""What a source names, whatever its part and however many: names, labels and parts in compact arrays, no pixels."""

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from metaformer.data.dataset import Label, names_of
from metaformer.data.find import printable
from metaformer.data.preprocess import Pixels

Item = Path | bytes | Pixels
"""An image file, its bytes, or where a data set is stored as pixels, those: (H, W) or (H, W, 3)."""


class Items(Protocol):
    """Where the images come from when their turn comes."""

    def read(self, numbers: Sequence[int]) -> Iterator[Item]:
        """The images of these numbers, in this order."""
        ...


class Names(Sequence[str]):
    """Texts end to end in one block of bytes: a fraction of what as many objects take."""

    def __init__(self) -> None:
        self.block, self.ends = bytearray(), array("q", [0])

    def append(self, text: str) -> None:
        """Adds one, whatever bytes a file system has made it of."""
        self.block += os.fsencode(text)
        self.ends.append(len(self.block))

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        if not 0 <= i < len(self):
            raise IndexError(i)
        return os.fsdecode(bytes(self.block[self.ends[i] : self.ends[i + 1]]))


@dataclass(frozen=True, eq=False)
class Inventory:
    """The images of a source, by number."""

    source: str
    items: Items
    names: Sequence[str]
    """A path from the source on, or a row."""
    labels: NDArray[np.int32]
    """(N,) numbers in `said`; -1 for an image without a label."""
    said: tuple[Label, ...]
    """Every label, or set of labels, that occurs."""
    classes: tuple[str, ...]
    parts: NDArray[np.int8]
    """(N,) numbers in `named`."""
    named: tuple[str, ...]
    """The parts: some of train, val and test; or one empty word where the source does not say."""
    multi: bool = False
    """Whether an image may have several labels, or none."""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def name(self, i: int) -> str:
        """What a person would look for, as one line of text."""
        return printable(self.names[i])

    def label(self, i: int) -> str:
        """The label as a person reads it; empty where there is none."""
        number = int(self.labels[i])
        said = () if number < 0 else self.said[number]
        return said if isinstance(said, str) else ", ".join(said)

    def part(self, i: int) -> str:
        """train, val or test; empty where the source does not say."""
        return self.named[int(self.parts[i])]

    def per_class(self) -> NDArray[np.int64]:
        """(parts, classes): how many images of each class are in each part."""
        place = {name: i for i, name in enumerate(self.classes)}
        counts = np.zeros((len(self.named), len(self.classes)), np.int64)
        for part in range(len(self.named)):
            labels = self.labels[(self.parts == part) & (self.labels >= 0)]
            for number, count in enumerate(np.bincount(labels, minlength=len(self.said)).tolist()):
                for name in names_of([self.said[number]]):
                    counts[part, place[name]] += count
        return counts


class Gathering:
    """An inventory while it is being made: rows are added one by one."""

    def __init__(self) -> None:
        self.names, self.labels, self.parts = Names(), array("i"), array("b")
        self.said: dict[Label, int] = {}
        self.named: dict[str, int] = {}

    def add(self, name: str, label: Label | None, part: str | None) -> None:
        """One more image; a label of None is none at all."""
        self.names.append(name)
        self.labels.append(-1 if label is None else self.said.setdefault(label, len(self.said)))
        self.parts.append(self.named.setdefault(part or "", len(self.named)))

    def done(
        self, source: str, items: Items, *, order: Sequence[str] | None = None, multi: bool = False, notes: Sequence[str] = ()
    ) -> Inventory:
        """The inventory; classes in the `order` given, else sorted. Raises ValueError where there is no image."""
        if not len(self.names):
            raise ValueError(f"{source} names no image")
        classes = tuple(order) if order is not None else tuple(sorted(names_of(self.said)))
        labels, parts = np.frombuffer(self.labels, np.int32), np.frombuffer(self.parts, np.int8)
        said, named = tuple(self.said), tuple(self.named)
        return Inventory(source, items, self.names, labels, said, classes, parts, named, multi, tuple(notes))
