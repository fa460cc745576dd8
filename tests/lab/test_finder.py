"""`metaformer lr`: what it says, what it writes and what it leaves alone."""

import json
import re
from pathlib import Path

import pytest
import torch
from tests.tiny import QUICK, command, pairs

from metaformer import Run
from metaformer.lab import finder
from metaformer.train.range_test import Trace

pytestmark = pytest.mark.usefixtures("thread", "here")


def test_a_rate_is_found_and_nothing_else_left(fashion: str) -> None:
    code, out, err = command("lr", "caformer_t6", f"data={fashion}", *pairs(QUICK), "--out", "found")
    assert (code, err) == (0, "")
    assert sorted(path.name for path in Path().iterdir()) == ["found"]
    assert sorted(path.name for path in Path("found").iterdir()) == ["lr.json", "lr.png"]
    written = json.loads(Path("found/lr.json").read_text())
    assert re.search(rf"^lr={written['steepest']:.2g}  where the loss falls fastest", out, re.MULTILINE)
    assert re.search(
        rf"^lr={written['tenth']:.2g}  a tenth of {written['lowest']:.2g}, where the loss is lowest", out, re.MULTILINE
    )
    assert written["tenth"] == pytest.approx(written["lowest"] / 10)
    assert written["recipe"]["batch"] == 32
    assert written["clear"] is True
    assert "NOT CLEAR" not in out
    assert len(written["steps"]) <= 100
    assert Path("found/lr.png").stat().st_size > 5000


def test_a_run_s_recipe_with_a_change(run: Run) -> None:
    kept = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert command("lr", run.path, "optimizer=sgd")[::2] == (0, "")
    recipe = json.loads(Path("lr/lr.json").read_text())["recipe"]
    assert recipe == {**run.recipe.to_dict(), "optimizer": "sgd"}
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == kept


def test_what_is_to_be_known_of_the_weights_is_said(run: Run, fashion: str) -> None:
    code, out, err = command("lr", "caformer_t6", f"data={fashion}", *pairs(QUICK), f"weights={run.path}", "learn=lora:2")
    assert (code, err) == (0, "")
    assert f"starts from {run.path}\n" in out


def test_what_falls_by_no_more_than_its_noise_is_said_to(fashion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = [2.3 + (0.1 if i % 3 else -0.1) - (0.02 if 40 < i < 60 else 0) for i in range(100)]
    trace = Trace(tuple(1e-6 * 1.17**i for i in range(100)), tuple(losses))
    monkeypatch.setattr(finder, "range_test", lambda _: trace)
    code, out, err = command("lr", "caformer_t6", f"data={fashion}", *pairs(QUICK))
    assert (code, err) == (0, "")
    assert re.search(r"^NOT CLEAR: the loss falls by 0\.\d+, but varies by 0\.\d+ from step to step", out, re.MULTILINE)
    assert json.loads(Path("lr/lr.json").read_text())["clear"] is False


def test_too_little_memory_is_a_sentence(fashion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(finder, "range_test", full)
    code, _, err = command("lr", "caformer_t6", f"data={fashion}", *pairs(QUICK), "accumulate=2")
    assert (code, err) == (2, "metaformer: cpu has too little memory; accumulate=4 learns the same in smaller parts\n")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("lr caformr_t6", "no model 'caformr_t6', did you mean caformer_t6?"),
        ("lr caformer_t6 name=x", "no setting 'name'"),
        ("lr caformer_t6 epoch=3", "no setting 'epoch', did you mean epochs?"),
        ("lr runs/nothing", "no run 'runs/nothing'"),
        ("lr caformer_t6 smoke=true", "smoke=true would find the rate of another, shrunk model: leave it out"),
    ],
)
def test_mistakes_are_sentences(line: str, sentence: str) -> None:
    code, out, err = command(*line.split())
    assert (code, out) == (2, "")
    assert sentence in err
    assert list(Path().iterdir()) == []
