"""The shapes of many objects, as polygons or run lengths, in compact arrays, until they are wanted as masks."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.uint8]
"""(N, H, W) of 0 and 1."""


@dataclass(frozen=True, eq=False)
class Outlines:
    """Of M objects; one has polygons, or a code, or neither."""

    points: NDArray[np.float32]
    """x, y, x, y ... of all polygons, in pixels."""
    ends: NDArray[np.int64]
    """(polygons + 1,): polygon p is the points from `ends[p]` up to `ends[p + 1]`."""
    polygons: NDArray[np.int64]
    """(M + 1,): object m has the polygons from `polygons[m]` up to `polygons[m + 1]`."""
    codes: NDArray[np.uint8]
    """COCO's compressed run lengths of all objects."""
    code_ends: NDArray[np.int64]
    """(M + 1,)"""
    code_sizes: NDArray[np.int32]
    """(M, 2): height and width that a code is of."""

    def __len__(self) -> int:
        return len(self.polygons) - 1

    @property
    def present(self) -> NDArray[np.bool_]:
        """(M,): which objects have a shape."""
        return (np.diff(self.polygons) > 0) | (np.diff(self.code_ends) > 0)

    def take(self, objects: NDArray[np.int64]) -> "Outlines":
        """Those of some objects, in this order."""
        polygons = spans(self.polygons[objects], self.polygons[objects + 1])
        lengths = self.ends[polygons + 1] - self.ends[polygons]
        return Outlines(
            self.points[spans(self.ends[polygons], self.ends[polygons + 1])],
            _ends(lengths),
            _ends(self.polygons[objects + 1] - self.polygons[objects]),
            self.codes[spans(self.code_ends[objects], self.code_ends[objects + 1])],
            _ends(self.code_ends[objects + 1] - self.code_ends[objects]),
            self.code_sizes[objects],
        )

    def scaled(self, factors: NDArray[np.float32]) -> "Outlines":
        """With the polygons of object m stretched by `factors[m]`, (M, 2): across and down."""
        each = np.repeat(np.repeat(factors, np.diff(self.polygons), axis=0), np.diff(self.ends) // 2, axis=0)
        return Outlines(self.points * each.ravel(), self.ends, self.polygons, self.codes, self.code_ends, self.code_sizes)

    def masks(self, first: int, last: int, width: int, height: int, stretch: tuple[float, float] = (1.0, 1.0)) -> Masks:
        """Of the objects from `first` up to `last` on an image of this size, polygons stretched to it."""
        masks = np.zeros((last - first, height, width), np.uint8)
        for mask, m in zip(masks, range(first, last), strict=True):
            self._draw(mask, m, stretch)
        return masks

    def _draw(self, mask: NDArray[np.uint8], m: int, stretch: tuple[float, float]) -> None:
        coco = coco_masks()
        own = range(self.polygons[m], self.polygons[m + 1])
        if own:
            rings = [self._ring(p, stretch) for p in own]
            first, last = _window(rings, mask.shape)
            height, width = (int(side) for side in last - first)
            moved = [(ring - first[::-1]).round(3).ravel().tolist() for ring in rings]
            if height > 0 < width:
                drawn = coco.decode(coco.merge(coco.frPyObjects(moved, height, width)))
                mask[first[0] : last[0], first[1] : last[1]] = drawn
        elif self.code_ends[m] < self.code_ends[m + 1]:
            code = self.codes[self.code_ends[m] : self.code_ends[m + 1]].tobytes()
            drawn = coco.decode({"size": self.code_sizes[m].tolist(), "counts": code})
            rows, columns = ((np.arange(new) * old) // new for new, old in zip(mask.shape, drawn.shape, strict=True))
            mask[:] = drawn[rows[:, None], columns]

    def _ring(self, p: int, stretch: tuple[float, float]) -> NDArray[np.float64]:
        """(corners, 2), rounded to what was written: thousandths are exact up to 16,000 pixels."""
        points = self.points[self.ends[p] : self.ends[p + 1]].astype(np.float64).round(3).reshape(-1, 2)
        return points * stretch


def _window(rings: Sequence[NDArray[np.float64]], shape: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first row and column, and the last ones, of the part of an image that polygons lie in, with a margin.

    Drawing takes time by the pixels that it is done on. What is drawn is the same: polygons move by whole pixels.
    """
    corners = np.concatenate(rings)[:, ::-1]
    low, high = np.floor(corners.min(0)) - 2, np.ceil(corners.max(0)) + 2
    return low.clip(0, shape).astype(np.int64), high.clip(0, shape).astype(np.int64)


class Drawing:
    """Outlines while they are gathered."""

    def __init__(self) -> None:
        self.points, self.ends, self.polygons = array("f"), array("q", [0]), array("q", [0])
        self.codes, self.code_ends, self.code_sizes = bytearray(), array("q", [0]), array("i")

    def add(self, rings: Sequence[Sequence[float]] = (), code: bytes = b"", size: Sequence[int] = (0, 0)) -> None:
        """One more object."""
        for ring in rings:
            self.points.extend(ring)
            self.ends.append(len(self.points))
        self.polygons.append(len(self.ends) - 1)
        self.codes += code
        self.code_ends.append(len(self.codes))
        self.code_sizes.extend(size)

    def done(self) -> Outlines:
        """All of them."""
        return Outlines(
            np.array(self.points, np.float32), np.array(self.ends, np.int64), np.array(self.polygons, np.int64),
            np.array(self.codes, np.uint8), np.array(self.code_ends, np.int64),
            np.array(self.code_sizes, np.int32).reshape(-1, 2),
        )  # fmt: skip


def coco_masks() -> Any:
    """pycocotools' functions of masks, whose declared types are narrower than what they take."""
    from pycocotools import mask

    return mask


def compressed(code: dict[str, Any]) -> tuple[bytes, tuple[int, int]]:
    """COCO's run lengths, as a list or as text → compressed, and the height and width that they are of.

    Raises ValueError where they are not of as many pixels.
    """
    coco = coco_masks()
    size, counts = code.get("size"), code.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and 0 < side < 2**15 for side in size)):
        raise ValueError("run lengths without a size")
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != size[0] * size[1]:
            raise ValueError("run lengths that do not fill their size")
        counts = coco.frPyObjects({"size": size, "counts": counts}, *size)["counts"]
    if not isinstance(counts, str | bytes):
        raise ValueError("run lengths without counts")
    raw = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    if _filled(raw) != size[0] * size[1]:  # or decoding would write beyond the mask
        raise ValueError("run lengths that do not fill their size")
    return raw, (size[0], size[1])


def _filled(code: bytes) -> int:
    """How many pixels compressed run lengths are of; -1 where they are damaged.

    Six bits a character, five of them digits; from the third count on each is a difference from the last but one.
    """
    counts: list[int] = []
    at = 0
    while at < len(code):
        value, shift, more = 0, 0, True
        while more:
            if at == len(code) or not 48 <= code[at] < 112:
                return -1
            bits = code[at] - 48
            value |= (bits & 31) << shift
            more, shift, at = bits > 31, shift + 5, at + 1
            if not more and bits & 16:
                value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        if counts[-1] < 0:
            return -1
    return sum(counts)


def spans(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers from each start up to its end, one after another."""
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def _ends(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
