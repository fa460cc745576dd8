"""One optimizer step: the loss of all micro-batches divided once, half precision, clipping. It knows no task."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from metaformer.config import Recipe
from metaformer.core.ranks import ALONE, Ranks
from metaformer.core.shared_norm import idle
from metaformer.data.batch import Batch
from metaformer.train.checkpoint import State
from metaformer.train.optim import clips_itself, gradient_norm, set_learning_rate


class Judged(Protocol):
    """What a task's evaluation must say: scores in percent, the first of them deciding which is the best; and a loss."""

    @property
    def scores(self) -> dict[str, float]: ...
    @property
    def loss(self) -> float: ...


class Task(Protocol):
    """What the loop asks of a task."""

    def count(self, batch: Batch) -> int: ...
    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor: ...
    def evaluate(self, model: nn.Module, batches: Iterable[Batch], ranks: Ranks = ALONE) -> Judged: ...
    def chance(self, labels: Tensor) -> str:
        """What a score on these labels is worth that knows nothing, as a sentence."""
        ...


def accumulate(
    model: nn.Module,
    task: Task,
    micro_batches: Sequence[Batch],
    precision: torch.dtype = torch.float32,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, int]:
    """Adds the gradient of the mean loss over all micro-batches of all ranks, however cut; returns loss sum and count.

    Ranks exchange gradients once, with the last micro-batch, of which each must have as many.
    """
    device = micro_batches[0].images.device
    count = int(ranks.sum(sum(task.count(batch) for batch in micro_batches)))
    total = torch.zeros((), device=device)
    for i, batch in enumerate(micro_batches):
        early = i < len(micro_batches) - 1
        with model.no_sync() if early and isinstance(model, DistributedDataParallel) else nullcontext():
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                loss = task.loss_sum(model, batch) if len(batch.labels) else _no_loss(model, batch.images)
            (loss * ranks.count / count).backward()  # the gradient of several ranks is the mean of theirs
        total += loss.detach()
    return ranks.total(total), count


def _no_loss(model: nn.Module, images: Tensor) -> Tensor:
    """The loss of no images, 0, but every parameter has a gradient of it: for the ranks that wait for this one's."""
    with idle(model):
        return model(images.new_zeros(1, *images.shape[1:])).float().sum() * 0


@dataclass(frozen=True)
class Scaled:
    """A task whose losses are so large that gradients in half precision do not vanish."""

    task: Task
    scaler: torch.amp.GradScaler

    def count(self, batch: Batch) -> int:
        return self.task.count(batch)

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        return cast(Tensor, self.scaler.scale(self.task.loss_sum(model, batch)))

    def evaluate(self, model: nn.Module, batches: Iterable[Batch], ranks: Ranks = ALONE) -> Judged:
        return self.task.evaluate(model, batches, ranks)

    def chance(self, labels: Tensor) -> str:
        return self.task.chance(labels)


def take_step(
    recipe: Recipe, state: State, forward: nn.Module, task: Task, precision: torch.dtype, batch: Batch, lr: float
) -> tuple[Tensor, Tensor, int]:
    """One optimizer step; the batch's loss sum, the gradient's norm before clipping, and the images it learnt from.

    These are none where the step was skipped. `forward` is the model, or its compiled form.
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
