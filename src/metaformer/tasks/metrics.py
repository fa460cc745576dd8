"""Figures of a classifier from probabilities or logits (N, classes) and labels (N,): in float64, equal to scikit-learn's.

What is undefined (the recall of a class with no image, say) is None, never NaN and never a zero that looks measured.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15


def top_k(scores: Tensor, labels: Tensor, k: int) -> float:
    """Part of the images whose label is among the k highest scores; of equal scores the lower class comes first."""
    own = scores.gather(1, labels.unsqueeze(1))
    before = torch.arange(scores.shape[1]) < labels.unsqueeze(1)
    rank = ((scores > own) | ((scores == own) & before)).sum(1)
    return (rank < k).double().mean().item()


def wilson(part: float, total: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a part of `total` independent trials at a confidence level (Wilson 1927), right at 0, at 1 and for few."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = part + z * z / (2 * total)
    half = z * math.sqrt(part * (1 - part) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def paired_drop(lost: int, gained: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of the part of `total` trials that a second try lost, when it failed `lost` and mended `gained` of the first's.

    Wald's, with half a trial added to each of the four outcomes of a pair (Agresti and Min 2005).
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    count = total + 2
    middle, changed = (lost - gained) / count, (lost + gained + 1) / count
    half = z * math.sqrt((changed - middle**2) / count)
    return middle - half, middle + half


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(classes, classes): how many images of the row's class were called the column's."""
    return torch.bincount(labels * classes + predicted, minlength=classes * classes).view(classes, classes)


@dataclass(frozen=True)
class ClassFigures:
    """One class against the rest. Support is its number of images; precision is None where nothing was called it."""

    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    auc: float | None


def per_class(probabilities: Tensor, predicted: Tensor, labels: Tensor) -> list[ClassFigures]:
    """Precision, recall, F1, support and area under the ROC curve of each class."""
    counts = confusion(predicted, labels, probabilities.shape[1])
    hits, called, support = counts.diagonal().double(), counts.sum(0), counts.sum(1)
    rows = zip(
        _defined(hits / called), _defined(hits / support), _defined(2 * hits / (called + support)), support.tolist(),
        strict=True,
    )  # fmt: skip
    columns = probabilities.T.contiguous()
    return [ClassFigures(*row, auc(columns[place], labels == place)) for place, row in enumerate(rows)]


def _defined(ratios: Tensor) -> list[float | None]:
    return [None if math.isnan(value) else value for value in ratios.tolist()]


def mean(values: list[float | None]) -> float | None:
    """Of those that are defined: the macro average."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def roc(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor] | None:
    """False and true positive rates from (0, 0) to (1, 1), a point per distinct score (N,), so that ties make a slope.

    None where one side has no image.
    """
    order = scores.argsort(descending=True)
    scores, positive = scores[order], positive[order]
    last = torch.cat([scores[1:] != scores[:-1], torch.ones(1, dtype=torch.bool)])  # of its run of equal scores
    true, false = (F.pad(side.cumsum(0)[last], (1, 0)).double() for side in (positive, ~positive))
    if not true[-1] or not false[-1]:
        return None
    return false / false[-1], true / true[-1]


def auc(scores: Tensor, positive: Tensor) -> float | None:
    """Area under the ROC curve: how often a positive scores above a negative, a tie counting half (Mann and Whitney 1947).

    From the ranks of the positives, so that only values are sorted: a thousand classes of 50,000 images take seconds.
    """
    values, chosen = scores.numpy(), positive.numpy()
    own = values[chosen]
    others = len(values) - len(own)
    if not len(own) or not others:
        return None
    ordered = np.sort(values)
    ranks = (np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right") + 1) / 2
    return float(ranks.sum() - len(own) * (len(own) + 1) / 2) / (len(own) * others)


def average_precision(scores: Tensor, positive: Tensor) -> float | None:
    """Area under the curve of precision over recall, as a sum of steps, one per distinct score. None without a positive."""
    order = scores.argsort(descending=True)
    scores, positive = scores[order], positive[order]
    last = torch.cat([scores[1:] != scores[:-1], torch.ones(1, dtype=torch.bool)])  # of its run of equal scores
    true = F.pad(positive.cumsum(0)[last], (1, 0)).double()
    called = last.nonzero().flatten() + 1
    return None if not true[-1] else (true.diff() * true[1:] / called).sum().item() / true[-1].item()


def several(probabilities: Tensor, called: Tensor, truth: Tensor) -> list["LabelFigures"]:
    """The figures of each label, where an image may have several: all are (N, classes), the last two of booleans."""
    hits, both, support = (called & truth).sum(0).double(), called.sum(0) + truth.sum(0), truth.sum(0)
    precision, recall, f1 = (_defined(ratio) for ratio in (hits / called.sum(0), hits / support, 2 * hits / both))
    rows = zip(precision, recall, f1, support.tolist(), strict=True)
    columns, present = probabilities.T.contiguous(), truth.T.contiguous()
    return [
        LabelFigures(*row, auc(scores, own), average_precision(scores, own))
        for row, scores, own in zip(rows, columns, present, strict=True)
    ]


def micro_f1(called: Tensor, truth: Tensor) -> float | None:
    """F1 over all pairs of an image and a label (N, classes); None where no label is given and none is right."""
    both = int(called.sum() + truth.sum())
    return 2 * int((called & truth).sum()) / both if both else None


@dataclass(frozen=True)
class LabelFigures(ClassFigures):
    """One label against its absence, and its average precision."""

    ap: float | None


def nll(logits: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood: cross entropy, not smoothed."""
    return F.cross_entropy(logits.double(), labels).item()


