"""Workers and turns: known ratios come out, what fails is told, nothing outlives the parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.contenders import cell, dying, hoarding, hungry, sleeping, steady, tiring, unbuildable

from metaformer.lab.contestants import Contestant
from metaformer.lab.turns import LEAST, Turns, compete, ratio
from metaformer.lab.worker import FailedError, Maker, Worker

TURNS = Turns(rounds=9, seconds=0.3)


def contestant(name: str, make: Maker) -> Contestant:
    return Contestant(name, "torch", "fp32", make)


def test_twice_as_slow_is_a_ratio_of_two(tmp_path: Path) -> None:
    field = [
        contestant("slow", partial(steady, seconds=0.2, jitter=0.1)),
        contestant("fast", partial(steady, seconds=0.1, jitter=0.1)),
        contestant("exact", partial(steady, seconds=0.2)),
    ]
    slow, fast, exact = compete(cell(tmp_path), field, TURNS)
    assert [len(one.rates) for one in (slow, fast, exact)] == [9, 9, 9]
    assert exact.rates == pytest.approx([4 / 0.2] * 9)
    assert (slow.calls, exact.calls) == (2, 2)  # turns of 0.3 s
    found = ratio(fast.rates, slow.rates)
    assert found.low < found.value < found.high
    assert found.low <= 2.0 <= found.high
    assert found.value == pytest.approx(2.0, rel=0.05)


def test_what_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    field = [
        contestant("good", partial(steady, seconds=1.0)),
        contestant("none", unbuildable),
        contestant("killed", dying),
        contestant("weak", partial(tiring, calls=5)),
    ]
    good, none, killed, weak = compete(cell(tmp_path), field, TURNS)
    assert (good.error, len(good.rates)) == (None, 9)
    assert (none.error, none.rates) == ("timm has no model 'timm:caformer_s99'", [])
    assert killed.error == "its process was ended by SIGKILL"
    assert (weak.error, weak.rates) == ("RuntimeError: out of breath, in round 4", [])  # two calls were to prepare


def test_time_that_is_up_leaves_few_rounds_and_builds_nobody(tmp_path: Path) -> None:
    field = [contestant("good", partial(steady, seconds=1.0))]
    now = time.monotonic()
    assert len(compete(cell(tmp_path), field, TURNS, until=now)[0].rates) == LEAST
    assert compete(cell(tmp_path), field, TURNS, until=now, end=now)[0].error == "not built: time was up"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell")
def test_peak_memory_is_of_a_call(tmp_path: Path) -> None:
    worker = Worker(partial(hungry, mib=64), cell(tmp_path), tmp_path / "log.txt")
    try:
        worker.built(60.0)
        peaks = [worker.peak(60.0) for _ in range(2)]
    finally:
        worker.close()
    assert [None if peak is None else round(peak / 2**20) for peak in peaks] == pytest.approx([64, 64], abs=2)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell")
def test_what_a_first_call_leaves_held_is_a_call_s_memory_too(tmp_path: Path) -> None:
    worker = Worker(partial(hoarding, kept=64, packed=16, transient=32), cell(tmp_path), tmp_path / "log.txt")
    try:
        worker.built(60.0)
        peak = worker.peak(60.0)
    finally:
        worker.close()
    assert peak is not None
    assert round(peak / 2**20) == pytest.approx(64 - 16 + 32, abs=2)


def test_an_answer_that_does_not_come_is_a_failure(tmp_path: Path) -> None:
    worker = Worker(sleeping, cell(tmp_path), tmp_path / "log.txt")
    with pytest.raises(FailedError, match=r"^no answer for 0 s$"):
        worker.built(0.1)
    assert not worker.process.is_alive()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends with its next answer")
def test_a_worker_is_killed_with_its_parent(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from tests.contenders import cell, sleeping
from metaformer.lab.worker import Worker
folder = Path({str(tmp_path)!r})
Worker(sleeping, cell(folder), folder / "log.txt").built(600.0)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    try:
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    child = Path("/proc") / (tmp_path / "pid").read_text()
    wait_for(lambda: not child.exists() or "State:\tZ" in (child / "status").read_text())


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_interval_is_repeated_and_narrows() -> None:
    noisy = [100 + 10 * (i * 7 % 11 - 5) for i in range(11)]
    few, many = ratio(noisy[:5], [100] * 5), ratio(noisy * 9, [100] * 99)
    assert ratio(noisy, [100] * 11) == ratio(noisy, [100] * 11)
    assert many.high - many.low < few.high - few.low
    assert ratio([3.0], [1.5]).value == 2.0
