"""Being asked to stop: Ctrl-C, and SIGTERM as a cluster or a container sends it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(SystemExit):
    """SIGTERM, after which all is saved. Nobody need catch it: the process then ends with 143, as shells count signals."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Stop:
    """Which signal asks to stop, if any has come yet."""

    number: int | None = None

    @property
    def wanted(self) -> bool:
        return self.number is not None

    def error(self) -> BaseException:
        """What is raised when all is saved."""
        return Terminated() if self.number == signal.SIGTERM else KeyboardInterrupt()


@contextmanager
def stops() -> Iterator[Stop]:
    """Notes the first Ctrl-C or SIGTERM, so that no step is torn; the second of either stops at once, as usual."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, _: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        stop.number = stop.number or number

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, handle)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
