"""Several labels per image: loss, decoding and figures, by hand and against scikit-learn."""

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics
from tests.tiny import Table

from metaformer.data.batch import Batch
from metaformer.tasks.labels import decode_several
from metaformer.tasks.multilabel import Multilabel, MultilabelEvaluation

CLASSES = ("cat", "dog", "owl")
LOGITS = torch.tensor([[2.0, 1.0, -1.0], [0.5, -3.0, 0.0], [-1.0, -2.0, -0.5], [0.0, 0.0, 4.0]])
LABELS = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 0, 0], [0, 0, 1]], dtype=torch.uint8)


def batch(*samples: int) -> Batch:
    index = torch.tensor(samples)
    return Batch(index.float().view(-1, 1, 1, 1), LABELS[index])


def cross_entropy(row: list[float], targets: list[float]) -> float:
    """By its definition, the mean over the classes."""
    pairs = [(1 / (1 + math.exp(-value)), target) for value, target in zip(row, targets, strict=True)]
    return sum(-t * math.log(p) - (1 - t) * math.log(1 - p) for p, t in pairs) / len(row)


def smooth(targets: list[float], smoothing: float) -> list[float]:
    return [smoothing / 2 + (1 - smoothing) * target for target in targets]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_sum_by_hand(smoothing: float) -> None:
    task = Multilabel(CLASSES, smoothing)
    rows = zip(LOGITS.tolist(), LABELS.tolist(), strict=True)
    expected = [cross_entropy(row, smooth(targets, smoothing)) for row, targets in rows]
    assert task.loss_sum(Table(LOGITS), batch(0, 1, 2, 3)).item() == pytest.approx(sum(expected), rel=1e-6)
    assert task.loss_sum(Table(LOGITS), batch(2)).item() == pytest.approx(expected[2], rel=1e-6)
    assert task.count(batch(0, 3, 3)) == 3


def test_chance_by_hand() -> None:
    assert Multilabel(CLASSES).chance(LABELS) == "3 labels: chance is 41.7 % mAP"
    nobody = LABELS.clone()
    nobody[:, 1] = 0  # a label that no image has counts in no mean
    assert Multilabel(CLASSES).chance(nobody) == "3 labels: chance is 50 % mAP"


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_targets_of_mixed_images_are_mixed(share: float) -> None:
    task, own = Multilabel(CLASSES, 0.1), batch(0, 1, 3)
    other = LABELS[[3, 2, 0]]
    expected = sum(
        cross_entropy(row, smooth([share * a + (1 - share) * b for a, b in zip(one, two, strict=True)], 0.1))
        for row, one, two in zip(LOGITS[[0, 1, 3]].tolist(), own.labels.tolist(), other.tolist(), strict=True)
    )
    assert task.loss_sum(Table(LOGITS), replace(own, partners=other, share=share)).item() == pytest.approx(expected, rel=1e-5)


def test_loss_of_half_precision_is_computed_in_full() -> None:
    assert Multilabel(CLASSES).loss_sum(Table(LOGITS).half(), batch(0, 1)).dtype == torch.float32


def test_decode_gives_all_over_a_half_or_the_most_probable() -> None:
    decoded = Multilabel(CLASSES).decode(LOGITS)
    assert [[name for name, _ in row] for row in decoded] == [["cat", "dog"], ["cat"], ["owl"], ["owl"]]  # 0.5 is not over it
    assert decoded[0][1][1] == pytest.approx(1 / (1 + math.exp(-1)))
    assert decoded[2][0][1] == pytest.approx(1 / (1 + math.exp(0.5)))


