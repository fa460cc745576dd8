"""Being asked to stop: Ctrl-C, and SIGTERM as a cluster or a container sends it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from metaformer.core.ranks import ALONE, Ranks


class Terminated(SystemExit):
    """SIGTERM, after which all is saved. Nobody need catch it: the process then ends with 143, as shells count signals."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Stop:
    """Which signal asks to stop, if any has come yet, to any of the ranks."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.heard = 0
        """Of this process; it may come at any moment."""
        self.number = 0
        """What all ranks know of."""

    def wanted(self) -> bool:
        """Whether there was one. All ranks must ask, and then stop at the same step, for the same signal."""
        self.number = self.number or int(self.ranks.most(self.heard))
        return self.number > 0

    def error(self) -> BaseException:
        """What is raised when all is saved."""
        return Terminated() if self.number == signal.SIGTERM else KeyboardInterrupt()


@contextmanager
def stops(ranks: Ranks = ALONE) -> Iterator[Stop]:
    """Notes the first Ctrl-C or SIGTERM, so that no step is torn; the second of either stops at once, as usual.

    Not of several ranks, to which one Ctrl-C comes twice: the terminal and torchrun each pass it on.
    """
    stop = Stop(ranks)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, _: FrameType | None) -> None:
        if ranks.count == 1:
            signal.signal(number, before[signal.Signals(number)])
        stop.heard = stop.heard or number

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, handle)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
