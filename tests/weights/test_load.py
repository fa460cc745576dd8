"""Weights are read from files and state dicts, or refused with a list of what does not fit; nothing is executed."""

import os
import pickle
import random
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from metaformer import MetaFormer, create_model, load_weights
from metaformer.weights.files import WRAPPERS, read_file
from metaformer.weights.formats import to_format
from metaformer.weights.load import Report, fit_weights

TINY = {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24), "num_classes": 5}


def tiny(seed: int, name: str = "caformer_t6", **changes) -> MetaFormer:
    torch.manual_seed(seed)
    return create_model(name, **{**TINY, **changes})


def write_safetensors(state: dict[str, Tensor], path: Path) -> None:
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)


def same(a: MetaFormer, b: MetaFormer) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture
def state() -> dict[str, Tensor]:
    return tiny(0).state_dict()


# --- what fits --------------------------------------------------------------------------------------------------------


def test_loading_fills_the_model_in_place_and_returns_it(state):
    model = tiny(1)
    places = {name: p.data_ptr() for name, p in model.named_parameters()}
    assert not same(model, tiny(0))
    assert load_weights(model, state) is model
    assert same(model, tiny(0))
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == places
    assert all(p.requires_grad for p in model.parameters())


def test_frozen_stays_frozen():
    model = load_weights(tiny(1, "randformer_t6"), tiny(0, "randformer_t6").state_dict())
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {
        f"stages.{stage}.blocks.0.mixer.branch.weight" for stage in (2, 3)
    }


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pth.tar", ".pt"])
def test_files(ending, state, tmp_path):
    path = tmp_path / f"weights{ending}"
    (write_safetensors if ending == ".safetensors" else torch.save)(state, path)
    for source in (path, str(path)):
        assert same(load_weights(tiny(1), source), tiny(0))


def test_files_of_old_torch(state, tmp_path):
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(load_weights(tiny(1), tmp_path / "old.pth"), tiny(0))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers(wrapper, state, tmp_path):
    torch.save({wrapper: OrderedDict(state), "epoch": 7, "args": {"lr": 0.1}, "best": torch.tensor(0.5)}, tmp_path / "a.pth")
    assert same(load_weights(tiny(1), tmp_path / "a.pth"), tiny(0))
    assert same(load_weights(tiny(1), {wrapper: {"state_dict": state}}), tiny(0))


def test_the_prefix_of_a_parallel_wrapper(state):
    assert same(load_weights(tiny(1), {f"module.{key}": tensor for key, tensor in state.items()}), tiny(0))


def test_precision_order_and_layout_do_not_matter(state):
    rows = {key: tensor.half().contiguous() for key, tensor in reversed(state.items())}
    model = load_weights(tiny(1), rows)
    for key, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state[key].half().float())
    assert model.stages[0].embed.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_what_is_no_tensor_is_no_weight(state):
    assert same(load_weights(tiny(1), {**state, "epoch": 3, 7: torch.zeros(1), "names": ["a"]}), tiny(0))


# --- what does not ----------------------------------------------------------------------------------------------------


def test_what_is_wrong_is_listed_and_the_model_unchanged(state):
    del state["head.norm.weight"]
    state["head.extra"] = torch.zeros(1)
    state["stages.0.embed.conv.weight"] = torch.zeros(9, 3, 7, 7)
    model = tiny(1)
    with pytest.raises(ValueError, match="do not fit") as caught:
        load_weights(model, state)
    assert str(caught.value) == (
        "these weights do not fit (read as format 'ours')\n"
        "  missing (1):\n    head.norm.weight\n"
        "  unexpected (1):\n    head.extra\n"
        "  of another shape (1):\n    stages.0.embed.conv.weight: file [9, 3, 7, 7], model [8, 3, 7, 7]"
    )
    assert same(model, tiny(1))


@pytest.mark.parametrize("format", ["v2", "timm"])
def test_what_is_wrong_is_named_as_in_the_file(format, state):
    theirs = to_format(state, format, tiny(0).config)
    gone = [key for key in theirs if "fc1" in key]
    for key in gone:
        del theirs[key]
    with pytest.raises(ValueError, match=rf"read as format '{format}'\)\n  missing \({len(gone)}\)") as caught:
        load_weights(tiny(1), theirs)
    assert all(key in str(caught.value) for key in gone)


def test_long_lists_are_cut():
    with pytest.raises(ValueError, match=r"missing \(\d+\)") as caught:
        load_weights(tiny(0), {})
    assert re.search(r"missing \((\d+)\):(\n    \S+){8}\n    and (\d+) more$", str(caught.value))


def test_a_head_of_other_classes_is_another_shape(state):
    with pytest.raises(ValueError, match=re.escape("head.classifier.fc.bias: file [5], model [7]")):
        load_weights(tiny(1, num_classes=7), state)


