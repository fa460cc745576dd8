import json
from typing import Any

import numpy as np
import pytest
import torch
from tests.tasks.test_coco import pretended
from torch import nn

from metaformer.data.dense_loader import DenseBatch
from metaformer.dense.regions import RegionLogits
from metaformer.tasks.regions import Answer, Mapped, RegionEvaluation, boundary_f, judge
from metaformer.tasks.segmentation import Segmentation

CLASSES = ("road", "sky", "tree")


def halves(left: int = 10, high: int = 16, wide: int = 20) -> torch.Tensor:
    """Road on the left, sky on the right."""
    there = torch.ones(high, wide, dtype=torch.uint8)
    there[:, :left] = 0
    return there


def scene(count: int, seed: int = 0) -> list[Answer]:
    random = torch.Generator().manual_seed(seed)
    answers = []
    for i in range(count):
        there = torch.randint(0, 3, (6, 9), generator=random).repeat_interleave(4, 0).repeat_interleave(4, 1)
        found = torch.where(torch.rand(there.shape, generator=random) < 0.8, there, torch.randint(0, 3, (1,), generator=random))
        there[torch.rand(there.shape, generator=random) < 0.1] = 255
        answers.append((i, there.to(torch.uint8), found))
    return answers


def test_perfect_answers() -> None:
    done = judge([(i, there, there.where(there != 255, 0)) for i, there, _ in scene(3)], CLASSES)
    assert (done.miou, done.pixel_accuracy, done.mean_accuracy, done.boundary) == (1.0, 1.0, 1.0, 1.0)
    assert [figures.iou for figures in done.per_class] == [1.0] * 3
    assert done.scores == {"miou": 100.0}


def test_shifted_answers_by_hand() -> None:
    """Of 320 pixels 160 are road; 32 columns' pixels of sky are called road: 160 / 192 and 128 / 160."""
    done = judge([("a", halves(10), halves(12))], CLASSES)
    road, sky, tree = done.per_class
    assert (road.iou, sky.iou, tree.iou) == (160 / 192, 128 / 160, None)
    assert (road.accuracy, sky.accuracy, tree.accuracy) == (1.0, 128 / 160, None)
    assert (road.pixels, sky.pixels, tree.pixels) == (160, 160, 0)
    assert done.miou == pytest.approx((160 / 192 + 128 / 160) / 2)
    assert done.pixel_accuracy == 288 / 320
    assert done.mean_accuracy == pytest.approx((1 + 0.8) / 2)
    assert done.counts.tolist() == [[160, 0, 0], [32, 128, 0], [0, 0, 0]]


def test_boundaries_are_left_out_where_nobody_asks_for_them() -> None:
    answers = scene(3)
    told, fewer = judge(answers, CLASSES).summary(), judge(answers, CLASSES, boundaries=False).summary()
    assert told["boundary_f"] is not None
    assert fewer["boundary_f"] is None
    assert fewer == told | {
        "boundary_f": None,
        "per_class": {name: figures | {"boundary": None} for name, figures in told["per_class"].items()},
    }


def test_nothing_right() -> None:
    done = judge([("a", torch.zeros(8, 8, dtype=torch.uint8), torch.full((8, 8), 2))], CLASSES)
    assert (done.miou, done.pixel_accuracy) == (0.0, 0.0)
    assert [figures.iou for figures in done.per_class] == [0.0, None, 0.0]


def test_void_is_not_judged() -> None:
    there = halves(10)
    there[:, 10:12] = 255
    done = judge([("a", there, halves(12))], CLASSES)
    assert (done.miou, done.pixel_accuracy) == (1.0, 1.0)
    assert int(done.counts.sum()) == 16 * 18
    void = judge([("a", torch.full((4, 4), 255), torch.zeros(4, 4)), ("b", halves(), halves())], CLASSES)
    assert (void.images[0].iou, void.images[0].boundary) == (None, (None, None, None))
    assert (void.miou, void.boundary) == (1.0, 1.0)
    assert void.worst() == [1]
    nothing = judge([("a", torch.full((4, 4), 255), torch.zeros(4, 4))], CLASSES)
    assert (nothing.miou, nothing.pixel_accuracy, nothing.mean_accuracy, nothing.boundary) == (None,) * 4
    assert json.loads(json.dumps(nothing.summary(), allow_nan=False))["miou"] is None


