"""One model of a service: its queue, its process, the batches in flight; what happens when the process dies or hangs."""

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from itertools import count
from typing import Any

from metaformer.serve.batching import Item, Line, Request
from metaformer.serve.jobs import Full, Job, Late, Lost, Model, Opening, Record, Unable
from metaformer.serve.process import Process
from metaformer.serve.settings import Limits, Running

log = logging.getLogger("metaformer.serve")

PATIENCE = 60.0
"""Seconds that a batch may take before its process is taken for hung; or a request's, where that is longer."""
OPENING = 900.0
"""Seconds in which a model must be open: it may be fetched, converted and measured."""
ENDING = 5.0
"""Seconds in which a process that closed its socket may end by itself, and write why, before it is killed."""
PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before each attempt to open a model again; from then on the last one."""
FLYING = 2
"""Batches that a process has: one that runs, and one, if it is full, that is decoded meanwhile."""
FADING = 0.9
"""By how much what was measured counts less with each batch that comes after it."""
SURE = 0.8
"""Part of a request's time that what waits before it may take, lest it is taken and then late."""


@dataclass
class Counts:
    """Since the start."""

    batches: int = 0
    images: int = 0
    seconds: float = 0.0
    """In which the model ran."""
    restarts: int = 0
    full: int = 0
    """Requests that were refused, by their reason, here and below."""
    late: int = 0
    lost: int = 0
    cancelled: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    """Batches by how many images they had."""


