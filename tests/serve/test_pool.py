"""The pool with scripted models: batches, bounds, deadlines, and processes that die, hang or do not start."""

import asyncio
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.serve.scripted import COMMAND

from metaformer.serve import lane as lanes
from metaformer.serve.jobs import Full, Job, Late, Lost, Opening, Unable
from metaformer.serve.pool import Pool
from metaformer.serve.settings import Limits, Running

Records = list[dict[str, Any]]
LIMITS = Limits()


@asynccontextmanager
async def opened(
    source: str = "script", *, patience: float | None = None, drain: float = 5.0, limits: Limits = LIMITS, **running: Any
) -> AsyncIterator[Pool]:
    pool = Pool({"m": source}, Running(**running), limits, patience=patience, command=COMMAND)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.stop(drain)


def ask(pool: Pool, *words: str, seconds: float = 20.0, top: int = 5, kind: Any = "predict") -> Awaitable[Records]:
    images = tuple(word.encode() for word in words)
    return pool.ask("m", Job(kind, images, top=top), time.monotonic() + seconds)


def begun(asked: Awaitable[Records]) -> asyncio.Task[Records]:
    async def waiting() -> Records:
        return await asked

    return asyncio.create_task(waiting())


def process_of(pool: Pool) -> int:
    process = pool.lanes["m"].process
    assert process is not None
    assert process.child is not None
    return process.child.pid


async def until(true: Callable[[], bool], seconds: float = 10.0) -> float:
    """How long it took. Raises TimeoutError."""
    start = time.monotonic()
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)
    return time.monotonic() - start


def run(main: Callable[[], Any]) -> None:
    asyncio.run(main())


# --- batches ----------------------------------------------------------------------------------------------------------


def test_what_waits_is_a_batch_and_nothing_waits_for_company() -> None:
    async def main() -> None:
        async with opened(batch=4) as pool:
            assert pool.ready
            assert pool.models["m"].classes == ("a", "b")
            (alone,) = await ask(pool, "x", top=3)
            assert (alone["word"], alone["size"], alone["top"]) == ("x", 1, 3)
            busy = begun(ask(pool, "sleep 0.3"))
            await until(lambda: pool.stats("m")["working"] == 1)
            rest = [begun(ask(pool, f"{i}", f"{i}!", top=i + 1)) for i in range(3)]
            found = [record for one in rest for record in await one]
            assert [(one["word"], one["top"]) for one in found] == [
                ("0", 1),
                ("0!", 1),
                ("1", 2),
                ("1!", 2),
                ("2", 3),
                ("2!", 3),
            ]
            assert [one["size"] for one in found] == [4, 4, 4, 4, 2, 2]
            await busy
            stats = pool.stats("m")
            assert stats["sizes"] == {1: 2, 4: 1, 2: 1}
            assert (stats["images"], stats["batches"], stats["waiting"], stats["working"]) == (8, 4, 0, 0)
            assert 0.3 <= stats["seconds"] < 5

    run(main)


def test_what_waits_goes_in_batches_that_are_enough_until_a_full_one_waits() -> None:
    async def main() -> None:
        async with opened("enough 2", batch=8) as pool:
            busy = begun(ask(pool, "sleep 0.3"))
            await until(lambda: pool.stats("m")["working"] == 1)
            few = begun(ask(pool, *"abcde"))
            await asyncio.sleep(0.05)
            assert (pool.stats("m")["working"], pool.waiting("m")) == (3, 3)  # one batch is decoded meanwhile
            assert [one["size"] for one in await few] == [2, 2, 2, 2, 1]
            await busy
            busy = begun(ask(pool, "sleep 0.3"))
            await until(lambda: pool.stats("m")["working"] == 1)
            many = begun(ask(pool, *"abcdefghijklm"))
            await busy
            assert Counter(one["size"] for one in await many) == {8: 8, 2: 4, 1: 1}
        async with opened("enough 2", batch=8, wait=0.3) as pool:  # who waits wants full batches
            assert [one["size"] for one in await ask(pool, *"abcdef")] == [6] * 6

    run(main)


def test_with_wait_a_batch_fills_but_not_for_longer() -> None:
    async def main() -> None:
        async with opened(batch=4, wait=1.0) as pool:
            start = time.monotonic()
            first = begun(ask(pool, "x"))
            await asyncio.sleep(0.05)
            two = await asyncio.gather(first, ask(pool, "y"))
            assert [one["size"] for found in two for one in found] == [2, 2]
            assert 0.95 < time.monotonic() - start < 5
            start = time.monotonic()
            full = await asyncio.gather(*(ask(pool, "z") for _ in range(4)))
            assert [one["size"] for found in full for one in found] == [4] * 4
            assert time.monotonic() - start < 0.9

    run(main)


