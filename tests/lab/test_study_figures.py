"""Means, intervals and tests of a study, against scipy and by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from tests.studied import result, rights_of

from metaformer.lab.study import Row, Study
from metaformer.lab.study_figures import Figures, over_seeds

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


def test_seeds_vary_by_what_they_should() -> None:
    """Of values that only seeds make differ, the resampled mean has the variance s² / S, which plain resampling has not."""
    values = torch.tensor([1.0, 4.0, 10.0])
    drawn = over_seeds(values.expand(200_000, 3).double())
    assert drawn.mean().item() == pytest.approx(5.0, abs=0.05)
    assert drawn.var().item() == pytest.approx(values.var().item() / 3, rel=0.02)
    assert torch.equal(over_seeds(values[:1].expand(5, 1)), values[:1].expand(5))


def test_intervals_cover_what_they_promise() -> None:
    """Studies drawn from a known truth: seeds differ by half a point, images by chance."""
    random, inside, times = np.random.default_rng(0), 0, 60
    for _ in range(times):
        images = random.random(IMAGES)
        shares = 0.7 + 0.02 * random.standard_normal(3)
        rights = {
            f"base-{seed}": torch.from_numpy(random.random(IMAGES) < share + 0.2 * (images - 0.5))
            for seed, share in enumerate(shares)
        }
        results = [
            result("base", seed, top1=100 * rights[f"base-{seed}"].double().mean().item(), images=IMAGES) for seed in range(3)
        ]
        found = Figures(STUDY, results, rights).combined({"base": 1.0})
        assert found is not None
        inside += found.low < 70 < found.high
    assert 0.8 < inside / times <= 1.0


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