def test_weights_of_another_model():
    with pytest.raises(ValueError, match="these weights do not fit"):
        load_weights(tiny(0, "poolformer_s12"), tiny(0).state_dict())


def test_a_model_without_memory_is_refused(state):
    """Loading into it would do nothing, and say nothing."""
    with torch.device("meta"):
        model = tiny(0)
    with pytest.raises(ValueError, match=r'holds no weights: model\.to_empty\(device="cpu"\) gives it room'):
        load_weights(model, state)


def test_a_state_that_holds_itself():
    state: dict = {}
    state["model"] = state
    with pytest.raises(ValueError, match="do not fit"):
        load_weights(tiny(0), state)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_spoilt_weights_are_refused_unless_asked_for(value, ending, state, tmp_path):
    path = tmp_path / f"a{ending}"
    state["stages.1.embed.conv.weight"][1, 2, 0, 1] = value
    (write_safetensors if ending == ".safetensors" else torch.save)(state, path)
    held = "1 NaN and 0" if value != value else "0 NaN and 1"
    sentence = rf"stages\.1\.embed\.conv\.weight holds {held} infinite values of 864: .* finite=False lets them in"
    with pytest.raises(ValueError, match=sentence):
        load_weights(tiny(1), path)
    weight = load_weights(tiny(1), path, finite=False).state_dict()["stages.1.embed.conv.weight"]
    assert torch.equal(weight.isfinite(), state["stages.1.embed.conv.weight"].isfinite())


def test_a_report_says_whose_names_and_which_part(state):
    average = {f"module.{key}": tensor + 1 for key, tensor in to_format(state, "timm", tiny(0).config).items()}
    checkpoint = {"state_dict": state, "model_ema": average}
    model = tiny(1)
    assert fit_weights(model, checkpoint) == Report("timm", "model_ema", ())
    assert all(torch.equal(tensor, state[key] + 1) for key, tensor in model.state_dict().items())
    assert fit_weights(model, checkpoint, ema=False) == Report("ours", "state_dict", ())
    assert same(model, tiny(0))


# --- files that are not weights ---------------------------------------------------------------------------------------


class Malicious:
    """Unpickled carelessly, it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def plain_pickle(thing: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(thing, protocol=2))


@pytest.mark.parametrize("write", [torch.save, plain_pickle])
def test_a_malicious_file_is_refused_and_not_executed(write, state, tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "evil.pth"
    write({**state, "evil": Malicious(victim)}, path)
    model = tiny(1)
    with pytest.raises(ValueError, match="holds no weights that can be read safely"):
        load_weights(model, path)
    assert not victim.exists()
    assert same(model, tiny(1))


def test_a_pickled_model_is_refused(tmp_path):
    torch.save(tiny(0), tmp_path / "model.pth")
    with pytest.raises(ValueError, match="holds no weights that can be read safely"):
        load_weights(tiny(1), tmp_path / "model.pth")


@pytest.mark.parametrize("kind", ["new.pth", "old.pth", "new.safetensors"])
def test_damaged_files_get_a_sentence(kind, state, tmp_path):
    """Cut short anywhere, or with a byte changed: refused, or read where only a value changed; nothing else."""
    path = tmp_path / kind
    if kind.endswith(".pth"):
        torch.save(state, path, _use_new_zipfile_serialization=kind.startswith("new"))
    else:
        write_safetensors(state, path)
    whole, dice, refused = path.read_bytes(), random.Random(0), 0
    cuts = [0, 1, 7, 64, *dice.sample(range(len(whole)), 40)]
    damaged = [whole[:cut] for cut in cuts]
    damaged += [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in dice.sample(range(3000), 60)]
    for content in damaged:
        path.write_bytes(content)
        try:
            load_weights(tiny(1), path)
        except ValueError:
            refused += 1
    assert refused >= len(cuts)


@pytest.mark.parametrize("thing", [[1, 2], torch.zeros(3), "text", None], ids=["list", "tensor", "text", "None"])
def test_a_file_of_something_else(thing, tmp_path):
    torch.save(thing, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"holds a {type(thing).__name__}, not weights by name"):
        read_file(tmp_path / "a.pth")


def test_a_text_file_and_no_file(tmp_path):
    (tmp_path / "a.pth").write_text("not weights")
    with pytest.raises(ValueError, match="holds no weights that can be read safely"):
        read_file(tmp_path / "a.pth")
    for path in (tmp_path / "b.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no file of weights at {path}"):
            load_weights(tiny(0), path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.bool])
def test_numbers_of_another_kind_are_refused(dtype):
    model = create_model("poolformerv2_t6", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), num_classes=3)
    state = {key: tensor.to(dtype) for key, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="weights are floating-point numbers"):
        load_weights(model, state)
