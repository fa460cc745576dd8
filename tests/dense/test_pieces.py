"""The pieces between a pyramid and an answer, each on what it must give by its algebra."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from metaformer.core.pyramid import FPN
from metaformer.dense import rcnn, retinanet, rpn
from metaformer.dense.boxes import Anchors, decode, encode
from metaformer.dense.detections import Detections, locate, paste, thinned
from metaformer.dense.rcnn import crop, pool, regions_of
from metaformer.dense.towers import Targets, flat

# --- the pyramid ------------------------------------------------------------------------------------------------------


def test_a_pyramid_adds_what_is_coarser():
    torch.manual_seed(0)
    fpn = FPN((4, 6), 5, extra="conv")
    fine, coarse = torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)
    levels = fpn([fine, coarse])
    top = fpn.lateral[1](coarse)
    twice = top.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(levels[0], fpn.smooth[0](fpn.lateral[0](fine) + twice))
    torch.testing.assert_close(levels[1], fpn.smooth[1](top))
    torch.testing.assert_close(levels[2], fpn.extra[0](coarse))  # from the backbone's map
    torch.testing.assert_close(levels[3], fpn.extra[1](levels[2]))  # without ReLU
    assert (levels[2] < 0).any()


def test_a_pyramid_may_end_in_every_second_place():
    fpn = FPN((4, 6), 5, extra="pool")
    levels = fpn([torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)])
    assert len(levels) == 3
    assert torch.equal(levels[2], levels[1][..., ::2, ::2])


def test_answers_are_flattened_place_by_place():
    x = torch.arange(2 * 6 * 1 * 2).view(2, 6, 1, 2)
    assert flat(x, 3).shape == (2, 4, 3)
    assert flat(x, 3)[0].tolist() == [[0, 2, 4], [6, 8, 10], [1, 3, 5], [7, 9, 11]]


# --- regions of interest ----------------------------------------------------------------------------------------------


def ramps(side: int) -> list[Tensor]:
    """Levels of two channels in which every place says where in the image its centre is, x and y."""
    levels = []
    for stride in rcnn.STRIDES:
        centre = (torch.arange(side // stride) + 0.5) * stride
        levels.append(torch.stack(torch.meshgrid(centre, centre, indexing="xy"))[None])
    return levels


@pytest.mark.parametrize("box", [(100.0, 120.0, 150.0, 160.0), (64.0, 80.0, 201.0, 230.5), (50.0, 100.0, 400.0, 350.0)])
def test_what_is_pooled_is_where_it_was(box):
    x1, y1, x2, y2 = box
    pooled = pool(ramps(512), regions_of([torch.tensor([box])]), 7)[0]
    steps = (torch.arange(7) + 0.5) / 7
    torch.testing.assert_close(pooled[0, 0], x1 + steps * (x2 - x1), atol=0.01, rtol=0)
    torch.testing.assert_close(pooled[1, :, 0], y1 + steps * (y2 - y1), atol=0.01, rtol=0)


@pytest.mark.parametrize(("side", "level"), [(20, 0), (111, 0), (112.1, 1), (223, 1), (225, 2), (447, 2), (449, 3), (900, 3)])
def test_a_region_is_read_from_the_level_of_its_size(side, level):
    marked = [torch.full((1, 1, 1024 // stride, 1024 // stride), float(place)) for place, stride in enumerate(rcnn.STRIDES)]
    assert pool(marked, regions_of([torch.tensor([[10.0, 10.0, 10 + side, 10 + side]])]), 7).unique().tolist() == [level]


def test_regions_of_all_sizes_stay_in_their_order():
    boxes = torch.tensor([[10.0, 10.0, 10 + side, 10 + side] for side in (900.0, 20.0, 300.0, 150.0, 30.0)])
    marked = [torch.full((1, 1, 1024 // stride, 1024 // stride), float(place)) for place, stride in enumerate(rcnn.STRIDES)]
    assert pool(marked, regions_of([boxes]), 7)[:, 0, 0, 0].tolist() == [3, 0, 2, 1, 0]


def test_regions_keep_their_image():
    boxes = [torch.ones(2, 4), torch.zeros(0, 4), torch.ones(1, 4)]
    assert regions_of(boxes)[:, 0].tolist() == [0, 0, 2]
    assert pool([torch.zeros(3, 5, 4, 4)] * 4, regions_of([torch.zeros(0, 4)] * 3), 7).shape == (0, 5, 7, 7)


# --- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "box", [(3.0, 4.0, 31.0, 32.0), (2.6, 3.4, 20.2, 38.9), (-5.0, -2.0, 50.0, 20.0), (7.0, 7.0, 8.0, 8.0)]
)
def test_a_full_mask_covers_the_pixels_whose_centre_is_in_the_box(box):
    x1, y1, x2, y2 = box
    x, y = torch.arange(40) + 0.5, torch.arange(44) + 0.5
    wanted = ((y >= y1) & (y <= y2))[:, None] & ((x >= x1) & (x <= x2))
    assert torch.equal(paste(torch.ones(1, 28, 28), torch.tensor([box]), (44, 40))[0], wanted)


def test_a_half_mask_covers_half():
    mask = torch.zeros(28, 28)
    mask[:, :14] = 1
    pasted = paste(mask[None], torch.tensor([[10.0, 10.0, 30.0, 20.0]]), (40, 40))[0]
    assert pasted.sum() == 100
    assert pasted[10:20, 10:20].all()


def test_what_is_cropped_is_pasted_back():
    torch.manual_seed(0)
    masks = torch.zeros(2, 60, 60, dtype=torch.uint8)
    masks[0, 10:38, 5:33] = 1
    masks[1, 10:38, 5:19] = 1
    box = torch.tensor([[5.0, 10.0, 33.0, 38.0]]).repeat(2, 1)
    targets = crop(masks, box, torch.tensor([0, 1]), 28)
    assert set(targets.unique().tolist()) == {0.0, 1.0}
    assert targets[0].all()
    assert torch.equal(paste(targets, box, (60, 60)), masks.bool())
    assert torch.equal(crop(masks, box, torch.tensor([1, 0]), 28), targets.flip(0))


def test_what_is_found_goes_back_to_the_image_s_own_pixels():
    found = Detections(
        torch.tensor([[10.0, 20.0, 30.0, 40.0]]), torch.tensor([0.9]), torch.tensor([2]), torch.ones(1, 28, 28), (50, 100)
    )
    boxes, scores, labels, masks = locate(found, (100, 300))
    assert boxes.tolist() == [[30, 40, 90, 80]]
    assert (scores.item(), labels.item()) == (pytest.approx(0.9), 2)
    assert masks.shape == (1, 100, 300)
    assert masks.sum() == 60 * 40
    two = Detections(*(torch.cat([part, part]) for part in (found.boxes, found.scores, found.labels, found.masks)), (50, 100))
    two.scores[0] = 0.3
    assert [len(part) for part in locate(two, (100, 300), 0.5)] == [1, 1, 1, 1]
    assert all(
        torch.equal(one, other) for one, other in zip(locate(two, (100, 300), 0.5), locate(found, (100, 300)), strict=True)
    )
    nothing = thinned(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), (50, 100))
    assert locate(nothing, (100, 300))[0].shape == (0, 4)


# --- losses, by hand --------------------------------------------------------------------------------------------------

ANCHORS = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [50.0, 50.0, 60.0, 60.0], [0.0, 0.0, 10.0, 22.0]])
TRUTH = Targets(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([1]), None)


def test_retinanet_s_losses_by_hand():
    logits, codes = torch.zeros(4, 2), torch.full((4, 4), 0.5)
    label, box = retinanet.losses(logits, codes, ANCHORS, TRUTH)
    # overlaps 1, 0.8, 0 and 0.4545: two are the object, one is background, the last is neither
    right, wrong = 0.25 * 0.25 * torch.log(torch.tensor(2.0)), 0.75 * 0.25 * torch.log(torch.tensor(2.0))
    torch.testing.assert_close(label, (2 * (right + wrong) + 2 * wrong) / 2)
    wanted = encode(ANCHORS[:2], TRUTH.boxes.repeat(2, 1))
    torch.testing.assert_close(box, (0.5 - wanted).abs().sum() / 2)


def test_proposals_losses_by_hand():
    label, box = rpn.losses(torch.zeros(4), torch.full((4, 4), 0.5), ANCHORS, TRUTH)
    # 0.4545 is between 0.3 and 0.7
    torch.testing.assert_close(label, torch.log(torch.tensor(2.0)))
    wanted = encode(ANCHORS[:2], TRUTH.boxes.repeat(2, 1))
    torch.testing.assert_close(box, (0.5 - wanted).abs().sum() / 3)


def test_regions_losses_by_hand():
    matched = torch.tensor([0, 0, -1, -1])
    logits, codes = torch.zeros(4, 3), torch.full((4, 2, 4), 9.0)
    logits[2, 2] = 2.0  # the background is the last
    codes[:2, 1] = 0.5
    label, box = rcnn.losses(logits, codes, ANCHORS, matched, TRUTH)
    sure = torch.log(1 + 2 * torch.exp(torch.tensor(-2.0)))
    torch.testing.assert_close(label, (3 * torch.log(torch.tensor(3.0)) + sure) / 4)
    wanted = encode(ANCHORS[:2], TRUTH.boxes.repeat(2, 1), rcnn.STDS)
    torch.testing.assert_close(box, (0.5 - wanted).abs().sum() / 4)


# --- thinning out -----------------------------------------------------------------------------------------------------


def test_boxes_of_a_class_that_are_one_are_thinned_out():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 9.0], [5.0, 5.0, 5.0, 9.0]])
    scores, labels = torch.tensor([0.6, 0.7, 0.8, 0.9]), torch.tensor([0, 0, 1, 0])
    found = thinned(boxes, scores, labels, (20, 20))
    assert found.scores.tolist() == pytest.approx([0.8, 0.7])
    assert found.labels.tolist() == [1, 0]


def test_at_most_a_hundred_are_found():
    boxes = torch.arange(150.0)[:, None] * 20 + torch.tensor([0.0, 0.0, 10.0, 10.0])
    found = thinned(boxes, torch.rand(150), torch.zeros(150, dtype=torch.long), (4000, 4000))
    assert len(found.boxes) == 100


def test_retinanet_finds_what_it_is_sure_of():
    anchors = Anchors((8,), (4.0,)).grid([(4, 4)], torch.device("cpu"))
    logits, codes = torch.full((48, 2), -10.0), torch.zeros(48, 4)
    logits[24, 1], logits[10, 0] = 3.0, -3.0  # 0.953, and 0.047 which is too little
    found = retinanet.find([logits], [codes], anchors, (32, 32))
    assert found.labels.tolist() == [1]
    assert found.scores.item() == pytest.approx(0.9526, abs=1e-4)
    torch.testing.assert_close(found.boxes[0], anchors[0][24].clamp(0, 32))


def test_proposals_are_thinned_out_within_a_level():
    torch.manual_seed(0)
    anchors = Anchors((4, 8), (8.0,)).grid([(8, 8), (4, 4)], torch.device("cpu"))
    logits, codes = [torch.randn(len(a)) for a in anchors], [torch.randn(len(a), 4) * 0.1 for a in anchors]
    proposals = rpn.propose(logits, codes, anchors, (32, 32), 1000)
    expected = 0
    for logit, code, anchor in zip(logits, codes, anchors, strict=True):
        boxes = decode(anchor, code).clamp(0, 32)
        expected += len(nms(boxes, logit, 0.7))
    assert len(proposals) == expected
    assert (proposals >= 0).all()
    assert (proposals <= 32).all()


def test_a_region_is_moved_by_its_class_s_code():
    proposal = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
    codes = torch.zeros(1, 2, 4)
    codes[0, 1, 0] = 5.0  # a tenth of it times the side: ten pixels
    found = rcnn.find(proposal, torch.tensor([[0.3, 0.6]]), codes, (100, 100))
    assert found.labels.tolist() == [1, 0]
    assert found.boxes.tolist() == [[20, 10, 40, 30], [10, 10, 30, 30]]
