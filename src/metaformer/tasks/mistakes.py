"""What a detector confuses, misses and invents: matches, confusion with the background, a threshold, the worst images."""

from dataclasses import dataclass

import numpy as np

from metaformer.data.outlines import coco_masks
from metaformer.tasks.coco import Array, DetectionEvaluation, Kind, Pair, Things

NEAR = 0.5
"""The intersection over union from which on two are the same object."""


@dataclass(frozen=True)
class Threshold:
    """A score from which on what was found is believed, and how right that is over all classes, at IoU 0.5."""

    score: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True, eq=False)
class Match:
    """What was found in an image beside what is there, an object for each at most, the surest first."""

    truth: Array
    """(found,): the number of the object that it is; -1 for none."""
    iou: Array
    """(found,): intersection over union with it; 0 for none."""
    ignored: Array
    """(found,): whether it lies in a crowd of its class, which makes it neither right nor wrong."""


def overlaps(found: Things, there: Things, kind: Kind) -> Array:
    """(found, there): intersection over union; with a crowd, intersection over what was found."""
    if not len(found) or not len(there):
        return np.zeros((len(found), len(there)))
    crowd = there.crowd.astype(np.uint8).tolist()
    if kind == "mask":
        return coco_masks().iou(list(found.masks or ()), list(there.masks or ()), crowd)
    return coco_masks().iou(np.ascontiguousarray(found.boxes), np.ascontiguousarray(there.boxes), crowd)


def match(one: Pair, kind: Kind) -> Match:
    """COCO's matching at IoU 0.5: the surest first, each takes the nearest object of its class that is left."""
    near = overlaps(one.found, one.there, kind)
    near = np.where(one.found.labels[:, None] == one.there.labels, near, 0)
    truth, iou = np.full(len(one.found), -1), np.zeros(len(one.found))
    open_ = np.where(one.there.crowd, 0, near)
    for place in np.argsort(-one.found.scores, kind="stable"):
        best = int(open_[place].argmax()) if open_.shape[1] else -1
        if best >= 0 and open_[place, best] >= NEAR:
            truth[place], iou[place] = best, open_[place, best]
            open_[:, best] = 0
    in_crowd = (near * one.there.crowd >= NEAR).any(1)
    return Match(truth, iou, in_crowd & (truth < 0))


def threshold(done: DetectionEvaluation, kind: Kind = "box") -> Threshold:
    """The score at which F1 over all classes together is greatest; 0 where nothing is right."""
    matches = [match(one, kind) for one in done.pairs]
    counted = [~m.ignored for m in matches]
    scores = np.concatenate([one.found.scores[keep] for one, keep in zip(done.pairs, counted, strict=True)] or [np.zeros(0)])
    right = np.concatenate([m.truth[keep] >= 0 for m, keep in zip(matches, counted, strict=True)] or [np.zeros(0, bool)])
    there = sum(int((~one.there.crowd).sum()) for one in done.pairs)
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], right[order].cumsum()
    last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]  # of its run of equal scores
    f1 = np.where(last, 2 * hits / (np.arange(1, len(scores) + 1) + there), 0)
    if not f1.any():
        return Threshold(0.0, 0.0, 0.0)
    best = int(f1.argmax())
    return Threshold(float(scores[best]), float(hits[best] / (best + 1)), float(hits[best] / there))


def confusion(done: DetectionEvaluation, least: float, kind: Kind = "box") -> Array:
    """(classes + 1, classes + 1): objects of the row's class that were found as the column's; the last is the background.

    The last row counts what was found where nothing is, the last column what was missed. Of all pairs with an IoU of 0.5 or
    more, whatever their classes, the nearest are taken first, each object and each find once. What lies in a crowd of its
    class is not counted, nor is the crowd. Only what scores `least` or more was found.
    """
    C = len(done.classes)
    counts = np.zeros((C + 1, C + 1), np.int64)
    for one in done.pairs:
        sure = one.found.scores >= least
        called, labels = one.found.labels.copy(), one.there.labels
        near = overlaps(one.found, one.there, kind) * sure[:, None]
        taken = _nearest(np.where(one.there.crowd, 0, near))
        in_crowd = (near * one.there.crowd * (called[:, None] == labels) >= NEAR).any(1)
        np.add.at(counts, (labels[taken[:, 1]], called[taken[:, 0]]), 1)
        alone = sure & ~in_crowd
        alone[taken[:, 0]] = False
        missed = ~one.there.crowd
        missed[taken[:, 1]] = False
        np.add.at(counts[C], called[alone], 1)
        np.add.at(counts[:, C], labels[missed], 1)
    return counts


def _nearest(near: Array) -> Array:
    """(pairs, 2): found and there, the nearest first, none of them twice."""
    found, there = np.nonzero(near >= NEAR)
    order = np.argsort(-near[found, there], kind="stable")
    used: tuple[set[int], set[int]] = (set(), set())
    pairs: list[tuple[int, int]] = []
    for one, other in zip(found[order].tolist(), there[order].tolist(), strict=True):
        if one not in used[0] and other not in used[1]:
            used[0].add(one)
            used[1].add(other)
            pairs.append((one, other))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Mistakes:
    """What is wrong with an image's answer."""

    place: int
    """The image's number in `DetectionEvaluation.pairs`."""
    error: float
    """0 to 1: see `mistakes`."""
    wrong: int
    """Found where there is no such object."""
    missed: int
    """Objects that were not found."""


def mistakes(done: DetectionEvaluation, least: float, kind: Kind = "box") -> list[Mistakes]:
    """Each image's answer, the worst first.

    The error is the localisation recall precision error of the image, at IoU 0.5 (Oksuz et al. 2018, arXiv 1807.01696): the
    mean over all that is right, wrong or missed, where a wrong or missed one counts 1 and a right one (1 - IoU) / 0.5. Of equal
    errors the one with more wrong and missed comes first. 0 where nothing is and nothing was found.
    """
    rows: list[Mistakes] = []
    for place, one in enumerate(done.pairs):
        sure = match(_above(one, least), kind)
        right = sure.truth >= 0
        wrong, missed = int((~right & ~sure.ignored).sum()), int((~one.there.crowd).sum() - right.sum())
        total = int(right.sum()) + wrong + missed
        lost = float(((1 - sure.iou[right]) / (1 - NEAR)).sum()) + wrong + missed
        rows.append(Mistakes(place, lost / total if total else 0.0, wrong, missed))
    return sorted(rows, key=lambda row: (-row.error, -row.wrong - row.missed, row.place))


def _above(one: Pair, least: float) -> Pair:
    keep = one.found.scores >= least
    found, masks = one.found, None
    if found.masks is not None:
        masks = tuple(rle for rle, kept in zip(found.masks, keep.tolist(), strict=True) if kept)
    kept = Things(found.boxes[keep], found.labels[keep], found.scores[keep], found.crowd[keep], None, masks)
    return Pair(one.image_id, one.size, one.there, kept)