class Lane:
    """Takes requests for one model. Opened it stays open, whatever its process does, until it is closed."""

    def __init__(
        self, name: str, source: str, running: Running, limits: Limits, *, patience: float | None, command: Sequence[str]
    ) -> None:
        self.name, self.source, self.running, self.limits, self.command = name, source, running, limits, command
        self.patience = max(PATIENCE, limits.deadline) if patience is None else patience
        self.model: Model | None = None
        self.batch = self.enough = running.batch
        """Most images of a batch; and how many are worth sending where there are not so many, for the sooner they are back."""
        self.line = Line()
        self.flying: deque[list[Item]] = deque()
        self.requests: set[Request] = set()
        """That are not answered yet."""
        self.counts = Counts()
        self.up = False
        self.process: Process | None = None
        self.opened: asyncio.Future[None] | None = None
        self.keeper: asyncio.Task[None] | None = None
        self.timers: dict[str, asyncio.TimerHandle] = {}
        self.began = 0.0
        """When the batch that runs was begun."""
        self.spent, self.done = 0.0, 0.0
        """Seconds and images of late, from batch to batch."""
        self.down, self.took = 0.0, 0.0
        """Since when the model is not open, and how many seconds it took to open it last time."""

    # --- requests -----------------------------------------------------------------------------------------------------

    async def ask(self, job: Job, deadline: float) -> list[Record]:
        """As `Pool.ask`."""
        self._check(job)
        self._admit(job, deadline)
        answer = asyncio.get_running_loop().create_future()
        request = Request(job.asked, answer, [{}] * len(job.images), len(job.images))
        self.requests.add(request)
        self.line.put(request, job.images, time.monotonic())
        self._pump()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await answer
        except TimeoutError:
            self.counts.late += 1
            if not self.up:
                raise self._opening() from None
            raise Late(f"{self.name} gave no answer in time: ask again when it has less to do") from None
        except asyncio.CancelledError:
            self.counts.cancelled += 1
            raise
        finally:
            self.requests.discard(request)
            self.line.drop(request)

    def _check(self, job: Job) -> None:
        """Raises Unable for what this model cannot do."""
        assert self.model is not None
        model = self.model
        if job.kind == "embed" and not model.embeds:
            raise Unable(f"{model.name} gives no embeddings: a classifier's run or published name does, not an exported file")
        if job.kind == "explain" and not model.explains:
            raise Unable(f"{model.name} explains nothing: a classifier's run or published name does, not an exported file")
        if job.kind == "explain" and job.label is not None and job.label not in model.classes:
            near = get_close_matches(job.label, model.classes, n=1)
            raise Unable(f"{model.name} knows no class {job.label!r}{f', did you mean {near[0]}?' if near else ''}")

    def _admit(self, job: Job, deadline: float) -> None:
        """Raises Full where there is no room, or no time; Opening where the model is not open before it is too late."""
        images, left = len(job.images), deadline - time.monotonic()
        if self._opens_in() > left:
            self.counts.late += 1
            raise self._opening()
        room = len(self.line) + images <= self.limits.queue and self._bytes(job) <= self.limits.held
        if room and (not self.line or self._seconds(images) <= SURE * left):
            return
        self.counts.full += 1
        raise Full(f"{len(self.line)} images wait for {self.name}: ask again when there is room", self._retry_after())

    def _opens_in(self) -> float:
        """Seconds until the model should be open again, by the last time; 0 where it is open, or takes longer than that."""
        return 0.0 if self.up else max(0.0, self.down + self.took - time.monotonic())

    def _opening(self) -> Opening:
        again = min(60, max(1, math.ceil(self._opens_in())))
        return Opening(f"{self.name} is being opened again: ask again in a moment", again)

    def _bytes(self, job: Job) -> int:
        return self.line.bytes + sum(map(len, job.images))

    def _seconds(self, more: int = 0) -> float:
        """How long what waits will take, and so many images more."""
        images = len(self.line) + more + sum(map(len, self.flying))
        return images * self.spent / self.done if self.done else 0.0

    def _retry_after(self) -> int:
        """Whole seconds after which about half of what waits will be gone."""
        return min(60, max(1, math.ceil(self._seconds() / 2)))

    # --- batches ------------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Gives the process what it can take now."""
        while self.up and self.line and len(self.flying) < FLYING:
            if not self.line.full(self.enough) and (self.flying or self._waits()):
                return
            self._send(self.line.take(self.batch if self.line.full(self.batch) else self.enough))

    def _waits(self) -> bool:
        """Whether the next batch is to wait for more images; it is pumped again when it has waited."""
        left = self.line.first.since + self.running.wait - time.monotonic()
        if left <= 0:
            return False
        self._later("wait", left, self._pump)
        return True

    def _send(self, batch: list[Item]) -> None:
        assert self.process is not None
        if not self.flying:
            self._begin()
        self.flying.append(batch)
        asked = [item.request.asked for item in batch]
        options = [[one.kind, one.top, one.threshold, one.masks, one.label] for one in asked]
        self.process.send([options, [item.image for item in batch]])
        for item in batch:
            item.image = b""

    def _begin(self) -> None:
        """A batch is run from now on."""
        self.began = time.monotonic()
        self._later("hang", self.patience, self._hung)

    def _hung(self) -> None:
        assert self.process is not None
        log.error("%s was killed: a batch took more than %.0f seconds", self.name, self.patience)
        self.process.kill()

    def _take(self, message: Any) -> None:
        """What the process says."""
        kind, *rest = message
        if kind == "done":
            self._done(*rest)
        elif kind == "told":
            log.info("%s", rest[0])
        elif self.opened is not None and not self.opened.done():
            if kind == "ready":
                self._ready(*rest)
                self.opened.set_result(None)
            else:
                self.opened.set_exception(ValueError(rest[0]))

    def _done(self, records: list[Record], seconds: float) -> None:
        batch = self.flying.popleft()
        took = time.monotonic() - self.began
        self.spent, self.done = self.spent * FADING + took, self.done * FADING + len(batch)
        self.counts.batches += 1
        self.counts.images += len(batch)
        self.counts.seconds += seconds
        self.counts.sizes[len(batch)] += 1
        if self.flying:
            self._begin()
        else:
            self._never("hang")
        for item, record in zip(batch, records, strict=True):
            item.request.fill(item.place, record)
        self._pump()

    def _later(self, name: str, seconds: float, act: Any) -> None:
        self._never(name)
        self.timers[name] = asyncio.get_running_loop().call_later(seconds, act)

    def _never(self, *names: str) -> None:
        for name in names:
            if name in self.timers:
                self.timers.pop(name).cancel()

    # --- the process --------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Raises ValueError with the sentence of what opened it."""
        await self._start()
        self.keeper = asyncio.create_task(self._keep())

    async def _start(self) -> None:
        self.opened = asyncio.get_running_loop().create_future()
        self.down = time.monotonic()
        self.process = await Process.start(self.command, self._take)
        running = asdict(self.running) if self.model is None else asdict(self.running) | {"engine": self.model.engine}
        self.process.send({"name": self.name, "source": self.source, "running": running, "pixels": self.limits.pixels})
        await asyncio.wait([self.opened, self.process.gone], timeout=OPENING, return_when=asyncio.FIRST_COMPLETED)
        if self.opened.done() and self.opened.exception() is None:
            return
        how = await self.process.end()
        if not self.opened.done():
            raise ValueError(f"{self.source} could not be opened: its process ended with {how}, or took too long")
        self.opened.result()

    def _ready(self, model: dict[str, Any], batch: int, enough: int, seconds: float) -> None:
        self.model = Model(**model | {"classes": tuple(model["classes"])})
        self.batch, self.enough = batch, batch if self.running.wait else enough
        if not self.done:
            self.spent, self.done = seconds * batch, float(batch)
        self.took = time.monotonic() - self.down
        self.up = True
        self._pump()

    async def _keep(self) -> None:
        """Waits for the end of the process, and starts another one."""
        while True:
            assert self.process is not None
            await self.process.gone
            self._lose()
            how = await self.process.end(ENDING)
            log.error("the process of %s ended with %s: another one is started", self.name, how)
            self.counts.restarts += 1
            for attempt in count():
                await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
                try:
                    await self._start()
                    break
                except ValueError as error:
                    log.error("%s", error)

    def _lose(self) -> None:
        """What the process had is lost; what waits goes on waiting."""
        self.up, self.down = False, time.monotonic()
        self._never("hang")
        gone = {item.request for batch in self.flying for item in batch}
        self.flying.clear()
        self.counts.lost += len(gone)
        for request in gone:
            self.line.drop(request)
            request.fail(Lost(f"the process of {self.name} ended while it worked on this: ask again"))

    async def close(self, end: float) -> None:
        """Answers what was taken until `end`, a time of `time.monotonic()`, and ends the process."""
        answers = [request.answer for request in self.requests]
        if answers and end > time.monotonic():
            await asyncio.wait(answers, timeout=end - time.monotonic())
        for request in list(self.requests):
            request.fail(Lost("the service stopped before this was answered"))
        if self.keeper is not None:
            self.keeper.cancel()
            await asyncio.gather(self.keeper, return_exceptions=True)
        self.up = False
        self._never("hang", "wait")
        if self.process is not None:
            await self.process.end(2.0)

    # --- figures ------------------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """As `Pool.stats`."""
        working = sum(map(len, self.flying))
        rate = self.done / self.spent if self.spent else 0.0
        return asdict(self.counts) | {
            "sizes": dict(self.counts.sizes), "waiting": len(self.line), "working": working, "up": self.up,
            "images_per_second": rate,
        }  # fmt: skip