def brier(probabilities: Tensor, labels: Tensor) -> float:
    """Mean squared distance of the probabilities from the one-hot truth, summed over classes: 0 to 2 (Brier 1950)."""
    own = probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
    return (probabilities.square().sum(1) - 2 * own + 1).mean().item()


@dataclass(frozen=True)
class Bin:
    """Images whose confidence lies in (low, high]: their number, mean confidence and part that is right."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


def _binned(confidence: Tensor, right: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The bins' edges, and in each its images, the sum of their confidences, and how many are right."""
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    place = torch.bucketize(confidence.double(), edges[1:-1])
    images, sums, hits = (
        torch.bincount(place, weights, minlength=bins) for weights in (None, confidence.double(), right.double())
    )
    return edges, images, sums, hits


def reliability(confidence: Tensor, right: Tensor, bins: int = BINS) -> list[Bin]:
    """The reliability diagram: bins of equal width over the highest probability of each image (N,), and whether it is right."""
    edges, images, sums, hits = _binned(confidence, right, bins)
    means, parts = _defined(sums / images), _defined(hits / images)
    return [Bin(*row) for row in zip(edges[:-1].tolist(), edges[1:].tolist(), images.tolist(), means, parts, strict=True)]


def ece(confidence: Tensor, right: Tensor, bins: int = BINS) -> float:
    """Expected calibration error: Σ over bins of (images in it / N) · |accuracy − mean confidence|.

    15 bins of equal width over the highest probability; Guo et al., On Calibration of Modern Neural Networks, 2017, eq. 3.
    """
    _, _, sums, hits = _binned(confidence, right, bins)
    return (hits - sums).abs().sum().item() / len(right)


COLDEST, HOTTEST = 0.05, 20.0


def fit_temperature(logits: Tensor, labels: Tensor) -> float | None:
    """The T for which softmax(logits / T) has the lowest NLL (Guo et al. 2017, section 4.2).

    NLL is convex in 1/T: Newton's method finds where its slope is 0, halving the interval wherever a step would leave it.
    None where no T from 0.05 to 20 is best, as when every image is right.
    """
    z = logits.double()
    own = z.gather(1, labels.unsqueeze(1)).mean()

    def slope(log_scale: float) -> tuple[float, float]:
        """Of NLL by 1/T, and the slope's own slope by log 1/T."""
        p = (z * math.exp(log_scale)).softmax(1)
        first = (p * z).sum(1)
        second = p.mul_(z).mul_(z).sum(1)
        return (first.mean() - own).item(), math.exp(log_scale) * (second - first.square()).mean().item()

    low, high = -math.log(HOTTEST), -math.log(COLDEST)
    if slope(low)[0] >= 0 or slope(high)[0] <= 0:
        return None
    here = 0.0
    while high - low > 1e-9:
        value, rise = slope(here)
        low, high = (low, here) if value > 0 else (here, high)
        step = value / rise if rise > 0 else math.inf
        if abs(step) < 1e-9:
            break
        here = here - step if low < here - step < high else (low + high) / 2
    return math.exp(-here)


@dataclass(frozen=True)
class TemperatureCheck:
    """A temperature fitted on one half of the images, and what it does on the other half, which it has not seen."""

    temperature: float | None
    """None where no temperature is best for the half that it is fitted on."""
    fitted_on: int
    judged_on: int
    ece_before: float
    ece_after: float | None
    nll_before: float
    nll_after: float | None


def halves(images: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The numbers of the images that a temperature is fitted on, and of those that judge it."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    return order[: images // 2], order[images // 2 :]


def check_temperature(logits: Tensor, labels: Tensor, seed: int = 0) -> TemperatureCheck | None:
    """Halves drawn by `seed`. None for fewer than two images."""
    if len(labels) < 2:
        return None
    seen, unseen = halves(len(labels), seed)
    temperature = fit_temperature(logits[seen], labels[seen])
    before, truth = logits[unseen].double(), labels[unseen]
    right = before.argmax(1) == truth
    after = None if temperature is None else before / temperature
    return TemperatureCheck(
        temperature,
        fitted_on=len(seen),
        judged_on=len(unseen),
        ece_before=ece(before.softmax(1).amax(1), right),
        ece_after=None if after is None else ece(after.softmax(1).amax(1), right),
        nll_before=nll(before, truth),
        nll_after=None if after is None else nll(after, truth),
    )
