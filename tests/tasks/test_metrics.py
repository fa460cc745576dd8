"""The figures, against scikit-learn and slow references, and at the edges."""

import json
import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from torch import Tensor

from metaformer.tasks import metrics
from metaformer.tasks.classification import Evaluation

EXACT = 1e-9


def answers(n: int, classes: int, seed: int, *, ties: bool = False) -> tuple[Tensor, Tensor]:
    """Logits that know something, and labels; rounded, so that many are equal, with `ties`."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator) * 2
    logits[torch.arange(n), labels] += 1.5
    return (logits.round() if ties else logits), labels


def named(logits: Tensor, labels: Tensor) -> Evaluation:
    return Evaluation(logits, labels, tuple(f"c{i}" for i in range(logits.shape[1])))


CASES = [(400, 10, False), (400, 10, True), (500, 2, False), (500, 2, True), (60, 7, True), (3000, 100, False)]


@pytest.mark.parametrize(("n", "classes", "ties"), CASES)
def test_equal_to_scikit_learn(n: int, classes: int, ties: bool) -> None:
    judged = named(*answers(n, classes, seed=n + classes, ties=ties))
    p, y, called, every = judged.probabilities.numpy(), judged.labels.numpy(), judged.predicted.numpy(), list(range(classes))
    found = judged.summary()
    assert found["top1"] == pytest.approx(100 * sk.accuracy_score(y, called), abs=EXACT)
    assert found["loss"] == pytest.approx(sk.log_loss(y, p, labels=every), abs=EXACT)
    assert found["brier"] == pytest.approx(sk.brier_score_loss(y, p, labels=every, scale_by_half=False), abs=EXACT)
    assert found["macro_f1"] == pytest.approx(sk.f1_score(y, called, average="macro"), abs=EXACT)
    if classes == 2:
        assert found["macro_auc"] == pytest.approx(sk.roc_auc_score(y, p[:, 1]), abs=EXACT)
    else:
        assert found["macro_auc"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr", labels=every), abs=EXACT)
    if not ties and classes > 5:  # of equal scores scikit-learn takes the higher class first
        assert found["top5"] == pytest.approx(100 * sk.top_k_accuracy_score(y, p, k=5, labels=every), abs=EXACT)
    assert judged.confusion().numpy().tolist() == sk.confusion_matrix(y, called, labels=every).tolist()
    theirs = sk.precision_recall_fscore_support(y, called, labels=every, zero_division=np.nan)
    for place, ours in enumerate(found["per_class"].values()):
        wanted = dict(zip(("precision", "recall", "f1", "support"), (column[place] for column in theirs), strict=True))
        wanted["auc"] = sk.roc_auc_score(y == place, p[:, place])
        assert {key: math.nan if value is None else value for key, value in ours.items()} == pytest.approx(
            wanted, abs=EXACT, nan_ok=True
        )


@pytest.mark.parametrize("ties", [False, True])
def test_roc_is_that_of_scikit_learn(ties: bool) -> None:
    judged = named(*answers(300, 5, seed=3, ties=ties))
    for place in range(5):
        curve = metrics.roc(judged.probabilities[:, place], judged.labels == place)
        assert curve is not None
        false, true, _ = sk.roc_curve(judged.labels == place, judged.probabilities[:, place], drop_intermediate=False)
        np.testing.assert_allclose(curve[0], false, atol=EXACT)
        np.testing.assert_allclose(curve[1], true, atol=EXACT)


def test_reliability_is_that_of_scikit_learn() -> None:
    judged = named(*answers(500, 4, seed=5))
    parts, means = calibration_curve(judged.right.numpy(), judged.confidence.numpy(), n_bins=15)
    bins = [b for b in metrics.reliability(judged.confidence, judged.right) if b.images]
    np.testing.assert_allclose([b.accuracy for b in bins], parts, atol=EXACT)
    np.testing.assert_allclose([b.confidence for b in bins], means, atol=EXACT)
    assert sum(b.images for b in bins) == 500


def slow_ece(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 15) -> float:
    """The definition, bin by bin, as in the paper's own code: lower < confidence <= upper."""
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("seed", range(5))
def test_ece_is_its_definition(seed: int) -> None:
    judged = named(*answers(257, 6, seed))
    expected = slow_ece(judged.confidence.numpy(), judged.right.numpy())
    assert metrics.ece(judged.confidence, judged.right) == pytest.approx(expected, abs=EXACT)
    assert judged.summary()["ece"] == pytest.approx(expected, abs=EXACT)


def test_ece_of_a_known_case() -> None:
    confidence = torch.tensor([0.95, 0.95, 0.55, 0.55], dtype=torch.float64)
    right = torch.tensor([True, True, True, False])
    assert metrics.ece(confidence, right) == pytest.approx((2 * 0.05 + 2 * 0.05) / 4)
    assert metrics.ece(torch.ones(8), torch.ones(8, dtype=torch.bool)) == 0


def test_a_bin_holds_its_upper_edge() -> None:
    found = metrics.reliability(torch.tensor([0.5, 0.50001, 1.0]), torch.tensor([True, True, True]), bins=2)
    assert [b.images for b in found] == [1, 2]


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (0, 40), (342, 360), (9300, 10000), (4, 4)])
def test_wilson_is_that_of_scipy(right: int, total: int) -> None:
    interval = binomtest(right, total).proportion_ci(method="wilson")
    assert metrics.wilson(right / total, total) == pytest.approx((interval.low, interval.high), abs=EXACT)


