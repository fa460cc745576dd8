"""The objects of many images in compact arrays: some 40 bytes for each, and its outline where masks are wanted."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metaformer.data.decode import orientation
from metaformer.data.flaws import Flaws
from metaformer.data.outlines import Drawing, Masks, Outlines, spans
from metaformer.data.truth import Objects
from metaformer.data.upright import SIDEWAYS, turned_boxes, turned_map

Box = Sequence[float]
"""Left, top, right, bottom."""
OVER = 1.0
"""Pixels that a box may reach beyond its image before it is cut: rounding is let be, so that published figures stay."""
SAME_SHAPE = 0.01
"""Most relative difference of width over height between an image and another size of it."""


@dataclass(frozen=True, eq=False)
class Annotations:
    """Those of image i are the objects from `starts[i]` up to `starts[i + 1]`."""

    ids: Sequence[int | str]
    """(images,): what the source calls them."""
    sizes: NDArray[np.int32]
    """(images, 2): width and height of the images that the boxes were drawn on; 0 where nobody says."""
    starts: NDArray[np.int64]
    boxes: NDArray[np.float32]
    """(objects, 4): left, top, right, bottom."""
    labels: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float32]
    """(objects,): pixels as the source says; no number where it does not."""
    outlines: Outlines | None
    """None where masks are not wanted."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def owners(self) -> NDArray[np.int64]:
        """(objects,): the number of each one's image."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def take(self, images: Sequence[int]) -> "Annotations":
        """Those of some images, in this order."""
        numbers = np.asarray(images, np.int64)
        counts = np.diff(self.starts)[numbers]
        taken = self._objects(spans(self.starts[numbers], self.starts[numbers + 1]), counts)
        return replace(taken, ids=[self.ids[i] for i in images], sizes=self.sizes[numbers])

    def keep(self, which: NDArray[np.bool_]) -> "Annotations":
        """The objects that a mask (objects,) says."""
        if which.all():
            return self
        return self._objects(np.flatnonzero(which), np.bincount(self.owners[which], minlength=len(self)))

    def _objects(self, objects: NDArray[np.int64], counts: NDArray[np.int64]) -> "Annotations":
        return replace(
            self,
            starts=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
            boxes=self.boxes[objects],
            labels=self.labels[objects],
            crowd=self.crowd[objects],
            areas=self.areas[objects],
            outlines=None if self.outlines is None else self.outlines.take(objects),
        )

    def in_pixels(self, sizes: NDArray[np.int32]) -> "Annotations":
        """Boxes and outlines given in parts of width and height, in pixels of images of these sizes, (images, 2)."""
        factors = sizes[self.owners].astype(np.float32)
        outlines = None if self.outlines is None else self.outlines.scaled(factors)
        return replace(self, sizes=sizes, boxes=self.boxes * np.tile(factors, 2), outlines=outlines)

    def relabelled(self, numbers: Sequence[int]) -> "Annotations":
        """With class c called `numbers[c]`."""
        return replace(self, labels=np.asarray([*numbers], np.int32)[self.labels])

    def read(self, i: int, item: Path, width: int, height: int) -> Objects:
        """The objects of image i as it is shown, of this size."""
        first, last = int(self.starts[i]), int(self.starts[i + 1])
        boxes, masks = self._placed(i, item, width, height)
        own = masks.sum((1, 2)) if masks is not None else (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        areas = np.where(np.isnan(self.areas[first:last]), own, self.areas[first:last]).astype(np.float32)
        return Objects(
            torch.from_numpy(boxes),
            torch.from_numpy(self.labels[first:last].astype(np.int64)),
            None if masks is None else torch.from_numpy(np.ascontiguousarray(masks)),
            torch.from_numpy(self.crowd[first:last].copy()),
            torch.from_numpy(areas),
            self.ids[i],
            height,
            width,
        )

    def _placed(self, i: int, item: Path, width: int, height: int) -> tuple[NDArray[np.float32], Masks | None]:
        """Boxes and masks where the image was drawn on in another size, or before it was turned."""
        first, last = int(self.starts[i]), int(self.starts[i + 1])
        boxes, size = self.boxes[first:last], (int(self.sizes[i, 0]), int(self.sizes[i, 1]))
        turn = orientation(item)[1] if size == (height, width) != (width, height) else None
        if turn in SIDEWAYS:
            assert turn is not None
            masks = None if self.outlines is None else turned_map(self.outlines.masks(first, last, *size), turn)
            return turned_boxes(boxes, size, turn), masks
        stretch = (width / size[0], height / size[1]) if same_shape(size, (width, height)) else (1.0, 1.0)
        masks = None if self.outlines is None else self.outlines.masks(first, last, width, height, stretch)
        return boxes * np.array([*stretch, *stretch], np.float32), masks


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether an image of the one size may be one of the other that was resized."""
    return min(one) > 0 and abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= SAME_SHAPE


