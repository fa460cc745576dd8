"""`create_model`: a name, changes, weights."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from tests.hub import Hub
from torch import nn

import metaformer
from metaformer import BatchNorm, MetaFormer, Pooling, create_model
from metaformer.weights import create
from metaformer.weights.catalogue import ROWS, find
from metaformer.weights.formats import to_format
from metaformer.weights.pretrained import save_pretrained
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


# --- published weights ------------------------------------------------------------------------------------------------


SMALL = {"dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1)}


def put(hub: Hub, name: str, format: str = "timm", **changes: Any) -> MetaFormer:
    """A file of random weights where the catalogue says that `name.tag` is; the model they are of."""
    model, _, tag = name.partition(".")
    row = find(model, tag)
    torch.manual_seed(0)
    made = create_model(model, **SMALL, **{"num_classes": row.num_classes} | changes)
    state = {key: tensor.contiguous() for key, tensor in to_format(made.state_dict(), row.format, made.config).items()}
    if row.file.endswith(".safetensors"):
        hub.files[f"{row.where}/{row.file}"] = save(state)
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        hub.files[f"{row.where}/{row.file}" if row.on_hub else f"/weights/{row.file}"] = buffer.getvalue()
    return made.eval()


@pytest.mark.parametrize(
    ("name", "tag", "classes"),
    [
        ("caformer_s18.in1k", True, 1000),
        ("caformer_s18.in1k", "in1k", 1000),
        ("caformer_s18.in21k", "in21k", 21841),
        ("convformer_s18.in21k_ft_in1k_384", "in21k_ft_in1k_384", 1000),
        ("caformer_s18.in1k_384@v2", "in1k_384@v2", 1000),
        ("poolformerv2_s12.in1k", True, 1000),
        ("poolformer_s12.in1k", True, 1000),
        ("poolformer_s12.in1k@v1", "in1k@v1", 1000),
        ("poolformer_s12.in1k@transformers", "in1k@transformers", 1000),
        ("identityformer_s12.in1k", True, 1000),
        ("randformer_s12.in1k", True, 1000),
        ("metaformer_ppaa_s12_224.in1k", True, 1000),
    ],
)
def test_published_weights(hub: Hub, name: str, tag: str | bool, classes: int) -> None:
    published = put(hub, name)
    model = create_model(published_name := name.partition(".")[0], weights=tag, **SMALL)
    assert model.config.num_classes == classes
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(model.eval()(x), published(x)), published_name


def test_every_row_is_found_where_create_model_looks() -> None:
    for row in ROWS:
        assert find(row.model, f"{row.tag}@{row.format}") is row


def test_a_tag_that_is_not_there_names_those_that_are(hub: Hub) -> None:
    with pytest.raises(ValueError, match=r"^caformer_s18 has no published weights 'in22k': did you mean in21k\?$"):
        create_model("caformer_s18", weights="in22k")
    with pytest.raises(ValueError, match=r"^no weights are published for caformer_t6: train it, metaformer train caformer_t6"):
        create_model("caformer_t6", weights=True)
    with pytest.raises(FileNotFoundError, match=r"no file of weights at in1k\.pth"):
        create_model("caformer_s18", weights="in1k.pth")
    assert hub.asked == []
    create_model("caformer_t6", weights=False)


def test_other_classes_and_channels_are_fitted_and_told(hub: Hub) -> None:
    put(hub, "caformer_s18.in1k")
    with pytest.warns(UserWarning, match=r"^caformer_s18: ") as told:
        model = create_model("caformer_s18", weights=True, num_classes=7, in_chans=1, **SMALL)
    assert (model.config.num_classes, model.config.in_chans) == (7, 1)
    assert sorted(str(warning.message) for warning in told) == [
        "caformer_s18: classifier: a new last layer of 7 classes, the file's has 1000",
        "caformer_s18: stem: 3 input channels to 1, summed",
    ]
    with pytest.raises(ValueError, match="these weights do not fit"):
        create_model("caformer_s18", weights=True, **SMALL | {"dims": (8, 8, 8, 16)})


def test_a_file_says_how_many_classes(tmp_path: Path) -> None:
    for name in ("caformer_t6", "poolformerv2_t6"):
        model = create_model(name, num_classes=4)
        for format in ("ours", "timm", "v2"):
            torch.save(to_format(model.state_dict(), format, model.config), tmp_path / "a.pth")
            assert create_model(name, weights=tmp_path / "a.pth").config.num_classes == 4
    features = create_model("caformer_t6", num_classes=0)
    torch.save(features.state_dict(), tmp_path / "a.pth")
    with pytest.warns(UserWarning, match="^caformer_t6: the file has no classifier, so the model gives features$"):
        assert create_model("caformer_t6", weights=str(tmp_path / "a.pth")).config.num_classes == 0


def test_a_folder_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    model = create_model("caformer_s18", num_classes=5, **SMALL)
    torch.save(model.state_dict(), tmp_path / "caformer_s18.pth")
    x = torch.randn(1, 3, 64, 64)
    wanted = model.eval()(x)
    assert torch.equal(create_model("caformer_s18", weights=tmp_path, **SMALL).eval()(x), wanted)
    monkeypatch.setenv("METAFORMER_WEIGHTS", str(tmp_path))
    assert torch.equal(create_model("caformer_s18", weights=True, **SMALL).eval()(x), wanted)
    with pytest.raises(FileNotFoundError, match=r"no file of weights at .*: a folder holds model\.safetensors"):
        create_model("caformer_s36", weights=tmp_path)
    save_pretrained(model, tmp_path / "saved")
    assert torch.equal(create_model("caformer_s18", weights=tmp_path / "saved", **SMALL).eval()(x), wanted)
    assert hub.asked == []


def test_a_name_with_its_weights_and_what_is_to_know(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create, "create_model", lambda name, weights: create_model(name, weights=weights, **SMALL))
    put(hub, "caformer_s18.in1k_384")
    model, about = create.create_published("caformer_s18.in1k_384")
    assert model.config.num_classes == len(about["classes"]) == len(about["synsets"]) == 1000
    assert about["preprocess"] == {
        "size": 384, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "fit": "crop", "crop_fraction": 1.0,
    }  # fmt: skip
    assert (about["weights"], about["published_top1"], about["licence"]) == ("caformer_s18.in1k_384", 85.0, "Apache-2.0")


def test_a_folder_of_a_model_that_nobody_publishes(tmp_path: Path) -> None:
    made = create_model("poolformerv2_t6", num_classes=2)
    save_pretrained(made, tmp_path / "saved")
    again = create_model("poolformerv2_t6", weights=tmp_path / "saved")
    assert again.config == made.config
    assert all(torch.equal(one, other) for one, other in zip(made.parameters(), again.parameters(), strict=True))


def test_the_name_that_the_list_gives_is_a_tag_too(hub: Hub) -> None:
    put(hub, "caformer_s18.in1k_384")
    assert create_model("caformer_s18", weights="caformer_s18.in1k_384", **SMALL).config.num_classes == 1000
