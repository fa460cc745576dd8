"""What a check finds in a data set of objects or regions beside what it finds in any: how many, how large, what is wrong."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaformer.data.annotations import Annotations
from metaformer.data.dataset import Progress
from metaformer.data.dense import aligned, parts_of
from metaformer.data.everything import Files
from metaformer.data.flaws import Flaw, Flaws, together
from metaformer.data.inventory import Gathering, Inventory
from metaformer.data.listed import Listed
from metaformer.data.maps import Maps
from metaformer.data.scenes import Scenes
from metaformer.data.seen import Seen, see_all
from metaformer.data.truth import VOID

SIDES = (32, 96)
"""Between small, medium and large objects: the square roots of areas, in pixels, as COCO counts them."""


@dataclass(frozen=True, eq=False)
class Truths:
    """What is true of the images of a data set, part by part."""

    scenes: Mapping[str, Scenes]
    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    """(parts, classes): objects, or pixels of regions."""
    images: NDArray[np.int64]
    """(parts, classes): images that have any."""
    crowd: NDArray[np.int64]
    """(parts,): objects that are many in one, or too hard to ask for."""
    sides: NDArray[np.float32]
    """(objects,): square roots of areas in pixels, of all parts."""
    flaws: tuple[Flaw, ...]

    @property
    def regions(self) -> bool:
        """Whether truth is maps of regions, and not objects."""
        return any(scenes.regions for scenes in self.scenes.values())

    def sizes(self) -> dict[str, Any]:
        """How many objects are small, medium and large, and the sides of the smallest, the middle and the largest."""
        named = ("small", "medium", "large")
        counts = np.histogram(self.sides, (0, *SIDES, np.inf))[0].tolist() if len(self.sides) else [0, 0, 0]
        sides = np.percentile(self.sides, [0, 50, 100]).round(1).tolist() if len(self.sides) else []
        return dict(zip(named, counts, strict=True)) | {"sides": sides}

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        parts = list(self.scenes)
        told = {
            name: {part or "all": int(self.counts[p, c]) for p, part in enumerate(parts)} for c, name in enumerate(self.classes)
        }
        flaws = [{"what": flaw.what, "count": flaw.count, "where": list(flaw.where)} for flaw in self.flaws]
        if self.regions:
            return {"kind": "regions", "pixels": told, "flaws": flaws}
        return {"kind": "objects", "objects": told, "crowd": int(self.crowd.sum()), "sizes": self.sizes(), "flaws": flaws}


def take_dense_stock(source: str, progress: Progress | None = None) -> tuple[Inventory, Truths]:
    """Every image of what `data=` names, those that cannot be read at the end of their part; and what is true of them.

    Raises ValueError or FileNotFoundError with a sentence.
    """
    seen: dict[str, Seen] = {}
    for part, read in parts_of(source).items():
        listed = read(source.partition(":")[0] in ("coco", "yolo"))
        truths = listed.truths
        if isinstance(truths, Annotations) and truths.outlines is not None and not truths.outlines.present.any():
            listed = replace(listed, truths=replace(truths, outlines=None))  # boxes alone are no flaw
        seen[part] = see_all(listed, source, strict=False, progress=progress)
    classes = tuple(dict.fromkeys(name for found in seen.values() for name in found.listed.classes))
    listings = [aligned(found.listed, classes, source, "it") for found in seen.values()]
    counted = [_count(listed) for listed in listings]
    base = Path(os.path.commonpath([listed.root for listed in listings]))
    rows = Gathering()
    for part, listed, own in zip(seen, listings, counted, strict=True):
        for name, present in zip(listed.names, own > 0, strict=True):
            rows.add(
                (listed.root / name).relative_to(base).as_posix(), tuple(classes[c] for c in np.flatnonzero(present)), part
            )
        for name, _ in seen[part].unreadable:
            rows.add(Path(name).relative_to(base).as_posix(), None, part)
    whole = Truths(
        {part: Scenes(one.root, one.names, one.truths) for part, one in zip(seen, listings, strict=True)},
        classes,
        np.stack([own.sum(0) for own in counted]),
        np.stack([(own > 0).sum(0) for own in counted]),
        np.array([0 if isinstance(listed.truths, Maps) else int(listed.truths.crowd.sum()) for listed in listings]),
        np.concatenate([_sides(listed) for listed in listings]),
        together(listed.flaws.all() for listed in listings),
    )
    return rows.done(source, Files(base, rows.names), order=classes, multi=True), whole


def _count(listed: Listed) -> NDArray[np.int64]:
    """(images, classes): objects, or pixels, of each."""
    counts = np.zeros((len(listed.names), len(listed.classes)), np.int64)
    truths = listed.truths
    if isinstance(truths, Maps):
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for i, own in enumerate(pool.map(lambda i: _pixels(truths, i, listed.flaws), range(len(truths)))):
                counts[i] = own[: counts.shape[1]]
    else:
        np.add.at(counts, (truths.owners, truths.labels), 1)
    return counts


def _pixels(maps: Maps, i: int, flaws: Flaws) -> NDArray[np.int64]:
    """How many pixels of a map are of each class; none where it cannot be read."""
    try:
        found, _ = maps.coding.read(maps.root / maps.names[i])
    except ValueError as error:
        flaws.add(f"label files that cannot be read ({error})", maps.names[i])
        return np.zeros(VOID, np.int64)
    return np.bincount(found.ravel(), minlength=VOID + 1)[:VOID]


def _sides(listed: Listed) -> NDArray[np.float32]:
    truths = listed.truths
    if isinstance(truths, Maps):
        return np.empty(0, np.float32)
    boxes = (truths.boxes[:, 2:] - truths.boxes[:, :2]).prod(1)
    return np.sqrt(np.where(np.isnan(truths.areas), boxes, truths.areas).clip(0))
