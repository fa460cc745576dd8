"""Weights of dense models: others' names, both ways; a classifier's for the backbone; what does not fit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from metaformer import create_model, load_weights
from metaformer.dense.config import get_dense_config
from metaformer.dense.make import make_dense
from metaformer.dense.model import Dense
from metaformer.weights.convert import convert
from metaformer.weights.files import read_file
from metaformer.weights.formats import cannot_hold, to_format
from metaformer.weights.load import fit_weights
from metaformer.weights.match import find_dense, own_shapes
from metaformer.weights.pretrained import read_dense, read_pretrained, save_pretrained
from metaformer.weights.verify import verify

PUBLISHED = {
    "retinanet": ("mmdet", 80), "faster_rcnn": ("mmdet", 80), "mask_rcnn": ("mmdet", 80), "semantic_fpn": ("mmseg", 150),
}  # fmt: skip


def on_meta(head: str) -> Dense:
    with torch.device("meta"):
        return make_dense(get_dense_config(f"{head}/poolformer_s12", num_classes=PUBLISHED[head][1]))


def theirs(head: str) -> dict[str, tuple[int, ...]]:
    model = on_meta(head)
    return {key: tuple(x.shape) for key, x in to_format(model.state_dict(), PUBLISHED[head][0], model.config).items()}


# --- the names --------------------------------------------------------------------------------------------------------

BACKBONE = {
    "backbone.patch_embed.proj.weight": (64, 3, 7, 7),
    "backbone.network.1.proj.weight": (128, 64, 3, 3),
    "backbone.network.4.5.mlp.fc1.weight": (1280, 320, 1, 1),
    "backbone.network.6.1.layer_scale_2": (512,),
    "backbone.norm2.weight": (128,),
    "backbone.norm4.weight": (320,),
    "backbone.norm6.bias": (512,),
}
NAMES = {
    "retinanet": {
        "neck.lateral_convs.0.conv.weight": (256, 128, 1, 1),
        "neck.lateral_convs.2.conv.bias": (256,),
        "neck.fpn_convs.2.conv.weight": (256, 256, 3, 3),
        "neck.fpn_convs.3.conv.weight": (256, 512, 3, 3),
        "neck.fpn_convs.4.conv.weight": (256, 256, 3, 3),
        "bbox_head.cls_convs.3.conv.weight": (256, 256, 3, 3),
        "bbox_head.reg_convs.0.conv.bias": (256,),
        "bbox_head.retina_cls.weight": (720, 256, 3, 3),
        "bbox_head.retina_reg.weight": (36, 256, 3, 3),
    },
    "mask_rcnn": {
        "backbone.norm0.weight": (64,),
        "neck.lateral_convs.0.conv.weight": (256, 64, 1, 1),
        "neck.fpn_convs.3.conv.bias": (256,),
        "rpn_head.rpn_conv.weight": (256, 256, 3, 3),
        "rpn_head.rpn_cls.weight": (3, 256, 1, 1),
        "rpn_head.rpn_reg.bias": (12,),
        "roi_head.bbox_head.shared_fcs.0.weight": (1024, 12544),
        "roi_head.bbox_head.shared_fcs.1.bias": (1024,),
        "roi_head.bbox_head.fc_cls.weight": (81, 1024),
        "roi_head.bbox_head.fc_reg.weight": (320, 1024),
        "roi_head.mask_head.convs.3.conv.weight": (256, 256, 3, 3),
        "roi_head.mask_head.upsample.weight": (256, 256, 2, 2),
        "roi_head.mask_head.conv_logits.weight": (80, 256, 1, 1),
    },
    "semantic_fpn": {
        "backbone.norm0.bias": (64,),
        "neck.fpn_convs.0.conv.weight": (256, 256, 3, 3),
        "decode_head.scale_heads.0.0.conv.weight": (128, 256, 3, 3),
        "decode_head.scale_heads.1.0.bn.running_mean": (128,),
        "decode_head.scale_heads.2.2.conv.weight": (128, 128, 3, 3),
        "decode_head.scale_heads.3.4.bn.num_batches_tracked": (),
        "decode_head.conv_seg.weight": (150, 128, 1, 1),
    },
}


@pytest.mark.parametrize("head", NAMES)
def test_the_published_names(head):
    names = theirs(head)
    wanted = BACKBONE | NAMES[head]
    assert {key: names.get(key) for key in wanted} == wanted
    starts = ("backbone.", "neck.", "bbox_head.", "rpn_head.", "roi_head.", "decode_head.")
    assert [key for key in names if not key.startswith(starts)] == []
    assert len(names) == len(on_meta(head).state_dict())
    assert ("backbone.norm0.weight" in names) == (head != "retinanet")


@pytest.mark.parametrize("head", PUBLISHED)
def test_a_published_file_says_what_it_is(head):
    found = find_dense(theirs(head))
    assert list(found) == [f"{head}/poolformer_s12"]
    assert found[f"{head}/poolformer_s12"] == on_meta(head).config


# --- both ways --------------------------------------------------------------------------------------------------------

SMALL = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}


def small(head: str, classes: int = 3) -> Dense:
    return make_dense(get_dense_config(f"{head}/poolformer_s12", num_classes=classes, **SMALL))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("head", ["retinanet", "semantic_fpn", pytest.param("mask_rcnn", marks=pytest.mark.slow)])
def test_weights_go_out_and_come_back(head):
    torch.manual_seed(0)
    model, again = small(head), small(head)
    format = PUBLISHED[head][0]
    given = to_format(model.state_dict(), format, model.config)
    assert not same(again.state_dict(), model.state_dict())
    report = fit_weights(again, {"meta": {"epoch": 12}, "state_dict": given})
    assert report.format == format
    assert same(again.state_dict(), model.state_dict())


def test_a_norm_that_retinanet_does_not_use_is_left_out():
    model = small("retinanet")
    given = to_format(model.state_dict(), "mmdet", model.config)
    extra = {"backbone.norm0.weight": torch.ones(8), "backbone.norm0.bias": torch.zeros(8)}
    load_weights(small("retinanet"), given | extra)
    with pytest.raises(ValueError, match=r"unexpected \(1\):\n    backbone.norm1.weight"):
        load_weights(small("retinanet"), given | {"backbone.norm1.weight": torch.ones(8)})


def test_other_classes_keep_the_last_layers():
    torch.manual_seed(0)
    model, other = small("retinanet"), small("retinanet", 5)
    before = other.head.label.weight.clone()
    given = to_format(model.state_dict(), "mmdet", model.config)
    with pytest.raises(ValueError, match=r"of another shape \(2\)(.|\n)*adapt=True makes them fit"):
        load_weights(other, given)
    report = fit_weights(other, given, adapt=True)
    assert report.notes == ("head: new last layers, as the file's are for other classes",)
    assert torch.equal(other.head.label.weight, before)
    assert torch.equal(other.head.box.weight, model.head.box.weight)


def test_a_file_of_theirs_becomes_ours_and_theirs_again(tmp_path: Path):
    torch.manual_seed(0)
    model = small("semantic_fpn")
    given = to_format(model.state_dict(), "mmseg", model.config)
    torch.save({"state_dict": given}, tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match="say which model they belong to"):
        convert(tmp_path / "theirs.pth", tmp_path / "ours", to="ours")
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    made = create_model("semantic_fpn/poolformer_s12", weights=tmp_path / "ours.pth", **SMALL)
    assert made.config == model.config
    assert same(made.state_dict(), model.state_dict())


@pytest.mark.slow
def test_a_published_file_is_converted_both_ways(tmp_path: Path):
    torch.manual_seed(0)
    model = make_dense(get_dense_config("semantic_fpn/poolformer_s12", num_classes=7))
    given = to_format(model.state_dict(), "mmseg", model.config)
    torch.save({"state_dict": given}, tmp_path / "theirs.pth")
    told = verify(tmp_path / "theirs.pth")
    assert (told.format, told.models, told.num_classes) == ("mmseg", ("semantic_fpn/poolformer_s12",), 7)
    done = convert(tmp_path / "theirs.pth", tmp_path / "ours", to="ours")
    assert (done.model, done.format) == ("semantic_fpn/poolformer_s12", "mmseg")
    convert(tmp_path / "ours", tmp_path / "back.pth", to="mmseg")
    assert same(read_file(tmp_path / "back.pth"), given)


# --- a classifier's ---------------------------------------------------------------------------------------------------


def test_a_classifier_s_weights_fill_the_backbone(tmp_path: Path):
    torch.manual_seed(0)
    classifier = create_model("caformer_t6", num_classes=6)
    torch.save(classifier.state_dict(), tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="backbone: read; what is above it is new, the file has a classifier"):
        model = create_model("retinanet/caformer_t6", num_classes=2, weights=tmp_path / "a.pth")
    own = {key: value for key, value in classifier.state_dict().items() if key.startswith("stages.")}
    assert same(model.backbone.body.state_dict(), own)
    assert model.config.num_classes == 2
    with pytest.raises(ValueError, match="do not fit"):
        load_weights(model, tmp_path / "a.pth")


@pytest.mark.parametrize("format", ["v1", "timm", "transformers", "mmpretrain"])
def test_a_backbone_is_read_in_any_format(format):
    torch.manual_seed(0)
    classifier = create_model("poolformer_s12", num_classes=4, **SMALL)
    report = fit_weights(small("semantic_fpn"), to_format(classifier.state_dict(), format, classifier.config), adapt=True)
    assert report.format == format
    assert not report.answers


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "format", "sentence"),
    [
        ("retinanet/poolformer_s12", "mmseg", "holds semantic_fpn, and this is retinanet"),
        ("upernet/poolformer_s12", "mmseg", "holds semantic_fpn, and this is upernet"),
        ("retinanet/poolformer_s12", "timm", "holds classifiers, and this is retinanet"),
        ("retinanet/caformer_t6", "mmdet", "as published on a poolformer, and this is none"),
        ("retinanet/timm:resnet18", "mmdet", "as published on a poolformer, and this is none"),
    ],
)
def test_what_a_format_cannot_hold(name, format, sentence):
    assert sentence in cannot_hold(format, get_dense_config(name, num_classes=3))


def test_another_norm_is_refused():
    changed = get_dense_config("semantic_fpn/poolformer_s12", num_classes=3, head_norm="GroupNorm()")
    assert "as published" in cannot_hold("mmseg", changed)
    assert cannot_hold("mmseg", get_dense_config("semantic_fpn/poolformer_s12", num_classes=3)) == ""
    assert "and this is a classifier" in cannot_hold("mmdet", create_model("poolformer_s12", num_classes=1, **SMALL).config)


def test_shapes_are_known_without_weights():
    assert own_shapes(small("retinanet").config) == {key: tuple(x.shape) for key, x in small("retinanet").state_dict().items()}


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["retinanet/poolformerv2_t6", "semantic_fpn/timm:test_resnet"])
def test_a_folder_keeps_a_dense_model(name, tmp_path: Path):
    torch.manual_seed(0)
    model = make_dense(get_dense_config(name, num_classes=3, channels=16, head_channels=16))
    save_pretrained(model, tmp_path / "kept", {"classes": ["a", "b", "c"]})
    again, about = read_dense(tmp_path / "kept")
    assert again.config == model.config
    assert same(again.state_dict(), model.state_dict())
    assert about["classes"] == ["a", "b", "c"]
    with pytest.raises(ValueError, match=f"holds {name.partition('/')[0]}, no classifier"):
        read_pretrained(tmp_path / "kept")
    (tmp_path / "kept" / "model.json").write_text('{"schema": 1, "dense": {"head": "retinanet"}}')
    with pytest.raises(ValueError, match="is damaged: it describes no model"):
        read_dense(tmp_path / "kept")
