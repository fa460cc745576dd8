"""What the rows of a study say: means over seeds, intervals over images and seeds, and what sets a row apart from its base."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median, stdev

import torch
from scipy.stats import norm as normal
from scipy.stats import t as student
from scipy.stats import ttest_rel
from torch import Tensor

from metaformer.lab.study import Study
from metaformer.lab.study_results import FINISHED, Result
from metaformer.tasks.bootstrap import LEVEL, Bootstrap, interval
from metaformer.tasks.paired import sign_flip

TIMES = 2000
"""Resamples."""
LEAST = 3
"""Seeds below which nothing is decided: of one it is not told what it happens to give from what a row is worth, and of two
an interval holds the truth too seldom."""


@dataclass(frozen=True)
class Interval:
    """A figure in percent or points, and where 95 % of its resamples lie."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """Points above another row on the same images, seed by seed."""

    seeds: int
    p_images: float
    """That images are so uneven by chance, the trained models being what they are (`sign_flip`)."""
    p_seeds: float | None
    """That seeds are, by Student's paired t-test; None of a single one, or where all differ by as much."""

    @property
    def apart(self) -> bool:
        """Whether the interval leaves out 0, of as many seeds as it takes."""
        return self.seeds >= LEAST and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Standing:
    """A row, with all its seeds."""

    row: str
    base: str
    published: float | None
    note: str
    results: tuple[Result, ...]
    """Of each seed that is known, failed ones too."""
    top1: Interval | None
    deviation: float | None
    """Between seeds, in points; None of fewer than two."""
    difference: Difference | None
    """To the base; None of the base itself."""
    rate: float | None = None
    """Images/s of a forward pass."""

    @property
    def finished(self) -> tuple[Result, ...]:
        """Seeds that were trained to the end."""
        return tuple(one for one in self.results if one.state == FINISHED)

    @property
    def any(self) -> Result | None:
        """One of its results, for what is the same in all."""
        return next(iter(self.finished or self.results), None)

    @property
    def peak(self) -> int | None:
        """Bytes that training held at most, the median of the seeds."""
        peaks = [one.peak for one in self.finished if one.peak is not None]
        return round(median(peaks)) if peaks else None


class Figures:
    """Resamples of every row's images, the same of all rows."""

    def __init__(self, study: Study, results: Sequence[Result], rights: Mapping[str, Tensor]) -> None:
        """`rights` (N,) by the key of the result."""
        self.study = study
        self.results = {row.name: tuple(one for one in results if one.row == row.name) for row in study.rows}
        self.rights = {
            (one.row, one.seed): rights[one.key].double() for one in results if one.state == FINISHED and one.key in rights
        }

    @cached_property
    def drawn(self) -> dict[tuple[str, int], Tensor]:
        """(times,) of each row and seed: percent right of images drawn with replacement."""
        if not self.rights:
            return {}
        values = torch.stack([*self.rights.values()], 1)
        return dict(zip(self.rights, (100 * Bootstrap(len(values), TIMES).means(values)).T, strict=True))

    def seeds(self, *rows: str) -> list[int]:
        """Those that all these rows have finished."""
        found = [{seed for name, seed in self.rights if name == row} for row in rows]
        return sorted(set.intersection(*found))

    def combined(self, weights: Mapping[str, float], constant: float = 0.0) -> Interval | None:
        """The weighted sum of rows' top-1 and a constant, seed by seed; None where they have no seed in common."""
        seeds = self.seeds(*weights)
        if not seeds:
            return None
        right = 100 * self._summed(weights, self.rights, seeds)
        low, high = interval(resampled(self._summed(weights, self.drawn, seeds), right)) or (math.nan, math.nan)
        return Interval(right.mean().item() + constant, low + constant, high + constant)

    def _summed(self, weights: Mapping[str, float], values: Mapping[tuple[str, int], Tensor], seeds: Sequence[int]) -> Tensor:
        """(K, seeds): the weighted sum of rows' values (K,)."""
        return torch.stack([torch.stack([w * values[row, seed] for row, w in weights.items()]).sum(0) for seed in seeds], 1)

    def difference(self, row: str, base: str) -> Difference | None:
        """How many points a row is above another."""
        found = self.combined({row: 1.0, base: -1.0})
        if found is None:
            return None
        seeds = self.seeds(row, base)
        images = torch.stack([self.rights[row, seed] - self.rights[base, seed] for seed in seeds]).sum(0).long()
        one, other = ([self.rights[name, seed].mean().item() for seed in seeds] for name in (row, base))
        alike = len({round(a - b, 12) for a, b in zip(one, other, strict=True)}) == 1
        p_seeds = None if alike else float(ttest_rel(one, other).pvalue)
        return Difference(found.value, found.low, found.high, len(seeds), sign_flip(images), p_seeds)

    def standings(self, rates: Mapping[str, float]) -> list[Standing]:
        """Every row in the study's order; `rates` in images/s by row."""
        found = []
        for row in self.study.rows:
            base, results = self.study.base(row.name), self.results[row.name]
            scores = [one.top1 for one in results if one.state == FINISHED and one.top1 is not None]
            found.append(
                Standing(
                    row=row.name, base=base, published=row.published, note=row.note, results=results,
                    top1=self.combined({row.name: 1.0}),
                    deviation=stdev(scores) if len(scores) > 1 else None,
                    difference=None if base == row.name else self.difference(row.name, base),
                    rate=rates.get(row.name),
                )
            )  # fmt: skip
        return found


def resampled(each: Tensor, values: Tensor) -> Tensor:
    """(times,): means of values (images, seeds) over images and seeds that are drawn with replacement; `each` (times, seeds)
    are those over images alone.

    The mean of S seeds drawn from S varies by (S - 1) / S of what it should, so that it is put as much farther from the mean
    of all (Efron and Tibshirani 1993, section 5.3), and less where seeds differ because the images are few (`of_seeds`), which
    resampling images has shown already. How much they vary is known badly all the same: bootstrap intervals are expanded by
    Student's t over the normal quantile (Hesterberg 2015, What Teachers Should Know About the Bootstrap), with the degrees of
    freedom of a sum of two variances of which only the seeds' is known badly (Satterthwaite 1946).
    """
    times, seeds = each.shape
    middle = each.mean(1)
    between = values.mean(0).var().item() / seeds if seeds > 1 else 0.0
    if between == 0:
        return middle
    part = of_seeds(values)
    places = torch.randint(seeds, (times, seeds), generator=torch.Generator().manual_seed(1))
    drawn = middle + math.sqrt(part * seeds / (seeds - 1)) * (each.gather(1, places).mean(1) - middle)
    freedom = (seeds - 1) * ((middle.var().item() + part * between) / between) ** 2
    upper = (1 + LEVEL) / 2
    return drawn.mean() + float(student.ppf(upper, freedom) / normal.ppf(upper)) * (drawn - drawn.mean())


def of_seeds(values: Tensor) -> float:
    """The part of the variance between seeds that is theirs: what images (images, seeds), each by itself, do not explain in an
    analysis of variance. Of two seeds it is all of it, as one difference does not tell what it comes from."""
    images, seeds = values.shape
    if seeds == 2:
        return 1.0
    means = values.mean(0)
    rest = values - values.mean(1)[:, None] - means + means.mean()
    noise = rest.square().sum().item() / ((images - 1) * (seeds - 1)) / images
    return max(0.0, 1 - noise / means.var().item())
