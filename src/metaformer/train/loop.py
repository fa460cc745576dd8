"""The loop: steps, epochs, evaluation, saves. It divides the loss once and knows no task."""

import json
import math
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from metaformer.config import Recipe
from metaformer.data.batch import Batch
from metaformer.data.loader import Loader
from metaformer.runs import Run, replace_folder, write_text
from metaformer.train.checkpoint import Progress, State, save
from metaformer.train.display import Display
from metaformer.train.optim import clips_itself, learning_rate, set_learning_rate
from metaformer.weights.pretrained import save_pretrained


class Judged(Protocol):
    """What a task's evaluation must say: top-1 in percent, and a loss."""

    @property
    def top1(self) -> float: ...
    @property
    def loss(self) -> float: ...


class Task(Protocol):
    """What the loop asks of a task."""

    def count(self, batch: Batch) -> int: ...
    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor: ...
    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Judged: ...


def accumulate(
    model: nn.Module, task: Task, micro_batches: Sequence[Batch], precision: torch.dtype = torch.float32
) -> tuple[Tensor, int]:
    """Adds the gradient of the mean loss over all micro-batches, however they were cut; returns loss sum and count."""
    device = micro_batches[0].images.device
    count = sum(task.count(batch) for batch in micro_batches)
    total = torch.zeros((), device=device)
    for batch in micro_batches:
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            loss = task.loss_sum(model, batch)
        (loss / count).backward()
        total += loss.detach()
    return total, count


@dataclass(frozen=True)
class Fit:
    """A model being trained, with all that it needs. Call it to train from where `progress` stands to the end."""

    recipe: Recipe
    state: State
    forward: nn.Module
    """The model, or its compiled form."""
    task: Task
    train: Loader
    val: Loader
    precision: torch.dtype
    about: dict[str, Any]
    """What is written beside the weights: classes, preprocessing."""

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return len(self.train)

    def done(self, progress: Progress) -> int:
        """Optimizer steps since the start."""
        return progress.epoch * self.steps + progress.step

    def __call__(self, run: Run, progress: Progress, display: Display) -> None:
        """Ctrl-C ends the step, saves, then raises KeyboardInterrupt."""
        kept = run.metrics[: progress.epoch]  # a line written just before a crash will be written again
        write_text(run.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        with _interrupts() as interrupted:
            while progress.epoch < self.recipe.epochs:
                self._train_epoch(progress, display, interrupted)
                if progress.step < self.steps:
                    save(run, self.state, progress, self.about)
                    raise KeyboardInterrupt
                self._close_epoch(run, progress, display)
                if interrupted.is_set() and progress.epoch < self.recipe.epochs:
                    raise KeyboardInterrupt

    def _train_epoch(self, progress: Progress, display: Display, interrupted: threading.Event) -> None:
        """The rest of the epoch's steps, or as many as were done when a person asked to stop."""
        loss_sum = torch.tensor(progress.loss_sum, device=self.train.device)
        started = time.perf_counter() - progress.seconds
        self.state.model.train()
        for batch in self.train.epoch(progress.epoch, progress.step):
            lr = learning_rate(self.recipe, self.done(progress), self.steps)
            progress.step += 1
            if not len(batch.labels):  # nothing in it can be read
                continue
            loss, count = self.step(batch, lr)
            loss_sum += loss
            progress.count += count
            if self.state.average is not None:
                self.state.average.update(self.state.model, self.done(progress))
            if display.due():
                speed = progress.count / (time.perf_counter() - started)
                epoch = f"epoch {progress.epoch + 1}/{self.recipe.epochs}  step {progress.step}/{self.steps}"
                facts = f"loss {loss.item() / count:.3f}  lr {lr:.1e}  {speed:.0f} images/s"
                display.step(self.done(progress), epoch, facts)
            if interrupted.is_set():
                break
        progress.loss_sum = loss_sum.item()
        progress.seconds = time.perf_counter() - started

    def step(self, batch: Batch, lr: float) -> tuple[Tensor, int]:
        """One optimizer step; the batch's loss sum and count."""
        optimizer = self.state.optimizer
        set_learning_rate(optimizer, lr)
        optimizer.zero_grad(set_to_none=True)
        loss, count = accumulate(self.forward, self.task, batch.parts(self.recipe.accumulate), self.precision)
        if self.recipe.clip is not None and not clips_itself(self.recipe):
            norm = nn.utils.clip_grad_norm_(self.state.model.parameters(), self.recipe.clip)
            loss = torch.where(norm.isfinite(), loss, torch.nan)  # else clipping would turn the step into nothing, unseen
        optimizer.step()
        return loss, count

    def _close_epoch(self, run: Run, progress: Progress, display: Display) -> None:
        """Judges the model, keeps it if it is the best, writes the epoch's line, saves."""
        epoch, loss = progress.epoch + 1, progress.loss_sum / progress.count
        judge = self.state.model if self.state.average is None else self.state.average.model
        judged = self.task.evaluate(judge, self.val.epoch())
        if not math.isfinite(loss + judged.loss):
            raise FloatingPointError(
                f"the loss or its gradient became {loss}, on held-out images {judged.loss}, in epoch {epoch}; "
                f"try a lower lr than {self.recipe.lr:g}, or precision=fp32"
            )
        line = {
            "epoch": epoch,
            "train_loss": loss,
            "val_loss": judged.loss,
            "top1": judged.top1,
            "lr": self.state.optimizer.param_groups[0]["lr"],
            "seconds": progress.seconds,
            "images_per_second": progress.count / progress.seconds,
        }
        if judged.top1 > progress.best:
            progress.best = judged.top1
            about = self.about | {"epoch": epoch, "top1": line["top1"]}
            replace_folder(run.path / "best", lambda folder: save_pretrained(judge, folder, about))
        with (run.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        display.say(
            f"epoch {epoch:3d}/{self.recipe.epochs}  loss {loss:.4f}  held out: loss {judged.loss:.4f}  "
            f"top-1 {line['top1']:6.2f} %  {line['images_per_second']:5.0f} images/s"
        )
        progress.next_epoch()
        save(run, self.state, progress, self.about)


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that no step is torn; the second one stops at once, as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(_: int, __: object) -> None:
        signal.signal(signal.SIGINT, before)
        event.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