def test_figures_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, jaccard_score, recall_score

    answers = scene(4)
    done = judge(answers, CLASSES)
    there, found = (torch.cat([one[place].flatten() for one in answers]) for place in (1, 2))
    kept = there != 255
    there, found = there[kept].numpy(), found[kept].numpy()
    assert [figures.iou for figures in done.per_class] == pytest.approx(jaccard_score(there, found, average=None).tolist())
    assert done.pixel_accuracy == pytest.approx(accuracy_score(there, found))
    assert done.mean_accuracy == pytest.approx(recall_score(there, found, average="macro"))


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_that_share_the_images_have_the_same_figures(count: int) -> None:
    answers = scene(7)
    alone = judge(answers, CLASSES)
    parts = [judge(answers[rank::count], CLASSES) for rank in range(count)]
    said: dict[type, list[Any]] = {list: [list(p.images) for p in parts], torch.Tensor: [p.counts for p in parts]}
    ranks = pretended([])
    object.__setattr__(ranks, "gathered", lambda value: said[type(value)])
    shared = judge(answers[0::count], CLASSES, ranks)
    assert shared.summary() == alone.summary()
    assert shared.worst() == alone.worst()


def test_labels_that_no_class_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^image a: its truth has the label 7, and there are 3 classes: 0 to 2 are"):
        judge([("a", torch.full((2, 2), 7), torch.zeros(2, 2))], CLASSES)
    with pytest.raises(ValueError, match=r"^image a: its answer has the label 255, and there are 3 classes"):
        judge([("a", torch.zeros(2, 2), torch.full((2, 2), 255))], CLASSES)
    with pytest.raises(AssertionError, match="given twice"):
        judge([("a", halves(), halves())] * 2, CLASSES)


# --- boundaries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "fits"), [(0, True), (3, True), (4, False)])
def test_a_boundary_fits_within_a_part_of_the_diagonal(shift: int, fits: bool) -> None:
    """Of 300 x 400 pixels the diagonal is 500, so what is up to 3.75 pixels away is near."""
    there, found = halves(200, 300, 400).numpy(), halves(200 + shift, 300, 400).numpy()
    assert boundary_f(there, found, 3) == (float(fits), float(fits), None)


def test_a_boundary_half_right_by_hand() -> None:
    """The found line is right in the upper half of the image, and 40 pixels off in the lower one, joined by a step.

    Found are 150 + 150 pixels and the step's 40, one of them a line's: of those the upper ones are near and the step's first 3.
    Of the 300 true ones the upper ones are near and the 4 below them, the last one at a distance of √(3² + 1²) of the step.
    """
    there, found = halves(200, 300, 400).numpy(), halves(200, 300, 400).numpy()
    found[150:, 200:240] = 0
    road, _, _ = boundary_f(there, found, 3)
    precision, recall = 153 / 339, 154 / 300
    assert road == pytest.approx(2 * precision * recall / (precision + recall))


def test_classes_that_one_of_two_maps_lacks() -> None:
    plain = np.zeros((10, 10), np.uint8)
    spotted = plain.copy()
    spotted[4:6, 4:6] = 2
    assert boundary_f(plain, spotted, 3) == (0.0, None, 0.0)
    assert boundary_f(spotted, plain, 3) == (0.0, None, 0.0)
    assert boundary_f(plain, plain, 3) == (1.0, None, None)


def test_beside_void_and_the_images_edge_is_no_boundary() -> None:
    there = halves(10).numpy()
    there[:, 9:11] = 255
    assert boundary_f(there, np.zeros_like(there), 3)[0] == 1.0  # no boundary in either, once void is left out
    assert boundary_f(there, halves(10).numpy(), 3)[:2] == (1.0, 1.0)


def test_boundaries_are_averaged_over_images_as_csurka_does() -> None:
    images = (Mapped(0, 1.0, (1.0, 0.5, None)), Mapped(1, 0.5, (0.0, None, None)))
    done = RegionEvaluation(torch.eye(3, dtype=torch.int64), images, CLASSES)
    assert done.boundary == (0.75 + 0.0) / 2
    assert [figures.boundary for figures in done.per_class] == [0.5, 0.5, None]
    assert done.worst() == [1, 0]


class Certain(nn.Module):
    """Calls every pixel by its first channel."""

    def forward(self, images: torch.Tensor) -> RegionLogits:
        small = images[:, 0, ::4, ::4].long()
        return RegionLogits(nn.functional.one_hot(small, 3).movedim(3, 1) * 9.0, [(16, 24)] * len(images))


def test_an_epoch_measures_no_boundaries() -> None:
    """Nothing of them is in what it is judged by."""
    maps = halves(8, 16, 24)[None]
    batch = DenseBatch(maps[:, None].repeat(1, 3, 1, 1), maps, torch.tensor([0]))
    done = Segmentation(CLASSES).evaluate(Certain(), [batch])
    whole = judge([(0, maps[0], maps[0])], CLASSES)
    assert done.scores == whole.scores == {"miou": 100.0}
    assert torch.equal(done.counts, whole.counts)
    assert (done.boundary, whole.boundary) == (None, 1.0)
    assert [figures.boundary for figures in done.per_class] == [None] * 3
    assert done.summary() | {"boundary_f": 1.0, "per_class": whole.summary()["per_class"]} == whole.summary()
