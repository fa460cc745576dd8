"""One process for a run, and disks that fail: each a sentence, nothing damaged."""

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from tests.tiny import QUICK, after_steps, begin, command, finish, pairs, same, timeless, weights

from metaformer.config import Recipe
from metaformer.runs import Run, create_run
from metaformer.train import hold, loop
from metaformer.train.checkpoint import damage
from metaformer.train.hold import held, holder, reopen
from metaformer.train.sink import Sink
from metaformer.weights import pretrained

pytestmark = pytest.mark.usefixtures("thread")


def quick(fashion: str, **settings: Any) -> Recipe:
    return Recipe(**{"model": "caformer_t6", "data": fashion, **QUICK, "ema": 0.9, **settings})


# --- two processes ----------------------------------------------------------------------------------------------------


def test_a_run_that_is_being_trained_is_left_alone(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "WAIT", 0.1)
    refused: list[str] = []

    def another() -> None:
        code, _, err = command("train", tmp_path / "run")
        assert code == 2
        refused.append(err)

    after_steps(monkeypatch, 4, another)
    run = begin(quick(fashion), tmp_path)
    assert run.finished
    assert len(run.metrics) == 2
    (said,) = refused
    assert f"run is being trained by process {os.getpid()} on {socket.gethostname()}: wait for it, or stop it there" in said
    assert said.count("\n") == 1
    finish(run.path)  # nobody has it any more


def test_a_lock_that_is_let_go_in_time_is_taken(tmp_path: Path) -> None:
    run = create_run(Recipe(model="x"), tmp_path, "run")
    file = str(run.path / "train.lock")
    code = f"import fcntl, time; file = open({file!r}, 'w'); fcntl.flock(file, 2); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        began = time.monotonic()
        os.kill(other.pid, signal.SIGKILL)
        with held(run):
            assert time.monotonic() - began < 2
    assert holder(run) == {"pid": os.getpid(), "host": socket.gethostname()}


# --- disks ------------------------------------------------------------------------------------------------------------


def break_call(patch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException, when: Callable[[], bool]) -> None:
    """The call raises the error, from a moment on."""
    call = getattr(owner, name)

    def failing(*arguments: Any, **options: Any) -> Any:
        if when():
            raise error
        return call(*arguments, **options)

    patch.setattr(owner, name, failing)


FULL = OSError(errno.ENOSPC, "No space left on device")
FAILURES: dict[str, tuple[Any, str, BaseException, str]] = {
    "best weights": (pretrained, "save_tensors", SafetensorError("I/O: full (os error 28)"), "No space left on device"),
    "a save's files": (Sink, "write", FULL, "No space left on device"),
    "metrics.jsonl": (loop, "append_line", FULL, "No space left on device"),
    "rename": (Path, "rename", OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
    "sync": (os, "fsync", OSError(errno.EIO, "Input/output error"), "Input/output error"),
}
"""What fails from the first save on, how, and what is said."""


@pytest.mark.parametrize("where", FAILURES)
def test_a_disk_that_fails_is_a_sentence_and_what_was_saved_is_whole(
    fashion: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    owner, name, error, said = FAILURES[where]
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        break_call(patch, owner, name, error, (path / "last").is_dir)
        code, _, err = command("train", "caformer_t6", f"data={fashion}", f"root={tmp_path}", "name=run", *pairs(QUICK))
    what = f"metaformer: {path} cannot be written to: {said}. What was saved before is whole; when that is put right, "
    assert (code, err) == (2, f"{what}go on: metaformer train {path}\n")
    assert not (path / "last.new").exists()  # it needs its place
    assert (Run(path).last / "checkpoint.json").exists()
    assert damage(Run(path).last) is None
    again = finish(path)
    assert timeless(again.metrics) == timeless(run.metrics)
    assert same(weights(again.last), weights(run.last))


@pytest.mark.parametrize("part", ["model.safetensors", "training.pt"])
def test_a_file_that_may_not_grow(fashion: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    size = (run.last / part).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, before[1]))

    after_steps(monkeypatch, 5, limit)
    try:
        code, _, err = command("train", "caformer_t6", f"data={fashion}", f"root={tmp_path}", "name=run", *pairs(QUICK))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert "run cannot be written to: File too large. What was saved before is whole" in err
    assert damage(tmp_path / "run" / "last") is None
    assert same(weights(finish(tmp_path / "run").last), weights(run.last))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written(
    fashion: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    left = create_run(quick(fashion), tmp_path, "run")
    with monkeypatch.context() as patch:
        refused = OSError(number, os.strerror(number), str(left.path / "trainer.json"))
        break_call(patch, hold, "write_text", refused, lambda: True)
        with pytest.raises(OSError, match=rf"run cannot be written to: {os.strerror(number)}"):
            finish(left.path)
    assert same(weights(finish(left.path).last), weights(begin(quick(fashion), tmp_path / "whole").last))


def test_a_run_of_another_version_is_left_alone(tmp_path: Path) -> None:
    run = create_run(Recipe(model="x"), tmp_path, "run")
    (run.path / "recipe.json").write_text(json.dumps(run.recipe.to_dict() | {"schema": 2}))
    with pytest.raises(ValueError, match="this recipe is not of schema 1, the one this version reads and writes"):
        reopen(run.path, quiet=True)
    assert [file.name for file in run.path.iterdir()] == ["recipe.json"]


def test_a_recipe_that_finds_no_place_takes_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        break_call(patch, Path, "write_text", FULL, lambda: True)
        with pytest.raises(OSError, match="No space left"):
            create_run(Recipe(model="x"), tmp_path, "run")
    assert create_run(Recipe(model="x"), tmp_path, "run").path == tmp_path / "run"


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    run = create_run(Recipe(model="x"), tmp_path, "run")
    with pytest.raises(ConnectionRefusedError), held(run):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    with pytest.raises(PermissionError), held(run):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/image.png")


# --- a cluster --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_is_one_to_the_trainer(fashion: str, tmp_path: Path, number: signal.Signals) -> None:
    settings = pairs(QUICK | {"epochs": 400, "workers": 1, "randaugment": "rand-m9"})
    words = [sys.executable, "-m", "metaformer", "train", "caformer_t6", f"data={fashion}", f"root={tmp_path}", "name=run"]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    said, metrics = tmp_path / "said.txt", tmp_path / "run" / "metrics.jsonl"
    with (
        said.open("w") as log,
        subprocess.Popen([*words, *settings], env=environment, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
            time.sleep(0.01)
        os.killpg(process.pid, number)
        process.wait()
    assert process.returncode == 128 + number, said.read_text()
    assert "stopped and saved; to go on: metaformer train" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert damage(tmp_path / "run" / "last") is None


@pytest.mark.slow
def test_three_kills_leave_no_trace() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "kill_test.py"
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(script), "--kills", "3", "--epochs", "12", "--most", "0.3"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(done.stdout)
    assert sum(record["kills"].values()) == 3
    assert record["kills"]["while writing"] >= 1
    assert record["differences"] == []
