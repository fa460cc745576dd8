"""Boxes and masks judged as COCO judges them: average precision by pycocotools itself, so its numbers to the last digit."""

import io
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metaformer.core.ranks import ALONE, Ranks
from metaformer.data.outlines import coco_masks
from metaformer.data.truth import Objects
from metaformer.tasks.found import Found, Rle, Size, corner_and_sides, run_lengths

Kind = Literal["box", "mask"]
Array = NDArray[Any]
Answer = tuple[Objects, Found]
"""What is in an image, in its own pixels, and what was found."""

STATS = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
"""What pycocotools' twelve numbers are, in their order."""
JUDGED_BY = ("ap", "ap50")
RECALLS = np.linspace(0, 1, 101)
"""The recalls at which precision is read."""
AT_50, AT_75, ALL_SIZES, ALL_FOUND = 0, 5, 0, 2
"""Places in pycocotools' tables: of IoU 0.5 and 0.75, of all areas, of at most 100 found in an image."""


@dataclass(frozen=True, eq=False)
class Things:
    """What is in an image, or was found there. Boxes are (N, 4), x, y, width, height; masks are run lengths."""

    boxes: Array
    labels: Array
    scores: Array
    """(N,): how sure; 1 of what is there."""
    crowd: Array
    """(N,): whether this marks a group; never of what was found."""
    areas: Array | None
    """(N,): pixels of what is there; None of what was found, which has those of its boxes or its masks."""
    masks: tuple[Rle, ...] | None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Pair:
    """One image: what is there and what was found, small enough to keep and to send."""

    image_id: int | str
    size: Size
    there: Things
    found: Things


def pair(truth: Objects, found: Found) -> Pair:
    """Keeps of an image what its judgement needs."""
    return Pair(truth.image_id, (truth.height, truth.width), _there(truth), _found(found))


def judge(answers: Iterable[Answer], classes: Sequence[str], ranks: Ranks = ALONE) -> "DetectionEvaluation":
    """Judges what was found in images, each given once. Of several ranks each gives its own; each learns the whole."""
    own = [pair(*answer) for answer in answers]
    everything = [one for part in ranks.gathered(own) for one in part]
    everything.sort(key=lambda one: (isinstance(one.image_id, str), one.image_id))  # ids of files are numbers or names
    assert len({one.image_id for one in everything}) == len(everything), "an image was given twice"
    return DetectionEvaluation(tuple(everything), tuple(classes))


def _there(truth: Objects) -> Things:
    boxes, N = corner_and_sides(truth.boxes).cpu().numpy(), len(truth.labels)
    masks = None if truth.masks is None else run_lengths(truth.masks)
    areas, crowd = truth.areas.double().cpu().numpy(), truth.crowd.bool().cpu().numpy()
    return Things(boxes, truth.labels.cpu().numpy(), np.ones(N), crowd, areas, masks)


def _found(found: Found) -> Things:
    boxes, scores = corner_and_sides(found.boxes).cpu().numpy(), found.scores.double().cpu().numpy()
    masks = None if found.masks is None else run_lengths(found.masks)
    return Things(boxes, found.labels.cpu().numpy(), scores, np.zeros(len(scores), bool), None, masks)


@dataclass(frozen=True)
class ClassFigures:
    """One class: average precision (of IoU 0.50 to 0.95, at 0.50, at 0.75), recall, and how many there are, no crowds."""

    ap: float | None
    ap50: float | None
    ap75: float | None
    recall: float | None
    objects: int


@dataclass(frozen=True, eq=False)
class Figures:
    """COCO's figures, 0 to 1; None where there is nothing that could be found: no object of that size, say."""

    overall: dict[str, float | None]
    """By the names of STATS: AP and AR, at single IoUs, by size, by the most found in an image."""
    per_class: tuple[ClassFigures, ...]
    precision: Array
    """(classes, 101): at IoU 0.5, at each of RECALLS; NaN for a class that is nowhere."""
    scores: Array
    """(classes, 101): the score down to which one must go for that recall; 0 where it is never reached."""

    @property
    def mean_precision(self) -> Array:
        """(101,): the mean over the classes that are somewhere; NaN where none is."""
        known = self.precision[~np.isnan(self.precision[:, 0])]
        return known.mean(0) if len(known) else np.full(len(RECALLS), np.nan)


