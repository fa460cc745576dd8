"""The models: published sizes, a training step, what is found, what is frozen, what is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.dense.truths import SIZES, batch, region_maps
from torch import nn

from metaformer import GroupNorm, count, create_model, list_models
from metaformer.core.layers import MapNorm
from metaformer.dense.config import DenseConfig, get_dense_config
from metaformer.dense.make import make_dense
from metaformer.dense.model import Dense
from metaformer.dense.regions import RegionLogits
from metaformer.zoo import HEADS, ZOO

DETECTORS, SEGMENTERS = HEADS[:3], HEADS[3:]
NARROW: dict[str, Any] = {"channels": 32, "head_channels": 32}


def on_meta(name: str, classes: int) -> Dense:
    with torch.device("meta"):
        return make_dense(get_dense_config(name, num_classes=classes))


def tiny(head: str, backbone: str = "poolformerv2_t6", **changes: Any) -> Dense:
    torch.manual_seed(0)
    return make_dense(get_dense_config(f"{head}/{backbone}", num_classes=3, **(NARROW | changes)))


# --- published sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "classes", "size", "parameters", "macs"),
    [
        ("retinanet/poolformer_s12", 80, (800, 1280), 21_653_044, 188_492_605_440),
        ("mask_rcnn/poolformer_s12", 80, (800, 1280), 31_570_608, 207_047_152_640),
        ("semantic_fpn/poolformer_s12", 150, 512, 15_669_846, 30_910_971_904),
    ],
)
def test_published_sizes(name, classes, size, parameters, macs):
    cost = count(on_meta(name, classes), size)
    assert cost.parameters == parameters
    assert cost.macs == macs


def test_what_the_published_configuration_is():
    model = on_meta("retinanet/poolformer_s12", 80)
    assert len(model.backbone.norms) == 3
    assert all(isinstance(norm, MapNorm) and norm.bias is not None and norm.eps == 1e-5 for norm in model.backbone.norms)
    assert model.fpn.extra[0].in_channels == 512
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in on_meta("semantic_fpn/poolformer_s12", 150).modules()) == 7
    assert get_dense_config("mask_rcnn/poolformer_s12", num_classes=1).backbone.drop_path == 0


def test_levels_are_chosen_by_stride():
    x = torch.zeros(1, 3, 128, 160)
    assert [tuple(m.shape[2:]) for m in tiny("retinanet").backbone(x)] == [(16, 20), (8, 10), (4, 5)]
    assert [tuple(m.shape[2:]) for m in tiny("mask_rcnn").backbone(x)] == [(32, 40), (16, 20), (8, 10), (4, 5)]
    levels = tiny("retinanet").fpn(tiny("retinanet").backbone(x))
    assert [tuple(level.shape[2:]) for level in levels] == [(16, 20), (8, 10), (4, 5), (2, 3), (1, 2)]
    with pytest.raises(ValueError, match="needs maps of strides 8, 16, 32, and the backbone has 2, 4, 8, 16"):
        tiny("retinanet", stem_stride=2)


# --- a training step --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["poolformerv2_t6", "caformer_t6"])
@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_learns_from_images_with_and_without_objects(head, backbone):
    model = tiny(head, backbone)
    images, truths = batch()
    given = region_maps() if head in SEGMENTERS else truths
    losses = model(images, given)
    total = sum(losses.values())
    assert torch.isfinite(total)
    assert total > 0
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("head", DETECTORS)
def test_images_without_objects_give_every_parameter_a_gradient(head):
    model = tiny(head)
    images, truths = batch()
    losses = model(images[1:2], truths[1:2])
    sum(losses.values()).backward()
    assert losses["box"] == 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_losses_are_sums_over_images():
    model = tiny("retinanet").eval()
    images, truths = batch()
    alike = [(images[0], truths[0])] * 2
    one = model([images[0]], [truths[0]])
    two = model(*map(list, zip(*alike, strict=True)))
    for name, loss in one.items():
        torch.testing.assert_close(two[name], 2 * loss)


def test_a_crowd_and_what_has_no_area_are_not_learnt_from():
    model = tiny("retinanet").eval()
    images, truths = batch()
    for place, keep in ((0, 2), (2, 1)):
        truth = truths[place]
        rest = replace(truth, boxes=truth.boxes[:keep], labels=truth.labels[:keep], crowd=truth.crowd[:keep], masks=None)
        with_all, without = model([images[place]], [truth]), model([images[place]], [rest])
        assert all(torch.equal(with_all[name], without[name]) for name in with_all)


def test_void_pixels_are_not_learnt_from():
    model = tiny("semantic_fpn").eval()
    images, maps = batch()[0], region_maps()
    whole = model(images, maps)["region"]
    filled = [torch.where(one == 255, 0, one) for one in maps]
    assert whole < model(images, filled)["region"]
    assert model(images, [torch.full_like(one, 255) for one in maps])["region"] == 0


def test_many_classes_are_judged_a_few_at_a_time(monkeypatch):
    """As cross entropy and the largest logit of all say it, and never with the logits of all in the image's own size."""
    logits = torch.randn(1, 40, 8, 10, generator=torch.Generator().manual_seed(0)) * 5
    truth = (torch.arange(60 * 70) % 40).view(60, 70).to(torch.uint8)
    truth[:5] = 255
    answer = RegionLogits(logits, [(30, 37)])
    whole = answer.whole(0, (60, 70))
    entropy = nn.functional.cross_entropy(whole[None], truth[None].long(), ignore_index=255, reduction="sum")
    asked, plain = [], RegionLogits.whole
    monkeypatch.setattr(RegionLogits, "whole", lambda *args: asked.append(plain(*args)) or asked[-1])
    loss, called = answer.judged(0, truth)
    torch.testing.assert_close(loss, entropy)
    assert torch.equal(called, whole.argmax(0))
    assert max(len(some) for some in asked) == 16
    few = RegionLogits(logits[:, :5], [(30, 37)])
    loss, called = few.judged(0, truth % 5)
    assert loss == nn.functional.cross_entropy(whole[None, :5], (truth % 5)[None].long(), reduction="sum")  # to the bit
    assert torch.equal(called, whole[:5].argmax(0))