def test_only_a_full_batch_is_handed_over_while_another_runs() -> None:
    async def main() -> None:
        async with opened(batch=4) as pool:
            asked = [begun(ask(pool, "sleep 0.4"))]
            await until(lambda: pool.stats("m")["working"] == 1)
            asked += [begun(ask(pool, "x", "y", "z"))]
            await asyncio.sleep(0.05)
            assert (pool.stats("m")["working"], pool.waiting("m")) == (1, 3)
            asked += [begun(ask(pool, *"abcdef"))]
            await asyncio.sleep(0.05)
            assert (pool.stats("m")["working"], pool.waiting("m")) == (5, 5)
            await asyncio.gather(*asked)

    run(main)


def test_a_small_request_does_not_wait_for_a_large_one() -> None:
    async def main() -> None:
        async with opened(batch=4) as pool:
            large = begun(ask(pool, *["sleep 0.02"] * 64))
            await until(lambda: pool.stats("m")["batches"] > 0)
            before = pool.stats("m")["batches"]
            await ask(pool, "x")
            assert pool.stats("m")["batches"] <= before + 3  # two are in flight, and it is in the third
            assert not large.done()
            assert len(await large) == 64

    run(main)


def test_kinds_are_not_mixed() -> None:
    async def main() -> None:
        async with opened(batch=8) as pool:
            found = await asyncio.gather(
                ask(pool, "sleep 0.1"), *(ask(pool, "x", kind=kind) for kind in ("embed", "predict", "embed", "predict"))
            )
            assert [one["kind"] for records in found for one in records] == ["predict", "embed", "predict", "embed", "predict"]
            with pytest.raises(Unable, match=r"^m explains nothing"):
                await ask(pool, "x", kind="explain")
            with pytest.raises(Unable, match=r"^no model 'n'; there is: m"):
                await pool.ask("n", Job("predict", (b"x",)), time.monotonic() + 1)

    run(main)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again() -> None:
    async def main() -> None:
        async with opened(batch=2, limits=Limits(queue=8, images=4)) as pool:
            await asyncio.gather(*(ask(pool, "sleep 0.1") for _ in range(6)))
            asked = [begun(ask(pool, *["sleep 0.3"] * 4)) for _ in range(3)]
            await until(lambda: pool.waiting("m") == 8)
            with pytest.raises(Full, match=r"^8 images wait for m") as caught:
                await ask(pool, "x")
            assert not any(one.done() for one in asked)
            assert 1 <= caught.value.retry_after <= 3
            assert pool.stats("m")["full"] == 1
            assert [len(records) for records in await asyncio.gather(*asked)] == [4, 4, 4]
            assert len(await ask(pool, "x")) == 1

    run(main)


def test_so_many_bytes_may_wait() -> None:
    async def main() -> None:
        async with opened(batch=1, limits=Limits(held=3_000)) as pool:
            asked = [begun(ask(pool, "sleep 0.2")) for _ in range(2)]
            await until(lambda: pool.stats("m")["working"] == 2)
            asked.append(begun(ask(pool, "x" * 2_000)))
            await until(lambda: pool.waiting("m") == 1)
            with pytest.raises(Full):
                await ask(pool, "x" * 2_000)
            await asyncio.gather(*asked)
            await ask(pool, "x" * 2_000)

    run(main)


def test_what_would_be_late_is_refused_and_what_is_taken_is_answered() -> None:
    async def main() -> None:
        async with opened(batch=1) as pool:
            await asyncio.gather(*(ask(pool, "sleep 0.1") for _ in range(5)))
            found = await asyncio.gather(*(ask(pool, "sleep 0.1", seconds=1.0) for _ in range(30)), return_exceptions=True)
            answered = sum(isinstance(one, list) for one in found)
            assert 5 <= answered <= 10
            assert sum(isinstance(one, Full) for one in found) == 30 - answered

    run(main)


def test_a_late_request_gives_its_places_to_others() -> None:
    async def main() -> None:
        async with opened(batch=1, limits=Limits(queue=2, images=2)) as pool:
            asked = [begun(ask(pool, "sleep 0.6")) for _ in range(2)]
            await until(lambda: pool.stats("m")["working"] == 2)
            with pytest.raises(Late, match=r"^m gave no answer in time"):
                await ask(pool, "x", "y", seconds=0.2)
            assert not asked[0].done()
            assert pool.waiting("m") == 0
            assert len(await ask(pool, "x", "y")) == 2
            await asyncio.gather(*asked)
            assert pool.stats("m")["late"] == 1
            assert pool.stats("m")["images"] == 4

    run(main)


