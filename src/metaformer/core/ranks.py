"""The processes that train together, as torchrun starts them: which one this is, and what they tell each other."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _get_default_store

from metaformer.core.parent import LAUNCHER, die_with_parent

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)
"""How long a rank waits for the others before it gives up: one may be downloading, or reading a million names."""


@dataclass(frozen=True)
class Ranks:
    """This process among `count`, of which `near` are on this machine.

    Every method must be called by all of them, in the same order. Numbers go over the processor: no GPU is waited for.
    """

    rank: int = 0
    count: int = 1
    near: int = 1
    again: bool = False
    """Whether torchrun started them again, perhaps in another number."""

    @property
    def first(self) -> bool:
        """Whether this one writes and speaks for all."""
        return self.rank == 0

    def sum(self, value: float) -> float:
        """The sum over all ranks."""
        if self.count == 1:
            return value
        told = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(told)
        return told.item()

    def most(self, value: float) -> float:
        """The greatest of all ranks'."""
        if self.count == 1:
            return value
        told = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return told.item()

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks of a tensor, where it is, without waiting for it."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gathered(self, value: T) -> list[T]:
        """What each rank has, in their order."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def told(self, value: T) -> T:
        """What the first rank has; what the others give does not matter."""
        if self.count == 1:
            return value
        everything = [value if self.first else None]
        dist.broadcast_object_list(everything)
        (said,) = everything
        return said  # pyrefly: ignore[bad-return]

    def wait(self) -> None:
        """Until all have come here."""
        self.sum(0)  # a barrier would be the GPUs'


ALONE = Ranks()


def started_together() -> bool:
    """Whether torchrun started this process, as one of several or of one."""
    return dist.is_torchelastic_launched()


def speaks() -> bool:
    """Whether this process is the first of those that torchrun started, or alone."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def together() -> Iterator[Ranks]:
    """Joins the processes that torchrun started, and ends with torchrun, however that ends; alone where it did not.

    Where they fail, the one that fails first says why: the others' errors, often of being left alone, become a silent exit.
    Where one was killed and can say nothing, another raises ConnectionError.
    """
    if not started_together():
        yield ALONE
        return
    launcher = os.environ.pop(LAUNCHER, None)
    die_with_parent(None if launcher is None else int(launcher))
    fresh = not dist.is_initialized()
    if fresh:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
        store = dist.PrefixStore(f"metaformer/{_turn(store, rank, size)}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_WORLD_SIZE"]))
    try:
        yield ranks
        if fresh:
            dist.destroy_process_group()
    except KeyboardInterrupt:
        if not ranks.first:
            raise SystemExit(130) from None
        raise
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        if not _first_to_fail():
            raise SystemExit(2) from error
        if isinstance(error, dist.DistError) or "gloo/transport" in str(error):
            raise ConnectionError(
                "another of the processes that train together is gone, so all end; what was saved is whole: as many processes, "
                "started on the run's directory, go on"
            ) from error
        raise


def _turn(store: dist.Store, rank: int, size: int) -> str:
    """A name, known to all ranks, for this time that they join.

    torchrun's store still holds what ranks of an earlier time said, their addresses for one. So each says that it is here
    by a word of its own, and the first one answers that word, until all have heard.
    """
    own = uuid4().hex
    if rank:
        store.set(f"here/{rank}", own)
        turn = store.get(f"turn/{own}").decode()
        store.set(f"{turn}/{rank}", "heard")
        return turn
    for other in range(1, size):
        while not store.check([f"{own}/{other}"]):
            said = store.get(f"here/{other}").decode()  # perhaps of one that is dead
            store.set(f"turn/{said}", own)
            time.sleep(0.01)
    return own


def _first_to_fail() -> bool:
    """Whether none has said before that it failed; one whose store is gone was left alone."""
    try:
        return _get_default_store().add("failed", 1) == 1
    except dist.DistError:
        return False


def own_device(device: torch.device, ranks: Ranks) -> torch.device:
    """The one of a machine's GPUs that this rank computes on, chosen for the process; the processor for all of them.

    Raises ValueError where there are too few, or where all were to take the same one.
    """
    if ranks.count == 1 or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ValueError(f"device={device} is one process's alone: device=cpu trains in {ranks.count}")
    if device.index is not None:
        raise ValueError(f"device={device} is one GPU for {ranks.count} processes: device=cuda gives each its own")
    there = torch.cuda.device_count()
    if ranks.near > there:
        raise ValueError(f"{ranks.near} processes here, but {there} GPUs: devices={there} is the most, or device=cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device
