"""Saves in the middle of an epoch: beside training, exact, and what they cannot write is told."""

import errno
import os
import shutil
import signal
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import QUICK, Stopped, after_steps, begin, finish, same, timeless, weights

from metaformer.config import Recipe
from metaformer.core.ranks import Ranks
from metaformer.data.sources import open_data
from metaformer.runs import Run, create_run
from metaformer.train import saver
from metaformer.train.checkpoint import Progress, Snapshot, damage, write
from metaformer.train.saver import Saver
from metaformer.train.train import prepare

pytestmark = pytest.mark.usefixtures("thread")

DRAWING = {"drop_path": 0.2, "mixup": 0.5, "erase": 0.3, "ema": 0.9, "accumulate": 2, "save_minutes": 1e-6}


def quick(fashion: str, **settings: Any) -> Recipe:
    return Recipe(**{"model": "caformer_t6", "data": fashion, **QUICK, **DRAWING, **settings})


def at_once(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Saves in the middle of an epoch are on the disk when the next step begins; where all of them were."""
    seen, begin, moment = [], Saver.begin, Saver._moment

    def waiting(self: Saver, state: Any, progress: Progress) -> None:
        begin(self, state, progress)
        if self.writing is not None:
            self.writing.result()

    def noted(self: Saver, state: Any, progress: Progress) -> Snapshot | None:
        seen.append((progress.epoch, progress.step))
        return moment(self, state, progress)

    monkeypatch.setattr(Saver, "begin", waiting)
    monkeypatch.setattr(Saver, "_moment", noted)
    return seen


@pytest.fixture(scope="module")
def whole(fashion: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run with saves at the ends of epochs alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run = begin(quick(fashion, save_minutes=None), tmp_path_factory.mktemp("whole"))
    torch.set_num_threads(threads)
    return run


def assert_equal(run: Run, whole: Run) -> None:
    assert run.finished
    assert timeless(run.metrics) == timeless(whole.metrics)
    assert same(weights(run.last), weights(whole.last))
    assert same(weights(run.best), weights(whole.best))


@pytest.mark.parametrize(
    ("minutes", "saves"), [(None, [(1, 0), (2, 0)]), (1e-6, [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)])]
)
def test_save_minutes_says_when_and_changes_nothing_else(
    fashion: str,
    whole: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    minutes: float | None,
    saves: list[tuple[int, int]],
) -> None:
    seen = at_once(monkeypatch)
    assert_equal(begin(quick(fashion, save_minutes=minutes), tmp_path), whole)
    assert seen == saves


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_a_kill_costs_no_more_than_the_steps_since_the_last_save(
    fashion: str, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    def stop() -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        at_once(patch)
        after_steps(patch, steps, stop)
        with pytest.raises(Stopped):
            begin(quick(fashion), tmp_path)
    kept = torch.load(tmp_path / "run" / "last" / "training.pt", weights_only=True)["progress"]
    assert kept["epoch"] * 3 + kept["step"] == steps - 1
    assert damage(tmp_path / "run" / "last") is None
    assert_equal(finish(tmp_path / "run"), whole)


def test_ctrl_c_while_a_save_is_being_written(
    fashion: str, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = saver.write, []

    def slow(*arguments: Any) -> None:
        calls.append(signal.raise_signal(signal.SIGINT) if not calls else None)  # which the main thread hears
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(saver, "write", slow)
        with pytest.raises(KeyboardInterrupt):
            begin(quick(fashion), tmp_path)
    assert len(calls) >= 2
    assert_equal(finish(tmp_path / "run"), whole)


def test_a_rewind_goes_back_to_a_save_that_is_written(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metaformer.tasks.classification import Classification

    loss_sum, calls = Classification.loss_sum, [0]

    def spoilt(self: Classification, model: Any, batch: Any) -> Any:
        calls[0] += 1
        return loss_sum(self, model, batch) * (torch.nan if calls[0] == 9 else 1)  # in the second epoch's second step

    monkeypatch.setattr(Classification, "loss_sum", spoilt)
    at_once(monkeypatch)
    run = begin(quick(fashion, nonfinite="rewind"), tmp_path)
    assert run.finished
    assert "back to epoch 2, step 2, with lr times 0.5" in (run.path / "log.txt").read_text()


def test_weights_that_are_no_numbers_are_not_saved(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metaformer.train import loop

    def spoilt(*arguments: Any) -> Any:
        done = take_step(*arguments)
        calls.append(1)
        if len(calls) == 5:  # whose own loss is a number
            with torch.no_grad():
                next(arguments[1].model.parameters())[0] = torch.inf
        return done

    take_step, calls = loop.take_step, list[int]()
    monkeypatch.setattr(loop, "take_step", spoilt)
    at_once(monkeypatch)
    with pytest.raises(FloatingPointError, match="weights became no numbers in epoch 2, by step 2; try a lower lr than"):
        begin(quick(fashion), tmp_path)
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run" / "last").values())
    kept = torch.load(tmp_path / "run" / "last" / "training.pt", weights_only=True)["progress"]
    assert (kept["epoch"], kept["step"]) == (1, 1)


# --- the thread -------------------------------------------------------------------------------------------------------


@pytest.fixture
def fit(fashion: str) -> Any:
    return prepare(quick(fashion), open_data(fashion), None)


def test_training_goes_on_while_a_save_is_written(fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, now = create_run(replace(fit.recipe, save_minutes=2.0), tmp_path, "run"), [0.0]
    release = threading.Event()
    monkeypatch.setattr(saver, "write", lambda *arguments: (release.wait(30), write(*arguments)))
    with Saver(run, fit.about, lambda: now[0]) as saving:
        now[0] = 119.0
        assert not saving.due()
        now[0] = 120.0
        assert saving.due()
        saving.begin(fit.state, Progress(step=1))
        assert not run.last.exists()
        now[0] = 1000.0
        assert not saving.due()  # one at a time
        release.set()
        saving.wait()
        assert damage(run.last) is None
        assert saving.due()
        saving.begin(fit.state, Progress(step=2))
        assert not saving.due()
    kept = [torch.load(folder / "training.pt", weights_only=True) for folder in (run.before, run.last)]
    assert [moment["progress"]["step"] for moment in kept] == [1, 2]


def test_what_is_written_beside_training_is_the_moment_of_the_save(
    fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, release = create_run(fit.recipe, tmp_path, "run"), threading.Event()
    monkeypatch.setattr(saver, "write", lambda *arguments: (release.wait(30), write(*arguments)))
    before = {name: tensor.clone() for name, tensor in fit.state.model.state_dict().items()}
    with Saver(run, fit.about) as saving, torch.no_grad():
        saving.begin(fit.state, Progress(step=1))
        for parameter in fit.state.model.parameters():
            parameter.add_(1)
        release.set()
    assert same(weights(run.last), before)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is a whole process's")
def test_training_goes_before_a_save_beside_it(fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(saver, "write", lambda *_: found.append(os.nice(0)))
    with Saver(create_run(fit.recipe, tmp_path, "run"), fit.about) as saving:
        saving.begin(fit.state, Progress(step=1))
        saving.save(fit.state, Progress(step=2))
    assert found == [min(19, os.nice(0) + saver.GENTLY), os.nice(0)]


def test_where_memory_has_no_room_for_a_copy_training_waits(fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create_run(fit.recipe, tmp_path, "run")
    monkeypatch.setattr(saver, "spare_memory", lambda: saver.ROOM * saver.size(fit.state))
    with Saver(run, fit.about) as saving:
        saving.begin(fit.state, Progress(step=1))
        assert saving.writing is None
        assert damage(run.last) is None


@dataclass(frozen=True)
class Told(Ranks):
    """The second of two ranks; what the first one says."""

    rank: int = 1
    count: int = 2
    first_says: bool = False

    def most(self, value: float) -> float:
        return max(value, self.first_says)


@pytest.mark.parametrize("first_says", [True, False])
def test_the_first_rank_decides_when_to_save(fit: Any, tmp_path: Path, first_says: bool) -> None:
    run = create_run(replace(fit.recipe, save_minutes=1.0), tmp_path, "run")
    now = [0.0]
    with Saver(run, fit.about, lambda: now[0], ranks=Told(first_says=first_says)) as saving:
        now[0] = 30.0 if first_says else 120.0  # a clock that differs
        assert saving.due() is first_says


def test_what_cannot_be_written_is_told_at_the_next_step(fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = create_run(fit.recipe, tmp_path, "run")
    monkeypatch.setattr(saver, "write", full)
    with Saver(run, fit.about) as saving:
        saving.begin(fit.state, Progress(step=1))
        assert saving.writing is not None
        saving.writing.exception()
        with pytest.raises(OSError, match="No space left"):
            saving.due()
    assert not run.last.exists()
    shutil.rmtree(run.path)