def test_who_goes_away_gives_his_places_to_others() -> None:
    async def main() -> None:
        async with opened(batch=1) as pool:
            asked = [begun(ask(pool, "sleep 0.3")) for _ in range(2)]
            gone = begun(ask(pool, *["sleep 5"] * 10))
            await until(lambda: pool.waiting("m") == 10)
            gone.cancel()
            await until(lambda: pool.waiting("m") == 0)
            asked[0].cancel()
            assert len(await ask(pool, "x")) == 1
            assert len(await asked[1]) == 1
            assert pool.stats("m")["cancelled"] == 2
            assert pool.lanes["m"].requests == set()
            assert pool.lanes["m"].line.bytes == 0

    run(main)


# --- processes that end ------------------------------------------------------------------------------------------------


def test_a_killed_process_loses_its_batches_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with opened(batch=2) as pool:
            first = process_of(pool)
            lost = begun(ask(pool, "sleep 30", "sleep 30"))
            await until(lambda: pool.stats("m")["working"] == 2)
            waits = begun(ask(pool, "x"))
            await asyncio.sleep(0.05)
            os.kill(first, signal.SIGKILL)
            with pytest.raises(Lost, match=r"^the process of m ended while it worked on this"):
                await lost
            assert not pool.ready
            start = time.monotonic()
            (record,) = await waits
            assert time.monotonic() - start < 10
            assert record["process"] == process_of(pool) != first
            assert (pool.ready, pool.stats("m")["restarts"], pool.stats("m")["lost"]) == (True, 1, 1)

    run(main)
    assert "ended with SIGKILL: another one is started" in caplog.text


def test_who_would_wait_in_vain_for_a_model_to_open_is_told_so_at_once() -> None:
    async def main() -> None:
        async with opened() as pool:
            lane = pool.lanes["m"]
            assert 0 < lane.took < 20
            lane.took = 100.0
            os.kill(process_of(pool), signal.SIGKILL)
            await until(lambda: not pool.ready)
            with pytest.raises(Opening, match=r"^m is being opened again: ask again in a moment$") as caught:
                await ask(pool, "x", seconds=30.0)
            assert caught.value.retry_after == 60
            assert not pool.ready
            assert pool.waiting("m") == 0
            assert len(await ask(pool, "x", seconds=200.0)) == 1
            assert lane.took < 20
            assert len(await ask(pool, "x")) == 1

    run(main)


def test_a_decoder_that_segfaults_takes_its_batch_alone() -> None:
    async def main() -> None:
        async with opened(batch=2) as pool:
            busy = begun(ask(pool, "sleep 0.3"))
            await until(lambda: pool.stats("m")["working"] == 1)
            asked = [begun(ask(pool, word)) for word in ("segfault", "x", "y")]
            found = await asyncio.gather(busy, *asked, return_exceptions=True)
            assert [type(one) for one in found] == [Lost, Lost, Lost, list]
            assert len(await ask(pool, "x")) == 1

    run(main)


