"""`metaformer.tune`: trials are runs, and whatever stops a search, it goes on to what it would have found."""

import json
import re
import shlex
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import QUICK, Killer, Stopped, after_steps, command, one_core, same, timeless, weights

import metaformer
from metaformer.data.sources import open_data
from metaformer.lab import jobs, proposals, search
from metaformer.lab.trials import Search
from metaformer.runs import is_run, open_run
from metaformer.train import loop

pytestmark = pytest.mark.usefixtures("thread")

SPACE = {"lr": "1e-5..1e-1", "drop_path": "0..0.3", "mixup": "0|0.2"}
FIXED = {key: value for key, value in QUICK.items() if key != "lr"}
TRIALS = 3
STEPS = 18
"""Of three trials: two epochs each, of three steps."""


@pytest.fixture(scope="module", autouse=True)
def told_nothing() -> Any:
    """Reports take most of the time, and have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "report", lambda *_: None)
        yield


def tune(fashion: str, root: Path, **changes: Any) -> Search:
    options = {"space": SPACE, "trials": TRIALS, "name": "found", "root": root, "quiet": True, "data": fashion, **FIXED}
    return metaformer.tune("caformer_t6", **(options | changes))


@pytest.fixture(scope="module")
def whole(fashion: str, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A search that nothing stopped."""
    with one_core():
        return tune(fashion, tmp_path_factory.mktemp("whole"))


def outcome(found: Search) -> list[Any]:
    """What does not depend on where it lies."""
    runs = [timeless(open_run(trial.path).metrics) for trial in found.trials]
    return [[replace(trial, path=Path()) for trial in found.trials], found.importances, found.command, runs]


def assert_equal(found: Search, whole: Search) -> None:
    assert outcome(found) == outcome(whole)
    for trial, other in zip(found.trials, whole.trials, strict=True):
        assert same(weights(trial.path / "best"), weights(other.path / "best"))
    assert {path.name for path in found.path.iterdir()} == {path.name for path in whole.path.iterdir()}


def test_every_trial_is_a_run_with_what_it_chose(whole: Search, fashion: str) -> None:
    assert [trial.path for trial in whole.trials] == [whole.path / "trials" / f"00{number}" for number in range(TRIALS)]
    for trial in whole.trials:
        run = open_run(trial.path)
        assert run.finished
        assert trial.settings.keys() == SPACE.keys()
        assert {key: getattr(run.recipe, key) for key in SPACE} == {key: float(text) for key, text in trial.settings.items()}
        assert (run.recipe.data, run.recipe.epochs, run.recipe.changes) == (fashion, 2, QUICK["changes"])
        assert (trial.state, trial.epochs) == ("finished", 2)
        assert trial.score == max(line["top1"] for line in run.metrics)
    assert whole.best is not None
    assert whole.best.score == max(trial.score or 0 for trial in whole.trials)
    assert len({str(trial.settings) for trial in whole.trials}) == TRIALS
    assert (whole.path / "search.png").stat().st_size > 5000
    assert "the best so far is" in (whole.path / "log.txt").read_text()


def test_the_command_trains_the_best_again(whole: Search, here: Path) -> None:
    assert whole.best is not None
    assert whole.command is not None
    _, *words = shlex.split(whole.command)
    assert command(*words, "name=again")[0] == 0
    assert timeless(open_run("runs/again").metrics) == timeless(open_run(whole.best.path).metrics)


