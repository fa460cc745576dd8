"""The study in a file: what a kill leaves, who chooses what, and when a trial ends."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from filelock import FileLock
from optuna.trial import Trial, TrialState

from metaformer.lab import proposals as ours
from metaformer.lab.proposals import (
    Judge,
    Pruned,
    TimeIsUp,
    as_texts,
    check_optuna,
    ended,
    importances,
    next_trial,
    opened_study,
    suggest,
)
from metaformer.lab.space import Choice, Range, Space
from metaformer.recipes import SMALL
from metaformer.runs import Run, create_run

SPACE: Space = {
    "lr": Range(1e-4, 1e-2, whole=False), "batch": Range(8, 64, whole=True), "mixup": Choice(("0", "0.2", "0.8")),
}  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> Iterator[optuna.Study]:
    """An empty one of eight epochs."""
    with opened_study(tmp_path, 8, prune=True) as made:
        yield made


def chosen(root: Path, seed: int, trials: int, killed: bool) -> list[dict[str, str]]:
    """What trials choose; where `killed`, each trial is cut short after the first choice."""
    found: list[dict[str, str]] = []
    root.mkdir()
    for _ in range(trials):
        for last in (False, True) if killed else (True,):
            with opened_study(root, 8, prune=True) as study:
                trial = next_trial(study, SPACE, seed)
                texts = suggest(trial, SPACE if last else {"lr": SPACE["lr"]})
                if last:
                    study.tell(trial, 50 + 1e3 * float(texts["lr"]))
                    found.append(texts)
    return found


def test_what_is_chosen_depends_on_seed_and_number_and_not_on_kills(tmp_path: Path) -> None:
    whole = chosen(tmp_path / "whole", 0, 13, killed=False)  # ten at random, then by what was found
    assert chosen(tmp_path / "killed", 0, 13, killed=True) == whole
    assert chosen(tmp_path / "other", 1, 2, killed=False)[0] not in whole[:2]
    assert len({str(texts) for texts in whole}) == 13
    for texts in whole:
        assert 1e-4 <= float(texts["lr"]) <= 1e-2
        assert len(texts["lr"].lstrip("0.").replace("e-05", "")) <= 4
        assert 8 <= int(texts["batch"]) <= 64
        assert texts["mixup"] in ("0", "0.2", "0.8")
    low = sum(float(texts["lr"]) < 1e-3 for texts in whole[:10])
    assert 2 <= low <= 8  # on a logarithmic scale half of them are below; on a plain one a tenth
    assert max(float(texts["lr"]) for texts in whole[10:]) > 5e-3  # where higher is better


def test_texts_are_what_a_command_line_takes() -> None:
    assert as_texts({"mixup": "0.2", "lr": 0.00123456, "batch": 9}, SPACE) == {"lr": "0.001235", "batch": "9", "mixup": "0.2"}
    assert as_texts({"batch": 9}, SPACE) == {"batch": "9"}


def test_a_line_cut_short_and_a_lock_left_behind_do_no_harm(tmp_path: Path) -> None:
    for number in range(2):
        with opened_study(tmp_path, 8, prune=True) as study:
            assert ended(study) == number
            study.tell(next_trial(study, SPACE, 0), 50.0)
        file = tmp_path / "study.jsonl"
        file.write_bytes(file.read_bytes() + b'{"op_code":4,"wor')
        (tmp_path / "study.jsonl.lock").symlink_to(file)
    with opened_study(tmp_path, 8, prune=True) as study:
        assert ended(study) == 2
    assert all(json.loads(line) for line in (tmp_path / "study.jsonl").read_text().splitlines())


def test_a_folder_may_be_named_from_elsewhere_and_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    with opened_study(Path("a"), 8, prune=True) as study:
        os.chdir("/")
        study.tell(next_trial(study, SPACE, 0), 50.0)
        os.chdir(tmp_path)
    Path("a").rename("b")
    with opened_study(Path("b"), 8, prune=True) as study:
        assert ended(study) == 1


def test_nobody_else_has_it(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / "tune.lock"),
        pytest.raises(ValueError, match="is being searched by another process"),
        opened_study(tmp_path, 8, prune=True),
    ):
        pass


def test_optuna_says_nothing_and_may_speak_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    with opened_study(tmp_path, 8, prune=True) as study:
        study.tell(next_trial(study, SPACE, 0), 50.0)
    assert capsys.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


def test_without_optuna_it_is_told_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    check_optuna()
    monkeypatch.setattr(ours, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^a search needs Optuna: pip install '\.\[search\]'$"):
        check_optuna()


# --- the judge --------------------------------------------------------------------------------------------------------


def run_with(root: Path, *top1: float) -> Run:
    run = create_run(SMALL, root, None)
    lines = (json.dumps({"epoch": epoch, "top1": value}) + "\n" for epoch, value in enumerate(top1, 1))
    (run.path / "metrics.jsonl").write_text("".join(lines))
    return run


def judge(trial: Trial, run: Run, **changes: Any) -> Judge:
    return Judge(**{"trial": trial, "run": run, "epochs": 8, "until": float("inf"), "told": lambda *_: None, **changes})


def others(study: optuna.Study, trials: int = 5) -> None:
    """Finished trials of 50, 51 ... % in every epoch."""
    for number in range(trials):
        trial = study.ask()
        for epoch in range(1, 9):
            trial.report(50.0 + number, epoch)
        study.tell(trial, 50.0 + number)


@pytest.mark.parametrize(("top1", "epoch", "pruned"), [(51.9, 2, True), (52.0, 2, False), (0.0, 1, False), (0.0, 8, False)])
def test_a_trial_below_the_median_ends_when_it_is_no_longer_young(
    study: optuna.Study, tmp_path: Path, top1: float, epoch: int, pruned: bool
) -> None:
    others(study)
    trial = study.ask()
    watcher = judge(trial, run_with(tmp_path))
    watcher.begin(0)
    if pruned:
        with pytest.raises(Pruned):
            watcher.epoch(3, {"epoch": epoch, "top1": top1})
    else:
        watcher.epoch(3, {"epoch": epoch, "top1": top1})
    assert study.trials[-1].intermediate_values == {epoch: top1}


def test_with_fewer_whole_trials_none_is_pruned(study: optuna.Study, tmp_path: Path) -> None:
    others(study, 4)
    judge(study.ask(), run_with(tmp_path)).epoch(3, {"epoch": 4, "top1": 0.0})


def test_without_pruning_none_is_pruned(tmp_path: Path) -> None:
    with opened_study(tmp_path, 8, prune=False) as study:
        others(study)
        judge(study.ask(), run_with(tmp_path)).epoch(3, {"epoch": 4, "top1": 0.0})


def test_what_a_kill_kept_from_being_told_is_told_and_judged(study: optuna.Study, tmp_path: Path) -> None:
    others(study)
    trial = study.ask()
    trial.report(60.0, 1)
    judge(trial, run_with(tmp_path, 60.0, 61.0)).begin(6)
    assert study.trials[-1].intermediate_values == {1: 60.0, 2: 61.0}
    worse = study.ask()
    with pytest.raises(Pruned):
        judge(worse, run_with(tmp_path, 10.0, 11.0)).begin(6)


def test_time_is_up_at_the_end_of_an_epoch_but_the_last(study: optuna.Study, tmp_path: Path) -> None:
    told: list[int] = []
    watcher = judge(study.ask(), run_with(tmp_path), until=0.0, told=lambda number, line: told.append(line["epoch"]))
    watcher.begin(0)
    with pytest.raises(TimeIsUp):
        watcher.epoch(3, {"epoch": 7, "top1": 60.0})
    watcher.epoch(3, {"epoch": 8, "top1": 60.0})
    assert told == [7, 8]


# --- what settings explain --------------------------------------------------------------------------------------------


def test_importances_find_what_matters(study: optuna.Study) -> None:
    for number in range(12):
        trial = next_trial(study, SPACE, 0)
        texts = suggest(trial, SPACE)
        assert (importances(study) == {}) is (number < 5)
        study.tell(trial, 50 + 10 * float(texts["mixup"]))
    found = importances(study)
    assert found.keys() == SPACE.keys()
    assert next(iter(found)) == "mixup"
    assert found["mixup"] > 0.8
    assert sum(found.values()) == pytest.approx(1)
    assert found == importances(study)


def test_importances_of_equal_trials_are_none(study: optuna.Study) -> None:
    for _ in range(8):
        trial = next_trial(study, SPACE, 0)
        suggest(trial, SPACE)
        study.tell(trial, 50.0)
    study.tell(next_trial(study, SPACE, 0), state=TrialState.PRUNED)
    assert importances(study) == {}
