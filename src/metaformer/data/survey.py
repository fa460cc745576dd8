"""A look at every image of an inventory, by workers: what is wrong with each, and what it is compared by, in compact arrays."""

import os
import signal
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import IO

import numpy as np
from numpy.typing import NDArray

from metaformer.data.dataset import Progress
from metaformer.data.inventory import Inventory
from metaformer.data.look import SIDE, TONES, Looked, look
from metaformer.data.similar import codes_of

CHUNK = 64
"""Images that a worker is given at a time."""
FEW = 512
"""Fewer images are looked at here: workers would take longer to start."""


class Shelf:
    """Small pictures of all images, in a file that is gone when it is closed."""

    ROW = SIDE * SIDE + TONES * TONES * 2

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def add(self, records: NDArray[np.void]) -> None:
        """Puts those of some records behind the others."""
        rows = [records[part].reshape(len(records), -1) for part in ("grey", "tones")]
        self.file.write(np.concatenate(rows, 1).tobytes())

    def pictures(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Grey (P, SIDE, SIDE) and colours (P, TONES², 2) of these."""
        wanted, places = np.unique(numbers, return_inverse=True)
        rows = np.empty((len(wanted), self.ROW), np.uint8)
        for row, i in zip(rows, wanted.tolist(), strict=True):
            self.file.seek(i * self.ROW)
            row[:] = np.frombuffer(self.file.read(self.ROW), np.uint8)
        rows = rows[places]
        return rows[:, : SIDE * SIDE].reshape(-1, SIDE, SIDE), rows[:, SIDE * SIDE :].reshape(-1, TONES * TONES, 2)


@contextmanager
def shelf() -> Iterator[Shelf]:
    """An empty one, in the folder for temporary files: 1.2 GB for a million images."""
    with tempfile.TemporaryFile() as file:
        yield Shelf(file)


@dataclass(frozen=True, eq=False)
class Survey:
    """What was found, by the numbers of the inventory."""

    readable: NDArray[np.bool_]
    sizes: NDArray[np.uint32]
    """(N, 2): width and height, upright."""
    files: NDArray[np.uint64]
    """(N, 2): a hash of each file; 0 where there is none."""
    pixels: NDArray[np.uint64]
    """(N, 2): a hash of each picture."""
    codes: NDArray[np.uint64]
    """(2, N): what near copies are found by."""
    sums: NDArray[np.float64]
    """(parts, 2, 3): sums over readable images of the mean and mean square of each channel."""
    problems: list[tuple[int, str, str]]
    """Number, what is wrong, and the words for it."""
    shots: dict[int, bytes]


def survey(
    inventory: Inventory,
    pictures: Shelf,
    *,
    shown: Sequence[int] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Decodes every image once; small pictures of all go on the shelf, previews of those `shown` are kept.

    `workers` are processes: by default as many as there are cores, none for few images.
    """
    count = len(inventory)
    found = Survey(
        np.zeros(count, np.bool_), np.zeros((count, 2), np.uint32), np.zeros((count, 2), np.uint64),
        np.zeros((count, 2), np.uint64), np.zeros((2, count), np.uint64), np.zeros((len(inventory.named), 2, 3)), [], {},
    )  # fmt: skip
    for start, looked in _looked(inventory, frozenset(shown), _many(count) if workers is None else workers):
        records = looked.records
        here = slice(start, start + len(records))
        found.readable[here] = records["readable"]
        found.sizes[here] = np.stack([records["width"], records["height"]], 1)
        found.files[here], found.pixels[here] = records["file"], records["pixels"]
        found.codes[:, here] = codes_of(records["grey"])
        np.add.at(found.sums, inventory.parts[here], records["moments"])
        found.problems.extend((start + i, what, said) for i, what, said in looked.problems)
        found.shots.update({start + i: shot for i, shot in looked.shots.items()})
        pictures.add(records)
        if progress is not None:
            progress("looking at images", here.stop, count)
    return found


def _many(count: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if count < FEW else cores


def _looked(inventory: Inventory, shown: frozenset[int], workers: int) -> Iterator[tuple[int, Looked]]:
    """What is found in each chunk, in order; a few chunks are under way at a time, so that few images are held."""
    items = inventory.items.read(range(len(inventory)))
    chunks = (
        (start, list(islice(items, CHUNK)), shown & frozenset(range(start, start + CHUNK)))
        for start in range(0, len(inventory), CHUNK)
    )
    if not workers:
        yield from ((start, look(some, {i - start for i in few})) for start, some, few in chunks)
        return
    waiting: deque[tuple[int, Future[Looked]]] = deque()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_quiet) as pool:
        try:
            for start, some, few in chunks:
                waiting.append((start, pool.submit(look, some, {i - start for i in few})))
                if len(waiting) > 3 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
        except BrokenProcessPool:
            raise ValueError(
                "a worker ended before its work did: for want of memory, or because a script calls this outside of "
                'if __name__ == "__main__"; workers=0 does without them'
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _quiet() -> None:
    """Ctrl-C is for the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
