"""The heads beside others' with the same weights: torchvision's detectors, where they agree, and transformers' UPerNet."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from transformers import UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetHead

from metaformer.core.pyramid import FPN
from metaformer.dense.config import get_dense_config
from metaformer.dense.make import make_dense
from metaformer.dense.model import Dense


def fill(theirs: nn.Module, ours: list[nn.Module]) -> nn.Module:
    """Theirs with the weights of ours, which come in the same order."""
    values = [value for module in ours for value in module.state_dict().values()]
    keys = theirs.state_dict().keys()
    assert len(keys) == len(values)
    theirs.load_state_dict(dict(zip(keys, values, strict=True)))
    return theirs.eval()


def model(head: str, **changes) -> Dense:
    torch.manual_seed(0)
    config = get_dense_config(f"{head}/poolformerv2_t6", num_classes=5, channels=32, head_channels=32, **changes)
    made = make_dense(config).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1)
    return made


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def maps() -> list[Tensor]:
    return [torch.randn(2, dim, side, side + 3) for dim, side in ((32, 17), (64, 9), (128, 5), (192, 3))]


def test_the_pyramid_is_torchvision_s():
    torch.manual_seed(0)
    ours = FPN((32, 64, 128, 192), 16, extra="pool")
    theirs = FeaturePyramidNetwork([32, 64, 128, 192], 16, LastLevelMaxPool())
    fill(theirs, [ours.lateral, ours.smooth])
    given = maps()
    names = OrderedDict((str(i), x) for i, x in enumerate(given))
    for one, other in zip(ours(given), theirs(names).values(), strict=True):
        torch.testing.assert_close(one, other)


def test_retinanet_s_head_is_torchvision_s():
    ours = model("retinanet")
    head = ours.head
    theirs = RetinaNetHead(32, 9, 5)
    fill(theirs, [head.label_tower, head.label, head.box_tower, head.box])
    x = torch.randn(2, 3, 64, 96)
    logits, codes, _ = ours.predict(x)
    answer = theirs(ours.fpn(ours.backbone(x)))
    torch.testing.assert_close(torch.cat(logits, 1), answer["cls_logits"])
    torch.testing.assert_close(torch.cat(codes, 1), answer["bbox_regression"])


def test_the_proposals_head_is_torchvision_s():
    ours = model("faster_rcnn").rpn
    theirs = fill(RPNHead(32, 3), [ours.tower, ours.object, ours.box])
    levels = [torch.randn(2, 32, 6, 7), torch.randn(2, 32, 3, 4)]
    logits, codes = ours.predict(levels)
    found, moved = concat_box_prediction_layers(*theirs(levels))
    torch.testing.assert_close(torch.cat(logits, 1).flatten(), found.flatten())
    torch.testing.assert_close(torch.cat(codes, 1).flatten(0, 1), moved)


def test_the_heads_of_regions_are_torchvision_s():
    ours = model("mask_rcnn")
    pooled = torch.randn(3, 32, 7, 7)
    box = ours.box_head
    hidden = fill(TwoMLPHead(32 * 49, 1024), [box.fc1, box.fc2])(pooled)
    logits, codes = box(pooled)
    theirs = fill(FastRCNNPredictor(1024, 6), [box.label, nn.Linear(1024, 24)])
    torch.testing.assert_close(theirs(hidden)[0], logits)
    codes_again = fill(FastRCNNPredictor(1024, 5), [nn.Linear(1024, 5), box.box])(hidden)[1]
    torch.testing.assert_close(codes_again.view(3, 5, 4), codes)
    mask = ours.mask_head
    tower = fill(MaskRCNNHeads(32, (32,) * 4, 1), [mask.tower])
    last = fill(MaskRCNNPredictor(32, 32, 5), [mask.up, mask.mask])
    wide = torch.randn(3, 32, 14, 14)
    torch.testing.assert_close(mask(wide), last(tower(wide)))


def test_upernet_is_transformers():
    ours = model("upernet", head_norm="BatchNorm()")
    theirs = UperNetHead(UperNetConfig(hidden_size=32, num_labels=5), [32, 64, 128, 192])
    fill(theirs, [ours.classify, *ours.pooled, ours.top, ours.lateral, ours.smooth, ours.fuse])
    given = maps()
    torch.testing.assert_close(ours.classify(ours.read(given)), theirs(given), atol=1e-4, rtol=1e-4)
