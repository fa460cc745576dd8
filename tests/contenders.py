"""Contestants for tests of the bench: they are built in processes of their own, so they are functions of a module."""

import os
import random
import signal
import time
from pathlib import Path

from metaformer.lab import worker
from metaformer.lab.worker import Cell, Ready, holding


def steady(cell: Cell, *, seconds: float, jitter: float = 0.0, macs: int | None = None) -> Ready:
    """A call takes `seconds` of a clock that only calls move, ± `jitter` of it, drawn anew each time."""
    clock, draw = [0.0], random.Random(seconds)
    worker.time.perf_counter = lambda: clock[0]  # in this process alone

    def go() -> None:
        clock[0] += seconds * (1 + jitter * draw.uniform(-1, 1))

    return Ready(go, cell.batch, macs)


def hungry(cell: Cell, *, mib: int) -> Ready:
    """A call takes so much memory, and gives it back."""
    return Ready(lambda: len(b"x" * (mib << 20)), cell.batch)


def hoarding(cell: Cell, *, kept: int, packed: int, transient: int) -> Ready:
    """Its first call takes `kept` MiB for good, of which `packed` are weights; each call takes and gives back some more."""
    held: list[bytes] = []

    def go() -> int:
        if not held:
            held.append(b"x" * (kept << 20))
        return len(b"x" * (transient << 20))

    return holding(Ready(go, cell.batch), packed << 20)


def unbuildable(cell: Cell) -> Ready:
    raise ValueError("timm has no model 'timm:caformer_s99'")


def tiring(cell: Cell, *, calls: int) -> Ready:
    """Works so many times."""
    left = [calls]
    ready = steady(cell, seconds=1.0)

    def go() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("out of breath")
        ready.go()

    return Ready(go, cell.batch)


def dying(cell: Cell) -> Ready:
    """As if the system had run out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def sleeping(cell: Cell) -> Ready:
    """Writes the number of its process, then builds for ten minutes."""
    (cell.folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)
    raise AssertionError


def cell(folder: Path, batch: int = 4) -> Cell:
    """Something to do for them."""
    return Cell("predict", "caformer_s18", batch, 224, "cpu", 1, folder)
