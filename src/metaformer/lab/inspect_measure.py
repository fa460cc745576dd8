"""Measuring a model part by part: what each gives, keeps for the backward pass, holds in inference, and how long it takes."""

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metaformer.dense.model import Dense
from metaformer.lab.inspect_parts import Part

SECONDS = 0.005
"""What a measured turn takes at least: shorter calls are repeated."""


class Subject:
    """A copy of a model on its device, in evaluation mode, and random images for it."""

    def __init__(self, model: nn.Module, side: int, batch: int, device: torch.device) -> None:
        self.model = deepcopy(model).eval().to(device)
        self.device = device
        first = next(m for m in self.model.modules() if isinstance(m, nn.Conv2d))
        drawn = torch.randn(batch, first.in_channels, side, side, generator=torch.Generator().manual_seed(0))
        self.images = drawn.to(device, first.weight.dtype).contiguous(memory_format=torch.channels_last)

    def own(self) -> set[int]:
        """The storages of weights, statistics and images."""
        tensors = [*self.model.parameters(), *self.model.buffers(), self.images]
        return {tensor.untyped_storage()._cdata for tensor in tensors}


@contextmanager
def _now(found: Sequence[Part]) -> Iterator[Callable[[], str]]:
    """Tells which part runs, "" outside of all."""
    stack = [""]
    hooks = []
    for part in found:
        hooks.append(part.module.register_forward_pre_hook(lambda module, inputs, name=part.name: stack.append(name)))
        hooks.append(part.module.register_forward_hook(lambda module, inputs, out: stack.pop() and None))
    try:
        yield lambda: stack[-1]
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode(False)
@torch.enable_grad()
def kept_bytes(subject: Subject, found: Sequence[Part]) -> dict[str, int]:
    """By part, and "" outside: bytes that autograd keeps in a forward pass of training, each storage once, by whom it is kept
    first; without weights and the image. Detectors and segmenters, which train with truths only, run as in evaluation."""
    own, sizes, alive = subject.own(), dict[str, int](), list[Tensor]()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            own.add(storage._cdata)
            sizes[now()] = sizes.get(now(), 0) + storage.nbytes()
        alive.append(tensor)  # so that no storage's identity is used twice
        return tensor

    cuda = [subject.device] if subject.device.type == "cuda" else []
    norms = [module for module in subject.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(_spare) for norm in norms]
    subject.model.train(not isinstance(subject.model, Dense))
    try:
        with torch.random.fork_rng(cuda), _now(found) as now, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            subject.model(subject.images)
    finally:
        subject.model.eval()
        for hook in hooks:
            hook.remove()
    return sizes


def _spare(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Batch norm does not train on a single value per channel, which is what a small image leaves in the end."""
    if inputs[0].numel() == inputs[0].shape[1]:
        norm.eval()


class _Alive(TorchDispatchMode):
    """Follows the memory of all tensors that operations make."""

    def __init__(self, own: set[int], base: int, now: Callable[[], str]) -> None:
        super().__init__()
        self.own, self.base, self.now = own, base, now
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.alive = {key: kept for key, kept in self.alive.items() if not kept[0].expired()}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.own:
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        held = self.base + sum(size for _, size in self.alive.values())
        self.most[self.now()] = max(held, self.most.get(self.now(), 0))
        return out


@torch.no_grad()
def peaks(subject: Subject, found: Sequence[Part]) -> dict[str, int]:
    """By part, and "" outside: the most bytes that tensors alive at once had while it ran in inference, those of other parts
    and the images among them, weights not; what a kernel uses inside is not seen."""
    with _now(found) as now:
        alive = _Alive(subject.own(), subject.images.nbytes, now)
        with alive:
            subject.model(subject.images)
    return alive.most


@torch.inference_mode()
def shapes(subject: Subject, found: Sequence[Part]) -> dict[str, tuple[int, ...]]:
    """By part, and "" for the model: the shape of what it gives, without the batch; of those that give a single tensor, and of
    a part that is called several times, such as a detector's head on each level, what it gives first."""
    given: dict[str, tuple[int, ...]] = {}

    def note(name: str, out: object) -> None:
        if isinstance(out, Tensor):
            given.setdefault(name, tuple(out.shape[1:]))

    hooks = [p.module.register_forward_hook(lambda _, inputs, out, name=p.name: note(name, out)) for p in found]
    try:
        note("", subject.model(subject.images))
    finally:
        for hook in hooks:
            hook.remove()
    return given


@torch.inference_mode()
def times(subject: Subject, found: Sequence[Part], rounds: int) -> dict[str, tuple[float, float, float]]:
    """By part, and "" for the model: seconds in inference, the median over the rounds and the quartiles.

    Each part is called with what it is given in the model. In each round all take their turn, in an order drawn anew, so that
    what drifts in the machine hits all alike.
    """
    calls: dict[str, list[tuple[Any, Any]]] = {part.name: [] for part in found}
    hooks = [
        p.module.register_forward_pre_hook(
            lambda _, args, kwargs, name=p.name: calls[name].append((args, kwargs)), with_kwargs=True
        )
        for p in found
    ]
    try:
        subject.model(subject.images)
    finally:
        for hook in hooks:
            hook.remove()
    jobs: dict[str, Callable[[], object]] = {"": lambda: subject.model(subject.images)}
    jobs |= {p.name: lambda p=p: [p.module(*args, **kwargs) for args, kwargs in calls[p.name]] for p in found if calls[p.name]}
    once = {name: min(_seconds(job, 1, subject.device) for _ in range(3)) for name, job in jobs.items()}
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(jobs), len(jobs)):
            taken[name].append(_seconds(jobs[name], math.ceil(SECONDS / max(once[name], 1e-7)), subject.device))
    return {name: (statistics.median(row), *_quartiles(row)) for name, row in taken.items()}


def _seconds(job: Callable[[], object], calls: int, device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    for _ in range(calls):
        job()
    _wait(device)
    return (time.perf_counter() - began) / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _quartiles(row: Sequence[float]) -> tuple[float, float]:
    if len(row) < 2:
        return row[0], row[0]
    low, _, high = statistics.quantiles(row, n=4, method="inclusive")
    return low, high
