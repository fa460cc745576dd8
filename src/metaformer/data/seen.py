"""A look at the images of a listing before training: which are there and can be read, and in what size."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from metaformer.data.annotations import Annotations, mended, same_shape
from metaformer.data.check import MOST_UNREADABLE
from metaformer.data.dataset import Progress
from metaformer.data.decode import orientation, see
from metaformer.data.find import printable
from metaformer.data.listed import Listed
from metaformer.data.look import moments
from metaformer.data.maps import Maps
from metaformer.data.truth import VOID
from metaformer.data.upright import upright_size

ALL = 20_000
"""Of so many images each is decoded; of more those that judge, and of the others headers where nothing else tells sizes."""
MAPS = 1_000
"""Label files that are read beforehand where images are not decoded, spread over those there are."""
LEAST = 64
"""Pixels a side that a JPEG is at least decoded at, to be read to its end in half the time."""
SAMPLE = 200
"""Images that mean and standard deviation are taken from."""
MISSING = "no such file"
CHUNK = 64
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Seen:
    """What was found."""

    listed: Listed
    """Without what cannot be read, and without objects that nothing can learn from."""
    unreadable: tuple[tuple[str, str], ...]
    """Images that were left out, each with its reason."""
    maps: int = 0
    """Label files that were read."""
    present: NDArray[np.bool_] | None = None
    """(256,): which classes they have, and 255; None where none was read."""


def see_all(
    listed: Listed, source: str, *, judging: bool = False, strict: bool = True, progress: Progress | None = None
) -> Seen:
    """Looks at every image of a listing, in threads. What is wrong is added to its flaws.

    Where `judging`, for these or some of them judge, each is decoded however many there are; where not `strict`, none.
    Raises ValueError with a sentence, where `strict`, if more than 1 % cannot be read, most of the files are not there, or
    label files have nothing but void.
    """
    decoded = strict and (judging or len(listed.names) <= ALL)
    sizes, reasons, maps = _looked(listed, progress, decoded=decoded, every=decoded or not strict)
    names, flaws = [printable(name) for name in listed.names], listed.flaws
    missing = [i for i, reason in reasons.items() if reason == MISSING]
    damaged = [i for i in reasons if i not in set(missing)]
    for i in missing:
        flaws.add("images that are missing, left out", names[i])
    if strict and len(missing) > len(names) / 2:
        raise ValueError(
            f"{len(missing):,} of the {len(names):,} images of {source} are missing, such as {listed.root / names[missing[0]]}"
        )
    if strict and len(damaged) > MOST_UNREADABLE * len(names):
        first = "; ".join(f"{names[i]}: {reasons[i]}" for i in damaged[:3])
        raise ValueError(
            f"{len(damaged):,} of the {len(names):,} images of {source} cannot be read, more than 1 %: "
            f"repair or remove them ({first})"
        )
    truths = listed.truths
    if isinstance(truths, Annotations):
        truths = _in_size(truths, sizes, listed, names)
    keep = [i for i in range(len(names)) if i not in reasons]
    truths, kept = truths.take(keep), [names[i] for i in keep]
    if isinstance(truths, Annotations):
        truths = mended(truths, kept, flaws)
    present = np.any(maps, axis=0) if maps else None
    if strict and present is not None and not present[:VOID].any():
        raise ValueError(
            f"no pixel in the label files of {source} is of a class: 255 is void, and so is what the class list does not have; "
            f"it names a number as in {f'{VOID} {listed.classes[-1]}'!r}"
        )
    left_out = tuple((str(listed.root / names[i]), reasons[i]) for i in sorted(reasons))
    return Seen(replace(listed, names=[listed.names[i] for i in keep], truths=truths), left_out, len(maps), present)


def statistics_of(root: Path, names: Sequence[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of images spread over these, in units of 0 to 1."""
    spread = [root / names[i] for i in np.unique(np.linspace(0, len(names) - 1, min(SAMPLE, len(names))).astype(int))]
    found = [one for one in _threaded(_moments, spread) if one is not None]
    if not found:
        return (0.5,) * 3, (0.25,) * 3
    mean, square = np.mean(found, axis=0)
    return tuple(mean.tolist()), tuple(np.sqrt((square - mean**2).clip(1e-12)).tolist())


