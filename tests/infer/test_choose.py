"""Choosing an engine: what cannot run is left out, what was measured is remembered, and only the engine's time counts."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metaformer import Predictor, Run, create_model, save_pretrained
from metaformer.data.preprocess import Preprocess
from metaformer.infer import choose as module
from metaformer.infer import predictor as predicting
from metaformer.infer.engines import Options

pytestmark = pytest.mark.usefixtures("thread")

IMAGES = list(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8))


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of no length, remembered here alone."""
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "SECONDS", 0.001)
    monkeypatch.setattr(module, "TURNS", 1)


class Odd(nn.Module):
    """torch.export cannot follow it."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum().item() > 0 else x


def test_what_cannot_run_a_model_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the midst of a prediction that nobody asked to be measured."""
    torch.manual_seed(0)
    model = create_model(
        "poolformerv2_t6", mixers=Odd, num_classes=2, in_chans=1, depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)
    ).eval()
    preprocess = Preprocess(8, (0.5,), (0.5,))
    save_pretrained(model, tmp_path / "odd", {"classes": ["a", "b"], "preprocess": preprocess.to_dict()})
    monkeypatch.setattr(predicting, "PAYS", 0.0)
    predictor = Predictor(tmp_path / "odd", device="cpu", model=model)
    assert [answer.error for answer in predictor(IMAGES, batch=2)] == [None] * 6
    assert predictor.choice.startswith("torch: measured on ")
    assert "openvino" not in predictor.choice
    assert capfd.readouterr().err == ""


def test_where_nothing_runs_it_says_why(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "candidates", lambda options: ["torch"])
    with pytest.raises(ValueError, match=r"^no engine runs this model: torch: torch has no streams: leave streams out"):
        Predictor(run.path, "openvino", device="cpu", streams=2).tune(batch=2)


def test_a_memory_that_cannot_be_written_is_none(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path / "file" / "cache"))
    predictor = Predictor(run.path, device="cpu")
    assert predictor.tune(batch=2)
    assert "measured on" in predictor.choice
    assert Predictor(run.path, device="cpu").choice == "torch: nothing else was tried yet"


def test_what_others_remember_meanwhile_is_kept() -> None:
    def remember(name: str) -> None:
        for n in range(8):
            module._remember(f"{name}{n}", {"engine": name})

    writers = [threading.Thread(target=remember, args=(name,)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert module._remembered() == {f"{name}{n}": {"engine": name} for name in "ab" for n in range(8)}


def test_a_measurement_holds_for_as_many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    model, preprocess = create_model("caformer_t6"), Preprocess(8, (0.5,) * 3, (0.5,) * 3)
    keys = set()
    for count in (1, 2, 2):
        monkeypatch.setattr(module, "cores", lambda count=count: count)
        keys.add(module._key(model, preprocess, Options()))
    assert len(keys) == 2


@pytest.mark.parametrize(("in_engine", "between", "tuned"), [(0.0, 100.0, []), (100.0, 0.0, [2])])
def test_the_caller_s_own_time_does_not_count(
    run: Run, monkeypatch: pytest.MonkeyPatch, in_engine: float, between: float, tuned: list[int]
) -> None:
    now, asked = [0.0], list[int]()
    monkeypatch.setattr(predicting.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(Predictor, "tune", lambda self, batch: asked.append(batch) or setattr(self, "tunes", False))
    predictor = Predictor(run.path, device="cpu")
    right = predictor.engine

    def slow(pixels: Any) -> Any:
        now[0] += in_engine
        return right(pixels)

    monkeypatch.setattr(predictor, "engine", slow)
    for _ in predictor.stream(IMAGES, batch=2):
        now[0] += between
    assert asked == tuned