@dataclass(frozen=True, eq=False)
class DetectionEvaluation:
    """What was found in every image of a set, beside what is there."""

    pairs: tuple[Pair, ...]
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {value:.2f} %" for name, value in self.scores.items())
        return f"DetectionEvaluation({figures}, {len(self.pairs):,} images)"

    @cached_property
    def with_masks(self) -> bool:
        """Whether masks can be judged: all objects have one, and all that was found."""
        return all(things.masks is not None for one in self.pairs for things in (one.there, one.found))

    @cached_property
    def box(self) -> Figures:
        """COCO's figures of the boxes."""
        return figures(self.pairs, len(self.classes), "box")

    @cached_property
    def mask(self) -> Figures | None:
        """COCO's figures of the masks; None where there are none."""
        return figures(self.pairs, len(self.classes), "mask") if self.with_masks else None

    @property
    def kinds(self) -> dict[Kind, Figures]:
        """The figures of masks, where there are any, then those of boxes: the first ones decide."""
        return {"box": self.box} if self.mask is None else {"mask": self.mask, "box": self.box}

    @property
    def kind(self) -> Kind:
        """Whose figures decide."""
        return next(iter(self.kinds))

    @property
    def scores(self) -> dict[str, float]:
        """What an epoch is judged by, in percent, the first of them deciding which is the best."""
        return {f"{kind}_{name}": 100 * (of.overall[name] or 0.0) for name in JUDGED_BY for kind, of in self.kinds.items()}

    @property
    def loss(self) -> None:
        """A detector's losses are of what it is taught, which held-out images do not say: there is none."""

    def summary(self) -> dict[str, Any]:
        """The figures, JSON-ready, 0 to 1. What is undefined is None."""
        kinds = self.kinds
        return {
            "images": len(self.pairs),
            "objects": sum(int((~one.there.crowd).sum()) for one in self.pairs),
            **{kind: found.overall for kind, found in kinds.items()},
            "per_class": {
                name: {kind: asdict(found.per_class[place]) for kind, found in kinds.items()}
                for place, name in enumerate(self.classes)
            },
        }


def figures(images: Sequence[Pair], classes: int, kind: Kind) -> Figures:
    """COCO's figures of boxes or masks."""
    done = run(images, classes, kind)
    table = np.where(done.eval["precision"] < 0, np.nan, done.eval["precision"])[:, :, :, ALL_SIZES, ALL_FOUND]
    recalls = np.where(done.eval["recall"] < 0, np.nan, done.eval["recall"])[:, :, ALL_SIZES, ALL_FOUND]
    there = [one.there.labels[~one.there.crowd] for one in images]
    objects = np.bincount(np.concatenate([*there, np.zeros(0, int)]), minlength=classes)
    each = [
        ClassFigures(
            _known(table[:, :, c].mean()), _known(table[AT_50, :, c].mean()), _known(table[AT_75, :, c].mean()),
            _known(recalls[:, c].mean()), int(objects[c]),
        )
        for c in range(classes)
    ]  # fmt: skip
    overall = {name: None if value < 0 else float(value) for name, value in zip(STATS, done.stats, strict=True)}
    reached = np.where(done.eval["scores"] < 0, 0.0, done.eval["scores"])[AT_50, :, :, ALL_SIZES, ALL_FOUND]
    return Figures(overall, tuple(each), table[AT_50].T, reached.T)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def run(images: Sequence[Pair], classes: int, kind: Kind) -> Any:
    """pycocotools' COCOeval when it has done its work, silently. Its ids are places from 1 on: it takes 0 for nothing."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def made(what: str) -> Any:
        rows = [row for place, one in enumerate(images, 1) for row in _rows(place, getattr(one, what), kind)]
        coco: Any = COCO()
        coco.dataset = {
            "images": [{"id": place, "height": one.size[0], "width": one.size[1]} for place, one in enumerate(images, 1)],
            "categories": [{"id": place} for place in range(1, classes + 1)],
            "annotations": [row | {"id": number} for number, row in enumerate(rows, 1)],
        }
        coco.createIndex()
        return coco

    with redirect_stdout(io.StringIO()):
        done = COCOeval(made("there"), made("found"), "bbox" if kind == "box" else "segm")
        done.evaluate()
        done.accumulate()
        done.summarize()
    return done


def _rows(image: int, things: Things, kind: Kind) -> list[dict[str, Any]]:
    """An image's annotations."""
    areas = things.areas if things.areas is not None else _own_areas(things, kind)
    columns = (things.labels, things.boxes, areas, things.scores, things.crowd)
    rows: list[dict[str, Any]] = [
        {"image_id": image, "category_id": label + 1, "bbox": box, "area": area, "score": score, "iscrowd": int(crowd)}
        for label, box, area, score, crowd in zip(*(column.tolist() for column in columns), strict=True)
    ]
    if kind == "mask":
        rows = [row | {"segmentation": rle} for row, rle in zip(rows, things.masks or (), strict=True)]
    return rows


def _own_areas(things: Things, kind: Kind) -> Array:
    """Pixels of boxes, or of masks: what COCO takes in files of the one or of the other."""
    if kind == "box" or not things.masks:
        return things.boxes[:, 2] * things.boxes[:, 3]
    return coco_masks().area(list(things.masks)).astype(float)
