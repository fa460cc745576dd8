"""What is wrong with a data set and what is in it: damage, copies and leaks, sizes, classes, colours."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaformer.data.alike import bar_of, judged
from metaformer.data.check import MOST_UNREADABLE
from metaformer.data.dataset import Progress
from metaformer.data.dense import is_dense
from metaformer.data.dense_check import Truths, take_dense_stock
from metaformer.data.everything import take_stock
from metaformer.data.inventory import Inventory
from metaformer.data.look import MISNAMED, TRUNCATED, UNREADABLE, look
from metaformer.data.similar import near
from metaformer.data.survey import Shelf, Survey, shelf, survey

SAME_FILE, SAME_PICTURE, NEAR = "same file", "same picture", "near copy"
"""How images of a group are alike: byte for byte; pixel for pixel, in other bytes; nearly."""
PREVIEW, CLASSES = 8, 24
"""Images of a class in the preview, and classes in it."""
LEAST = 16
"""Pixels a side that a picture must have to be told from others that are nearly like it."""
GROUPS, MEMBERS = 60, 6
"""Groups of copies that have pictures, and pictures of each."""
ASPECTS = (0.0, 1 / 3, 1 / 2, 2 / 3, 0.9, 1.1, 1.5, 2.0, 3.0, float("inf"))
"""Bounds of the bins of width over height."""


@dataclass(frozen=True)
class Group:
    """Images that are copies of each other."""

    kind: str
    members: tuple[int, ...]
    alike: float
    """Least correlation of the edges of two of them that were compared; 1 for the same picture."""
    parts: tuple[str, ...]
    labels: tuple[str, ...]
    """The different ones."""

    @property
    def leaks(self) -> bool:
        """Whether it lies in several parts."""
        return len(self.parts) > 1


@dataclass(frozen=True, eq=False)
class Checked:
    """All that a check found."""

    inventory: Inventory
    survey: Survey
    groups: tuple[Group, ...]
    """Leaks first, then those with several labels."""
    shots: dict[int, bytes]
    """Previews: of each class some, and of the first groups."""
    previewed: tuple[int, ...]
    seconds: float
    truths: Truths | None = None
    """What is true of images that have objects or regions."""

    def problems(self, what: str) -> list[tuple[str, str]]:
        """Name and words of each image with this problem."""
        return [(self.inventory.name(i), said) for i, kind, said in self.survey.problems if kind == what]

    @property
    def unreadable(self) -> int:
        """How many images have no picture."""
        return len(self.inventory) - int(self.survey.readable.sum())

    def leaked(self, *kinds: str) -> int:
        """How many images outside the first part have a copy in another part."""
        first = "train" if "train" in self.inventory.named else self.inventory.named[0]
        found = [g.members for g in self.groups if g.leaks and g.kind in (kinds or (SAME_FILE, SAME_PICTURE, NEAR))]
        return len({i for members in found for i in members if self.inventory.part(i) != first})

    def errors(self, *, leaks: bool = True) -> list[str]:
        """Sentences on what must not stay as it is; those on leaks only where `leaks` says so."""
        said = []
        if leaks and self.leaked():
            same = self.leaked(SAME_FILE, SAME_PICTURE)
            said.append(
                f"{self.leaked():,} images that judge are also in another part, {same:,} of them exactly: that flatters the "
                "result. Remove them, or say --allow-leaks"
            )
        if self.unreadable > MOST_UNREADABLE * len(self.inventory):
            said.append(
                f"{self.unreadable:,} of {len(self.inventory):,} images cannot be read, more than 1 %: training refuses"
            )
        return said

    def statistics(self) -> list[dict[str, Any]]:
        """Of each part and, where there are several, of all: images, mean and standard deviation per channel."""
        inventory = self.inventory
        rows: list[dict[str, Any]] = []
        every = np.arange(len(inventory.named))
        for name, which in [*((name, every[i : i + 1]) for i, name in enumerate(inventory.named)), ("all", every)]:
            inside = np.isin(inventory.parts, which)
            readable = int((inside & self.survey.readable).sum())
            mean, square = self.survey.sums[which].sum(0) / max(readable, 1)
            std = np.sqrt((square - mean**2).clip(0))
            row = {"part": name or "all", "images": int(inside.sum()), "readable": readable}
            rows.append(row | {"mean": mean.round(5).tolist(), "std": std.round(5).tolist()})
        return rows if len(rows) > 2 else rows[:1]

    def sizes(self) -> dict[str, Any]:
        """Smallest, middle and largest sides, the commonest sizes, and how many images have which ratio of width to height."""
        sides = self.survey.sizes[self.survey.readable].astype(np.int64)
        if not len(sides):
            return {"width": [], "height": [], "common": [], "aspects": [0] * (len(ASPECTS) - 1), "different": 0}
        packed, counts = np.unique(sides[:, 0] << 32 | sides[:, 1], return_counts=True)
        common = np.argsort(-counts, kind="stable")[:8]
        return {
            **{
                name: np.percentile(sides[:, i], [0, 50, 100]).astype(int).tolist()
                for i, name in enumerate(("width", "height"))
            },
            "common": [[int(packed[i] >> 32), int(packed[i] & 0xFFFFFFFF), int(counts[i])] for i in common],
            "different": len(packed),
            "aspects": np.histogram(sides[:, 0] / sides[:, 1], ASPECTS)[0].tolist(),
        }

    def imbalance(self) -> float | None:
        """How many times as many images the largest class has as the smallest, where images are learnt from."""
        first = self.inventory.named.index("train") if "train" in self.inventory.named else 0
        counts = self.inventory.per_class()[first]
        return float(counts.max() / counts.min()) if len(counts) > 1 and counts.min() else None

    def to_dict(self) -> dict[str, Any]:
        """Everything but pictures, as JSON holds it."""
        inventory = self.inventory
        counts = inventory.per_class()
        return {
            "source": inventory.source,
            "images": len(inventory),
            "parts": self.statistics(),
            "classes": {
                name: {part or "all": int(counts[p, c]) for p, part in enumerate(inventory.named)}
                for c, name in enumerate(inventory.classes)
            },
            "without_label": int((inventory.labels < 0).sum()),
            "imbalance": self.imbalance(),
            "sizes": self.sizes(),
            **{what: [{"image": name, "why": said} for name, said in self.problems(what)]
               for what in (UNREADABLE, TRUNCATED, MISNAMED)},
            "leaked": {"all": self.leaked(), **{kind: self.leaked(kind) for kind in (SAME_FILE, SAME_PICTURE, NEAR)}},
            "groups": [self._told(group) for group in self.groups],
            "notes": list(inventory.notes),
            **({} if self.truths is None else {"truth": self.truths.to_dict()}),
            "seconds": round(self.seconds, 1),
        }  # fmt: skip

    def _told(self, group: Group) -> dict[str, Any]:
        inventory = self.inventory
        images = [{"image": inventory.name(i), "part": inventory.part(i), "label": inventory.label(i)} for i in group.members]
        return {
            "kind": group.kind, "alike": round(group.alike, 3), "leak": group.leaks, "labels_differ": len(group.labels) > 1,
            "images": images,
        }  # fmt: skip


def check_data(source: str, *, workers: int | None = None, progress: Progress | None = None) -> Checked:
    """Looks at every image that `data=` names, whatever its part, and compares it with every other.

    Memory does not grow with what the images hold: some 100 bytes for each stay in it, and 1.2 kB for each go into a
    temporary file. Raises ValueError or FileNotFoundError with a sentence.
    """
    began = time.monotonic()
    inventory, truths = take_dense_stock(source, progress) if is_dense(source) else (take_stock(source, progress), None)
    preview = _preview(inventory)
    with shelf() as pictures:
        seen = survey(inventory, pictures, shown=preview, workers=workers, progress=progress)
        if progress is not None:
            progress("comparing images", 0, 1)
        groups = _groups(inventory, seen, pictures)
        if progress is not None:
            progress("comparing images", 1, 1)
    shots = seen.shots | _shots(inventory, [i for group in groups[:GROUPS] for i in group.members[:MEMBERS]])
    return Checked(inventory, seen, tuple(groups), shots, tuple(preview), time.monotonic() - began, truths)


def _preview(inventory: Inventory) -> list[int]:
    """Some images of each label, spread over those there are; the commonest labels."""
    counts = np.bincount(inventory.labels[inventory.labels >= 0], minlength=len(inventory.said))
    chosen: list[int] = []
    for label in sorted(np.argsort(-counts, kind="stable")[:CLASSES].tolist(), key=lambda label: inventory.said[label]):
        own = np.flatnonzero(inventory.labels == label)
        chosen += own[np.unique(np.linspace(0, len(own) - 1, min(PREVIEW, len(own))).astype(int))].tolist()
    return chosen


def _shots(inventory: Inventory, numbers: Sequence[int]) -> dict[int, bytes]:
    wanted = sorted(set(numbers))
    return {
        i: shot
        for i, item in zip(wanted, inventory.items.read(wanted), strict=True)
        for shot in look([item], {0}).shots.values()
    }


# --- copies -----------------------------------------------------------------------------------------------------------


def _groups(inventory: Inventory, seen: Survey, pictures: Shelf) -> list[Group]:
    """Exact copies, and near ones of which each exact one is a part; the worst first."""
    numbers = np.flatnonzero(seen.readable)
    order = numbers[np.lexsort((numbers, seen.pixels[numbers, 1], seen.pixels[numbers, 0]))]
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (seen.pixels[order[1:]] != seen.pixels[order[:-1]]).any(1)
    starts = np.flatnonzero(fresh)
    first = order[starts]
    ends = np.append(starts[1:], len(order))
    several = np.flatnonzero(ends - starts > 1)
    same = {int(first[i]): order[starts[i] : ends[i]].tolist() for i in several}
    groups = [_group(inventory, _exact(seen, run), run, 1.0) for run in same.values()]
    first = first[seen.sizes[first].min(1) >= LEAST]
    if len(first) > 1:

        def shown(some: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            return pictures.pictures(first[some])

        pairs, alike = judged(near(*seen.codes[:, first]), shown, bar_of(len(first), shown))
        for members, least in _joined(first[pairs], alike):
            every = sorted(j for i in members for j in same.get(i, [i]))
            groups.append(_group(inventory, NEAR, every, least))
    return sorted(groups, key=lambda group: (not group.leaks, len(group.labels) < 2, group.kind == NEAR, group.members))


def _exact(seen: Survey, run: Sequence[int]) -> str:
    files = seen.files[list(run)]
    return SAME_FILE if (files == files[0]).all() and files[0].any() else SAME_PICTURE


def _group(inventory: Inventory, kind: str, members: Sequence[int], alike: float) -> Group:
    parts = dict.fromkeys(inventory.part(i) for i in members)
    labels = dict.fromkeys(inventory.label(i) for i in members)
    return Group(kind, tuple(members), alike, tuple(parts), tuple(labels))


def _joined(pairs: NDArray[np.int64], alike: NDArray[np.float32]) -> list[tuple[list[int], float]]:
    """Images that pairs connect, each group with its least likeness."""
    root: dict[int, int] = {}

    def find(i: int) -> int:
        while root.setdefault(i, i) != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for one, other in pairs.tolist():
        root[find(other)] = find(one)
    members: dict[int, list[int]] = defaultdict(list)
    least: dict[int, float] = defaultdict(lambda: 1.0)
    for i in root:
        members[find(i)].append(i)
    for (one, _), value in zip(pairs.tolist(), alike.tolist(), strict=True):
        least[find(one)] = min(least[find(one)], value)
    return [(sorted(found), least[top]) for top, found in members.items()]