def test_masks_are_asked_for():
    images, truths = batch()
    with pytest.raises(ValueError, match="have none: choose faster_rcnn or retinanet"):
        tiny("mask_rcnn")([images[0]], [replace(truths[0], masks=None)])


@pytest.mark.parametrize("head", ["retinanet", "mask_rcnn", "semantic_fpn"])
def test_losses_and_answers_in_half_precision_are_finite(head):
    model = tiny(head)
    given = region_maps() if head in SEGMENTERS else batch()[1]
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch()[0], given)
        answers = model.eval()(batch()[0])
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())
    found = answers.whole(0, SIZES[0]) if head in SEGMENTERS else answers[0].scores
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("head", HEADS)
def test_checkpointing_changes_no_gradient(head):
    given = region_maps() if head in SEGMENTERS else batch()[1]
    grads = []
    for on in (False, True):
        model = tiny(head, head_dropout=0.0)
        model.checkpointing = on
        assert model.checkpointing is on
        torch.manual_seed(1)
        sum(model(batch()[0], given).values()).backward()
        grads.append(model.backbone.body.stages[0].embed.conv.weight.grad)
    torch.testing.assert_close(*grads)


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", DETECTORS)
def test_what_is_found_lies_in_the_image_best_first(head):
    model = tiny(head).eval()
    if head == "retinanet":
        nn.init.constant_(model.head.label.bias, 0.0)  # at first nothing is likely
    images, _ = batch()
    with torch.no_grad():
        found = model(images)
    assert [one.size for one in found] == list(SIZES)
    assert sum(len(one.boxes) for one in found)
    for one in found:
        height, width = one.size
        assert len(one.boxes) == len(one.scores) == len(one.labels) <= 100
        assert (one.boxes >= 0).all()
        assert (one.boxes <= torch.tensor([width, height, width, height])).all()
        assert (one.scores.diff() <= 0).all()
        assert ((one.labels >= 0) & (one.labels < 3)).all()
        assert (one.masks is None) == (head != "mask_rcnn")
        if one.masks is not None:
            assert one.masks.shape == (len(one.boxes), 28, 28)
            assert ((one.masks >= 0) & (one.masks <= 1)).all()


@pytest.mark.parametrize("head", SEGMENTERS)
def test_region_maps_have_the_size_that_is_asked_for(head):
    model = tiny(head).eval()
    with torch.no_grad():
        regions = model(batch()[0])
    assert regions.logits.shape == (3, 3, 24, 24)
    maps = regions.decode([(64, 96), (100, 60), (32, 32)])
    assert [tuple(one.shape) for one in maps] == [(64, 96), (100, 60), (32, 32)]
    assert all(one.dtype == torch.uint8 and one.max() < 3 for one in maps)
    whole = nn.functional.interpolate(regions.logits[:1], scale_factor=4, mode="bilinear")[0, :, :64, :96]
    torch.testing.assert_close(regions.whole(0, (64, 96)), whole)


def test_many_classes_are_called_as_few_are():
    logits = torch.randn(1, 40, 6, 8, generator=torch.Generator().manual_seed(0)).round()  # ties too: the first class wins
    regions = RegionLogits(logits, [(24, 32)])
    whole = regions.whole(0, (50, 40))
    (called,) = regions.decode([(50, 40)])
    assert called.unique().numel() > 32
    assert torch.equal(whole.gather(0, called.long()[None])[0], whole.amax(0))
    same = RegionLogits(torch.zeros(1, 40, 6, 8), [(24, 32)])
    assert (same.decode([(24, 32)])[0] == 0).all()


@pytest.mark.parametrize("head", SEGMENTERS)
def test_regions_have_at_most_255_classes(head):
    assert get_dense_config(f"{head}/poolformerv2_t6", num_classes=255).num_classes == 255
    with pytest.raises(ValueError, match=rf"^num_classes=256 is too many for {head}: at most 255 are possible$"):
        get_dense_config(f"{head}/poolformerv2_t6", num_classes=256)
    assert get_dense_config("retinanet/poolformerv2_t6", num_classes=256).num_classes == 256