def _moments(item: Path) -> NDArray[np.float64] | None:
    try:
        return moments(see(item, least=512))
    except ValueError:  # told where it is missed: when its turn comes
        return None


def _looked(
    listed: Listed, progress: Progress | None, *, decoded: bool, every: bool
) -> tuple[NDArray[np.int32], dict[int, str], list[NDArray[np.bool_]]]:
    """(N, 2) width and height as shown, 0 where nobody looked; why images cannot be read, by number; what label files have.

    Of `every` image the header is read, and the label file; perhaps both are `decoded`.
    """
    truths, count = listed.truths, len(listed.names)
    known = isinstance(truths, Maps) or (not listed.relative and bool(truths.sizes.all()))
    look = _Look(listed, closely=every or not known, decoded=decoded, maps=count if every else MAPS)
    sizes, reasons = np.zeros((count, 2), np.int32), dict[int, str]()
    for done, (i, size, reason) in enumerate(_threaded(look, range(count))):
        sizes[i] = size
        if reason:
            reasons[i] = reason
        if progress is not None and (done % CHUNK == 0 or done == count - 1):
            progress("checking images", done + 1, count)
    for i, what in sorted(look.strange.items()):
        listed.flaws.add(what, printable(listed.names[i]))
    return sizes, reasons, list(look.present.values())


class _Look:
    """Looks at the image of a number: its size as shown, and why it cannot be used."""

    def __init__(self, listed: Listed, *, closely: bool, decoded: bool, maps: int) -> None:
        self.root, self.names, self.truths = listed.root, listed.names, listed.truths
        self.closely, self.decoded = closely, decoded
        self.some = set(range(0, len(self.names), max(1, -(-len(self.names) // max(1, maps)))))
        self.strange: dict[int, str] = {}
        self.present: dict[int, NDArray[np.bool_]] = {}

    def __call__(self, i: int) -> tuple[int, tuple[int, int], str]:
        item = self.root / self.names[i]
        if not self.closely:
            return i, (0, 0), "" if item.is_file() else MISSING
        try:
            size = upright_size(*orientation(item))
            if self.decoded:
                see(item, least=LEAST)
        except ValueError as error:
            return i, (0, 0), str(error)
        return i, size, self._map(i, item, size) if isinstance(self.truths, Maps) else ""

    def _map(self, i: int, item: Path, size: tuple[int, int]) -> str:
        """Why a label cannot be used."""
        assert isinstance(self.truths, Maps)
        file = self.truths.root / self.truths.names[i]
        try:
            own, _ = orientation(file)
            if not same_shape(own, size) and not (own == size[::-1] == orientation(item)[0]):
                return f"its label has {own[0]} × {own[1]} pixels, and it has {size[0]} × {size[1]}"
            if i in self.some:
                regions, strange = self.truths.coding.read(file)
                self.present[i] = np.bincount(regions.ravel(), minlength=VOID + 1) > 0
                if strange:
                    self.strange[i] = "label files with numbers or colours that are no class, which are not asked about"
        except ValueError as error:
            return f"its label {file.name}: {error}"
        return ""


def _threaded(do: Callable[[In], Out], things: Sequence[In]) -> Iterator[Out]:
    """What is made of each, in order, by threads."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield from pool.map(do, things)


def _in_size(truths: Annotations, sizes: NDArray[np.int32], listed: Listed, names: Sequence[str]) -> Annotations:
    """Annotations in pixels; flaws tell where images have another size than these say."""
    if listed.relative:
        return truths.in_pixels(sizes)
    said = truths.sizes
    known: NDArray[np.bool_] = np.asarray((said > 0).all(1) & (sizes > 0).all(1))
    right = np.where(known[:, None], said, np.maximum(said, sizes)).astype(np.int32)
    for i in np.flatnonzero(known & (said != sizes).any(1)).tolist():
        one, other = (int(said[i, 0]), int(said[i, 1])), (int(sizes[i, 0]), int(sizes[i, 1]))
        how = "stretched to them"
        if one == other[::-1] and orientation(listed.root / listed.names[i])[0] == one:
            how = "turned with them"
        elif not same_shape(one, other):
            how, right[i] = "taken as they are", other
        listed.flaws.add(f"images of another size than their annotations say; these are {how}", names[i])
    return replace(truths, sizes=right)
