"""How a mixer is tried: a case, a line of its contract, and what a line is written with."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from inspect import isclass
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from metaformer.core.mixers import Mixer
from metaformer.core.spec import OWN
from metaformer.own import FAILURES, source_of

SIDE = 8
"""Places of a side of the maps that are tried, where a spec names no grid."""
SHAKEN = 0.05
"""What is added to parameters, that one which starts at zero hides nothing."""
CLOSE = 1e-4
"""Greatest difference in float32, over the greatest value, that counts as the same."""


class BrokenError(Exception):
    """A line does not hold; the sentence says why."""


class LeftOutError(Exception):
    """A line was not tried; the sentence says why."""


@dataclass(frozen=True)
class Line:
    """What became of a line of the contract."""

    name: str
    state: str
    """passed, failed, or left out."""
    why: str


@dataclass(frozen=True)
class Case:
    """A mixer, and how it is tried."""

    mixer: Mixer
    dim: int = 64
    device: torch.device = torch.device("cpu")
    quick: bool = False

    @property
    def grid(self) -> int | None:
        """The side of the only grid that a mixer must take: its spec's `grid`, where there is one."""
        made = self.mixer if is_dataclass(self.mixer) and not isinstance(self.mixer, type) else None
        return next((getattr(made, f.name) for f in fields(made) if f.name == "grid"), None) if made is not None else None

    @property
    def side(self) -> int:
        return self.grid or SIDE

    def module(self, *, seed: int = 0) -> nn.Module:
        """A new one on the device, in evaluation mode, its parameters away from where they start."""
        torch.manual_seed(seed)
        made = self.mixer(self.dim)
        with torch.no_grad():
            for p in made.parameters():
                if p.is_floating_point():
                    p.add_(SHAKEN * torch.randn(p.shape))
        return made.to(self.device).to(memory_format=torch.channels_last).eval()

    def map(self, height: int | None = None, width: int | None = None, *, batch: int = 2, seed: int = 0) -> Tensor:
        """Random values, (batch, dim, height, width), channels-last."""
        shape = (batch, self.dim, height or self.side, width or height or self.side)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return x.to(self.device).contiguous(memory_format=torch.channels_last)


def mixers_in(module: ModuleType) -> list[str]:
    """Names of the classes that a module defines and that may be mixers."""
    found = {name: value for name, value in vars(module).items() if isclass(value) and value.__module__ == module.__name__}
    return [
        name
        for name, value in found.items()
        if issubclass(value, nn.Module) or (is_dataclass(value) and "__call__" in vars(value))
    ]


def at_grid(mixer: Mixer, grid: int) -> Mixer:
    """The same for a grid of so many places a side, where its spec names one."""
    case = Case(mixer)
    made: Any = mixer
    return mixer if case.grid is None else replace(made, grid=grid)


def run_line(name: str, line: Callable[[Case], str], case: Case) -> Line:
    """Tries one; what the mixer raises is a failure, whose reason is what it says."""
    try:
        with torch.random.fork_rng([case.device] if case.device.type == "cuda" else []):
            return Line(name, "passed", line(case))
    except BrokenError as error:
        return Line(name, "failed", str(error))
    except LeftOutError as error:
        return Line(name, "left out", str(error))
    except FAILURES as error:
        return Line(name, "failed", f"{type(error).__name__}: {first(error)}{passed(error)}")


def passed(error: Exception) -> str:
    """` (mine.py, line 7)`: the last of the user's own lines that an error passed, if any."""
    named = {source_of(module): name for name, module in OWN.items()}
    frames = [(Path(frame.filename).resolve(), frame.lineno) for frame in extract_tb(error.__traceback__)]
    lines = [f" ({named[file]}, line {number})" for file, number in frames if file in named]
    return lines[-1] if lines else ""


def first(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def far(y: Tensor, right: Tensor) -> float:
    """The greatest difference over the greatest value; infinite where one of them has no number."""
    y, right = y.detach().double(), right.detach().double()
    off = float((y - right).abs().max() / right.abs().max().clamp(min=1e-12))
    return off if math.isfinite(off) else math.inf


def expect(holds: bool, why: str) -> None:
    """Raises BrokenError where it does not hold."""
    if not holds:
        raise BrokenError(why)


def size(x: Tensor) -> str:
    """`2 × 64 × 7 × 5`."""
    return " × ".join(str(side) for side in x.shape)
