"""batch=auto: the most images that the device's memory holds, by real training steps on a copy of the model.

The images that are learnt from at once are a power of two; with accumulate= a batch is so many times more.
"""

import gc
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch

from metaformer.config import Recipe
from metaformer.core.ranks import ALONE, Ranks
from metaformer.train.optim import make_optimizer
from metaformer.train.parts import training_mode
from metaformer.train.step import Portion, Task, accumulate
from metaformer.weights.pretrained import Kept

MOST = 1024
"""Images in a batch, however much memory there is."""
STEPS = 8
"""Optimizer steps that an epoch is to keep at least."""
FEW = 4
"""Images in small steps of a classifier."""
PART_GPU, PART = 0.9, 0.5
"""Part of a GPU's memory, and of what a system has to spare, that a step may take."""


@dataclass(frozen=True)
class Trial:
    """What a training step takes: model on its device, loss, precision, and images that take as much memory as any."""

    model: Kept
    recipe: Recipe
    task: Task
    precision: torch.dtype
    worst: Callable[[int], Portion]
    """A batch of so many images, on the model's device."""
    side: int
    """Of an image in pixels, as it is told."""
    few: int = FEW
    """Images in the small steps that tell how much an image takes where memory must not run out."""
    ranks: Ranks = ALONE
    """The processes that learn from a batch together."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def batch(self, images: int) -> tuple[int, tuple[str, ...]]:
        """Images per optimizer step for a data set of so many, and how it comes to be so many where memory decides."""
        if isinstance(self.recipe.batch, int):
            return self.recipe.batch, ()
        batch, why = self.largest(images)
        return batch, (f"{why}; lr={self.recipe.lr:g} is not rescaled",)

    def largest(self, images: int) -> tuple[int, str]:
        """The batch for a data set of so many images, and why it is that one. Raises ValueError where no step works."""
        parts = self.recipe.accumulate * self.ranks.count
        roomy = _power(max(1, images // STEPS))
        most = max(1, _power(max(1, min(MOST, roomy) // parts)))
        random = [self.device] if self.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(random):
                at_once = self._on_gpu(most) if self.device.type == "cuda" else self._by_arithmetic(most)
        except torch.OutOfMemoryError as error:
            raise ValueError(f"{self.device} has too little memory for a single image of {self.side} pixels") from error
        except (AssertionError, RuntimeError) as error:
            raise ValueError(f"batch=auto: a step does not do: {str(error).partition(chr(10))[0]}") from error
        at_once = min(self.ranks.gathered(at_once))
        why = f"as much as the memory of {self.device} holds" if at_once < most else "the most that it takes"
        if at_once == most and roomy < MOST:
            why = f"more would leave an epoch fewer than {STEPS} steps"
        return at_once * parts, f"batch=auto is {at_once * parts}{f' in {parts} parts' if parts > 1 else ''}: {why}"

    def _on_gpu(self, most: int) -> int:
        """By real steps, halved for as long as memory runs out or is nearly full."""
        count, total = most, torch.cuda.mem_get_info(self.device)[1]
        while True:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            try:
                self._step(count)
                if torch.cuda.max_memory_allocated(self.device) <= PART_GPU * total:
                    return count
            except torch.OutOfMemoryError:
                if count == 1:
                    raise
            finally:
                gc.collect()  # what a step that was broken off still holds
            if count == 1:
                return 1
            count //= 2

    def _by_arithmetic(self, most: int) -> int:
        """By what small steps hold for their backward pass: where a system runs out of memory, it ends the process."""
        small, twice = (_held(lambda count=count: self._step(count)) for count in (self.few, 2 * self.few))
        each = max(1, (twice - small) // self.few)
        return min(most, _power(max(1, int(PART * spare_memory() / self.ranks.near) // each)))

    def _step(self, count: int) -> None:
        """Forward, backward and the optimizer's step, on a copy."""
        model = training_mode(deepcopy(self.model), self.recipe)
        accumulate(model, self.task, [self.worst(count)], self.precision)
        make_optimizer(model, self.recipe).step()


def _held(step: Callable[[], None]) -> int:
    """Bytes that are kept for the backward pass."""
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(sizes.values())


def spare_memory() -> int:
    """Bytes that can be had without swapping: of the system, or of the container if that has less.

    Files that were read a while ago count as free, in both: the system takes their place when it needs it.
    """
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    spare = 1024 * int(lines["MemAvailable"].split()[0])
    for limit, used, facts in CONTAINER:
        if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
            spare = min(spare, max(0, int(limit.read_text()) - int(used.read_text()) + _old_files(facts)))
    return spare


def _old_files(facts: Path) -> int:
    """Bytes of a container's files in memory that nobody has read lately; with all that is in it, where Linux says that."""
    lines = dict(line.split() for line in facts.read_text().splitlines()) if facts.is_file() else {}
    return int(lines.get("total_inactive_file", lines.get("inactive_file", 0)))


_GROUPS = Path("/sys/fs/cgroup")
CONTAINER = (
    (_GROUPS / "memory.max", _GROUPS / "memory.current", _GROUPS / "memory.stat"),
    (_GROUPS / "memory/memory.limit_in_bytes", _GROUPS / "memory/memory.usage_in_bytes", _GROUPS / "memory/memory.stat"),
)
"""Where Linux says what a container may use, what it uses and for what, in both its ways."""


def _power(count: int) -> int:
    """The largest power of two that is not larger."""
    return 1 << (count.bit_length() - 1)
