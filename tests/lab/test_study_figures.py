"""Means, intervals and tests of a study, against scipy and by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from tests.studied import result, rights_of

from metaformer.lab import study_figures
from metaformer.lab.study import Row, Study
from metaformer.lab.study_figures import Figures, of_seeds, resampled

STUDY = Study(name="made", rows=(Row("base"), Row("better"), Row("lone", against="lone")))
IMAGES = 400


def figures(**shares: list[float]) -> Figures:
    """Of rows that call such parts of the images right, a number per seed."""
    results, rights = rights_of(shares, IMAGES)
    return Figures(STUDY, results, rights)


def test_means_and_deviations_are_those_of_the_seeds() -> None:
    found = figures(base=[0.5, 0.52, 0.57], better=[0.6, 0.61, 0.66])
    base, better, lone = found.standings({"better": 7.0})
    scores = [[100 * share for share in shares] for shares in ([0.5, 0.52, 0.57], [0.6, 0.61, 0.66])]
    for standing, values in zip((base, better), scores, strict=True):
        assert standing.top1 is not None
        assert standing.top1.value == pytest.approx(np.mean(values))
        assert standing.deviation == pytest.approx(np.std(values, ddof=1))
        assert standing.top1.low < standing.top1.value < standing.top1.high
    assert (base.difference, base.rate, better.rate) == (None, None, 7.0)
    assert better.difference is not None
    assert better.difference.value == pytest.approx(np.mean(scores[1]) - np.mean(scores[0]))
    assert better.difference.seeds == 3
    assert better.difference.p_seeds == pytest.approx(stats.ttest_rel(scores[1], scores[0]).pvalue)
    assert (lone.top1, lone.deviation, lone.difference, lone.any) == (None, None, None, None)


def test_the_interval_of_one_seed_is_scipy_s_bootstrap_of_images() -> None:
    found = figures(base=[0.8], better=[0.85])
    for row, share in (("base", 0.8), ("better", 0.85)):
        one = found.combined({row: 1.0})
        assert one is not None
        values = (100 * np.r_[np.ones(round(share * IMAGES)), np.zeros(IMAGES - round(share * IMAGES))],)
        theirs = stats.bootstrap(values, np.mean, method="percentile", n_resamples=4000, rng=0).confidence_interval
        assert (one.low, one.high) == pytest.approx((theirs.low, theirs.high), abs=0.4)
    paired = found.difference("better", "base")
    assert paired is not None
    gaps = (100 * (found.rights["better", 0] - found.rights["base", 0]).numpy(),)
    theirs = stats.bootstrap(gaps, np.mean, method="percentile", n_resamples=4000, rng=0).confidence_interval
    assert (paired.low, paired.high) == pytest.approx((theirs.low, theirs.high), abs=0.4)
    ups, downs = int((gaps[0] > 0).sum()), int((gaps[0] < 0).sum())
    assert paired.p_images == pytest.approx(stats.binomtest(ups, ups + downs).pvalue)
    assert paired.p_seeds is None


def test_a_single_seed_tells_of_images_alone() -> None:
    values = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(resampled(values, values), values[:, 0])


def test_seeds_vary_by_what_they_should() -> None:
    """Of values that only seeds make differ, the resampled mean has the variance s² / S, which plain resampling has not; and
    its interval is that of Student's t, not of the normal."""
    values = torch.tensor([1.0, 4.0, 10.0]).double()
    drawn = resampled(values.expand(200_000, 3), values.expand(50, 3))
    wide = stats.t.ppf(0.975, 2) / stats.norm.ppf(0.975)
    assert drawn.mean().item() == pytest.approx(5.0, abs=0.05)
    assert drawn.var().item() == pytest.approx(wide**2 * values.var().item() / 3, rel=0.02)


