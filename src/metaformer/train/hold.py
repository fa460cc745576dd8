"""A run directory in the hands of one process: locked, whole, by its own recipe; and what is said when its disk fails."""

import errno
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from metaformer.config import Recipe, read_json
from metaformer.core.ranks import ALONE, Ranks
from metaformer.runs import Run, open_run, write_text
from metaformer.train.checkpoint import damage, trained_by
from metaformer.train.display import say

WAIT = 8.0
"""Seconds for which a lock is asked for: the workers of a process that was killed hold it until they notice, 5 at most."""
FREE = {"device", "workers", "log", "save_minutes", "keep"}
"""Settings that may change in the middle of a run, as they do not decide what is learnt."""
DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE,
}  # fmt: skip
"""What a disk that is full, read-only, not ours or broken answers."""


@contextmanager
def held(run: Run, ranks: Ranks = ALONE) -> Iterator[None]:
    """Nobody else trains this run meanwhile; the system ends the hold with the process, however that dies.

    Of several ranks the first one holds it. Raises ValueError where another process has it, OSError with a sentence where
    its disk fails.
    """
    with _disk_told(run), _locked(run) if ranks.first else nullcontext():
        yield


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    lock = FileLock(run.path / "train.lock", timeout=WAIT)
    try:
        lock.acquire()
    except Timeout as error:
        who = holder(run)
        pid, host = who.get("pid", "unknown"), who.get("host", "an unknown host")
        raise ValueError(
            f"{run.path} is being trained by process {pid} on {host}: wait for it, or stop it there with kill {pid}, "
            "which saves; for a run beside it choose another name="
        ) from error
    try:
        job = {"job": os.environ["TORCHELASTIC_RUN_ID"]} if "TORCHELASTIC_RUN_ID" in os.environ else {}
        who = {"pid": os.getpid(), "host": socket.gethostname()} | job
        write_text(run.path / "trainer.json", json.dumps(who) + "\n")
        yield
    finally:
        lock.release()


def holder(run: Run) -> dict[str, Any]:
    """The process that trains a run, or did so last: pid, host and, under torchrun, the job; nothing where none ever did."""
    file = run.path / "trainer.json"
    return read_json(file) if file.exists() else {}


@contextmanager
def _disk_told(run: Run) -> Iterator[None]:
    """Makes of a disk that fails a sentence. Whatever fails, `last/` and `last.before/` are as they were."""
    try:
        yield
    except OSError as error:
        inside = error.filename is None or Path(str(error.filename)).absolute().is_relative_to(run.path.absolute())
        if error.errno not in DISK or not inside:
            raise
        raise OSError(
            f"{run.path} cannot be written to: {error.strerror}. What was saved before is whole; when that is put right, "
            f"go on: metaformer train {run.path}"
        ) from error


def reopen(path: str | Path, *, quiet: bool, ranks: Ranks = ALONE) -> Run:
    """The run in a folder, fit to go on: where its newest save is damaged, the one before takes its place, and that is said.

    Of several ranks the first one sees to it, before the others read anything.
    Raises FileNotFoundError for what is no run; ValueError where no save is whole, where it was made by another recipe than
    is there now, or where another process trains.
    """
    run = open_run(path)
    recipe = run.recipe  # of another version it is left alone
    if ranks.first:
        with held(run):
            _mend(run, quiet=quiet)
        _check_recipe(run, recipe)
    ranks.wait()
    return run


def _check_recipe(run: Run, recipe: Recipe) -> None:
    """Raises ValueError where the newest save was made by another."""
    before = trained_by(run.last)
    if before is None:
        return
    then, now = before.flat(), recipe.flat()
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key) and key not in FREE]
    if keys:
        changes = ", ".join(f"{key}={now.get(key)} was {then.get(key)}" for key in keys)
        raise ValueError(
            f"{run.path / 'recipe.json'} was changed in the middle of the run: {changes}. Change it back to go on, or "
            f"start a new run by it: metaformer train {run.path / 'recipe.json'} name=NEW"
        )


def _mend(run: Run, *, quiet: bool) -> None:
    """Puts the save before in the place of the newest one if that is damaged, which then lies in `last.damaged`."""
    newest = run.last
    wrong = damage(newest) if newest.is_dir() else None
    if wrong is None:
        return
    second = "there is no save before it" if newest == run.before or not run.before.is_dir() else damage(run.before)
    if second is not None:
        raise ValueError(
            f"{wrong}, and {second}: this run cannot go on. Its best weights can begin another: "
            f"metaformer train {run.path / 'recipe.json'} weights={run.path} name=NEW"
        )
    aside = run.path / "last.damaged"
    shutil.rmtree(aside, ignore_errors=True)
    newest.rename(aside)
    run.before.rename(run.path / "last")
    say(f"{wrong}: going on from the save before it; the damaged one is now {aside}", quiet=quiet)
