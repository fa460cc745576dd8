"""`create_model`: a name, changes, weights."""

import pytest
import torch
from torch import nn

import metaformer
from metaformer import BatchNorm, MetaFormer, Pooling, create_model
from metaformer.zoo import ZOO


def test_defaults_are_the_published_model():
    model = create_model("caformer_t6")
    assert isinstance(model, MetaFormer)
    assert model.config == ZOO["caformer_t6"]
    assert model.training
    assert model.head.classifier.fc.out_features == 1000
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 1000)


@pytest.mark.parametrize(("classes", "width"), [(None, 1000), (10, 10), (1, 1)])
def test_number_of_classes(classes, width):
    assert create_model("poolformerv2_t6", num_classes=classes)(torch.randn(2, 3, 32, 32)).shape == (2, width)


def test_zero_classes_give_features():
    model = create_model("caformer_t6", num_classes=0)
    assert isinstance(model.head.classifier, nn.Identity)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 192)


@pytest.mark.parametrize("in_chans", [1, 4])
def test_channels(in_chans):
    assert create_model("poolformerv2_t6", in_chans=in_chans)(torch.randn(1, in_chans, 32, 32)).shape == (1, 1000)


def test_specs_or_their_text():
    specs = create_model("convformer_t6", norm=BatchNorm(), mixers=Pooling(window=5), drop_path=0.1)
    text = create_model("convformer_t6", norm="BatchNorm()", mixers="Pooling(window=5)", drop_path=0.1)
    assert specs.config == text.config
    assert isinstance(text.stages[0].blocks[0].mixer.norm, nn.BatchNorm2d)


def test_weights_from_a_file(tmp_path):
    torch.manual_seed(0)
    model = create_model("poolformerv2_t6", num_classes=4)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    again = create_model("poolformerv2_t6", num_classes=4, weights=tmp_path / "a.pth")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), model(x))
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        create_model("poolformerv2_t6", weights=tmp_path / "b.pth")


def test_arguments_have_names():
    with pytest.raises(TypeError):
        create_model("caformer_t6", 10)
    with pytest.raises(TypeError):
        create_model()


def test_public_names_are_there():
    assert metaformer.create_model is create_model
    with pytest.raises(AttributeError, match="no attribute 'creat_model'"):
        metaformer.creat_model  # noqa: B018
