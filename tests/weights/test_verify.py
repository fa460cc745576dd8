"""What a file of weights is, said in figures."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from tests.fill import empty_model
from tests.published import PUBLISHED
from tests.weights.test_formats import numbered

from metaformer.weights.formats import to_format
from metaformer.weights.verify import verify


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """PoolFormer-S12 in timm's names."""
    model = numbered(empty_model("poolformer_s12"))
    return {key: tensor.contiguous() for key, tensor in to_format(model.state_dict(), "timm", model.config).items()}


def test_a_published_model(state, tmp_path):
    save_file(state, tmp_path / "a.safetensors")
    sha256 = hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    found = verify(tmp_path / "a.safetensors")
    assert (found.format, found.part, found.models, found.tag) == ("timm", "", ("poolformer_s12",), None)
    assert (found.num_classes, found.parameters) == (1000, PUBLISHED["poolformer_s12"].parameters)
    assert (found.dtypes, found.nan, found.inf) == ({"float32": len(state)}, 0, 0)
    assert found.sha256 == {"a.safetensors": sha256}
    (tmp_path / "poolformer_s12.sail_in1k").mkdir()
    published = (tmp_path / "a.safetensors").rename(tmp_path / "poolformer_s12.sail_in1k/model.safetensors")
    assert verify(published) == replace(found, tag="in1k", sha256={"model.safetensors": sha256})


def test_a_published_name_tells_twins_apart(state, tmp_path):
    model = empty_model("metaformer_id_s12")
    path = tmp_path / "a.pth"
    torch.save(to_format(numbered(model).state_dict(), "v1", model.config), path)
    found = verify(path)
    assert found.models == ("poolformer_s12", "metaformer_id_s12")
    known = verify(path.rename(tmp_path / "metaformer_id_s12.pth.tar"))
    assert (known.models, known.tag) == (("metaformer_id_s12",), "in1k")


def test_what_is_spoilt_is_counted(state, tmp_path):
    spoilt = dict(state)
    spoilt["head.fc.bias"] = torch.full((1000,), torch.nan)
    spoilt["head.norm.weight"] = state["head.norm.weight"].half()
    spoilt["head.norm.weight"][:7] = torch.inf
    torch.save({"model": {}, "model_ema": spoilt}, tmp_path / "a.pth")
    found = verify(tmp_path / "a.pth")
    assert (found.nan, found.inf, found.part, found.models) == (1000, 7, "model_ema", ("poolformer_s12",))
    assert found.dtypes == {"float32": len(state) - 1, "float16": 1}


def test_shards(state, tmp_path):
    halves = [dict(list(state.items())[:50]), dict(list(state.items())[50:])]
    for number, half in enumerate(halves):
        save_file(half, tmp_path / f"{number}.safetensors")
    weight_map = {key: f"{number}.safetensors" for number, half in enumerate(halves) for key in half}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    found = verify(tmp_path)
    assert found.models == ("poolformer_s12",)
    assert set(found.sha256) == {"model.safetensors.index.json", "0.safetensors", "1.safetensors"}
    assert len(set(found.sha256.values())) == 3


def test_weights_of_nobody(tmp_path):
    save_file({"a": torch.ones(3, 4), "b": torch.ones(2, dtype=torch.int64)}, tmp_path / "a.safetensors")
    found = verify(tmp_path / "a.safetensors")
    assert (found.format, found.models, found.num_classes, found.parameters) == (None, (), None, 14)
    assert found.dtypes == {"float32": 1, "int64": 1}


def test_what_is_no_weights_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match="holds no weights that can be read safely"):
        verify(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        verify(tmp_path / "b.safetensors")
