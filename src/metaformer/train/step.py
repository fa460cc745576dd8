"""One optimizer step: the loss of all micro-batches divided once, half precision, clipping. It knows no task."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from metaformer.config import Recipe
from metaformer.core.ranks import ALONE, Ranks
from metaformer.core.shared_norm import idle
from metaformer.train.checkpoint import State
from metaformer.train.optim import clips_itself, gradient_norm, set_learning_rate


class Judged(Protocol):
    """What a task's evaluation must say: scores in percent, the first of them deciding which is the best; and a loss."""

    @property
    def scores(self) -> dict[str, float]: ...
    @property
    def loss(self) -> float | None:
        """On held-out images; None of a task that has none there."""
        ...


class Portion(Protocol):
    """What the loop asks of a batch: how many images it has, which, its micro-batches."""

    @property
    def samples(self) -> Tensor | None: ...
    def __len__(self) -> int: ...
    def parts(self, count: int) -> "Sequence[Portion]": ...
    def blank(self, device: torch.device) -> Tensor:
        """One image of zeros, (1, C, H, W), as good as those of the batch, of which there may be none."""
        ...


class Named(Protocol):
    """What the loop asks of a part of a data set."""

    def __len__(self) -> int: ...
    def name(self, sample: int) -> str: ...


class Batches(Protocol):
    """What the loop asks of a loader."""

    @property
    def batch(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def damaged(self) -> dict[int, str]: ...
    @property
    def split(self) -> Named: ...
    def __len__(self) -> int: ...
    def epoch(self, epoch: int = 0, start: int = 0, side: int | None = None) -> Iterator[Any]: ...


class Task(Protocol):
    """What the loop asks of a task. Its batches are those of its own loader."""

    def count(self, batch: Any) -> int: ...
    def loss_sum(self, model: nn.Module, batch: Any) -> Tensor: ...
    def no_loss(self, model: nn.Module, images: Tensor) -> Tensor:
        """0, of images of zeros, with a gradient for every parameter that has one."""
        ...

    def evaluate(self, model: nn.Module, batches: Iterable[Any], ranks: Ranks = ALONE) -> Judged: ...


def accumulate(
    model: nn.Module,
    task: Task,
    micro_batches: Sequence[Portion],
    precision: torch.dtype = torch.float32,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, int]:
    """Adds the gradient of the mean loss over all micro-batches of all ranks, however cut; returns loss sum and count.

    Ranks exchange gradients once, with the last micro-batch, of which each must have as many.
    """
    device = next(model.parameters()).device
    count = int(ranks.sum(sum(task.count(batch) for batch in micro_batches)))
    total = torch.zeros((), device=device)
    for i, batch in enumerate(micro_batches):
        early = i < len(micro_batches) - 1
        with model.no_sync() if early and isinstance(model, DistributedDataParallel) else nullcontext():
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                loss = task.loss_sum(model, batch) if len(batch) else _no_loss(model, task, batch.blank(device))
            (loss * ranks.count / max(1, count)).backward()  # the gradient of several ranks is the mean of theirs
        total += loss.detach()
    return ranks.total(total), count


def _no_loss(model: nn.Module, task: Task, images: Tensor) -> Tensor:
    """The loss of no images, 0, but every parameter has a gradient of it: for the ranks that wait for this one's."""
    with idle(model):
        return task.no_loss(model, images)


@dataclass(frozen=True)
class Scaled:
    """A task whose losses are so large that gradients in half precision do not vanish."""

    task: Task
    scaler: torch.amp.GradScaler

    def count(self, batch: Any) -> int:
        return self.task.count(batch)

    def loss_sum(self, model: nn.Module, batch: Any) -> Tensor:
        return cast(Tensor, self.scaler.scale(self.task.loss_sum(model, batch)))

    def no_loss(self, model: nn.Module, images: Tensor) -> Tensor:
        return self.task.no_loss(model, images)

    def evaluate(self, model: nn.Module, batches: Iterable[Any], ranks: Ranks = ALONE) -> Judged:
        return self.task.evaluate(model, batches, ranks)


def take_step(
    recipe: Recipe, state: State, forward: nn.Module, task: Task, precision: torch.dtype, batch: Portion, lr: float
) -> tuple[Tensor, Tensor, int]:
    """One optimizer step; the batch's loss sum, the gradient's norm before clipping, and the count that it learnt from.

    That is 0 where the step was skipped. `forward` is the model, or its compiled form.
    """
    model, optimizer, scaler = state.model, state.optimizer, state.scaler
    set_learning_rate(optimizer, lr)
    optimizer.zero_grad(set_to_none=True)
    task = task if scaler is None else Scaled(task, scaler)
    loss, count = accumulate(forward, task, batch.parts(recipe.accumulate), precision, state.ranks)
    if scaler is not None:
        loss = loss / scaler.get_scale()
        scaler.unscale_(optimizer)
    norm = gradient_norm(model)
    if scaler is not None and loss.isfinite() and not norm.isfinite() and scaler.get_scale() > 1:
        norm = torch.zeros_like(norm)  # the scaler leaves such a step out and halves its scale: no cause for alarm
    if recipe.nonfinite == "skip" and not (loss + norm).isfinite():
        if scaler is not None:
            scaler.update()
        return loss, norm, 0
    if recipe.clip is not None and not clips_itself(recipe):
        nn.utils.clip_grads_with_norm_(model.parameters(), recipe.clip, norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return loss, norm, count
