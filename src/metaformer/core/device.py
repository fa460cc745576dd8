"""Which device to run on, and how its memory is kept."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What precisions are called."""


def choose_device(name: str) -> torch.device:
    """`auto` takes cuda, then mps, then cpu. Raises ValueError with a sentence where the named one is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    kind = name.partition(":")[0]
    if not there.get(kind, False):
        raise ValueError(f"device={name} is not to be had here; there is: {', '.join(k for k in there if there[k])}")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device={name} is not a device, such as {kind} or {kind}:0") from None
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if (device.index or 0) >= count:
        raise ValueError(f"device={name} is not to be had here: {kind}:{count - 1} is the last one")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """What is computed in, by a name of DTYPES or tf32. `auto` takes bfloat16 on a GPU that multiplies it, else float32.

    Processors with bfloat16 gain little in training and torch 2.15 errs there: on AVX-512, the weight gradient of a
    convolution of stride 2 on a map of one place is not finite.
    """
    if name == "auto":
        if device.type == "cuda":
            name = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        else:
            name = "fp32"
    return DTYPES.get(name, torch.float32)


def precision_name(dtype: torch.dtype) -> str:
    """The name in DTYPES."""
    return next(name for name, one in DTYPES.items() if one == dtype)


@contextmanager
def with_threads(count: int | None) -> Iterator[None]:
    """Torch with so many threads of the processor; afterwards as before, for they are the process's. None leaves them."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def memory_told(device: torch.device, way: str) -> Iterator[None]:
    """Makes too little memory of a GPU a ValueError that says which way there is."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(f"{device} has too little memory; {way}") from error


def keep_memory() -> None:
    """Lets this process keep large blocks of memory that it frees, instead of giving them back to the system.

    On Linux each map of a model would otherwise be new memory, which the system clears page by page: on a processor that
    took half of a training step (docs/LOG.md). Elsewhere, and with another allocator than glibc's, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