def test_paired_drop_by_hand_and_by_trial() -> None:
    middle, half = 6 / 1002, 1.959963984540054 * math.sqrt((15 / 1002 - (6 / 1002) ** 2) / 1002)
    assert metrics.paired_drop(10, 4, 1000) == pytest.approx((middle - half, middle + half), abs=EXACT)
    assert metrics.paired_drop(4, 10, 1000) == pytest.approx((-middle - half, -middle + half), abs=EXACT)
    assert metrics.paired_drop(0, 0, 50)[0] < 0 < metrics.paired_drop(0, 0, 50)[1]
    draws = np.random.default_rng(0).multinomial(1000, (0.97, 0.02, 0.01), 4000)
    held = [low <= 0.01 <= high for low, high in (metrics.paired_drop(int(lost), int(won), 1000) for _, lost, won in draws)]
    assert 0.94 < sum(held) / 4000 < 0.965


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_temperature_is_found_again(true: float) -> None:
    generator = torch.Generator().manual_seed(0)
    honest = torch.randn(20000, 5, generator=generator, dtype=torch.float64) * 2
    labels = torch.multinomial(honest.softmax(1), 1, generator=generator).squeeze(1)
    found = metrics.fit_temperature(honest * true, labels)
    assert found == pytest.approx(true, rel=0.03)
    lowest = metrics.nll(honest * true / found, labels)
    assert all(lowest < metrics.nll(honest * true / (found * factor), labels) for factor in (0.97, 1.03))


def test_temperature_is_judged_on_images_it_has_not_seen() -> None:
    logits, labels = answers(400, 5, seed=1)
    check = metrics.check_temperature(logits * 3, labels)
    assert check is not None
    assert check.temperature is not None
    assert check.temperature > 1  # it was three times too sure
    assert (check.fitted_on, check.judged_on) == (200, 200)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    assert metrics.fit_temperature(logits[order[:200]] * 3, labels[order[:200]]) == check.temperature
    unseen = named(logits[order[200:]] * 3 / check.temperature, labels[order[200:]])
    assert check.ece_after == pytest.approx(unseen.summary()["ece"])
    assert check.nll_after == pytest.approx(unseen.loss)
    assert check.ece_after < check.ece_before
    assert check == metrics.check_temperature(logits * 3, labels)
    assert check != metrics.check_temperature(logits * 3, labels, seed=1)


def test_no_temperature_where_every_image_is_right() -> None:
    labels = torch.arange(10) % 2
    check = metrics.check_temperature(torch.eye(2)[labels] * 5, labels)
    assert check is not None
    assert (check.temperature, check.ece_after, check.nll_after) == (None, None, None)
    assert metrics.check_temperature(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)) is None


def test_an_absent_class_is_none() -> None:
    judged = named(torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [3.0, 0.0, 1.0]]), torch.tensor([0, 1, 1]))
    found = judged.summary()["per_class"]
    assert found["c2"] == {"precision": None, "recall": None, "f1": None, "support": 0, "auc": None}
    assert found["c0"]["precision"] == 0.5
    assert judged.summary()["macro_auc"] == pytest.approx((1 + 0.5) / 2)


def test_of_equal_scores_the_lower_class_comes_first() -> None:
    scores = torch.zeros(3, 4)
    labels = torch.tensor([0, 1, 3])
    assert [metrics.top_k(scores, labels, k) for k in (1, 2, 4)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert 100 * metrics.top_k(scores, labels, 1) == named(scores, labels).top1


@settings(deadline=None, max_examples=150)
@given(
    n=st.integers(1, 12),
    classes=st.integers(2, 8),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["free", "ties", "all equal", "perfect", "all wrong", "one class", "huge"]),
)
def test_edges(n: int, classes: int, seed: int, kind: str) -> None:
    """Few images, ties, perfect and hopeless answers: JSON without NaN, every figure in its range, as scikit-learn says."""
    logits, labels = answers(n, classes, seed, ties=kind == "ties")
    if kind == "all equal":
        logits = torch.zeros_like(logits)
    if kind == "perfect":
        logits = torch.eye(classes)[labels] * 30
    if kind == "all wrong":
        logits = torch.eye(classes)[(labels + 1) % classes] * 30
    if kind == "one class":
        labels = torch.zeros_like(labels)
    if kind == "huge":
        logits = logits * 1e4
    judged = named(logits, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = judged.summary()
    json.dumps(found, allow_nan=False)
    low, high = found["top1_interval"]
    assert 0 <= low <= found["top1"] + 1e-9
    assert found["top1"] <= high + 1e-9 <= 100 + 2e-9
    assert 0 <= found["ece"] <= 1
    assert -1e-12 <= found["brier"] <= 2 + 1e-12
    assert found["top5"] is None if classes <= 5 else found["top1"] <= found["top5"] + 1e-9
    assert found["ece"] == pytest.approx(slow_ece(judged.confidence.numpy(), judged.right.numpy()), abs=EXACT)
    for place, figures in enumerate(found["per_class"].values()):
        positive = (labels == place).numpy()
        if positive.all() or not positive.any():
            assert figures["auc"] is None
        else:
            theirs = sk.roc_auc_score(positive, judged.probabilities[:, place].numpy())
            assert figures["auc"] == pytest.approx(theirs, abs=EXACT)
        assert (figures["recall"] is None) == (not positive.any())
    if kind == "perfect":
        assert (found["top1"], found["macro_f1"]) == (100, 1)
    if kind == "one class":
        assert found["macro_auc"] is None
