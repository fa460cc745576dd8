"""What it takes to judge a model: images a second, of all that is done and of the model alone, and memory."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from metaformer.lab.worker import most_resident, resident

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """What so many images took."""

    images: int
    seconds: float
    """Of reading, the model, and what is kept of its answers."""
    model_seconds: float
    """In the model alone."""
    peak: int | None
    """Bytes at most, above what was there before, such as the parameters. None where the system does not tell."""
    device: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "images_per_second": self.images / self.seconds,
            "model_images_per_second": self.images / self.model_seconds,
            "peak_bytes": self.peak,
            "device": self.device,
        }


def measured(show: Callable[[], Result], images: int, model: nn.Module, device: torch.device) -> tuple[Result, Cost]:
    """Calls `show`, in which the model sees so many images; what it gives, and what it took.

    What a first image takes once and for all, such as choosing kernels, belongs before it.
    """
    began, inside = [0.0], [0.0]

    def start(*_: object) -> None:
        began[0] = _now(device)

    def stop(*_: object) -> None:
        inside[0] += _now(device) - began[0]

    hooks = [model.register_forward_pre_hook(start), model.register_forward_hook(stop)]
    before, started = _memory(device), _now(device)
    try:
        result = show()
    finally:
        for hook in hooks:
            hook.remove()
    seconds, peak = _now(device) - started, None
    if before is not None:
        most = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else most_resident()
        peak = max(0, most - before)
    return result, Cost(images, seconds, inside[0], peak, str(device))


def _memory(device: torch.device) -> int | None:
    """Bytes in use now; from here on their maximum is looked for anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return resident() if device.type == "cpu" else None


def _now(device: torch.device) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