def test_enough_trials_are_enough(whole: Search, fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(whole.path, tmp_path / "found")
    with monkeypatch.context() as patch:
        patch.setattr(loop.Fit, "step", lambda *_: pytest.fail("trained"))
        assert_equal(tune(fashion, tmp_path), whole)
        assert_equal(metaformer.tune(tmp_path / "found", trials=2, quiet=True), whole)
    more = metaformer.tune(tmp_path / "found", trials=TRIALS + 1, quiet=True)
    assert [replace(trial, path=Path()) for trial in more.trials[:TRIALS]] == outcome(whole)[0]
    assert len(more.trials) == TRIALS + 1


@pytest.mark.parametrize("steps", [1, 5, 7, 12, STEPS - 1])
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_search_goes_on_at_the_very_step(
    fashion: str, whole: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, how: str
) -> None:
    def kill() -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        after_steps(patch, steps, kill if how == "killed" else lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises((Stopped, KeyboardInterrupt)):
            tune(fashion, tmp_path)
    assert_equal(tune(fashion, tmp_path), whole)
    said = (tmp_path / "found" / "log.txt").read_text()
    assert (f"stopped and saved; to go on: metaformer tune {tmp_path / 'found'}" in said) is (how == "stopped")


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_killed_between_the_save_of_an_epoch_and_the_telling(
    fashion: str, whole: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    left, tell = [epoch], proposals.Judge.epoch

    def cut(self: proposals.Judge, *arguments: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Stopped
        tell(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(proposals.Judge, "epoch", cut)
        with pytest.raises(Stopped):
            tune(fashion, tmp_path)
    assert_equal(tune(fashion, tmp_path), whole)


@pytest.mark.parametrize("stride", [97, pytest.param(5, marks=pytest.mark.slow)])
def test_killed_at_any_touch_of_the_disk(
    fashion: str, whole: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    at = 7
    while True:
        root = tmp_path / str(at)
        try:
            with monkeypatch.context() as patch:
                Killer(patch, at)
                tune(fashion, root)
            break
        except Stopped:
            if (root / "found").exists():
                assert_equal(tune(fashion, root), whole)
            shutil.rmtree(root, ignore_errors=True)
        at += stride
    assert at > 150


def test_what_is_pruned_is_told_and_counted(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "WHOLE", 1)
    found = tune(fashion, tmp_path, trials=8, epochs=4)
    states = [trial.state for trial in found.trials]
    assert set(states) == {"finished", "pruned"}
    for trial in found.trials:
        assert trial.epochs == len(open_run(trial.path).metrics)
        assert (trial.epochs < 4) is (trial.state == "pruned")
    assert found.best is not None
    assert found.best.state == "finished"
    said = (found.path / "log.txt").read_text()
    assert re.search(r"trial 00\d  lr=\S+  drop_path=\S+  mixup=\S+  pruned after epoch \d with", said)
    all_whole = tune(fashion, tmp_path, trials=8, epochs=4, prune=False, name="whole")
    assert {trial.state for trial in all_whole.trials} == {"finished"}


def test_a_search_goes_on_as_it_began(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    opened = search.opened_study

    def spied(path: Path, epochs: int, *, prune: bool) -> Any:
        asked.append(prune)
        return opened(path, epochs, prune=prune)

    monkeypatch.setattr(search, "opened_study", spied)
    tune(fashion, tmp_path, trials=1, prune=False)
    metaformer.tune(tmp_path / "found", trials=1, quiet=True)
    assert asked == [False, False]
    with pytest.raises(ValueError, match=r"^a search goes on as it is: .*found prunes no trials$"):
        metaformer.tune(tmp_path / "found", trials=1, quiet=True, prune=True)
    with pytest.raises(FileExistsError, match="is not this search"):
        tune(fashion, tmp_path, trials=1)


@pytest.mark.parametrize("left", [[], ["tune.json.tmp"]])
def test_killed_before_it_said_what_it_is(fashion: str, tmp_path: Path, left: list[str]) -> None:
    (tmp_path / "found").mkdir()
    for name in left:
        (tmp_path / "found" / name).write_text("{")
    assert len(tune(fashion, tmp_path, trials=1).trials) == 1


def test_hours_end_at_an_epoch_and_it_goes_on(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close, now = loop.Fit._close_epoch, [time.monotonic()]

    def an_hour(self: loop.Fit, *arguments: Any) -> None:
        now[0] += 3600
        close(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now[0])
        patch.setattr(loop.Fit, "_close_epoch", an_hour)
        stopped = tune(fashion, tmp_path, within_hours=2.5)
    assert [(trial.state, trial.epochs) for trial in stopped.trials] == [("finished", 2), ("stopped", 1)]
    assert "the hours are over; to go on: metaformer tune" in (tmp_path / "found" / "log.txt").read_text()
    assert (tmp_path / "found" / "search.png").exists()
    found = tune(fashion, tmp_path)
    assert [trial.state for trial in found.trials] == ["finished"] * TRIALS


def test_a_trial_that_fails_counts_and_says_why(fashion: str, tmp_path: Path) -> None:
    found = tune(fashion, tmp_path, space={"lr": "1e9|1e-3"}, trials=5, clip=None)
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert 1 <= len(failed) <= 4
    for trial in failed:
        assert trial.settings == {"lr": "1e9"}
        assert "became no number" in str(trial.why)
    assert found.best is not None
    assert found.best.settings == {"lr": "1e-3"}


def test_where_all_fail_it_gives_up(fashion: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^all 3 trials failed, the last one because the loss or its gradient"):
        tune(fashion, tmp_path, space={"lr": "1e9|2e9"}, trials=20, clip=None)


def test_fields_of_the_model_can_be_searched(fashion: str, tmp_path: Path) -> None:
    found = tune(fashion, tmp_path, space={"model.norm": "MLN()|BatchNorm()"}, trials=2)
    for trial in found.trials:
        assert open_run(trial.path).recipe.changes == {**QUICK["changes"], "norm": trial.settings["model.norm"]}
    assert found.command is not None
    assert "model.norm=" in found.command


def test_a_search_has_as_many_trials_as_were_wanted_last(fashion: str, tmp_path: Path) -> None:
    def said() -> str:
        lines = (tmp_path / "found" / "log.txt").read_text().splitlines()
        return next(line[20:] for line in reversed(lines) if "trials are done" in line)

    tune(fashion, tmp_path, trials=2, epochs=1)
    assert said() == "0 trials are done, 2 to come"
    assert len(metaformer.tune(tmp_path / "found", quiet=True).trials) == 2
    path = tmp_path / "found"
    assert said() == f"2 trials are done and no more are wanted; to go on: metaformer tune {path} --trials 12"
    assert len(metaformer.tune(tmp_path / "found", trials=3, quiet=True).trials) == 3
    assert said() == "2 trials are done, 1 to come"
    again = tune(fashion, tmp_path, trials=None, epochs=1)
    assert (len(again.trials), again.plan.trials) == (3, 3)


def test_another_seed_chooses_otherwise(fashion: str, whole: Search, tmp_path: Path) -> None:
    found = tune(fashion, tmp_path, trials=1, seed=1)
    assert found.trials[0].settings not in [trial.settings for trial in whole.trials]


def test_without_a_name_the_same_search_goes_on_and_another_one_is_new(fashion: str, tmp_path: Path) -> None:
    paths = [tune(fashion, tmp_path, name=None, trials=1, **changes).path.name for changes in ({}, {}, {"seed": 1}, {})]
    assert paths == ["caformer_t6-fashion-search", "caformer_t6-fashion-search", "caformer_t6-fashion-search-2", paths[0]]


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"space": {}}, ValueError, "nothing to search"),
        ({"space": {"lr": "1e-2..1e-4"}}, ValueError, "lr=1e-2..1e-4 is the wrong way round"),
        ({"space": {"batch": "8|16"}}, ValueError, "batch= is given twice"),
        ({"space": {"model.dims": "(8,8,8,8)|(16,16,16,16)"}}, ValueError, "model.dims= is given twice"),
        ({"space": {"model.nrm": "MLN()|BatchNorm()"}}, ValueError, "a model has no 'nrm', did you mean norm?"),
        ({"hours": 1.5}, ValueError, "hours=1.5 is for one run, and trials of unlike lengths cannot be compared: set epochs="),
        ({"trials": 0}, ValueError, "0 trials within None hours: at least one trial, and more than no time, are wanted"),
        ({"within_hours": 0.0}, ValueError, "3 trials within 0.0 hours"),
        ({"epoch": 3}, ValueError, "no setting 'epoch', did you mean epochs?"),
        ({"data": "nothing"}, ValueError, "no data 'nothing'"),
        ({"name": "a/b"}, ValueError, "name=a/b is not the name of one folder"),
        ({"changes": {"nrm": "MLN()"}}, ValueError, "a model has no 'nrm', did you mean norm?"),
    ],
)
def test_mistakes_come_before_anything_is_made(
    fashion: str, tmp_path: Path, changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match="^" + re.escape(sentence)):
        tune(fashion, tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_taken(fashion: str, whole: Search, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "found")
    with pytest.raises(FileExistsError, match=r"found exists and is not this search: choose another name="):
        tune(fashion, tmp_path, seed=7)
    with pytest.raises(ValueError, match=r"a search goes on as it is: tune .*found without settings, or start a new one"):
        metaformer.tune(tmp_path / "found", epochs=3)
    with pytest.raises(ValueError, match=r"trials is no search: it has no tune\.json"):
        metaformer.tune(tmp_path / "found" / "trials", SPACE)
    with pytest.raises(ValueError, match="no model 'caformr_t6', did you mean caformer_t6"):
        metaformer.tune("caformr_t6", SPACE, data=fashion, root=tmp_path)
    with pytest.raises(FileNotFoundError, match="no run 'runs/nothing'"):
        metaformer.tune("runs/nothing", SPACE, data=fashion, root=tmp_path)


def test_a_trial_is_reported_as_any_run(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "report", jobs.report)
    found = tune(fashion, tmp_path, trials=1)
    assert {"report.html", "curves.png"} <= {path.name for path in found.trials[0].path.iterdir()}
    assert is_run(found.trials[0].path)


def test_a_split_is_that_of_the_first_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path | None] = []

    def spied(source: str, *, seed: int, split: Path | None, labels: str, progress: Any) -> Any:
        asked.append(split)
        return open_data(source, seed=seed)

    monkeypatch.setattr(jobs, "open_data", spied)
    metaformer.tune("caformer_t6", {"lr": "1e-3|1e-2"}, trials=1, name="a", root=tmp_path, quiet=True, **FIXED | {"epochs": 1})
    assert asked == [tmp_path / "a" / "trials" / "000" / "split.csv"]


def test_the_plan_is_written_as_it_was_typed(whole: Search) -> None:
    kept = json.loads((whole.path / "tune.json").read_text())
    assert (kept["schema"], kept["model"], kept["space"]) == (1, "caformer_t6", SPACE)
