"""Classification: loss, decoding and figures, by hand and against scikit-learn."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight
from tests.tiny import Table
from torch import Tensor, nn

from metaformer.data.batch import Batch
from metaformer.tasks.classification import Classification, Distillation, Evaluation, balanced_weights

CLASSES = ("cat", "dog", "owl")
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.5], [0.0, 0.0, 4.0]])
LABELS = torch.tensor([0, 1, 2, 2])


def batch(*samples: int) -> Batch:
    index = torch.tensor(samples)
    return Batch(index.float().view(-1, 1, 1, 1), LABELS[index])


def cross_entropy(row: list[float], label: int, smoothing: float) -> float:
    """By its definition: the target is (1 − ε) on the label plus ε / K everywhere."""
    total = math.log(sum(math.exp(value) for value in row))
    return sum((smoothing / len(row) + (1 - smoothing) * (k == label)) * (total - value) for k, value in enumerate(row))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_sum_by_hand(smoothing: float) -> None:
    task = Classification(CLASSES, smoothing)
    expected = [cross_entropy(row, label, smoothing) for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)]
    assert task.loss_sum(Table(LOGITS), batch(0, 1, 2, 3)).item() == pytest.approx(sum(expected), rel=1e-6)
    assert task.loss_sum(Table(LOGITS), batch(2)).item() == pytest.approx(expected[2], rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_loss_of_mixed_images_is_shared(share: float) -> None:
    task, own, other = Classification(CLASSES, 0.1), batch(0, 1, 2), LABELS[[2, 3, 1]]
    expected = share * task.loss_sum(Table(LOGITS), own) + (1 - share) * task.loss_sum(Table(LOGITS), Batch(own.images, other))
    found = task.loss_sum(Table(LOGITS), replace(own, partners=other, share=share))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_loss_of_half_precision_is_computed_in_full() -> None:
    assert Classification(CLASSES).loss_sum(Table(LOGITS).half(), batch(0, 1)).dtype == torch.float32


def test_count_is_images() -> None:
    assert Classification(CLASSES).count(batch(0, 3, 3)) == 3


def test_chance_by_hand() -> None:
    said = Classification(CLASSES).chance(LABELS)
    assert said == "3 classes: chance is 33.3 % top-1, always the most frequent one 50 %"
    many = Classification(tuple(map(str, range(1000)))).chance(torch.arange(50_000) % 1000)
    assert many == "1,000 classes: chance is 0.1 % top-1, always the most frequent one 0.1 %"


# --- class weights ----------------------------------------------------------------------------------------------------

WEIGHTS = torch.tensor([0.5, 2.0, 3.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_image_counts_as_much_as_its_class(smoothing: float) -> None:
    task = Classification(CLASSES, smoothing, WEIGHTS)
    losses = [cross_entropy(row, label, smoothing) for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)]
    expected = sum(loss * WEIGHTS[label].item() for loss, label in zip(losses, LABELS.tolist(), strict=True))
    assert task.loss_sum(Table(LOGITS), batch(0, 1, 2, 3)).item() == pytest.approx(expected, rel=1e-6)
    assert task.count(batch(0, 1, 2, 3)) == 4


def test_a_weighted_loss_is_computed_in_full() -> None:
    task = Classification(CLASSES, 0.1, WEIGHTS)
    expected = task.loss_sum(Table(LOGITS), batch(0, 1, 2, 3))
    with torch.autocast("cpu", torch.bfloat16):
        found = task.loss_sum(Table(LOGITS), batch(0, 1, 2, 3))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_mixed_image_counts_by_both_its_classes() -> None:
    task, own, other = Classification(CLASSES, 0.1, WEIGHTS), batch(0, 1, 2), LABELS[[2, 3, 1]]
    expected = 0.3 * task.loss_sum(Table(LOGITS), own) + 0.7 * task.loss_sum(Table(LOGITS), Batch(own.images, other))
    found = task.loss_sum(Table(LOGITS), replace(own, partners=other, share=0.3))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_balanced_weights_are_scikit_learns_and_1_on_average_over_the_images() -> None:
    labels = torch.tensor([0] * 50 + [1] * 9 + [3])
    weights = balanced_weights(labels, 5)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels.numpy())  # of the classes that are there
    assert weights[[0, 1, 3]].tolist() == pytest.approx(expected.tolist())
    assert weights[[2, 4]].tolist() == [0, 0]
    assert weights[labels].mean().item() == pytest.approx(1)
    assert balanced_weights(torch.arange(4), 4).tolist() == [1, 1, 1, 1]


def test_class_weights_are_for_learning_not_for_judging() -> None:
    plain, weighted = (Classification(CLASSES, 0.0, w).evaluate(Table(LOGITS), [batch(0, 1, 2, 3)]) for w in (None, WEIGHTS))
    assert plain.loss == weighted.loss


# --- a teacher --------------------------------------------------------------------------------------------------------

TOLD = torch.tensor([[1.0, 3.0, 0.0], [0.0, 2.0, 2.5], [4.0, 0.0, 1.0], [0.5, 0.0, 1.0]])


def teacher(images: Tensor) -> Tensor:
    return TOLD[images[:, 0, 0, 0].long()]


def softmax(row: list[float], temperature: float) -> list[float]:
    exponents = [math.exp(value / temperature) for value in row]
    return [value / sum(exponents) for value in exponents]


def divergence(row: list[float], told: list[float], temperature: float) -> float:
    """T² · Σ p log(p / q), p the teacher's."""
    pairs = zip(softmax(told, temperature), softmax(row, temperature), strict=True)
    return temperature**2 * sum(p * math.log(p / q) for p, q in pairs)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_distillation_by_hand(weight: float, temperature: float) -> None:
    task = Distillation(CLASSES, 0.1, teacher=teacher, weight=weight, temperature=temperature)
    rows = list(zip(LOGITS.tolist(), TOLD.tolist(), LABELS.tolist(), strict=True))
    labels = sum(cross_entropy(row, label, 0.1) for row, _, label in rows)
    told = sum(divergence(row, other, temperature) for row, other, _ in rows)
    expected = (1 - weight) * labels + weight * told
    assert task.loss_sum(Table(LOGITS), batch(0, 1, 2, 3)).item() == pytest.approx(expected, rel=1e-5)
    assert task.count(batch(0, 1, 2)) == 3


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_hard_distillation_by_hand(weight: float) -> None:
    task = Distillation(CLASSES, 0.1, teacher=teacher, weight=weight, temperature=None)
    rows = list(zip(LOGITS.tolist(), (1, 2, 0, 2), LABELS.tolist(), strict=True))  # what the teacher calls them
    expected = sum(
        (1 - weight) * cross_entropy(row, own, 0.1) + weight * cross_entropy(row, other, 0.0) for row, other, own in rows
    )
    assert task.loss_sum(Table(LOGITS), batch(0, 1, 2, 3)).item() == pytest.approx(expected, rel=1e-6)


