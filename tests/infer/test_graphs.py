"""Graphs that are kept: the same answers without converting, for the very same model alone."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import metaformer
from metaformer import Predictor, save_pretrained
from metaformer.data.preprocess import Preprocess
from metaformer.infer import choose, graphs

PREPROCESS = Preprocess(size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
ENGINES = {"openvino": "to_openvino", "onnxruntime": "to_onnx"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphs"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    about = {"classes": ["a", "b"], "preprocess": PREPROCESS.to_dict()}
    save_pretrained(metaformer.create_model("caformer_t6", num_classes=2).eval(), tmp_path / "saved", about)
    return tmp_path / "saved"


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Grows by one for each conversion."""
    found: list[int] = []
    convert = getattr(choose, name)
    monkeypatch.setattr(choose, name, lambda *given: (found.append(1), convert(*given))[1])
    return found


def images() -> Any:
    return np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_converted_is_read_the_next_time(
    saved: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    conversions = counted(monkeypatch, ENGINES[engine])
    first = Predictor(saved, engine, device="cpu").logits(images())
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    os.utime(folder, (1, 1))
    again = Predictor(saved, engine, device="cpu").logits(images())
    assert len(conversions) == 1
    assert np.array_equal(first, again)
    assert folder.stat().st_mtime > 1  # it is the last that was used
    told = Predictor(saved, engine, device="cpu", precision="fp32")  # how it is run is no matter of the graph
    assert (len(conversions), told.engine.name) == (1, f"{engine} fp32")


@pytest.mark.parametrize("engine", ENGINES)
def test_what_cannot_be_run_so_is_no_damage(saved: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    conversions = counted(monkeypatch, ENGINES[engine])
    Predictor(saved, engine, device="cpu")
    with pytest.raises(ValueError, match="has no fast fp16"):
        Predictor(saved, engine, device="cpu", precision="fp16")
    assert len(conversions) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_damaged_graph_is_converted_again(saved: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    conversions = counted(monkeypatch, ENGINES[engine])
    expected = Predictor(saved, engine, device="cpu").logits(images())
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    for _ in range(2):
        assert np.array_equal(Predictor(saved, engine, device="cpu").logits(images()), expected)
    assert len(conversions) == 2


def test_a_full_disk_keeps_nothing(saved: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(graph: Any, file: Path, about: Any) -> None:
        file.write_bytes(b"half")
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(choose, "write_ir", full)
    assert Predictor(saved, "openvino", device="cpu").logits(images()).shape == (3, 2)
    assert [path.name for path in cache.iterdir()] == ["lock"]


def test_what_is_shared_is_told() -> None:
    def key(*modules: nn.Module) -> str | None:
        return graphs._key(nn.Sequential(*modules), PREPROCESS, "a", ())

    torch.manual_seed(0)
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    tied, same = nn.Linear(2, 2), nn.Linear(2, 2)
    tied.weight, same.weight = one.weight, other.weight
    tied.bias = same.bias = nn.Parameter(torch.zeros(2))
    keys = [key(one), key(one, one), key(one, one, one), key(one, other, tied), key(one, other, same)]
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_of_what_cannot_be_told_nothing_is_kept() -> None:
    class Mine(nn.Module):
        pass

    held, changed, told, graph = nn.Identity(), nn.Identity(), nn.Identity(), nn.Sequential(nn.ReLU())
    vars(held)["table"] = torch.zeros(2)
    vars(changed)["forward"] = lambda x: 2 * x
    vars(told)["kind"] = Mine
    for model in (held, changed, told, torch.fx.symbolic_trace(graph)):
        assert graphs._key(nn.Sequential(model), PREPROCESS, "a", ()) is None
    assert graphs._key(graph, PREPROCESS, "a", ()) is not None


@pytest.mark.parametrize("name", ["poolformer_s12", "identityformer_t6", "randformer_t6", "convformer_t6", "poolformerv2_t6"])
def test_the_models_of_the_papers_are_kept(name: str) -> None:
    model = metaformer.create_model(name)
    assert graphs._key(model, PREPROCESS, "a", ()) is not None
    assert graphs._key(metaformer.fuse(model.eval()), PREPROCESS, "a", ()) is not None


def test_a_cache_that_cannot_be_written_keeps_nothing(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path / "file"))
    expected = Predictor(saved, "torch", device="cpu").logits(images())
    np.testing.assert_allclose(Predictor(saved, "openvino", device="cpu").logits(images()), expected, atol=1e-4)


def test_a_model_that_differs_has_another_key() -> None:
    def key(model: nn.Module, preprocess: Preprocess = PREPROCESS, name: str = "a") -> str | None:
        return graphs._key(model, preprocess, name, ("torch",))

    def made(**changes: Any) -> nn.Module:
        torch.manual_seed(0)
        return metaformer.create_model("caformer_t6", num_classes=2, **changes).eval()

    weight, attribute, trained, scaled = made(), made(), made().train(), made()
    with torch.no_grad():
        next(weight.parameters()).mul_(1.001)
    norm = next(module for module in attribute.modules() if hasattr(module, "eps"))
    norm.eps = norm.eps * 2
    scaled.double()
    keys = [
        key(made()), key(weight), key(attribute), key(trained), key(scaled), key(made(activation="GELU")),
        key(made(), Preprocess(size=32, mean=(0.4, 0.5, 0.5), std=(0.25, 0.25, 0.25))), key(made(), name="b"),
    ]  # fmt: skip
    assert key(made()) == keys[0]
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_of_code_of_ones_own_nothing_is_kept() -> None:
    class Own(nn.Identity):
        pass

    model = metaformer.create_model("caformer_t6", num_classes=2)
    assert graphs._key(nn.Sequential(model, Own()), PREPROCESS, "a", ()) is None
    model.head.register_forward_hook(lambda module, given, found: found * 2)
    assert graphs._key(model, PREPROCESS, "a", ()) is None


def test_what_was_not_used_for_longest_goes_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST", 250)
    for number in range(4):
        torch.manual_seed(number)
        model = nn.Linear(2, 2)
        graphs.kept(model, PREPROCESS, "a", lambda: b"x" * 100, choose._write, str, ())
        (newest,) = (path for path in cache.iterdir() if path.is_dir() and path.stat().st_mtime > 100)
        os.utime(newest, (number + 1, number + 1))
    left = [path for path in cache.iterdir() if path.is_dir()]
    assert sorted(path.stat().st_mtime for path in left) == [3, 4]
    monkeypatch.setattr(graphs, "MOST", 1)  # the newest stays, be it as large as it may
    graphs.kept(nn.Linear(3, 3), PREPROCESS, "a", lambda: b"x" * 100, choose._write, str, ())
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1
