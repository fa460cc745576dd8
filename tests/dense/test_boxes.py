"""Anchors, codes and matching, on figures computed by hand and against torchvision where it is to agree."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou

from metaformer.dense.boxes import BACKGROUND, BETWEEN, CODE_LIMIT, Anchors, decode, draw, encode, match
from metaformer.dense.rcnn import draw_matched
from metaformer.dense.towers import Targets

RETINA = Anchors((8, 16, 32, 64, 128), tuple(4 * 2 ** (third / 3) for third in range(3)))
CPU = torch.device("cpu")


def random_boxes(count: int, side: float = 100.0) -> Tensor:
    corner = torch.rand(count, 2) * side
    return torch.cat([corner, corner + 1 + torch.rand(count, 2) * side], 1)


# --- anchors ----------------------------------------------------------------------------------------------------------


def test_anchors_of_a_level_have_the_published_sides_and_shapes():
    base = RETINA.base(8)
    assert base.shape == (9, 4)
    sides = base[:, 2:] - base[:, :2]
    areas = [(32 * 2 ** (third / 3)) ** 2 for third in range(3)]
    assert sides.prod(1).tolist() == pytest.approx(areas * 3, rel=1e-5)
    assert (sides[:, 1] / sides[:, 0]).tolist() == pytest.approx([0.5] * 3 + [1.0] * 3 + [2.0] * 3, rel=1e-5)
    assert torch.equal(base[:, :2], -base[:, 2:])


def test_anchors_stand_on_the_corners_of_cells_row_by_row():
    anchors = Anchors((4, 8), (8.0,))
    first, second = anchors.grid([(2, 3), (1, 2)], CPU)
    assert first.shape == (2 * 3 * 3, 4)
    centres = (first[:, :2] + first[:, 2:]) / 2
    assert centres[::3].tolist() == [[0, 0], [4, 0], [8, 0], [0, 4], [4, 4], [8, 4]]
    assert ((second[:, :2] + second[:, 2:]) / 2)[::3].tolist() == [[0, 0], [8, 0]]
    assert first[1].tolist() == [-16, -16, 16, 16]


def test_torchvision_has_the_same_anchors_but_for_rounding():
    theirs = AnchorGenerator(((32, 64, 128),) * 1, ((0.5, 1.0, 2.0),))
    ours = Anchors((8,), (4.0, 8.0, 16.0)).grid([(3, 5)], CPU)[0]
    eight = torch.tensor(8)
    assert (theirs.grid_anchors([[3, 5]], [[eight, eight]])[0] - ours).abs().max() <= 0.5


def test_a_level_whose_side_does_not_divide_keeps_its_stride():
    height = math.ceil(math.ceil(800 / 32) / 2)
    level = Anchors((64,), (4.0,)).grid([(height, 1)], CPU)[0]
    assert ((level[-1, 1] + level[-1, 3]) / 2).item() == 64 * 12
    assert 800 // height == 61  # the stride that torchvision would take


def test_cells_beside_an_image_in_its_batch_are_told():
    (inside,) = Anchors((16,), (8.0,)).in_image([(3, 4)], (32, 48), CPU)
    assert inside.view(3, 4, 3)[..., 0].tolist() == [[True, True, True, False]] * 2 + [[False] * 4]


# --- codes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stds", [(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)])
def test_codes_lead_back_to_the_boxes_and_are_torchvision_s(stds):
    torch.manual_seed(0)
    anchors, boxes = random_boxes(50), random_boxes(50)
    codes = encode(anchors, boxes, stds)
    torch.testing.assert_close(decode(anchors, codes, stds), boxes, atol=1e-4, rtol=1e-5)
    theirs = BoxCoder(tuple(1 / std for std in stds))
    torch.testing.assert_close(codes, theirs.encode_single(boxes, anchors), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(decode(anchors, codes, stds), theirs.decode_single(codes, anchors), atol=1e-3, rtol=1e-4)


def test_a_code_computed_by_hand():
    anchor, box = torch.tensor([[0.0, 0.0, 10.0, 20.0]]), torch.tensor([[5.0, 0.0, 25.0, 20.0]])
    assert encode(anchor, box)[0].tolist() == pytest.approx([1.0, 0.0, math.log(2), 0.0])
    assert encode(anchor, box, (0.1, 0.1, 0.2, 0.2))[0].tolist() == pytest.approx([10.0, 0.0, math.log(2) * 5, 0.0])


@pytest.mark.parametrize("code", [100.0, -100.0])
def test_no_box_is_much_wider_or_narrower_than_its_anchor(code):
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    box = decode(anchor, torch.tensor([[0.0, 0.0, code, 0.0]]))
    assert (box[0, 2] - box[0, 0]).item() == pytest.approx(16 * math.exp(math.copysign(CODE_LIMIT, code)))
    assert (box[0, 2] - box[0, 0]).item() == pytest.approx(1000.0 if code > 0 else 0.256)


# --- who is matched with whom -----------------------------------------------------------------------------------------


def test_matching_by_hand():
    overlaps = torch.tensor([[0.9, 0.45, 0.1, 0.0, 0.2], [0.8, 0.0, 0.1, 0.3, 0.2]])
    found = match(overlaps, high=0.5, low=0.4, least=None)
    assert found.tolist() == [0, BETWEEN, BACKGROUND, BACKGROUND, BACKGROUND]
    # the second object overlaps the first box most too, and takes it
    assert match(overlaps, high=0.5, low=0.4, least=0.0).tolist() == [1, BETWEEN, BACKGROUND, BACKGROUND, BACKGROUND]


def test_an_object_takes_all_boxes_that_it_overlaps_most_if_by_enough():
    overlaps = torch.tensor([[0.35, 0.35, 0.1], [0.0, 0.2, 0.0]])
    assert match(overlaps, high=0.7, low=0.3, least=0.3).tolist() == [0, 0, BACKGROUND]
    assert match(overlaps, high=0.7, low=0.3, least=0.0).tolist() == [0, 1, BACKGROUND]


def test_an_object_takes_the_proposal_that_it_overlaps_most():
    objects = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 7.0]])
    proposal = torch.tensor([[0.0, 0.0, 10.0, 9.0]])  # IoU 0.9 and 0.78
    truth = Targets(objects, torch.tensor([0, 1]), None)
    for least, wanted in ((None, 0), (0.5, 1)):
        boxes, matched = draw_matched(proposal, truth, least)
        assert dict(zip(map(tuple, boxes.tolist()), matched.tolist(), strict=True))[tuple(proposal[0].tolist())] == wanted


def test_an_object_that_overlaps_nothing_takes_nothing():
    assert match(torch.zeros(1, 4), high=0.5, low=0.4, least=0.0).tolist() == [BACKGROUND] * 4


def test_without_objects_all_is_background():
    assert match(torch.zeros(0, 3), high=0.5, low=0.4, least=0.0).tolist() == [BACKGROUND] * 3


def test_torchvision_matches_the_same_where_objects_do_not_contend():
    torch.manual_seed(1)
    objects = torch.tensor([[10.0, 10.0, 60.0, 60.0], [300.0, 300.0, 380.0, 340.0]])
    anchors = torch.cat(Anchors((16,), (4.0,)).grid([(30, 30)], CPU))
    overlaps = box_iou(objects, anchors)
    theirs = Matcher(0.5, 0.4, allow_low_quality_matches=True)(overlaps)
    assert torch.equal(match(overlaps, high=0.5, low=0.4, least=0.0), theirs)


@pytest.mark.parametrize(("positives", "drawn"), [(200, (128, 128)), (10, (10, 246)), (0, (0, 256))])
def test_drawing_keeps_the_share_and_fills_up_with_background(positives, drawn):
    matched = torch.full((1000,), BACKGROUND)
    matched[:positives] = 3
    matched[500:] = BETWEEN
    positive, negative = draw(matched, 256, 0.5)
    assert (len(positive), len(negative)) == drawn
    assert (matched[positive] == 3).all()
    assert (matched[negative] == BACKGROUND).all()
    assert len(positive.unique()) + len(negative.unique()) == 256