def test_who_answers_as_the_teacher_has_nothing_to_learn_from_it() -> None:
    student = Table(LOGITS)
    loss = Distillation(CLASSES, teacher=lambda images: LOGITS[images[:, 0, 0, 0].long()], weight=1.0, temperature=2.0)
    value = loss.loss_sum(student, batch(0, 1, 2, 3))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert student.table.grad is not None
    assert student.table.grad.abs().max() < 1e-6


def test_the_teacher_is_asked_about_mixed_images_as_they_are() -> None:
    mixed = replace(batch(0, 1, 2), partners=LABELS[[2, 3, 1]], share=0.3)
    task = Distillation(CLASSES, 0.1, WEIGHTS, teacher=teacher, weight=0.4, temperature=2.0)
    labels = Classification(CLASSES, 0.1, WEIGHTS).loss_sum(Table(LOGITS), mixed).item()
    told = sum(divergence(row, other, 2.0) for row, other in list(zip(LOGITS.tolist(), TOLD.tolist(), strict=True))[:3])
    assert task.loss_sum(Table(LOGITS), mixed).item() == pytest.approx(0.6 * labels + 0.4 * told, rel=1e-5)


def test_a_student_is_judged_by_the_labels_alone() -> None:
    task = Distillation(CLASSES, teacher=teacher, weight=1.0, temperature=1.0)
    judged = [made.evaluate(Table(LOGITS), [batch(0, 1, 2, 3)]) for made in (task, Classification(CLASSES))]
    assert (judged[0].top1, judged[0].loss) == (judged[1].top1, judged[1].loss)


# --- decoding and judging ---------------------------------------------------------------------------------------------


def test_decode_names_the_most_probable_first() -> None:
    decoded = Classification(CLASSES).decode(LOGITS)
    assert [[name for name, _ in row] for row in decoded[:3]] == [
        ["cat", "dog", "owl"],
        ["dog", "cat", "owl"],
        ["cat", "owl", "dog"],
    ]
    e = math.e
    assert [value for _, value in decoded[0]] == pytest.approx([e**2 / (e**2 + e + 1), e / (e**2 + e + 1), 1 / (e**2 + e + 1)])
    assert all(sum(value for _, value in row) == pytest.approx(1) for row in decoded)


@pytest.mark.parametrize(("most", "given"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_decode_gives_no_more_than_there_is(most: int, given: int) -> None:
    assert [len(row) for row in Classification(CLASSES).decode(LOGITS, most=most)] == [given] * 4


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_asks_in_order_and_leaves_the_mode(training: bool) -> None:
    model = Table(LOGITS).train(training)
    judged = Classification(CLASSES, 0.1).evaluate(model, [batch(3, 1), batch(0, 2), batch(2)])
    assert torch.equal(judged.logits, LOGITS[[3, 1, 0, 2, 2]])
    assert judged.labels.tolist() == [2, 1, 0, 2, 2]
    assert model.asked == [(2, False, False), (2, False, False), (1, False, False)]
    assert model.training is training


@pytest.fixture(scope="module")
def judged() -> Evaluation:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (200,), generator=generator)
    logits = torch.randn(200, 3, generator=generator) + 1.5 * nn.functional.one_hot(labels, 3)
    return Evaluation(logits, labels, CLASSES)


def test_figures_equal_those_of_scikit_learn(judged: Evaluation) -> None:
    truth, called = judged.labels.numpy(), judged.predicted.numpy()
    assert 50 < judged.top1 < 95
    assert judged.top1 == pytest.approx(100 * metrics.accuracy_score(truth, called), rel=1e-12)
    assert judged.loss == pytest.approx(metrics.log_loss(truth, judged.logits.double().softmax(1).numpy()), rel=1e-5)
    assert judged.confusion().tolist() == metrics.confusion_matrix(truth, called).tolist()
    summary = judged.summary()
    assert (summary["top1"], summary["images"]) == (pytest.approx(judged.top1), 200)


def test_confusion_has_a_row_for_every_class() -> None:
    seen = Evaluation(torch.tensor([[0.0, 9.0, 0.0]]), torch.tensor([0]), CLASSES)
    assert seen.confusion().tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_one_class_is_always_right() -> None:
    only = Evaluation(torch.randn(4, 1), torch.zeros(4, dtype=torch.long), ("it",))
    assert (only.top1, only.loss, only.confusion().tolist()) == (100.0, 0.0, [[4]])
    assert Classification(("it",)).decode(torch.randn(1, 1)) == [[("it", 1.0)]]