def test_a_process_that_ends_by_itself_writes_why(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with opened() as pool:
            with pytest.raises(Lost):
                await ask(pool, "raise")
            assert len(await ask(pool, "x")) == 1

    run(main)
    said = capfd.readouterr().err
    assert "RuntimeError: an image that nobody has thought of" in said
    assert "written at the end" in said
    assert "the process of m ended with exit code 0: another one is started" in caplog.text


def test_where_no_process_can_be_started_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where clients have taken all files that a process may open."""
    monkeypatch.setattr(lanes, "PAUSES", (0.0, 0.05))
    pair, failed = socket.socketpair, count()

    def scarce() -> tuple[socket.socket, socket.socket]:
        if next(failed) < 2:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return pair()

    async def main() -> None:
        async with opened() as pool:
            monkeypatch.setattr(socket, "socketpair", scarce)
            os.kill(process_of(pool), signal.SIGKILL)
            await until(lambda: not pool.ready)
            assert len(await ask(pool, "x")) == 1

    run(main)
    assert caplog.text.count("no process can be started for a model: [Errno 24] Too many open files") == 2


def test_a_hung_batch_is_ended() -> None:
    async def main() -> None:
        async with opened(batch=1, patience=0.5) as pool:
            start = time.monotonic()
            for _ in range(4):
                await ask(pool, "sleep 0.2")  # each has its own time
            hung = begun(ask(pool, "hang"))
            with pytest.raises(Lost):
                await hung
            assert 1.2 < time.monotonic() - start < 8
            assert len(await ask(pool, "x")) == 1
            await asyncio.sleep(0.8)  # nothing hangs where nothing is done
            assert pool.stats("m")["restarts"] == 1

    run(main)


def test_patience_is_as_long_as_a_request_may_be() -> None:
    assert Pool({"m": "x"}, Running(), Limits(deadline=100.0)).lanes["m"].patience == 100
    assert Pool({"m": "x"}, Running(), Limits(deadline=1.0)).lanes["m"].patience == lanes.PATIENCE


def test_one_that_does_not_start_again_is_tried_later_and_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lanes, "PAUSES", (0.0, 0.1, 0.4))
    gate = tmp_path / "gate"

    async def main() -> None:
        async with opened(f"once {gate}") as pool:
            gate.touch()
            os.kill(process_of(pool), signal.SIGKILL)
            await until(lambda: not pool.ready)
            await until(lambda: caplog.text.count("could not be opened") >= 3)
            with pytest.raises(Opening, match=r"^m is being opened again"):
                await ask(pool, "x", seconds=0.1)
            gate.unlink()
            assert len(await ask(pool, "x")) == 1
            assert pool.ready

    run(main)
    assert "its process ended with exit code 3" in caplog.text


@pytest.mark.parametrize(
    ("source", "told"), [("broken", "^there is no such model$"), ("dies", "^dies could not be opened: .* exit code 3")]
)
def test_what_cannot_be_opened_ends_all(source: str, told: str) -> None:
    async def main() -> None:
        pool = Pool({"m": "script", "n": source}, Running(), Limits(), command=COMMAND)
        with pytest.raises(ValueError, match=told):
            await pool.start()
        assert not pool.ready
        with pytest.raises(ProcessLookupError):
            os.kill(process_of(pool), 0)

    run(main)


def test_the_log_says_what_opens(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with opened():
            pass

    with caplog.at_level(logging.INFO, "metaformer.serve"):
        run(main)
    assert "m is opened" in caplog.text


# --- stopping ----------------------------------------------------------------------------------------------------------


def test_stopping_answers_what_was_taken_and_takes_no_more() -> None:
    async def main() -> None:
        async with opened(batch=1) as pool:
            asked = [begun(ask(pool, "sleep 0.2")) for _ in range(4)]
            await asyncio.sleep(0.05)
            process = process_of(pool)
            stopping = asyncio.create_task(pool.stop(10.0))
            await asyncio.sleep(0.01)
            assert not pool.ready
            with pytest.raises(Lost, match="stopping"):
                await ask(pool, "x")
            assert [len(await one) for one in asked] == [1] * 4
            await stopping
            with pytest.raises(ProcessLookupError):
                os.kill(process, 0)

    run(main)


def test_stopping_takes_no_longer_than_it_may() -> None:
    async def main() -> None:
        async with opened(batch=1, drain=0.0) as pool:
            asked = begun(ask(pool, "hang"))
            await until(lambda: pool.stats("m")["working"] == 1)
            start = time.monotonic()
            await pool.stop(0.3)
            assert 0.3 < time.monotonic() - start < 6
            with pytest.raises(Lost, match="stopped before"):
                await asked

    run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not end a child with its parent")
def test_a_killed_front_takes_its_processes_along() -> None:
    """Also in the midst of a batch."""
    code = (
        "import asyncio, time\n"
        "from tests.serve.test_pool import ask, begun, opened, process_of, until\n"
        "async def main():\n"
        "    async with opened() as pool:\n"
        "        asked = begun(ask(pool, 'hang'))\n"
        "        await until(lambda: pool.stats('m')['working'] == 1)\n"
        "        print(process_of(pool), flush=True)\n"
        "        await asked\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root) as front:
        assert front.stdout is not None
        process = int(front.stdout.readline())
        front.kill()
    end = time.monotonic() + 10
    while time.monotonic() < end and Path(f"/proc/{process}").exists() and _state(process) != "Z":
        time.sleep(0.02)
    assert not Path(f"/proc/{process}").exists() or _state(process) == "Z"


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_the_front_needs_no_torch() -> None:
    told = "import sys, metaformer.serve.pool; print(*{'torch', 'numpy', 'PIL', 'openvino'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
