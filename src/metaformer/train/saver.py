"""Saves beside training: the loop waits for a copy of what learns, not for the files or the disk."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from metaformer.core.ranks import ALONE, Ranks
from metaformer.runs import Run
from metaformer.train.checkpoint import Progress, Snapshot, State, snapshot, write
from metaformer.train.memory import spare_memory
from metaformer.train.numerics import NonFiniteError
from metaformer.weights.files import bad_values

GENTLY = 10
"""How much nicer than training a thread is that writes beside it, as Linux counts from 0 to 19."""
ROOM = 2
"""A copy waits to be written while training goes on where memory has room for so many."""


class Saver:
    """Writes a run's checkpoints, one at a time. Use as a context manager: it leaves nothing half written behind.

    What writing raises, OSError say, is raised by the next call of any of its methods. All ranks must call these; the first
    one decides when to save, and writes.
    """

    def __init__(
        self, run: Run, about: Mapping[str, Any], clock: Callable[[], float] = time.monotonic, *, ranks: Ranks = ALONE
    ) -> None:
        self.run, self.about, self.clock, self.ranks = run, about, clock, ranks
        self.recipe = run.recipe.to_dict()
        minutes = run.recipe.save_minutes
        self.pause = float("inf") if minutes is None else 60 * minutes
        self.began = clock()
        self.writing: Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.wait()
        elif self.writing is not None:
            self.writing.exception()  # until it is written; told is what ended training

    def due(self) -> bool:
        """Whether it is time for a save in the middle of an epoch, and the one before is written."""
        if self.writing is not None and self.writing.done():
            self.wait()
        if self.pause == float("inf"):
            return False
        now = self.ranks.first and self.writing is None and self.clock() - self.began >= self.pause
        return self.ranks.most(now) > 0

    def begin(self, state: State, progress: Progress) -> None:
        """Copies the moment, and writes it while training goes on; at once where memory has no room for that.

        Raises NonFiniteError for weights that nobody could go on from: the loss of the step that spoilt them was a number.
        """
        roomy = spare_memory() > ROOM * size(state)
        moment = self._moment(state, progress)
        if moment is not None and roomy:
            thread = ThreadPoolExecutor(1, "save", initializer=_gently)
            self.writing = thread.submit(write, self.run, moment, self.recipe)
            thread.shutdown(wait=False)  # it ends with its work: where workers are forked there should be none
        elif moment is not None:
            write(self.run, moment, self.recipe)

    def save(self, state: State, progress: Progress) -> None:
        """The same, and it is written when this returns, on all ranks."""
        moment = self._moment(state, progress)
        if moment is not None:
            write(self.run, moment, self.recipe)
        self.ranks.wait()

    def _moment(self, state: State, progress: Progress) -> Snapshot | None:
        """What there is to write now, when the save before is written."""
        self.wait()
        self.began = self.clock()
        moment = snapshot(state, progress, self.about)
        bad = moment is not None and any(any(bad_values(tensor)) for tensor in moment.weights.values())
        if self.ranks.most(bad):
            raise NonFiniteError(f"weights became no numbers in epoch {progress.epoch + 1}, by step {progress.step}")
        return moment

    def wait(self) -> None:
        """Until all is written."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()


def size(state: State) -> int:
    """Bytes of a moment at most, nearly: weights, their average, two moments of the gradient."""
    return 4 * sum(tensor.nbytes for tensor in state.model.parameters())


def _gently() -> None:
    """Lets training go first, where a thread has a priority of its own: but on Linux it is the process's."""
    if sys.platform == "linux":
        os.nice(GENTLY)
