"""Files of weights: any wrapping, shards, and files made to do harm: nothing is executed, nothing unpacks."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from metaformer.weights.files import AVERAGES, WRAPPERS, bad_values, find_file, open_weights, read_file, unwrap

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(4)}
AVERAGE = {key: tensor + 1 for key, tensor in STATE.items()}
INDEX = "model.safetensors.index.json"


def read(source, **options) -> dict[str, Tensor]:
    """All of it, and its shapes are those promised."""
    opened = open_weights(source, **options)
    tensors = {name: tensor.clone() for name, tensor in opened.tensors()}
    assert opened.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return tensors


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- what a checkpoint holds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", [*AVERAGES, *WRAPPERS])
def test_each_wrapper_is_opened_and_named(wrapper, tmp_path):
    torch.save({"epoch": 3, wrapper: {"state_dict": OrderedDict(STATE)}}, tmp_path / "a.pth")
    assert same(read(tmp_path / "a.pth"), STATE)
    assert open_weights(tmp_path / "a.pth").part == f"{wrapper}.state_dict"
    assert open_weights(STATE).part == ""


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("other", WRAPPERS)
def test_the_average_is_taken_unless_told_otherwise(average, other):
    both = {other: STATE, average: AVERAGE}
    for ema, taken, part in [(None, AVERAGE, average), (True, AVERAGE, average), (False, STATE, other)]:
        assert same(read(both, ema=ema), taken)
        assert open_weights(both, ema=ema).part == part


def test_a_choice_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"there is no moving average \(ema=True\) among state_dict: leave ema out"):
        open_weights({"state_dict": STATE}, ema=True)
    with pytest.raises(ValueError, match=r"there is nothing but a moving average \(ema=False\): leave ema out"):
        open_weights({"model_ema": STATE}, ema=False)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."])
def test_prefixes(prefix, tmp_path):
    prefixed = {prefix + key: tensor for key, tensor in STATE.items()}
    assert same(read(prefixed), STATE)
    save_file(prefixed, tmp_path / "a.safetensors")
    assert same(read(tmp_path / "a.safetensors"), STATE)


def test_two_tensors_of_one_name_are_refused(tmp_path):
    twice = {"b": torch.ones(1), "module.b": torch.zeros(1)}
    save_file(twice, tmp_path / "a.safetensors")
    for source in (twice, tmp_path / "a.safetensors"):
        with pytest.raises(ValueError, match=r"two tensors are called b, one of them as (module\.)?b"):
            open_weights(source)


def test_wrappers_in_wrappers_end():
    deep: dict = STATE
    for _ in range(3):
        deep = {"model": deep}
    assert same(unwrap(deep)[0], STATE)
    loop: dict = {}
    loop["state_dict"] = loop
    assert unwrap(loop)[0] == {}


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")], ids=["sparse", "meta"])
def test_tensors_without_plain_values_are_refused(tensor):
    with pytest.raises(ValueError, match="odd is no plain tensor: weights that are sparse or without values are not read"):
        unwrap({"odd": tensor})


# --- folders and shards -----------------------------------------------------------------------------------------------


def write_shards(folder: Path, weight_map: object = None) -> Path:
    """Two files and their index."""
    save_file({"a.weight": STATE["a.weight"]}, folder / "model-1.safetensors")
    save_file({"b": STATE["b"]}, folder / "model-2.safetensors")
    weight_map = weight_map or {"a.weight": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 40}, "weight_map": weight_map}))
    return folder / INDEX


def test_shards_are_one_state(tmp_path):
    index = write_shards(tmp_path)
    for source in (index, tmp_path):
        assert same(read(source), STATE)
    assert {path.name for path in open_weights(index).files} == {INDEX, "model-1.safetensors", "model-2.safetensors"}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_stands_for_its_weights(name, tmp_path):
    (save_file if name.endswith("tensors") else torch.save)(STATE, tmp_path / name)
    assert find_file(tmp_path) == tmp_path / name
    assert same(read(tmp_path), STATE)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no file of weights at {tmp_path}: a folder holds model.safetensors, "):
        open_weights(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"no file of weights at {tmp_path / 'a.pth'}$"):
        open_weights(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "name", ["../model-2.safetensors", "/etc/model.safetensors", "x/../../a.safetensors", "..", "..\\a.safetensors", "a.pth", 7]
)
def test_a_shard_outside_the_folder_is_refused(name, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    save_file(STATE, tmp_path / "model-2.safetensors")
    index = write_shards(inside, {"a.weight": "model-1.safetensors", "b": name})
    with pytest.raises(ValueError, match=r"names .*: a part is a \.safetensors file in the same folder"):
        open_weights(index)


def test_a_missing_shard_is_named(tmp_path):
    index = write_shards(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 parts that .* names are missing: model-2\.safetensors"):
        open_weights(index)


def test_an_index_that_lies(tmp_path):
    index = write_shards(tmp_path, {"a.weight": "model-1.safetensors", "c": "model-2.safetensors"})
    with pytest.raises(ValueError, match=r"model-2\.safetensors and its index disagree about b, c"):
        open_weights(index)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": {}}', '{"weight_map": [1]}', "[]", "not JSON", '{"a":' * 100_000])
def test_an_index_that_is_none(text, tmp_path):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(ValueError, match=r"is no index of weights|is damaged"):
        open_weights(tmp_path)


def test_a_large_file_is_read_in_pieces(tmp_path, monkeypatch):
    """It is opened anew every so many bytes, for its pages count as our memory for as long as it is open."""
    opened = []
    monkeypatch.setattr("metaformer.weights.files.CHUNK", 1000)
    monkeypatch.setattr("metaformer.weights.files.safe_open", lambda *args: opened.append(args) or safe_open(*args))
    state = {f"t{i}": torch.full((3, i % 7 + 1), float(i)) for i in range(100)}
    save_file(state, tmp_path / "a.safetensors")
    assert same(read(tmp_path / "a.safetensors"), state)
    assert sum(tensor.nbytes for tensor in state.values()) // 1100 < len(opened) < 10


# --- files made to do harm --------------------------------------------------------------------------------------------


class Malicious:
    """Unpickled carelessly, it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def repacked(state: object, path: Path, *, compression: int = zipfile.ZIP_STORED, first: bytes = b"") -> None:
    """What torch saves, packed anew: compressed, or with bytes before it."""
    saved = io.BytesIO()
    torch.save(state, saved)
    packed = io.BytesIO()
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(packed, "w", compression) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member.filename))
    path.write_bytes(first + packed.getvalue())


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.pth", "a.pth.tar", "a.ckpt"])
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle", "nested"])
def test_code_in_a_pickle_is_not_run(how, name, tmp_path):
    marker, path = tmp_path / "marker", tmp_path / name
    evil: object = {**STATE, "evil": Malicious(marker)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(evil, protocol=2))
    elif how == "nested":
        torch.save({"model": {"module": {"state_dict": evil}}, "args": [Malicious(marker)]}, path)
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(ValueError, match="holds no weights that can be read safely"):
        open_weights(path)
    assert not marker.exists()


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path):
    state = {"a": torch.zeros(2**24)}  # 64 MiB of zeros, in less than 100 kB
    repacked(state, tmp_path / "bomb.pth", compression=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pth").stat().st_size < 1e5
    assert torch.load(tmp_path / "bomb.pth", weights_only=True)["a"].numel() == 2**24  # torch alone would unpack it
    with pytest.raises(ValueError, match=r"data\.pkl is compressed: such a file can unpack to any size"):
        read_file(tmp_path / "bomb.pth")


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """A directory may name the same bytes many times: stored, and yet more than the file."""
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("x/data.pkl", b"0" * 5000)
        archive.filelist.extend(archive.infolist() * 50)
    with pytest.raises(ValueError, match=r"it unpacks to 255,000 bytes and has only"):
        read_file(tmp_path / "a.pth")


def test_an_archive_with_something_before_it_is_refused(tmp_path):
    """zipfile and torch would look at different directories."""
    whole = tmp_path / "whole.pth"
    repacked(STATE, whole)
    assert same(read(whole), STATE)
    repacked(STATE, tmp_path / "a.pth", first=whole.read_bytes())
    with pytest.raises(ValueError, match="it is an archive with something before it"):
        read_file(tmp_path / "a.pth")


def test_a_tensor_larger_than_its_bytes_is_refused(tmp_path):
    """One number that claims to be a million million: a sum over it would not end."""
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a claims 1,000,000,000,000 values and does not hold them"):
        open_weights(tmp_path / "a.pth")


def header(described: object, data: bytes = b"\0" * 24, length: int | None = None) -> bytes:
    """A safetensors file with any header."""
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int, end: int, shape: tuple[int, ...] = (3,), dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


# fmt: off
LIES = {
    "a huge header":         header({"a": entry(0, 12)}, length=2**62),
    "a header of 1 GB":      header({"a": entry(0, 12)}, length=2**30),
    "beyond the end":        header({"a": entry(0, 12), "b": entry(12, 2**40, (2**38 - 3,))}),
    "overlapping":           header({"a": entry(0, 12), "b": entry(4, 16), "c": entry(16, 24, (2,))}),
    "a hole":                header({"a": entry(0, 8, (2,)), "b": entry(12, 24)}),
    "backwards":             header({"a": entry(12, 0), "b": entry(12, 24)}),
    "shape and bytes":       header({"a": entry(0, 24, (7,))}),
    "overflowing shape":     header({"a": entry(0, 24, (2**33, 2**33))}),
    "negative":              header({"a": entry(-12, 12, (6,))}),
    "unknown kind":          header({"a": entry(0, 24, (6,), "X99")}),
    "not JSON":              header(b"{" * 64),
    "deep JSON":             header(b'{"a":' * 50_000),
    "no header":             b"\1\2\3",
    "more bytes":            header({"a": entry(0, 12)}),
}
# fmt: on


@pytest.mark.parametrize("lie", LIES)
def test_a_safetensors_header_that_lies_is_refused(lie, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(LIES[lie])
    with pytest.raises(ValueError, match=r"a\.safetensors holds no weights that can be read safely \("):
        read(tmp_path / "a.safetensors")


def test_the_header_that_does_not_lie(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(header({"a": entry(0, 12), "b": entry(12, 24)}))
    assert set(read(tmp_path / "a.safetensors")) == {"a", "b"}


# --- numbers that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_bad_values_are_counted(dtype):
    values = torch.tensor([1.0, torch.nan, torch.inf, -torch.inf, 2.0, torch.nan]).to(dtype)
    assert bad_values(values) == (2, 2)
    assert bad_values(values[:1]) == (0, 0)
    assert bad_values(values[2:4]) == (0, 2)


def test_large_values_are_no_bad_values():
    """Their sum is infinite, they are not."""
    assert bad_values(torch.full((10,), 3e38)) == (0, 0)
    assert bad_values(torch.full((10,), 6e4, dtype=torch.float16)) == (0, 0)
    assert bad_values(torch.tensor([3e38, 3e38, torch.inf])) == (0, 1)
    assert bad_values(torch.tensor([2**62, 2**62])) == (0, 0)
