"""Bootstrap intervals: every figure again on images drawn with replacement, many at a time, from one seed.

Figures of two models drawn with one seed are of the same images, so that their differences are a paired bootstrap
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993; percentile intervals, chapter 13).

Calibration errors are sums of absolute values, which resamples with their repeated images only make greater: the percentiles
may all lie above the figure. Theirs are normal intervals (chapter 12): the figure and its bootstrap standard error.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from metaformer.tasks import metrics, selective

LEVEL = 0.95
AT_ONCE = 4_000_000
"""Numbers in a part of the work."""
MOST = 20_000_000_000
"""Images times classes times resamples up to which areas under ROC curves are drawn again too: a minute of work."""

Drawn = dict[str, Tensor]
"""A figure's values on each resample, (times,) or (times, classes), by its name."""


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of so many images."""

    images: int
    times: int = 1000
    seed: int = 0

    def counts(self) -> Iterator[Tensor]:
        """How often each image is drawn: (part, images) of float64, as many rows in all as there are resamples."""
        draw = torch.Generator().manual_seed(self.seed)
        part = max(1, AT_ONCE // self.images)
        for start in range(0, self.times, part):
            rows = min(part, self.times - start)
            places = torch.randint(self.images, (rows, self.images), generator=draw)
            places += torch.arange(rows).unsqueeze(1) * self.images
            counted = torch.bincount(places.flatten(), minlength=rows * self.images)
            yield counted.view(rows, self.images).double()

    def means(self, values: Tensor) -> Tensor:
        """(times, K): means of values (images, K)."""
        return self._each(lambda counts: counts @ values.double() / self.images)

    def eces(self, confidence: Tensor, right: Tensor) -> Tensor:
        """(times, K): expected calibration errors (`metrics.ece`) of confidences and hits (images, K)."""
        gaps = torch.stack([_gaps(*pair) for pair in zip(confidence.T, right.T, strict=True)], 1)
        flat = gaps.flatten(1)
        return self._each(lambda counts: (counts @ flat).view(-1, *gaps.shape[1:]).abs().sum(2) / self.images)

    def figures(self, logits: Tensor, labels: Tensor) -> Drawn:
        """The figures of answers (images, classes): those of `Evaluation.summary`, of each class too, and of `selective`."""
        probabilities, hit = logits.double().softmax(1), logits.argmax(1) == labels
        confidence, classes = probabilities.amax(1), logits.shape[1]
        each = {"top1": 100 * hit.double(), "loss": -logits.double().log_softmax(1).gather(1, labels[:, None])[:, 0]}
        own = probabilities.gather(1, labels[:, None])[:, 0]
        each["brier"] = probabilities.square().sum(1) - 2 * own + 1
        if classes > 5:
            each["top5"] = 100.0 * _within(logits, labels, 5)
        drawn = dict(zip(each, self.means(torch.stack([*each.values()], 1)).T, strict=True))
        drawn["ece"] = self.eces(confidence[:, None], hit[:, None])[:, 0]
        drawn |= dict(zip(selective.NAMES, self._each(_selective(confidence, hit)).unbind(1), strict=True))
        table = self._each(lambda counts: _table(counts, logits.argmax(1), labels, classes))
        drawn |= dict(zip(("precision", "recall", "f1"), table.unbind(1), strict=True))
        drawn["macro_f1"] = drawn["f1"].nanmean(1)
        if self.images * classes * self.times <= MOST:
            drawn["auc"] = self._each(lambda counts: _aucs(counts, probabilities, labels))
            drawn["macro_auc"] = drawn["auc"].nanmean(1)
        return drawn

    def _each(self, figure: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.cat([figure(counts) for counts in self.counts()])


def interval(drawn: Tensor, level: float = LEVEL) -> tuple[float, float] | None:
    """The percentile interval of a figure's values (times,); None where it is undefined on most resamples."""
    known = drawn[drawn.isfinite()]
    if 2 * len(known) < len(drawn):
        return None
    low, high = known.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=known.dtype)).tolist()
    return low, high


def around(value: float, drawn: Tensor, level: float = LEVEL) -> tuple[float, float]:
    """The normal interval of a calibration error, by the standard error of its values (times,); cut at 0 and 1."""
    reach = NormalDist().inv_cdf((1 + level) / 2) * drawn.std().item()
    return max(0.0, value - reach), min(1.0, value + reach)


def _within(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """(N,): 1 where the label is among the k highest; of equal logits the lower class comes first, as in `metrics.top_k`."""
    own = logits.gather(1, labels[:, None])
    before = (logits > own) | ((logits == own) & (torch.arange(logits.shape[1]) < labels[:, None]))
    return (before.sum(1) < k).double()


def _gaps(confidence: Tensor, right: Tensor) -> Tensor:
    """(N, bins): whether it is right minus its confidence, in the column of its bin."""
    edges = torch.linspace(0, 1, metrics.BINS + 1, dtype=torch.float64)
    place = torch.bucketize(confidence.double().contiguous(), edges[1:-1])
    return torch.zeros(len(right), metrics.BINS, dtype=torch.float64).scatter_(
        1, place[:, None], (right.double() - confidence.double())[:, None]
    )


def _selective(confidence: Tensor, hit: Tensor) -> Callable[[Tensor], Tensor]:
    """`selective.figures` of resamples: (part, figures)."""
    order, wrong = selective.expected_errors(confidence, hit)

    def drawn(counts: Tensor) -> Tensor:
        often = counts[:, order].long().flatten()
        errors = wrong.repeat(len(counts)).repeat_interleave(often).view(len(counts), -1)
        return selective.figures(selective.risks(errors))

    return drawn


def _table(counts: Tensor, predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(part, 3, classes): precision, recall and F1, NaN where undefined."""

    def summed(place: Tensor, weights: Tensor) -> Tensor:
        return torch.zeros(len(counts), classes, dtype=torch.float64).index_add_(1, place, weights)

    hits = summed(labels, counts * (predicted == labels))
    called, support = summed(predicted, counts), summed(labels, counts)
    return torch.stack([hits / called, hits / support, 2 * hits / (called + support)], 1)


def _aucs(counts: Tensor, probabilities: Tensor, labels: Tensor) -> Tensor:
    """(part, classes): areas under the ROC curves, a tie counting half; NaN where a class or all others are not drawn."""
    areas = []
    for place in range(probabilities.shape[1]):
        scores, order = probabilities[:, place].sort()
        mine = (labels[order] == place).nonzero().flatten()
        weights = counts[:, order]
        own = weights[:, mine]
        weights[:, mine] = 0
        below = torch.nn.functional.pad(weights.cumsum(1), (1, 0))
        first, last = (torch.searchsorted(scores, scores[mine].contiguous(), right=end) for end in (False, True))
        ahead = (own * (below[:, first] + below[:, last]) / 2).sum(1)
        areas.append(ahead / (own.sum(1) * below[:, -1]))
    return torch.stack(areas, 1)
