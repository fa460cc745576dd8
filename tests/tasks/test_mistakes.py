import numpy as np
import pytest
from tests.found import found, just_so, objects
from tests.tasks.test_coco import CLASSES, SIZE, scene

from metaformer.tasks.coco import judge
from metaformer.tasks.found import nothing
from metaformer.tasks.mistakes import confusion, match, mistakes, threshold


def test_perfect_answers_are_on_the_diagonal() -> None:
    done = judge([(truth, just_so(truth)) for truth, _ in scene(masks=True)], CLASSES)
    objects_of = [each.objects for each in done.box.per_class]
    for kind in ("box", "mask"):
        counts = confusion(done, 0.5, kind)
        assert np.array_equal(counts, np.diag([*objects_of, 0]))
        assert all(row.error == row.wrong == row.missed == 0 for row in mistakes(done, 0.5, kind))
    assert confusion(done, 0.95).sum(0).tolist() == [0, 0, 0, sum(objects_of)]


def test_confusion_counts_what_is_called_otherwise_missed_and_invented() -> None:
    truth = objects(0, [[0, 0, 20, 20], [40, 0, 60, 20], [80, 0, 100, 20]], [0, 1, 1])
    answer = found(
        [[0, 0, 20, 20], [40, 2, 60, 20], [0, 60, 20, 80], [0, 1, 20, 20], [80, 0, 100, 20]],
        [0, 0, 2, 0, 1], [0.9, 0.8, 0.7, 0.6, 0.2],
    )  # fmt: skip
    counts = confusion(judge([(truth, answer)], CLASSES), 0.5)
    assert counts.tolist() == [
        [1, 0, 0, 0],
        [1, 0, 0, 1],  # a bee was called an ant, one found too unsurely
        [0, 0, 0, 0],
        [1, 0, 1, 0],  # an ant found twice, a cow where nothing is
    ]


def test_the_nearest_are_taken_before_the_surest() -> None:
    truth = objects(0, [[0, 0, 20, 20]], [0])
    answer = found([[0, 0, 20, 30], [0, 0, 20, 21]], [0, 1], [0.9, 0.8])
    assert confusion(judge([(truth, answer)], CLASSES), 0.5)[0].tolist() == [0, 1, 0, 0]


def test_crowds_are_not_counted() -> None:
    truth = objects(0, [[0, 0, 60, 60], [80, 80, 100, 100]], [0, 1], crowd=[True, False])
    answer = found([[5, 5, 25, 25], [30, 30, 50, 50]], [0, 2], [0.9, 0.8])
    done = judge([(truth, answer)], CLASSES)
    assert confusion(done, 0.5).tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]
    (row,) = mistakes(done, 0.5)
    assert (row.wrong, row.missed, row.error) == (1, 1, 1.0)
    made = match(done.pairs[0], "box")
    assert (made.truth.tolist(), made.ignored.tolist()) == ([-1, -1], [True, False])


def test_the_threshold_is_where_f1_is_greatest() -> None:
    truth = objects(0, [[0, 0, 20, 20], [40, 0, 60, 20], [80, 0, 100, 20]], [0, 1, 1])
    boxes = [[0, 0, 20, 20], [40, 0, 60, 20], [0, 60, 20, 80], [80, 0, 100, 20], [60, 60, 70, 70]]
    done = judge([(truth, found(boxes, [0, 1, 2, 1, 1], [0.9, 0.8, 0.7, 0.4, 0.4]))], CLASSES)
    best = threshold(done)
    assert (best.score, best.precision, best.recall) == (pytest.approx(0.8), 1.0, pytest.approx(2 / 3))
    assert best.f1 == pytest.approx(0.8)  # down to 0.4, with both that have this score, it is 6 / 8
    assert threshold(judge([(truth, nothing())], CLASSES)).f1 == 0
    assert threshold(judge([(truth, found([[0, 60, 20, 80]], [0], [0.9]))], CLASSES)).score == 0


def test_precision_and_recall_are_those_of_the_figures() -> None:
    """With one class, F1 at the threshold is the greatest on pycocotools' curve, which is read at 101 recalls."""
    answers = [(truth, answer) for truth, answer in scene(20, seed=3)]
    ants = [
        (truth.take(truth.labels == 0), answer.take(answer.labels == 0)) for truth, answer in answers
    ]  # fmt: skip
    done = judge(ants, CLASSES[:1])
    recalls, precision = np.linspace(0, 1, 101), done.box.precision[0]
    curve = (2 * precision * recalls / np.maximum(precision + recalls, 1e-9)).max()
    assert threshold(done).f1 == pytest.approx(curve, abs=0.02)


def test_the_worst_images_come_first() -> None:
    whole = [[0, 0, 20, 20], [40, 0, 60, 20]]
    truths = [objects(i, whole, [0, 0], masks=True) for i in range(5)]
    good, near = found(whole, [0, 0], [0.9, 0.9], SIZE), found([[0, 0, 20, 25], whole[1]], [0, 0], [0.9, 0.9], SIZE)
    half, wrong = good.take(good.scores.new_tensor([0]).long()), found([whole[0]], [1], [0.9], SIZE)
    answers = [good, near, half, wrong, nothing(SIZE)]
    empty = (objects(5, [], [], masks=True), nothing(SIZE))
    done = judge([*zip(truths, answers, strict=True), empty], CLASSES)
    for kind in ("box", "mask"):
        rows = mistakes(done, 0.5, kind)
        assert [row.place for row in rows] == [3, 4, 2, 1, 0, 5]
        assert [row.error for row in rows] == pytest.approx([1, 1, 0.5, (1 - 0.8) / 0.5 / 2, 0, 0])
        assert (rows[0].wrong, rows[0].missed) == (1, 2)
