"""The loop: steps, epochs, evaluation, saves. It divides the loss once and knows no task."""

import json
import math
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from metaformer.config import Recipe
from metaformer.data.batch import Batch
from metaformer.data.loader import Loader
from metaformer.runs import Run, replace_folder, write_text
from metaformer.train.checkpoint import Progress, State, restore, save
from metaformer.train.display import Display
from metaformer.train.numerics import REWINDS, NonFiniteError, Recent, Step
from metaformer.train.optim import clips_itself, gradient_norm, learning_rate, set_learning_rate
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


class Watcher(Protocol):
    """Is told how a run goes on. `done` counts optimizer steps since the run's start.

    What it raises ends the training there, as a kill would: the run can go on.
    """

    def begin(self, done: int) -> None:
        """From here on; steps after `done` that it was told of, before a kill or a rewind, never were."""
        ...

    def step(self, done: int, figures: Mapping[str, float]) -> None:
        """Every `TOLD` steps: loss, learning rate, the gradient's norm."""
        ...

    def epoch(self, done: int, line: Mapping[str, Any]) -> None:
        """Once an epoch, when all is saved: the line of metrics.jsonl. No epoch is told twice."""
        ...


TOLD = 50
"""Steps between two of which watchers are told, because to know the loss is to wait for the device."""


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
class Scaled:
    """A task whose losses are so large that gradients in half precision do not vanish."""

    task: Task
    scaler: torch.amp.GradScaler

    def count(self, batch: Batch) -> int:
        return self.task.count(batch)

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        return cast(Tensor, self.scaler.scale(self.task.loss_sum(model, batch)))

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Judged:
        return self.task.evaluate(model, batches)


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
    every: int = 1
    """Steps after which at the latest a loss that is no number is noticed."""
    notes: tuple[str, ...] = ()
    """What a person should know of the weights that it starts from, a sentence each."""
    watchers: tuple[Watcher, ...] = ()

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
        if self.recipe.nonfinite == "rewind" and not run.last.is_dir():
            save(run, self.state, progress, self.about)
        for watcher in self.watchers:
            watcher.begin(self.done(progress))
        with _interrupts() as interrupted:
            while progress.epoch < self.recipe.epochs:
                try:
                    self._train_epoch(run, progress, display, interrupted)
                    if progress.step < self.steps:
                        save(run, self.state, progress, self.about)
                        raise KeyboardInterrupt
                    self._close_epoch(run, progress, display)
                except NonFiniteError as found:
                    self._rewind(run, progress, display, found)
                if interrupted.is_set():  # in the last epoch too: what comes after training is not wanted either
                    raise KeyboardInterrupt

    def _train_epoch(self, run: Run, progress: Progress, display: Display, interrupted: threading.Event) -> None:
        """The rest of the epoch's steps, or as many as were done when a person asked to stop."""
        loss_sum, norm_sum = torch.tensor([progress.loss_sum, progress.norm_sum], device=self.train.device)
        recent = Recent(self.train.device, self.every)
        started = time.perf_counter() - progress.seconds
        self.state.model.train()
        for batch in self.train.epoch(progress.epoch, progress.step):
            lr = learning_rate(self.recipe, self.done(progress), self.steps) * 0.5**progress.rewinds
            progress.step += 1
            if not len(batch.labels):  # nothing in it can be read
                continue
            loss, norm, count = self.step(batch, lr)
            step = Step(progress.epoch + 1, progress.step, lr, batch.samples)
            recent.add(step, loss / max(count, 1), norm)
            if recent.full:
                self._look(run, recent, display)
            if count:
                loss_sum += loss
                norm_sum += norm * count
                progress.count += count
                if self.state.average is not None:
                    self.state.average.update(self.state.model, self.done(progress))
            if self.watchers and count and self.done(progress) % TOLD == 0:
                figures = {"loss": loss.item() / count, "lr": lr, "gradient_norm": norm.item()}
                for watcher in self.watchers:
                    watcher.step(self.done(progress), figures)
            if count and display.due():
                speed = progress.count / (time.perf_counter() - started)
                epoch = f"epoch {progress.epoch + 1}/{self.recipe.epochs}  step {progress.step}/{self.steps}"
                facts = f"loss {loss.item() / count:.3f}  lr {lr:.1e}  gradient {norm.item():.2g}  {speed:.0f} images/s"
                display.step(self.done(progress), epoch, facts)
            if interrupted.is_set():
                break
        self._look(run, recent, display)
        progress.loss_sum, progress.norm_sum = loss_sum.item(), norm_sum.item()
        progress.seconds = time.perf_counter() - started

    def step(self, batch: Batch, lr: float) -> tuple[Tensor, Tensor, int]:
        """One optimizer step; the batch's loss sum, the gradient's norm before clipping, and the images it learnt from.

        These are none where the step was skipped.
        """
        model, optimizer, scaler = self.state.model, self.state.optimizer, self.state.scaler
        set_learning_rate(optimizer, lr)
        optimizer.zero_grad(set_to_none=True)
        task = self.task if scaler is None else Scaled(self.task, scaler)
        loss, count = accumulate(self.forward, task, batch.parts(self.recipe.accumulate), self.precision)
        if scaler is not None:
            loss = loss / scaler.get_scale()
            scaler.unscale_(optimizer)
        norm = gradient_norm(model)
        if scaler is not None and loss.isfinite() and not norm.isfinite() and scaler.get_scale() > 1:
            norm = torch.zeros_like(norm)  # the scaler leaves such a step out and halves its scale: no cause for alarm
        if self.recipe.nonfinite == "skip" and not (loss + norm).isfinite():
            if scaler is not None:
                scaler.update()
            return loss, norm, 0
        if self.recipe.clip is not None and not clips_itself(self.recipe):
            nn.utils.clip_grads_with_norm_(model.parameters(), self.recipe.clip, norm)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        return loss, norm, count

    def _look(self, run: Run, recent: Recent, display: Display) -> None:
        """Waits for the device; lists the steps that were not finite. Raises NonFiniteError unless such steps are skipped."""
        for bad in recent.bad():
            samples: list[int] = [] if bad.step.samples is None else bad.step.samples.tolist()
            images = [self.train.split.name(sample) for sample in samples]
            record = {"epoch": bad.step.epoch, "step": bad.step.step, "lr": bad.step.lr}
            record |= {"loss": str(bad.loss), "gradient_norm": str(bad.norm), "images": images}
            with (run.path / "nonfinite.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            sentence = f"{bad}; its {len(images):,} images are listed in {run.path / 'nonfinite.jsonl'}"
            if self.recipe.nonfinite != "skip":
                raise NonFiniteError(sentence)
            display.say(f"{sentence}; skipped")

    def _rewind(self, run: Run, progress: Progress, display: Display, found: NonFiniteError) -> None:
        """Back to what was saved last, to go on with half the learning rate. Raises FloatingPointError where that is not wanted
        or was done often enough."""
        if self.recipe.nonfinite != "rewind" or progress.rewinds == REWINDS:
            tried = f", given up after {REWINDS} rewinds" if progress.rewinds else ""
            ways = [f"a lower lr than {self.recipe.lr:g}"]
            ways += ["nonfinite=rewind"] if self.recipe.nonfinite != "rewind" else []
            ways += ["precision=fp32"] if self.precision != torch.float32 else []
            raise FloatingPointError(f"{found}{tried}; try {' or '.join(ways)}") from found
        rewinds = progress.rewinds + 1
        progress.become(replace(restore(run, self.state), rewinds=rewinds))
        save(run, self.state, progress, self.about)
        for watcher in self.watchers:
            watcher.begin(self.done(progress))
        back = f"back to epoch {progress.epoch + 1}, step {progress.step + 1}, with lr times {0.5**rewinds:g}"
        display.say(f"{found}; {back}")

    def _close_epoch(self, run: Run, progress: Progress, display: Display) -> None:
        """Judges the model, keeps it if it is the best, writes the epoch's line, saves."""
        epoch = progress.epoch + 1
        if not progress.count:
            raise NonFiniteError(f"in epoch {epoch} no step had a loss that is a number")
        loss = progress.loss_sum / progress.count
        judge = self.state.model if self.state.average is None else self.state.average.model
        judged = self.task.evaluate(judge, self.val.epoch())
        if not math.isfinite(loss + judged.loss):
            raise NonFiniteError(f"the loss on held-out images became {judged.loss} in epoch {epoch}")
        line = {
            "epoch": epoch,
            "train_loss": loss,
            "val_loss": judged.loss,
            "top1": judged.top1,
            "lr": self.state.optimizer.param_groups[0]["lr"],
            "gradient_norm": progress.norm_sum / progress.count,
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
        for watcher in self.watchers:
            watcher.epoch(self.done(progress), line)


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
