"""Weights are written in the names of others and come back bit for bit, and what a format cannot hold is refused."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tests.fill import empty_model
from tests.published import PUBLISHED
from tests.weights.test_formats import BIG, KNOWN, numbered
from torch import Tensor

from metaformer import MetaFormer, create_model, load_weights
from metaformer.weights.convert import PICKLES, convert
from metaformer.weights.files import open_weights
from metaformer.weights.pretrained import read_pretrained, save_pretrained

PAIRS = [(name, format) for format, names in KNOWN.items() for name in names if name in PUBLISHED]
TINY = {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24), "num_classes": 5}


def slow_if_big(pairs: list[tuple[str, str]]) -> list:
    return [pytest.param(*pair, marks=pytest.mark.slow if pair[0].endswith((*BIG, "s18")) else ()) for pair in pairs]


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key].view(torch.int32), b[key].view(torch.int32)) for key in a)


def poolformer(folder: Path, **changes) -> MetaFormer:
    """A small PoolFormer of the first paper, saved in a folder of ours."""
    torch.manual_seed(0)
    model = create_model("poolformer_s12", **{**TINY, **changes})
    save_pretrained(model, folder)
    return model


def held(path: Path) -> dict[str, Tensor]:
    return dict(open_weights(path).tensors())


@pytest.mark.parametrize(("name", "format"), slow_if_big(PAIRS))
def test_files_there_and_back(name, format, tmp_path):
    """From a folder of ours to each format and back by names and shapes alone."""
    model = numbered(empty_model(name))
    save_pretrained(model, tmp_path / "ours")
    ending = PICKLES.get(format, (".safetensors",))[0]
    there = convert(tmp_path / "ours", tmp_path / f"{name}{ending}", to=format)
    assert (there.model, there.format) == ("", "ours")
    back = convert(there.files[0], tmp_path / "back", to="ours")
    assert (back.model, back.format) == (name, format)
    again, about = read_pretrained(tmp_path / "back")
    assert about["config"] == model.config.to_dict()
    assert same_bits(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("to", ["v1", "timm", "transformers", "mmpretrain"])
@pytest.mark.parametrize("source", ["v1", "timm", "transformers", "mmpretrain"])
def test_from_each_to_each(source, to, tmp_path):
    poolformer(tmp_path / "ours")
    first = convert(tmp_path / "ours", tmp_path / "first", to=source).files[0]
    direct = convert(tmp_path / "ours", tmp_path / "direct", to=to).files[0]
    with pytest.raises(ValueError, match="fit no published model"):
        convert(first, tmp_path / "second", to=to)  # its depths and widths are no published model's
    save_pretrained(load_weights(create_model("poolformer_s12", **TINY), first), tmp_path / "again")
    assert same_bits(held(convert(tmp_path / "again", tmp_path / "second", to=to).files[0]), held(direct))


# --- which model it is ------------------------------------------------------------------------------------------------


def test_a_twin_must_be_named(tmp_path):
    model = numbered(empty_model("metaformer_id_s12"))
    save_pretrained(model, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "best.pth", to="v1")
    with pytest.raises(ValueError, match="fit poolformer_s12 and metaformer_id_s12 alike: say which, model=poolformer_s12"):
        convert(tmp_path / "best.pth", tmp_path / "back", to="ours")
    assert not (tmp_path / "back").exists()
    convert(tmp_path / "best.pth", tmp_path / "back", to="ours", model="metaformer_id_s12")
    assert read_pretrained(tmp_path / "back")[0].config == model.config
    with pytest.raises(
        ValueError, match="format 'timm' holds poolformer, poolformerv2, convformer, caformer in the sizes that are published"
    ):
        convert(tmp_path / "back", tmp_path / "a.safetensors", to="timm")


def test_the_wrong_model_is_refused(tmp_path):
    poolformer(tmp_path)
    with pytest.raises(ValueError, match="these weights do not fit"):
        convert(tmp_path, tmp_path / "a.pth", to="v1", model="poolformer_s12")
    with pytest.raises(ValueError, match="no model 'poolfrmer_s12', did you mean poolformer_s12"):
        convert(tmp_path, tmp_path / "a.pth", to="v1", model="poolfrmer_s12")
    assert not (tmp_path / "a.pth").exists()


def test_classes_and_channels_come_from_the_file(tmp_path):
    model = create_model("poolformer_s12", num_classes=7, in_chans=2)
    torch.save(model.state_dict(), tmp_path / "poolformer_s12.pth")
    convert(tmp_path / "poolformer_s12.pth", tmp_path / "new", to="ours")
    config = read_pretrained(tmp_path / "new")[0].config
    assert (config.num_classes, config.in_chans) == (7, 2)


def test_what_model_json_says_is_kept(tmp_path):
    model = create_model("poolformer_s12", **TINY)
    save_pretrained(model, tmp_path / "a", {"classes": ["a", "b", "c", "d", "é"]})
    convert(tmp_path / "a", tmp_path / "b", to="ours")
    assert read_pretrained(tmp_path / "b")[1] == read_pretrained(tmp_path / "a")[1]
    convert(tmp_path / "a", tmp_path / "c", to="transformers")
    assert json.loads((tmp_path / "c" / "config.json").read_text())["id2label"] == {
        "0": "a", "1": "b", "2": "c", "3": "d", "4": "é",
    }  # fmt: skip


def test_a_folder_of_timms_own_is_refused(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps({"schema": 1, "timm": {"name": "resnet18"}}))
    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"model\.json describes no model that can be converted"):
        convert(tmp_path, tmp_path / "out", to="ours")


@pytest.mark.parametrize(
    ("name", "to"),
    [("randformer_t6", "timm"), ("metaformer_ppff_s12_224", "timm"), ("caformer_t6", "transformers"), ("caformer_t6", "v1"),
     ("metaformer_id_s12", "mmpretrain"), ("poolformer_s12", "v2"), ("caformer_t6", "v2")],
)  # fmt: skip
def test_what_a_format_cannot_hold_is_refused(name, to, tmp_path):
    save_pretrained(create_model(name, **TINY), tmp_path / "a")
    with pytest.raises(ValueError, match=rf"cannot be written: format '{to}' holds .* and this is none; 'ours' holds every"):
        convert(tmp_path / "a", tmp_path / "out.safetensors", to=to)
    assert not (tmp_path / "out.safetensors").exists()


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_stays(dtype, tmp_path):
    model = create_model("poolformer_s12", **TINY)
    save_pretrained(model.to(dtype), tmp_path / "a")
    path = convert(tmp_path / "a", tmp_path / "b.safetensors", to="timm").files[0]
    assert {tensor.dtype for tensor in held(path).values()} == {dtype}


def test_a_checkpoint_is_unwrapped_and_the_average_can_be_left(tmp_path):
    model = create_model("poolformer_s12")
    state = model.state_dict()
    average = {f"module.{key}": tensor + 1 for key, tensor in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": average, "epoch": 3}, tmp_path / "poolformer_s12.pth")
    for ema, part, more in [(None, "state_dict_ema", 1), (False, "state_dict", 0)]:
        done = convert(tmp_path / "poolformer_s12.pth", tmp_path / f"{part}.safetensors", to="ours", ema=ema)
        assert done.part == part
        assert torch.equal(held(done.files[0])["head.norm.weight"], state["head.norm.weight"] + more)


@pytest.mark.parametrize(("to", "name"), [("v1", "a.pth"), ("v1", "a.pth.tar"), ("transformers", "pytorch_model.bin")])
def test_pickles_hold_tensors_alone(to, name, tmp_path):
    poolformer(tmp_path / "a")
    path = convert(tmp_path / "a", tmp_path / name, to=to).files[0]
    state = torch.load(path, weights_only=True)
    assert path.stat().st_size < 1.2 * sum(tensor.nbytes for tensor in state.values()) + 50_000
    assert all(type(tensor) is Tensor and tensor.is_contiguous() for tensor in state.values())


def test_safetensors_say_that_they_are_torchs(tmp_path):
    poolformer(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b.safetensors", to="timm")
    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize(("to", "name"), [("ours", "a.pth"), ("timm", "a.bin"), ("v1", "a.onnx"), ("mmpretrain", "a.tar")])
def test_endings(to, name, tmp_path):
    poolformer(tmp_path / "a")
    sentence = rf"{re.escape(name)} is no name for '{to}': give a folder, or a file that ends in \.safetensors"
    with pytest.raises(ValueError, match=sentence):
        convert(tmp_path / "a", tmp_path / name, to=to)


def test_an_unknown_format_gets_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="no format 'transformer', did you mean transformers"):
        convert(tmp_path, tmp_path / "a", to="transformer")


@pytest.mark.parametrize(("to", "names"), [
    ("ours", {"model.safetensors", "model.json"}), ("transformers", {"model.safetensors", "config.json"}),
    ("timm", {"model.safetensors"}),
])  # fmt: skip
def test_folders_hold_what_the_format_keeps_beside(to, names, tmp_path):
    poolformer(tmp_path / "a")
    done = convert(tmp_path / "a", tmp_path / "new" / "b", to=to)
    assert {path.name for path in (tmp_path / "new" / "b").iterdir()} == {path.name for path in done.files} == names


def test_nothing_is_overwritten_without_force(tmp_path):
    poolformer(tmp_path / "a")
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("mine")
    with pytest.raises(FileExistsError, match=r"config\.json exists: choose another name, or --force"):
        convert(tmp_path / "a", out, to="transformers")
    assert [path.name for path in out.iterdir()] == ["config.json"]
    assert (out / "config.json").read_text() == "mine"
    convert(tmp_path / "a", out, to="transformers", force=True)
    assert json.loads((out / "config.json").read_text())["model_type"] == "poolformer"
    with pytest.raises(FileExistsError, match=r"model\.safetensors exists"):
        convert(tmp_path / "a", tmp_path / "a", to="ours")


@pytest.mark.parametrize("to", ["ours", "transformers"])
def test_a_write_that_fails_leaves_a_folder_as_it_was(tmp_path, monkeypatch, to):
    poolformer(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", to=to)
    before = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert len(before) == 2

    def full(state, path, metadata):
        raise OSError("no space left")

    monkeypatch.setattr("metaformer.weights.pretrained.save_tensors", full)
    with pytest.raises(OSError, match="no space left"):
        convert(tmp_path / "a", tmp_path / "b", to=to, force=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == before
    with pytest.raises(OSError, match="no space left"):
        convert(tmp_path / "a", tmp_path / "new", to=to)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    poolformer(tmp_path / "a")
    (tmp_path / "b.safetensors").write_text("old")

    def full(state, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("metaformer.weights.pretrained.save_tensors", full)
    with pytest.raises(OSError, match="no space left"):
        convert(tmp_path / "a", tmp_path / "b.safetensors", to="timm", force=True)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b.safetensors"}
    assert (tmp_path / "b.safetensors").read_text() == "old"


def test_spoilt_weights_are_not_passed_on(tmp_path):
    model = create_model("poolformer_s12", **TINY)
    with torch.no_grad():
        model.head.norm.weight[3] = torch.nan
    save_pretrained(model, tmp_path / "a")
    with pytest.raises(ValueError, match=r"head\.norm\.weight holds 1 NaN and 0 infinite values of 24"):
        convert(tmp_path / "a", tmp_path / "b.pth", to="v1")
