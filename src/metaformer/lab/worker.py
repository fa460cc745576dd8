"""A contestant in a process of its own: built once, it then says how long so many calls take, and how much memory.

So no contestant's allocator, threads or libraries help or hinder another's, and peak memory is its own.
"""

import ctypes
import gc
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from metaformer.core.parent import die_with_parent

CONTEXT = get_context("spawn")
"""A fork would take over the parent's threads and memory."""


@dataclass(frozen=True)
class Cell:
    """What all contestants of one comparison have to do."""

    job: str
    """`predict` or `train`."""
    model: str
    batch: int
    size: int
    """Side of the images in pixels."""
    device: str
    threads: int
    folder: Path
    """Where conversions lie that other cells can use too."""

    @property
    def title(self) -> str:
        """For people: `caformer_s18, predict, batch 16 at 224`."""
        return f"{self.model}, {self.job}, batch {self.batch} at {self.size}"


@dataclass(frozen=True)
class Ready:
    """A contestant that is built."""

    go: Callable[[], object]
    """One call. What it begins on a GPU need not be over when it returns."""
    images: int
    """Of one call."""
    macs: int | None = None
    """Multiply-accumulates of one image, where they are known."""
    parameters: int | None = None
    device: str = "cpu"
    loaded: int = 0
    """Bytes of the parameters, where it runs on a GPU."""
    kept: int = 0
    """Bytes, elsewhere, that it took at its first call of this size and holds on to: they count as such a call's."""


Maker = Callable[[Cell], Ready]
"""Builds a contestant in its process: a function at the top of a module, or a `functools.partial` of one."""


@dataclass(frozen=True)
class Built:
    """What a worker says of its contestant."""

    images: int
    macs: int | None
    parameters: int | None
    seconds: float
    """What building took."""


class FailedError(Exception):
    """A contestant cannot be built or run; the sentence says why."""


class Worker:
    """The parent's end: starts the process at once, which begins to build. Start it in the main thread."""

    def __init__(self, make: Maker, cell: Cell, log: Path) -> None:
        self.log = log
        self.began = self.asked = time.monotonic()
        self.link, far = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=serve, args=(far, make, cell, log), daemon=True)
        self.process.start()
        far.close()

    def built(self, limit: float) -> Built:
        """Waits until it is built. Raises FailedError where it is not within `limit` seconds, or cannot be."""
        return self._answer(limit)

    def seconds(self, calls: int, limit: float) -> float:
        """What `calls` calls take. Raises FailedError."""
        self._ask(("time", calls))
        return self._answer(limit)

    def peak(self, limit: float) -> int | None:
        """Bytes that a call takes at most, above the model that is loaded; None where no system tells. Raises FailedError."""
        self._ask(("peak", 1))
        return self._answer(limit)

    def close(self, patience: float = 5.0) -> None:
        """Ends the process: it is asked to, and killed where it does not within `patience` seconds."""
        self.link.close()
        self.process.join(patience)
        self.process.kill()
        self.process.join()

    def _ask(self, what: tuple[str, int]) -> None:
        self.asked = time.monotonic()
        with suppress(OSError):  # where the process is dead, its answer is the end of the pipe
            self.link.send(what)

    def _answer(self, limit: float) -> Any:
        if not self.link.poll(limit):
            self.close(0)
            raise FailedError(f"no answer for {time.monotonic() - self.asked:.0f} s")
        try:
            return self.link.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            raise FailedError(why_ended(self.process.exitcode or 0, self.log)) from None


def why_ended(code: int, log: Path) -> str:
    """The error that ended a process with an exit code, in one line; what it wrote is in `log`."""
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit|Failure)\b", line)]
    last = (errors or lines or [f"its process ended with {code}"])[-1]
    return re.sub(r"^ValueError: ", "", last)[:300]


# --- the child --------------------------------------------------------------------------------------------------------


def serve(link: Connection, make: Maker, cell: Cell, log: Path) -> None:
    """The process: builds, then answers until the parent is gone. An error ends it; its traceback is in `log`."""
    parent = parent_process()
    die_with_parent(None if parent is None else parent.pid)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)  # runtimes write there too
    os.dup2(file, 2)
    began = time.perf_counter()
    ready = make(cell)
    link.send(Built(ready.images, ready.macs, ready.parameters, time.perf_counter() - began))
    while True:
        try:
            what, calls = link.recv()
        except EOFError:
            return
        link.send(timed(ready, calls) if what == "time" else peak(ready))


def timed(ready: Ready, calls: int) -> float:
    """Seconds of so many calls."""
    began = time.perf_counter()
    for _ in range(calls):
        ready.go()
    _wait(ready.device)
    return time.perf_counter() - began


def peak(ready: Ready) -> int | None:
    """Bytes that a call takes at most, above what is there before it. None where the system does not tell.

    On a GPU it is what torch reserves at most without the parameters, for the memory of a CUDA graph stays reserved and
    does not count as allocated.
    """
    if ready.device == "cuda":
        return _peak_cuda(ready)
    before = resident()
    ready.go()
    return None if before is None else max(0, most_resident() - before) + ready.kept


def holding(ready: Ready, packed: int) -> Ready:
    """The same after a call, with what that left held, but for the `packed` bytes of weights that are packed for each size."""
    before = resident()
    ready.go()
    after = resident()
    return ready if before is None or after is None else replace(ready, kept=max(0, after - before - packed))


def _peak_cuda(ready: Ready) -> int:
    import torch

    for _ in range(3):  # CUDA graphs are recorded at the second call
        ready.go()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    timed(ready, 1)
    return torch.cuda.max_memory_reserved() - ready.loaded


def resident() -> int | None:
    """Resident bytes now, without what was freed; from here on the system looks for their maximum anew."""
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)  # what building left behind is no room to work in
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")
    except OSError:
        return None


def most_resident() -> int:
    """Resident bytes at most since `resident` was asked; where that says None this cannot be known."""
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
