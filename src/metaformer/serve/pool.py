"""The models of a service, as its front sees them: one process each, a bounded queue before it, batches into it."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from metaformer.serve.jobs import Job, Lost, Model, Record, Unable
from metaformer.serve.lane import Lane
from metaformer.serve.process import COMMAND
from metaformer.serve.settings import Limits, Running


class Pool:
    """Models by name. `sources` are what `Predictor` and `DensePredictor` open.

    `patience` is how many seconds a batch may take before its process is killed, by default a minute or what a request may,
    if that is more; `command` is what starts a process.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        running: Running,
        limits: Limits,
        *,
        patience: float | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.limits = limits
        self.lanes = {
            name: Lane(name, source, running, limits, patience=patience, command=command) for name, source in sources.items()
        }
        self.stopping = False

    @property
    def models(self) -> Mapping[str, Model]:
        """What is known of those that are opened."""
        return {name: lane.model for name, lane in self.lanes.items() if lane.model is not None}

    @property
    def ready(self) -> bool:
        """Whether every model can answer now."""
        return not self.stopping and all(lane.up for lane in self.lanes.values())

    async def start(self) -> None:
        """Opens one model after the other, for they may measure engines. Raises ValueError with a sentence; all end then."""
        opened = False
        try:
            for lane in self.lanes.values():
                await lane.open()
            opened = True
        finally:
            if not opened:
                await self.stop(0.0)

    async def ask(self, model: str, job: Job, deadline: float) -> list[Record]:
        """A record for each image, in their order. `deadline` is a time of `time.monotonic()`.

        Raises Full, Opening, Late, Lost or Unable.
        """
        if self.stopping:
            raise Lost("the service is stopping: ask again in a while")
        if model not in self.lanes:
            raise Unable(f"no model {model!r}; there is: {', '.join(self.lanes)}")
        return await self.lanes[model].ask(job, deadline)

    def waiting(self, model: str) -> int:
        """Images in the queue of a model."""
        return len(self.lanes[model].line)

    def stats(self, model: str) -> dict[str, Any]:
        """Counts since the start, and what is going on now; see `lane.Counts`."""
        return self.lanes[model].stats()

    async def stop(self, drain: float) -> None:
        """Takes nothing more, answers within `drain` seconds what was taken, and ends the processes."""
        self.stopping = True
        end = time.monotonic() + drain
        await asyncio.gather(*(lane.close(end) for lane in self.lanes.values()))
