"""A process that is killed, a machine that vanishes: torchrun starts the rest again, and the run goes on from its last save."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.many import distance
from tests.tiny import QUICK, pairs, timeless, weights

from metaformer.runs import Run
from metaformer.train.checkpoint import damage

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SETTINGS = QUICK | {"device": "cpu", "workers": 0, "image_size": 32, "save_minutes": 0.001, "drop_path": 0.2, "ema": 0.9}


@contextmanager
def torchrun(options: list[str], words: list[str], said: Path) -> Iterator[subprocess.Popen[bytes]]:
    """torchrun and `metaformer train WORDS` in its processes, of which none is left in the end."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "metaformer", "train", *words]
    with said.open("wb") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            kill_all(process)


def kill_all(agent: subprocess.Popen[bytes]) -> None:
    """Kills torchrun and the processes that it started, which have sessions of their own, as a power cut would."""
    for pid in (agent.pid, *children_of(agent.pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    """The processes that a process started in its first thread."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in children.read_text().split()] if children.exists() else []


def until(so: Callable[[], bool], process: subprocess.Popen[bytes], said: Path) -> None:
    """Waits for something that happens while a process lives."""
    while not so():
        assert process.poll() is None, said.read_text()
        time.sleep(0.01)


def epochs_of(run: Run) -> int:
    return len(run.metrics)


def test_a_killed_rank_is_started_again_and_nothing_differs(fashion: str, tmp_path: Path) -> None:
    words = ["caformer_t6", f"data={fashion}", f"root={tmp_path}", *pairs(SETTINGS | {"epochs": 10})]
    options = ["--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    run, whole = Run(tmp_path / "run"), Run(tmp_path / "whole")
    with torchrun(options, [*words, "name=run"], tmp_path / "run.txt") as process:
        until(lambda: epochs_of(run) >= 3, process, tmp_path / "run.txt")
        os.kill(json.loads((run.path / "trainer.json").read_text())["pid"], signal.SIGKILL)
        assert process.wait(90) == 0, (tmp_path / "run.txt").read_text()
    with torchrun(options, [*words, "name=whole"], tmp_path / "whole.txt") as process:
        assert process.wait(90) == 0, (tmp_path / "whole.txt").read_text()
    said = (tmp_path / "run.txt").read_text()
    assert said.count("metaformer: another of the processes that train together is gone, so all end") == 1
    assert "Traceback" not in said
    assert "Warning" not in said
    assert (run.path / "log.txt").read_text().count("going on at epoch") == 1
    assert distance(weights(whole.last), weights(run.last)) <= 1e-6
    for ours, theirs in zip(timeless(run.metrics), timeless(whole.metrics), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_run_goes_on_with_the_machines_that_are_left(fashion: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = ["caformer_t6", f"data={fashion}", f"root={tmp_path}", "name=run", *pairs(SETTINGS | {"epochs": 16})]
    options = [
        "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}",
        "--rdzv-id=job", "--rdzv-conf=last_call_timeout=5,keep_alive_interval=1,keep_alive_max_attempt=2",
    ]  # fmt: skip
    run, log, said = Run(tmp_path / "run"), tmp_path / "run" / "log.txt", tmp_path / "first.txt"
    with torchrun(options, words, said) as first:
        time.sleep(2)  # so that it is the first one, which the other asks
        with torchrun(options, words, tmp_path / "second.txt") as second:
            until(lambda: log.exists() and "on cpu in 2 processes" in log.read_text(), first, said)
            before = epochs_of(run)
            until(lambda: epochs_of(run) >= before + 3, first, said)
            kill_all(second)
        assert first.wait(120) == 0, said.read_text()
    assert run.finished
    assert epochs_of(run) == 16
    after = log.read_text().rpartition("in 2 processes")[2]
    assert "on cpu in" in after
    assert "going on at epoch" in after
    assert damage(run.last) is None


def test_processes_end_with_the_command_that_started_them(fashion: str, tmp_path: Path) -> None:
    words = ["caformer_t6", f"data={fashion}", f"root={tmp_path}", "name=run", *pairs(SETTINGS | {"epochs": 10_000})]
    run, said = Run(tmp_path / "run"), tmp_path / "said.txt"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-m", "metaformer", "train", *words, "devices=2"]
    with said.open("wb") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            until(lambda: epochs_of(run) >= 1, process, said)
            workers = children_of(process.pid)
            assert len(workers) == 2
        finally:
            process.kill()
    for _ in range(500):
        if not any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers):
            break
        time.sleep(0.01)
    else:
        pytest.fail("they go on without it")
