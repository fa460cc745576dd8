"""Classification: loss, decoding and figures, by hand and against scikit-learn."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn import metrics
from torch import Tensor, nn

from metaformer.data.batch import Batch
from metaformer.tasks.classification import Classification, Evaluation

CLASSES = ("cat", "dog", "owl")
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.5], [0.0, 0.0, 4.0]])
LABELS = torch.tensor([0, 1, 2, 2])


class Table(nn.Module):
    """Answers with its logits, by the number in each image's only pixel; notes how it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(LOGITS.clone())
        self.asked: list[tuple[int, bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append((len(x), self.training, torch.is_grad_enabled()))
        return self.table[x[:, 0, 0, 0].long()]


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
    assert task.loss_sum(Table(), batch(0, 1, 2, 3)).item() == pytest.approx(sum(expected), rel=1e-6)
    assert task.loss_sum(Table(), batch(2)).item() == pytest.approx(expected[2], rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_loss_of_mixed_images_is_shared(share: float) -> None:
    task, own, other = Classification(CLASSES, 0.1), batch(0, 1, 2), LABELS[[2, 3, 1]]
    expected = share * task.loss_sum(Table(), own) + (1 - share) * task.loss_sum(Table(), Batch(own.images, other))
    found = task.loss_sum(Table(), replace(own, partners=other, share=share))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_loss_of_half_precision_is_computed_in_full() -> None:
    assert Classification(CLASSES).loss_sum(Table().half(), batch(0, 1)).dtype == torch.float32


def test_count_is_images() -> None:
    assert Classification(CLASSES).count(batch(0, 3, 3)) == 3


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
    model = Table().train(training)
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
