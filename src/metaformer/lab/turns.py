"""Contestants take turns: built side by side, then measured one at a time, in an order drawn anew for each round.

What drifts in the machine so hits all alike, and ratios are formed within a round.
"""

import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.connection import wait
from pathlib import Path

from metaformer.lab.contestants import Contestant
from metaformer.lab.worker import Built, Cell, FailedError, Worker

LEAST = 6
"""Rounds that are measured also where time is short: of fewer, no interval of 95 % can be had by drawing them again."""
LIMIT = 600.0
"""Seconds without an answer after which a contestant has failed."""
GRACE = 30.0
"""Seconds that a contestant may still be built when time is up."""
PAUSE = 0.02
"""Seconds before a turn, in which threads of the one before fall asleep that wait by spinning."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Turns:
    """How long and how often is measured."""

    rounds: int = 15
    seconds: float = 0.3
    """What a turn takes at least."""
    at_once: int = 2
    """Contestants that are built at the same time; nothing is measured meanwhile."""
    seed: int = 0


@dataclass
class Outcome:
    """What was measured of a contestant."""

    contestant: Contestant
    built: Built | None = None
    peak: int | None = None
    """Bytes of a call, above the loaded model."""
    calls: int = 1
    """In a turn."""
    rates: list[float] = field(default_factory=list)
    """Images/s, by round."""
    error: str | None = None
    """Why it was not measured, or not to the end; its rates are then none."""

    @property
    def name(self) -> str:
        return self.contestant.name

    @property
    def rate(self) -> float:
        """Images/s: the median over the rounds."""
        return statistics.median(self.rates)


def compete(
    cell: Cell, field: Sequence[Contestant], turns: Turns, until: float = math.inf, end: float = math.inf
) -> list[Outcome]:
    """Measures the contestants on one cell: an outcome for each, in the order of `field`.

    From `until` on no round is begun beyond those, from `end` on nobody is built; both are of time.monotonic.
    """
    outcomes = [Outcome(one) for one in field]
    with tempfile.TemporaryDirectory() as logs:
        workers: dict[str, Worker] = {}
        try:
            _build(cell, outcomes, workers, Path(logs), turns.at_once, end)
            for one in outcomes:
                _attempt(one, workers, lambda one=one: _prepare(one, workers[one.name], turns.seconds))
            order = random.Random(turns.seed)
            for done in range(turns.rounds):
                if done >= LEAST and time.monotonic() >= until:
                    break
                for one in order.sample(outcomes, len(outcomes)):
                    _attempt(one, workers, lambda one=one: _turn(one, workers[one.name]))
        finally:
            for worker in workers.values():
                worker.link.close()  # all are asked to end before one is waited for
            for worker in workers.values():
                worker.close()
    return outcomes


def _build(cell: Cell, outcomes: Sequence[Outcome], workers: dict[str, Worker], logs: Path, at_once: int, end: float) -> None:
    """Fills `workers`; who cannot be built has its error told."""
    waiting, building = list(outcomes), list[Outcome]()
    while waiting or building:
        while waiting and len(building) < at_once:
            one = waiting.pop(0)
            if time.monotonic() >= end:
                one.error = "not built: time was up"
                continue
            workers[one.name] = Worker(one.contestant.make, cell, logs / f"{len(workers)}.txt")
            building.append(one)
        wait([workers[one.name].link for one in building], timeout=1.0)
        for one in list(building):
            worker = workers[one.name]
            if worker.link.poll() or time.monotonic() > min(worker.began + LIMIT, end + GRACE):
                building.remove(one)
                _attempt(one, workers, lambda one=one, worker=worker: setattr(one, "built", worker.built(0.0)))


def _attempt(one: Outcome, workers: dict[str, Worker], step: Callable[[], None]) -> None:
    """Does the step, unless the contestant has failed; where it fails now, says why and ends its process."""
    if one.error is not None:
        return
    try:
        step()
    except FailedError as error:
        one.error = f"{error}{f', in round {len(one.rates) + 1}' if one.rates else ''}"
        one.rates = []
        workers.pop(one.name).close()


def _prepare(one: Outcome, worker: Worker, seconds: float) -> None:
    """The first calls, and how many make a turn."""
    once = worker.seconds(1, LIMIT)
    one.peak = worker.peak(LIMIT)
    if once < seconds / 4:  # a short call is told better by several
        calls = max(1, math.ceil(seconds / 4 / max(once, 1e-6)))
        once = worker.seconds(calls, LIMIT) / calls
    one.calls = max(1, math.ceil(seconds / max(once, 1e-6)))


def _turn(one: Outcome, worker: Worker) -> None:
    assert one.built is not None
    time.sleep(PAUSE)
    one.rates.append(one.calls * one.built.images / worker.seconds(one.calls, LIMIT))


# --- figures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ratio:
    """How many times as fast: the median over the rounds, and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}–{self.high:.2f})"


def ratio(one: Sequence[float], other: Sequence[float]) -> Ratio:
    """Of two contestants' rates in the same rounds. The interval is a bootstrap's: the rounds are drawn again and again."""
    return _resampled(tuple(a / b for a, b in zip(one, other, strict=True)))


@lru_cache(maxsize=4096)
def _resampled(values: tuple[float, ...]) -> Ratio:
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return Ratio(statistics.median(values), medians[round(0.025 * (RESAMPLES - 1))], medians[round(0.975 * (RESAMPLES - 1))])
