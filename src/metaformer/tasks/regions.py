"""Region maps judged: intersection over union, accuracy, and how well the boundaries fit. Counts add up over ranks."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import fsum, hypot
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaformer.core.ranks import ALONE, Ranks
from metaformer.data.truth import VOID

TOLERANCE = 0.0075
"""How far boundaries may lie apart and fit, in parts of the image's diagonal (Csurka et al. 2013, section 3)."""

Answer = tuple[int | str, Tensor, Tensor]
"""An image's id, its map (H, W) of what is there, and the one that was found."""


@dataclass(frozen=True, eq=False)
class Mapped:
    """One image's answer."""

    image_id: int | str
    iou: float | None
    """Mean over the classes that are there or were found; None where all is void."""
    boundary: tuple[float | None, ...]
    """F of each class's boundary; None for a class that neither is there nor was found. Empty where it was not asked for."""


def judge(
    answers: Iterable[Answer], classes: Sequence[str], ranks: Ranks = ALONE, *, boundaries: bool = True
) -> "RegionEvaluation":
    """Judges maps of images, each given once. Of several ranks each gives its own; each learns the whole.

    Without `boundaries`, which take most of the time, their F is None.
    Raises ValueError where a map has a label that no class has.
    """
    C = len(classes)
    counts = torch.zeros(C, C, dtype=torch.int64)
    own: list[Mapped] = []
    for image_id, there, found in answers:
        assert there.shape == found.shape, f"{image_id}: maps of {tuple(there.shape)} and {tuple(found.shape)}"
        there, found = there.cpu().long(), found.cpu().long()
        added = _counted(image_id, there, found, C)
        counts += added
        boundary = boundary_f(there.numpy(), found.numpy(), C) if boundaries else ()
        own.append(Mapped(image_id, _mean(_iou(added)), boundary))
    everything = [one for part in ranks.gathered(own) for one in part]
    everything.sort(key=lambda one: (isinstance(one.image_id, str), one.image_id))
    assert len({one.image_id for one in everything}) == len(everything), "an image was given twice"
    return RegionEvaluation(torch.stack(ranks.gathered(counts)).sum(0), tuple(everything), tuple(classes))


def _counted(image_id: int | str, there: Tensor, found: Tensor, classes: int) -> Tensor:
    """(classes, classes): pixels of the row's class that were called the column's; void ones of the truth left out."""
    there, found = there[there != VOID], found[there != VOID]
    for what, values in (("truth", there), ("answer", found)):
        wrong = values[(values < 0) | (values >= classes)]
        if len(wrong):
            raise ValueError(
                f"image {image_id}: its {what} has the label {int(wrong[0])}, and there are {classes} classes: "
                f"0 to {classes - 1} are allowed, and {VOID} in a truth for what is not to be judged"
            )
    return torch.bincount(there * classes + found, minlength=classes * classes).view(classes, classes)


@dataclass(frozen=True)
class ClassFigures:
    """One class, 0 to 1; None where it neither is nor was found."""

    iou: float | None
    accuracy: float | None
    """Part of its pixels that were called it."""
    boundary: float | None
    pixels: int