def test_what_few_images_make_of_seeds_counts_once() -> None:
    """Seeds of 400 images that are alike but for chance have hardly a variance of their own; those that differ have it all."""
    draw = torch.Generator().manual_seed(0)
    chance = torch.randn(400, 200, 3, generator=draw).double()
    alike = [of_seeds(chance[:, i]) for i in range(200)]
    assert np.median(alike) == 0.0
    assert np.mean([of_seeds(chance[:, i] + torch.tensor([0.0, 1.0, 2.0])) for i in range(20)]) > 0.99
    known = of_seeds(torch.tensor([[1.0, 2.0, 9.0], [3.0, 6.0, 9.0]]).double())  # means 2, 4, 9; rest 0 and ±1: 4 / 2 / 2 of 13
    assert known == pytest.approx(1 - 1 / 13)
    assert of_seeds(chance[:, 0, :2]) == 1.0  # one difference does not tell


def test_the_fewer_seeds_decide_the_less_they_widen() -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(20_000, 1, generator=draw).double()
    seeds = torch.tensor([[-1.0, 0.0, 1.0]]).double()  # whose mean has a variance of 1/3
    for size, freedom in ((1e-6, math.inf), (1.0, 2 * (1 + 3) ** 2), (math.sqrt(3), 2 * (1 + 1) ** 2), (1e6, 2)):
        drawn = resampled(images + size * seeds, (size * seeds).expand(50, 3))
        expected = stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975) * math.sqrt(1 + size**2 / 3)
        assert drawn.std().item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("seeds", "between", "least"),
    [
        (3, 0.04, 0.9),
        *(pytest.param(3, between, 0.9, marks=pytest.mark.slow) for between in (0.0, 0.02, 0.08)),
        *(pytest.param(2, between, 0.86, marks=pytest.mark.slow) for between in (0.0, 0.02, 0.08)),
    ],
)
def test_intervals_cover_what_they_promise(seeds: int, between: float, least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 studies that are drawn from a known truth, in one: images are uneven by chance, seeds by `between`."""
    monkeypatch.setattr(study_figures, "TIMES", 500)
    random, gap, studies = np.random.default_rng(0), 0.03, 300
    results, rights = [], {}
    for name, share in ((name, 0.55 + gap * (name == "row")) for name in ("base", "row")):
        for number in range(studies):
            for seed in range(seeds):
                results.append(result(f"{name}-{number}", seed, images=IMAGES))
                rights[results[-1].key] = (share + between * random.standard_normal(), number)
    hard = {number: random.random(IMAGES) for number in range(studies)}  # the same images for all of a study
    drawn = {
        key: torch.from_numpy(hard[number] + 0.1 * random.standard_normal(IMAGES) < share)
        for key, (share, number) in rights.items()
    }
    made = Study(name="made", rows=tuple(Row(f"{name}-{number}") for name in ("base", "row") for number in range(studies)))
    found = Figures(made, results, drawn)
    inside = {"top1": 0, "difference": 0}
    for number in range(studies):
        one = found.combined({f"row-{number}": 1.0})
        both = found.combined({f"row-{number}": 1.0, f"base-{number}": -1.0})
        assert one is not None
        assert both is not None
        inside["top1"] += one.low < 100 * (0.55 + gap) < one.high
        inside["difference"] += both.low < 100 * gap < both.high
    assert least * studies <= min(inside.values()), inside
    assert max(inside.values()) <= 0.99 * studies or seeds == 2, inside


def test_only_seeds_that_both_have_are_compared() -> None:
    found = figures(base=[0.5, 0.6, 0.7], better=[0.6])
    gap = found.difference("better", "base")
    assert gap is not None
    assert (gap.seeds, gap.value) == (1, pytest.approx(10.0))
    assert found.difference("lone", "base") is None
    assert found.combined({"lone": 1.0}) is None


def test_the_same_answers_are_no_difference() -> None:
    results, rights = rights_of({"base": [0.5, 0.6]}, IMAGES)
    results += [result("better", seed, images=IMAGES) for seed in (0, 1)]
    found = Figures(STUDY, results, rights | {f"better-{seed}": rights[f"base-{seed}"] for seed in (0, 1)})
    gap = found.difference("better", "base")
    assert gap is not None
    assert (gap.value, gap.low, gap.high, gap.p_images, gap.p_seeds) == (0.0, 0.0, 0.0, 1.0, None)
    assert not math.isnan(gap.low)
