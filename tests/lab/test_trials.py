"""What a search found, as data."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from metaformer.lab.trials import Plan, Search, Tried, read_plan

PLAN = Plan("caformer_t6", {"data": "my photos", "clip": None, "changes": {"norm": "MLN()"}}, {"lr": "1e-4..1e-2"})


def tried(number: int, state: str, score: float | None) -> Tried:
    return Tried(number, {"lr": f"0.00{number}"}, state, score, epochs=3, path=Path(f"runs/s/trials/{number:03d}"))


def test_the_best_is_a_finished_one() -> None:
    trials = (tried(0, "finished", 90.0), tried(1, "finished", 95.0), tried(2, "pruned", 97.0), tried(3, "stopped", 99.0))
    found = Search(Path("runs/s"), PLAN, trials, {"lr": 1.0})
    assert found.best == trials[1]
    assert found.command == (
        "metaformer train caformer_t6 'data=my photos' clip=none 'model.norm=MLN()' lr=0.001"
    )  # fmt: skip
    told = json.loads(json.dumps(found.to_dict()))
    assert (told["best"], told["command"], told["space"]) == (1, found.command, {"lr": "1e-4..1e-2"})
    assert told["trials"][2] == {
        "number": 2, "settings": {"lr": "0.002"}, "state": "pruned", "score": 97.0, "epochs": 3,
        "path": "runs/s/trials/002", "why": None,
    }  # fmt: skip


def test_without_a_finished_trial_there_is_no_best() -> None:
    found = Search(Path("runs/s"), PLAN, (tried(0, "stopped", 90.0),), {})
    assert (found.best, found.command, found.to_dict()["best"]) == (None, None, None)


def test_a_plan_there_and_back(tmp_path: Path) -> None:
    (tmp_path / "tune.json").write_text(PLAN.to_json())
    assert read_plan(tmp_path) == PLAN
    whole = replace(PLAN, prune=False)
    (tmp_path / "tune.json").write_text(whole.to_json())
    assert read_plan(tmp_path) == whole
    kept = json.loads(PLAN.to_json())
    del kept["prune"], kept["trials"]  # as the first ones were
    (tmp_path / "tune.json").write_text(json.dumps(kept))
    assert read_plan(tmp_path) == PLAN
    assert read_plan(tmp_path).trials == 20
    (tmp_path / "tune.json").write_text(replace(PLAN, trials=3).to_json())
    assert read_plan(tmp_path).trials == 3
    assert read_plan(tmp_path) == PLAN  # a search with more trials is the same search


@pytest.mark.parametrize("text", ["{", "{}", '{"schema": 2, "model": "x", "settings": {}, "space": {}}', '{"schema": 1}'])
def test_a_plan_of_another_kind_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "tune.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "tune.json")) + " is (damaged|not of schema 1)"):
        read_plan(tmp_path)
