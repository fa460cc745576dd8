"""Being asked to stop among several ranks; alone it is in test_checkpoint.py."""

import signal
from dataclasses import dataclass

import pytest

from metaformer.core.ranks import Ranks
from metaformer.train.stop import Terminated, stops


@dataclass(frozen=True)
class Second(Ranks):
    """The second of two ranks, beside a first one that has a number of its own."""

    rank: int = 1
    count: int = 2
    others: float = 0

    def most(self, value: float) -> float:
        return max(value, self.others)


def test_ranks_hear_a_ctrl_c_twice_and_end_their_step() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stops(Second()) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.wanted()
        assert isinstance(stop.error(), KeyboardInterrupt)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("here", "there", "error"),
    [
        (0, signal.SIGTERM, Terminated),
        (signal.SIGINT, signal.SIGTERM, Terminated),
        (signal.SIGTERM, signal.SIGINT, Terminated),
        (0, signal.SIGINT, KeyboardInterrupt),
    ],
)
def test_all_ranks_stop_for_the_greatest_signal(here: int, there: int, error: type[BaseException]) -> None:
    with stops(Second(others=there)) as stop:
        if here:
            signal.raise_signal(here)
        assert stop.wanted()
        assert type(stop.error()) is error


def test_what_is_heard_after_the_step_changes_nothing() -> None:
    with stops(Second(others=signal.SIGINT)) as stop:
        assert stop.wanted()
        signal.raise_signal(signal.SIGTERM)
        assert stop.wanted()
        assert isinstance(stop.error(), KeyboardInterrupt)
