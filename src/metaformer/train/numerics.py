"""Numbers that are none, noticed without waiting for the device at every step; and how exactly training computes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metaformer.config import Recipe

EVERY = 50
"""Steps between two looks at the losses where a look waits for the device. A processor is asked at every step."""
REWINDS = 3
"""How often a run goes back before it gives up."""


class NonFiniteError(FloatingPointError):
    """A loss or a gradient is no finite number; the text says which, where, and what to try."""


@dataclass(frozen=True)
class Step:
    """A step as it is known beforehand; epoch and step count from 1."""

    epoch: int
    step: int
    lr: float
    samples: Tensor | None
    """(B,) on the processor: which images it learns from."""


@dataclass(frozen=True)
class Bad:
    """A step whose loss or gradient is no finite number."""

    step: Step
    loss: float
    norm: float

    def __str__(self) -> str:
        facts = f"lr {self.step.lr:.3g}, loss {self.loss:.4g}, gradient norm {self.norm:.4g}"
        return f"the loss or its gradient became no number in epoch {self.step.epoch}, step {self.step.step} ({facts})"


class Recent:
    """Loss and gradient norm of the last steps, `every` at most, kept on the device until somebody asks."""

    def __init__(self, device: torch.device, every: int) -> None:
        self.values = torch.zeros(every, 2, device=device)
        self.steps: list[Step] = []

    @property
    def full(self) -> bool:
        """Whether it is time to ask."""
        return len(self.steps) == len(self.values)

    def add(self, step: Step, loss: Tensor, norm: Tensor) -> None:
        """Notes a step, without waiting for it."""
        self.values[len(self.steps)] = torch.stack([loss, norm])
        self.steps.append(step)

    def bad(self) -> list[Bad]:
        """Waits for the device and forgets all; the steps that were not finite, the first one first."""
        values = self.values[: len(self.steps)]
        kept = values.tolist()
        found = [Bad(self.steps[i], *kept[i]) for i in (~values.isfinite()).any(1).nonzero().flatten().tolist()]
        self.steps = []
        return found


def notice_after(device: torch.device) -> int:
    """Steps after which at the latest a number that is none is noticed."""
    return 1 if device.type == "cpu" else EVERY


@contextmanager
def exactness(recipe: Recipe) -> Iterator[None]:
    """TF32 where precision=tf32 and nowhere else; where wanted, only deterministic algorithms. Afterwards all is as before."""
    matmul, conv = torch.get_float32_matmul_precision(), CONV.fp32_precision
    strict, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    workspace = os.environ.get(WORKSPACE)
    torch.set_float32_matmul_precision("high" if recipe.precision == "tf32" else "highest")
    CONV.fp32_precision = "tf32" if recipe.precision == "tf32" else "ieee"
    if recipe.deterministic:
        os.environ[WORKSPACE] = ":4096:8"
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        CONV.fp32_precision = conv
        torch.use_deterministic_algorithms(strict)
        torch.backends.cudnn.benchmark = benchmark
        if recipe.deterministic:
            os.environ.pop(WORKSPACE)
            os.environ.update({} if workspace is None else {WORKSPACE: workspace})


CONV: Any = torch.backends.cudnn.conv  # pyrefly: ignore[missing-attribute]
"""How cuDNN multiplies float32; torch makes the name when it is imported, where no type checker sees it."""
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Without it cuBLAS may choose another order of additions each time."""