def mended(found: Annotations, names: Sequence[str], flaws: Flaws) -> Annotations:
    """Without the objects that nothing can learn from, and with boxes cut at the image; `flaws` says what was wrong."""
    boxes, owners = found.boxes, found.owners
    sizes = found.sizes[owners].astype(np.float32)
    sizes[sizes == 0] = np.inf
    keep = np.ones(len(boxes), np.bool_)

    def without(bad: Any, what: str) -> None:
        _tell(bad & keep, owners, names, what, flaws)
        keep[bad] = False

    without(~np.isfinite(boxes).all(1), "boxes that are no numbers, left out")
    without((boxes[:, 2:] <= boxes[:, :2]).any(1), "boxes without area, left out")
    without(((boxes[:, 2:] <= 0) | (boxes[:, :2] >= sizes)).any(1), "boxes outside of their image, left out")
    if found.outlines is not None:
        without(~found.outlines.present, "objects without an outline, left out where masks are learnt")
    over = keep & ((boxes[:, :2] < -OVER) | (boxes[:, 2:] > sizes + OVER)).any(1)
    _tell(over, owners, names, "boxes that reach beyond their image, cut", flaws)
    cut = np.where(over[:, None], np.clip(boxes, 0, np.tile(sizes, 2)), boxes)
    return replace(found, boxes=cut).keep(keep)


def _tell(which: NDArray[np.bool_], owners: NDArray[np.int64], names: Sequence[str], what: str, flaws: Flaws) -> None:
    numbers, counts = np.unique(owners[which], return_counts=True)
    for i, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        flaws.add(what, names[i], count)


class Noted:
    """Annotations while they are gathered: objects in any order, their images by what the source calls them."""

    def __init__(self, *, masks: bool) -> None:
        self.numbers: dict[int | str, int] = {}
        self.names: dict[int, str] = {}
        self.sizes: dict[int, tuple[int, int]] = {}
        self.owners, self.labels, self.crowd = array("q"), array("i"), array("b")
        self.boxes, self.areas = array("f"), array("f")
        self.drawing = Drawing() if masks else None

    def number(self, image_id: int | str) -> int:
        """The number of an image, whether it was met before or not."""
        return self.numbers.setdefault(image_id, len(self.numbers))

    def image(self, image_id: int | str, name: str, width: int = 0, height: int = 0) -> None:
        """An image: the name of its file, and the size that its objects are in."""
        number = self.number(image_id)
        self.names[number], self.sizes[number] = name, (width, height)

    def add(
        self,
        image_id: int | str,
        label: int,
        box: Box,
        *,
        crowd: bool = False,
        area: float = float("nan"),
        rings: Sequence[Sequence[float]] = (),
        code: tuple[bytes, tuple[int, int]] | None = None,
    ) -> None:
        """One more object, with polygons, or run lengths, or without an outline."""
        self.owners.append(self.number(image_id))
        self.labels.append(label)
        self.boxes.extend(box)
        self.crowd.append(crowd)
        self.areas.append(area)
        if self.drawing is not None:
            raw, size = code or (b"", (0, 0))
            self.drawing.add(rings, raw, size)

    def done(self) -> tuple[list[str], Annotations, int]:
        """The names of the images, by number; all that was gathered; and how many objects are of images never named."""
        named = np.array(sorted(self.names), np.int64)
        owners = np.array(self.owners, np.int64)
        place = np.full(len(self.numbers), -1, np.int64)
        place[named] = np.arange(len(named))
        owners = place[owners]
        order = np.argsort(owners, kind="stable")
        order = order[np.searchsorted(owners[order], 0) :]
        ids: list[Any] = list(self.numbers)
        whole = Annotations(
            [ids[i] for i in named],
            np.array([self.sizes[int(i)] for i in named], np.int32).reshape(-1, 2),
            np.zeros(len(named) + 1, np.int64),
            np.array(self.boxes, np.float32).reshape(-1, 4),
            np.array(self.labels, np.int32),
            np.array(self.crowd, np.bool_),
            np.array(self.areas, np.float32),
            None if self.drawing is None else self.drawing.done(),
        )
        sorted_objects = whole._objects(order, np.bincount(owners[order], minlength=len(named)))
        return [self.names[int(i)] for i in named], sorted_objects, len(owners) - len(order)