@dataclass(frozen=True, eq=False)
class RegionEvaluation:
    """What was found in every image of a set, beside what is there."""

    counts: Tensor
    """(classes, classes): pixels of the row's class that were called the column's."""
    images: tuple[Mapped, ...]
    classes: tuple[str, ...]
    loss: float | None = None
    """Mean cross entropy of the pixels that somebody was asked about, where it was measured."""

    def __repr__(self) -> str:
        return f"RegionEvaluation(mIoU {self.scores['miou']:.2f} %, {len(self.images):,} images)"

    @cached_property
    def per_class(self) -> tuple[ClassFigures, ...]:
        """The figures of each class. Its boundary F is the mean over the images where it is or was found."""
        accuracy = _defined(self.counts.diagonal().double() / self.counts.sum(1))
        boundary = [_mean(list(column)) for column in zip(*(one.boundary for one in self.images), strict=True)]
        rows = (_iou(self.counts), accuracy, boundary or [None] * len(self.classes), self.counts.sum(1).tolist())
        return tuple(ClassFigures(*row) for row in zip(*rows, strict=True))

    @property
    def miou(self) -> float | None:
        """Mean intersection over union of the classes that are there or were found, over the pixels of all images."""
        return _mean([figures.iou for figures in self.per_class])

    @property
    def pixel_accuracy(self) -> float | None:
        """Part of the pixels that were called what they are."""
        total = int(self.counts.sum())
        return int(self.counts.diagonal().sum()) / total if total else None

    @property
    def mean_accuracy(self) -> float | None:
        """Mean over the classes that are there of the part of their pixels that was found."""
        return _mean([figures.accuracy for figures in self.per_class])

    @property
    def boundary(self) -> float | None:
        """Mean over images of the mean over each image's classes: see `boundary_f`."""
        return _mean([_mean(list(one.boundary)) for one in self.images])

    @property
    def scores(self) -> dict[str, float]:
        """What an epoch is judged by, in percent."""
        return {"miou": 100 * (self.miou or 0.0)}

    def worst(self) -> list[int]:
        """The images' numbers, the lowest mean IoU of one's own first (Csurka et al. 2013, section 4); void ones left out."""
        known = [(one.iou, place) for place, one in enumerate(self.images) if one.iou is not None]
        return [place for _, place in sorted(known)]

    def summary(self) -> dict[str, Any]:
        """The figures, JSON-ready, 0 to 1. What is undefined is None."""
        return {
            "miou": self.miou,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "boundary_f": self.boundary,
            "images": len(self.images),
            "per_class": {name: asdict(figures) for name, figures in zip(self.classes, self.per_class, strict=True)},
        }


def _iou(counts: Tensor) -> list[float | None]:
    hits = counts.diagonal()
    return _defined(hits.double() / (counts.sum(0) + counts.sum(1) - hits))


def _defined(ratios: Tensor) -> list[float | None]:
    return [None if np.isnan(value) else value for value in ratios.tolist()]


def _mean(values: Sequence[float | None]) -> float | None:
    """Of those that are defined; summed without rounding, so that their order changes nothing."""
    known = [value for value in values if value is not None]
    return fsum(known) / len(known) if known else None


def boundary_f(there: NDArray[Any], found: NDArray[Any], classes: int) -> tuple[float | None, ...]:
    """F of each class's boundary in one image's maps (H, W); None for a class that is in neither.

    The harmonic mean of two parts: of the found boundary's pixels, how many lie near the true boundary, and the other way
    round (Csurka et al. 2013, section 3: "BF"; near is 0.75 % of the diagonal, at least a pixel). A pixel is on its class's
    boundary where one beside it is of another class; what is beside void or the image's edge is not. Where one of two
    has no boundary F is 0, where both have none, 1 (as in DAVIS: Perazzi et al. 2016).
    """
    judged = there != VOID
    edges = _edge(there, judged), _edge(found, judged)
    near = max(1.0, TOLERANCE * hypot(*there.shape))
    figures: list[float | None] = [None] * classes
    for c in np.union1d(there[judged], found[judged]).tolist():
        true, called = (np.argwhere(edge & (values == c)) for edge, values in zip(edges, (there, found), strict=True))
        figures[c] = _f(_near(called, true, near), _near(true, called, near))
    return tuple(figures)


def _edge(values: NDArray[Any], judged: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a pixel has one of another class above, below, left or right of it."""
    edge = np.zeros(values.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (values[one] != values[other]) & judged[one] & judged[other]
        edge[one] |= differs
        edge[other] |= differs
    return edge


def _near(points: NDArray[Any], others: NDArray[Any], distance: float) -> float | None:
    """The part of the points (N, 2) that has another within a distance; None where there are no points."""
    from scipy.spatial import KDTree

    if not len(points):
        return None
    if not len(others):
        return 0.0
    apart, _ = KDTree(others).query(points, distance_upper_bound=distance * (1 + 1e-9))  # the bound itself is out
    return float(np.isfinite(apart).mean())


def _f(precision: float | None, recall: float | None) -> float:
    if precision is None or recall is None:
        return 1.0 if precision is recall else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
