"""Saves beside training: the loop waits for a copy of what learns, not for the disk."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from metaformer.core.ranks import ALONE, Ranks
from metaformer.runs import Run
from metaformer.train.checkpoint import Progress, Snapshot, State, compose, publish, snapshot, write
from metaformer.train.numerics import NonFiniteError
from metaformer.weights.files import bad_values


def beside(state: State) -> bool:
    """Whether a thread composes files while training goes on, rather than only wait for the disk.

    Not on a processor: training has all its cores, and taking turns with it costs more than the work itself (docs/LOG.md).
    """
    return next(state.model.parameters()).device.type != "cpu"


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
        """Copies the moment, and writes it while training goes on.

        Raises NonFiniteError for weights that nobody could go on from: the loss of the step that spoilt them was a number.
        """
        self.wait()
        self.began = self.clock()
        moment = snapshot(state, progress, self.about)
        bad = moment is not None and any(any(bad_values(tensor)) for tensor in moment.weights.values())
        if self.ranks.most(bad):
            raise NonFiniteError(f"weights became no numbers in epoch {progress.epoch + 1}, by step {progress.step}")
        if moment is not None:
            self._write(moment, aside=beside(state))

    def _write(self, moment: Snapshot, *, aside: bool) -> None:
        """Hands a moment to a thread: all the work where that goes `aside`, else what the disk does."""
        thread = ThreadPoolExecutor(1, "save")
        if aside:
            self.writing = thread.submit(write, self.run, moment, self.recipe)
        else:
            compose(self.run, moment, self.recipe)
            self.writing = thread.submit(publish, self.run)
        thread.shutdown(wait=False)  # it ends with its work: where workers are forked there should be none

    def save(self, state: State, progress: Progress) -> None:
        """The same, and it is written when this returns, on all ranks."""
        self.begin(state, progress)
        self.wait()
        self.ranks.wait()

    def wait(self) -> None:
        """Until all is written."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()
