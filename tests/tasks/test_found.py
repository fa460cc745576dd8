import pytest
import torch
from tests.found import found, painted

from metaformer.tasks.found import Found, corner_and_sides, joined, nothing, run_lengths

SIZE = (40, 60)
BOXES = [[4, 8, 20, 30], [30, 10, 60, 40], [0, 0, 10, 10]]


@pytest.fixture
def three() -> Found:
    return found(BOXES, [1, 0, 2], [0.3, 0.9, 0.5], SIZE)


def test_the_best_come_first(three: Found) -> None:
    assert three.best().scores.tolist() == pytest.approx([0.9, 0.5, 0.3])
    assert three.best(0.5).labels.tolist() == [0, 2]
    assert three.best(most=1).boxes.tolist() == [BOXES[1]]
    masks = three.best(0.5).masks
    assert masks is not None
    assert torch.equal(masks, painted([BOXES[1], BOXES[2]], SIZE))
    assert len(three.best(0.95)) == 0


def test_boxes_and_masks_go_together_to_another_size(three: Found) -> None:
    large = three.resized(SIZE, (80, 180))
    assert large.boxes.tolist() == [[12, 16, 60, 60], [90, 20, 180, 80], [0, 0, 30, 20]]
    assert large.masks is not None
    differ = large.masks != painted(large.boxes.tolist(), (80, 180))
    assert differ.sum((1, 2)).tolist() == [2, 0, 1]  # a corner may grow round, the image's own never
    again = large.resized((80, 180), SIZE)
    assert again.boxes.tolist() == BOXES
    assert again.masks is not None
    assert torch.equal(again.masks, painted(BOXES, SIZE))


def test_boxes_are_cut_at_the_edges() -> None:
    out = found([[-5, -5, 70, 50]], [0], [1.0]).resized(SIZE, (20, 30))
    assert out.boxes.tolist() == [[0, 0, 30, 20]]


def test_the_mirror(three: Found) -> None:
    mirrored = three.mirrored(60)
    assert mirrored.boxes.tolist() == [[40, 8, 56, 30], [0, 10, 30, 40], [50, 0, 60, 10]]
    assert mirrored.masks is not None
    assert torch.equal(mirrored.masks, painted(mirrored.boxes.tolist(), SIZE))
    assert mirrored.mirrored(60).boxes.tolist() == BOXES


def test_a_part_of_a_larger_image(three: Found) -> None:
    placed = three.placed(100, 200, (300, 400))
    assert placed.boxes[0].tolist() == [204, 108, 220, 130]
    assert placed.masks is not None
    assert torch.equal(placed.masks, painted(placed.boxes.tolist(), (300, 400)))


def test_all_together(three: Found) -> None:
    both = joined([three, nothing(SIZE), three.take(torch.tensor([2]))])
    assert both.labels.tolist() == [1, 0, 2, 2]
    assert both.masks is not None
    assert both.masks.shape == (4, *SIZE)
    assert joined([three, found(BOXES, [0, 0, 0], [1, 1, 1])]).masks is None
    assert nothing().resized(SIZE, (4, 4)).masks is None
    resized = nothing(SIZE).resized(SIZE, (4, 5)).masks
    assert resized is not None
    assert resized.shape == (0, 4, 5)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(AssertionError):
        Found(torch.zeros(2, 4), torch.zeros(1), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(AssertionError):
        Found(torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, dtype=torch.int64), torch.zeros(3, 5, 5, dtype=torch.bool))


def test_masks_as_coco_stores_them(three: Found) -> None:
    from pycocotools import mask

    assert three.masks is not None
    rows = run_lengths(three.masks)
    assert [row["size"] for row in rows] == [[40, 60]] * 3
    assert torch.equal(torch.from_numpy(mask.decode(list(rows))).permute(2, 0, 1).bool(), three.masks)
    assert mask.toBbox(list(rows)).tolist() == corner_and_sides(three.boxes).tolist()
    assert run_lengths(three.masks[:0]) == ()