def test_decoding_bears_any_logit() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((first, second),) = decode_several(np.array([[1e4, -1e4, 800.0]], np.float32), CLASSES)
    assert (first, second) == (("cat", 1.0), ("owl", 1.0))


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_asks_in_order_and_leaves_the_mode(training: bool) -> None:
    model = Table(LOGITS).train(training)
    judged = Multilabel(CLASSES, 0.1).evaluate(model, [batch(3, 1), batch(0, 2), batch(2)])
    assert torch.equal(judged.logits, LOGITS[[3, 1, 0, 2, 2]])
    assert torch.equal(judged.labels, LABELS[[3, 1, 0, 2, 2]])
    assert model.asked == [(2, False, False), (2, False, False), (1, False, False)]
    assert model.training is training


# --- figures ----------------------------------------------------------------------------------------------------------


def made(seed: int, *, coarse: bool = False) -> MultilabelEvaluation:
    """Answers that know something, with ties where `coarse`."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(200, 5, generator=generator) < torch.tensor([0.5, 0.3, 0.1, 0.05, 0.9])
    logits = 2 * torch.randn(200, 5, generator=generator) + 3 * labels - 1.5
    return MultilabelEvaluation(logits.round() if coarse else logits, labels.to(torch.uint8), tuple("abcde"))


@pytest.mark.parametrize("coarse", [False, True], ids=["all different", "ties"])
@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_those_of_scikit_learn(seed: int, coarse: bool) -> None:
    judged = made(seed, coarse=coarse)
    truth, called = judged.labels.numpy(), judged.called.numpy()
    scores = judged.probabilities.numpy()
    summary = judged.summary()
    exact = {"rel": 1e-9}
    assert 40 < judged.map < 99
    assert summary["map"] == pytest.approx(100 * metrics.average_precision_score(truth, scores, average="macro"), **exact)
    assert summary["micro_f1"] == pytest.approx(metrics.f1_score(truth, called, average="micro"), **exact)
    assert summary["macro_f1"] == pytest.approx(metrics.f1_score(truth, called, average="macro"), **exact)
    assert summary["macro_auc"] == pytest.approx(metrics.roc_auc_score(truth, scores, average="macro"), **exact)
    assert summary["exact"] == pytest.approx(metrics.accuracy_score(truth, called), **exact)
    assert summary["loss"] == pytest.approx(np.mean([metrics.log_loss(truth[:, k], scores[:, k]) for k in range(5)]), rel=1e-6)
    assert summary["labels_per_image"] == pytest.approx(truth.sum(1).mean())
    table = metrics.precision_recall_fscore_support(truth, called, zero_division=0)
    for place, (name, row) in enumerate(summary["per_class"].items()):
        assert name == "abcde"[place]
        assert row["ap"] == pytest.approx(metrics.average_precision_score(truth[:, place], scores[:, place]), **exact)
        found = [row["precision"], row["recall"], row["f1"], row["support"]]
        assert found == pytest.approx([figures[place] for figures in table], **exact)


def test_what_no_image_has_is_undefined_and_left_out_of_the_mean() -> None:
    judged = made(0)
    without = MultilabelEvaluation(
        torch.cat([judged.logits, torch.full((200, 2), -9.0)], 1),
        torch.cat([judged.labels, torch.zeros(200, 2, dtype=torch.uint8)], 1),
        tuple("abcdefg"),
    )
    summary = without.summary()
    row = summary["per_class"]["g"]
    assert row == {"precision": None, "recall": None, "f1": None, "support": 0, "auc": None, "ap": None}
    assert (summary["map"], summary["macro_f1"]) == (judged.summary()["map"], judged.summary()["macro_f1"])
    json.dumps(summary, allow_nan=False)


def test_nothing_to_find_is_nothing_found() -> None:
    judged = MultilabelEvaluation(torch.full((4, 2), -1.0), torch.zeros(4, 2, dtype=torch.uint8), ("a", "b"))
    assert (judged.map, judged.summary()["micro_f1"], judged.summary()["exact"]) == (0.0, None, 1.0)


def test_the_first_score_is_map() -> None:
    judged = made(1)
    assert judged.scores == {"map": judged.map}
    assert repr(judged) == f"MultilabelEvaluation(mAP {judged.map:.2f} % on 200 images, loss {judged.loss:.4f})"