def test_bytes_are_normalised_and_padded_with_the_mean():
    model = tiny("retinanet")
    image = torch.full((3, 20, 40), 255, dtype=torch.uint8)
    x, sizes = model.stack([image, image[:, :10]])
    assert x.shape == (2, 3, 32, 64)
    assert sizes == [(20, 40), (10, 40)]
    white = [(1 - mean) / std for mean, std in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    assert x[0, :, 19, 39].tolist() == pytest.approx(white, rel=1e-5)
    assert (x[0, :, 20:] == 0).all()
    assert (x[1, :, 10:] == 0).all()
    same, _ = model.stack(x)
    assert same is x


# --- what may be changed ----------------------------------------------------------------------------------------------


def test_frozen_stages_stay_as_they_are():
    model = tiny("semantic_fpn", norm="BatchNorm()").train()
    model.freeze(2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    sum(model(batch()[0], region_maps()).values()).backward()
    torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.1).step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert not any(key.startswith(("backbone.body.stages.0", "backbone.body.stages.1")) for key in changed)
    assert any(key.startswith("backbone.body.stages.2") for key in changed)
    assert "backbone.body.stages.2.blocks.0.mixer.norm.running_mean" in changed
    model.freeze(0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="up to 4"):
        model.freeze(5)


@pytest.mark.parametrize("head", HEADS)
def test_norms_of_the_head_do_not_depend_on_the_batch(head):
    model = tiny(head, head_norm="GroupNorm(groups=8)")
    assert any(isinstance(module, nn.GroupNorm) and module.num_groups == 8 for module in model.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert model.config.head_norm == GroupNorm(groups=8)


def test_a_batch_of_one_trains_upernet():
    image, regions = batch()[0][0], region_maps()[0]
    assert torch.isfinite(tiny("upernet", head_channels=64)([image], [regions])["region"])


@pytest.mark.parametrize("name", ["resnet18", "test_resnet"])
def test_a_backbone_of_timm_s(name):
    model = tiny("retinanet", f"timm:{name}")
    images, truths = batch()
    sum(model(images, truths).values()).backward()
    assert model.backbone.body.strides[-3:] == [8, 16, 32]
    model.checkpointing = True
    assert torch.isfinite(sum(model(images, truths).values()))
    with pytest.raises(ValueError, match="none, as the backbone is timm's"):
        model.freeze(1)


def test_maps_of_timm_s_are_channels_first():
    model = tiny("semantic_fpn", "timm:test_convnext")
    assert model.backbone(torch.zeros(1, 3, 64, 64))[0].shape[2:] == (16, 16)


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("retinanat/poolformer_s12", {}, "no head 'retinanat'.*did you mean retinanet"),
        ("retinanet/poolfomer_s12", {}, "no model 'poolfomer_s12', did you mean poolformer_s12"),
        ("retinanet/timm:resnt18", {}, "timm has no model 'timm:resnt18', did you mean timm:resnet18"),
        ("retinanet/poolformer_s12", {"chanels": 3}, "has no 'chanels', did you mean channels"),
        ("retinanet/poolformer_s12", {"pool_first": True}, "has no 'pool_first'"),
        ("retinanet/poolformer_s12", {"channels": 0}, "channels=0 is not a whole number from 1 on"),
        ("retinanet/poolformer_s12", {"head_norm": "ReLU()"}, "is no norm"),
        ("semantic_fpn/poolformer_s12", {"head_dropout": 1.0}, "not at least 0 and below 1"),
        ("retinanet/poolformer_s12", {"anchor_scale": 0}, "anchor_scale=0 is not above 0"),
        ("retinanet/poolformer_s12", {"std": (1.0, 1.0)}, "give 3 of each"),
        ("retinanet/timm:vit_tiny_patch16_224", {}, "needs maps of strides 8, 16, 32, and the backbone has 16, 16"),
    ],
)
def test_slips_are_named(name, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        create_model(name, num_classes=2, **changes)


@pytest.mark.parametrize("name", ["retinanet/poolformerv2_t6", "upernet/timm:resnet18"])
def test_a_config_travels_as_json(name):
    config = get_dense_config(name, num_classes=4, head_norm="GroupNorm(groups=4)", drop_path=0.1, in_chans=1)
    assert config.mean == (0.5,)
    assert DenseConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match="no 'chanels', did you mean channels"):
        DenseConfig.from_dict({**config.to_dict(), "chanels": 3})


def test_heads_are_listed_with_every_backbone():
    assert list_models("retinanet/*") == [f"retinanet/{name}" for name in ZOO]
    assert list_models("*/caformer_s18") == [f"{head}/caformer_s18" for head in HEADS]
    assert list_models("mask*/caformer_s1*") == ["mask_rcnn/caformer_s18"]
    assert list_models() == list(ZOO)
