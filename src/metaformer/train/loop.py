"""The loop: steps, epochs, evaluation, saves. It knows no task."""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from metaformer.config import Recipe
from metaformer.runs import SCORES, Run, append_line, replace_folder, write_text
from metaformer.train.checkpoint import Progress, State, restore
from metaformer.train.display import Display
from metaformer.train.length import FIRST, WARM, Budget, image_side
from metaformer.train.numerics import REWINDS, NonFiniteError, Recent, Step
from metaformer.train.optim import learning_rate
from metaformer.train.parts import training_mode
from metaformer.train.saver import Saver
from metaformer.train.step import Batches, Portion, Task, take_step
from metaformer.train.stop import Stop, stops
from metaformer.weights.pretrained import save_pretrained


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


@dataclass(frozen=True)
class Fit:
    """A model being trained, with all that it needs. Call it to train from where `progress` stands to the end."""

    recipe: Recipe
    state: State
    forward: nn.Module
    """The model, or its compiled form."""
    task: Task
    train: Batches
    val: Batches
    precision: torch.dtype
    about: dict[str, Any]
    """What is written beside the weights: classes, preprocessing."""
    shown: str = ""
    """How images are shown, a few words."""
    chance: str = ""
    """What a score is worth that knows nothing, as a sentence."""
    probe: tuple[int, int, int] = (3, 64, 64)
    """(channels, height, width) of images that the model can be tried with."""
    every: int = 1
    """Steps after which at the latest a loss that is no number is noticed."""
    notes: tuple[str, ...] = ()
    """What a person should know of the weights that it starts from, a sentence each."""
    stride: int = 32
    """Pixels of an image per place of the model's last map: what grows, grows by so many."""
    clock: Callable[[], float] = time.perf_counter
    """Seconds, as hours= counts them."""
    watchers: tuple[Watcher, ...] = ()
    knows: bool = False
    """Whether the weights that it starts from answer already, so that their score is worth knowing."""

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return len(self.train)

    def done(self, progress: Progress) -> int:
        """Optimizer steps since the start."""
        return progress.epoch * self.steps + progress.step

    def ended(self, progress: Progress) -> bool:
        """Whether nothing is left to train."""
        return progress.stopped or self.done(progress) >= self.total(progress)

    def total(self, progress: Progress) -> int:
        """Optimizer steps in all, as far as is known."""
        return round((progress.planned or self.recipe.epochs) * self.steps)

    def __call__(self, run: Run, progress: Progress, display: Display) -> None:
        """Ctrl-C ends the step, saves, then raises KeyboardInterrupt; SIGTERM the same, then Terminated."""
        ranks = self.state.ranks
        kept = run.metrics[: progress.epoch]  # a line written just before a crash will be written again
        if ranks.first:
            write_text(run.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        budget = None
        if self.recipe.hours is not None:
            judged = -(-len(self.val) // ranks.count)
            budget = Budget(self.recipe, progress, self.steps, judged, self.stride, lambda: ranks.told(self.clock()))
        for watcher in self.watchers:
            watcher.begin(self.done(progress))
        if self.knows and not self.done(progress):
            key, score = next(iter(self.task.evaluate(self.state.model, self.val.epoch(), ranks).scores.items()))
            display.say(f"before training: {SCORES[key]} {score:.2f} %")
        with stops(ranks) as stop, Saver(run, self.about, ranks=ranks) as saver:
            if self.recipe.nonfinite == "rewind" and ranks.told(not run.last.is_dir()):
                saver.save(self.state, progress)
            while not self.ended(progress):
                try:
                    self._train_epoch(saver, progress, display, stop, budget)
                    if progress.step < self.steps and not self.ended(progress):
                        saver.save(self.state, progress)
                        raise stop.error()
                    self._close_epoch(saver, progress, display, budget)
                except NonFiniteError as found:
                    self._rewind(saver, progress, display, found)
                if stop.wanted():  # in the last epoch too: what comes after training is not wanted either
                    raise stop.error()

    def _train_epoch(self, saver: Saver, progress: Progress, display: Display, stop: Stop, budget: Budget | None) -> None:
        """The rest of the epoch's steps, or as many as were done when a person asked to stop or time was up."""
        run = saver.run
        loss_sum, norm_sum = torch.tensor([progress.loss_sum, progress.norm_sum], device=self.train.device)
        recent = Recent(self.train.device, self.every)
        started = time.perf_counter() - progress.seconds
        training_mode(self.state.model, self.recipe)
        if budget is not None:
            budget.closed()
        progress.side = self.side(progress)

        def settle() -> None:
            """Waits for the device; afterwards `progress` knows all that was done."""
            self._look(run, recent, display)
            if budget is not None:
                budget.waited(self.done(progress))
            progress.loss_sum, progress.norm_sum = loss_sum.item(), norm_sum.item()
            progress.seconds = time.perf_counter() - started

        for batch in self.train.epoch(progress.epoch, progress.step, progress.side):
            lr = learning_rate(self.recipe, self.done(progress), self.steps, progress.planned) * 0.5**progress.rewinds
            progress.step += 1
            images = int(self.state.ranks.sum(len(batch)))
            if not images:  # nothing in it can be read
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
                progress.images += images
                if self.state.average is not None:
                    self.state.average.update(self.state.model, self.done(progress))
            if self.watchers and count and self.done(progress) % TOLD == 0:
                figures = {"loss": loss.item() / count, "lr": lr, "gradient_norm": norm.item()}
                for watcher in self.watchers:
                    watcher.step(self.done(progress), figures)
            if count and display.due():
                speed = progress.images / (time.perf_counter() - started)
                epoch = f"{self._counted(progress)}  step {progress.step}/{self.steps}"
                facts = f"loss {loss.item() / count:.3f}  lr {lr:.1e}  gradient {norm.item():.2g}  {speed:.0f} images/s"
                display.step(self.done(progress), epoch, facts)
            if budget is not None:
                self._count(run, budget, recent, progress, display)
            if stop.wanted() or self.ended(progress):
                break
            if saver.due() and progress.step < self.steps:
                settle()
                saver.begin(self.state, progress)
        settle()

    def side(self, progress: Progress) -> int:
        """Side in pixels of the images that are learnt from in this epoch, whatever is planned in the middle of it."""
        if progress.side:
            return progress.side
        if self.recipe.start_size is not None and self.recipe.hours is not None and not progress.planned:
            return self.recipe.start_size  # epochs= is not how many there will be
        return image_side(self.recipe, progress.epoch, progress.planned or self.recipe.epochs, self.stride)

    def _counted(self, progress: Progress) -> str:
        """Which epoch this is, and of how many."""
        return f"epoch {progress.epoch + 1:3d}/{math.ceil(self.total(progress) / self.steps)}"

    def _count(self, run: Run, budget: Budget, recent: Recent, progress: Progress, display: Display) -> None:
        """Counts a step's time; plans the run after its first steps, and ends it when there is only time left to judge."""
        done = self.done(progress)
        if done in (WARM, FIRST):
            self._look(run, recent, display)  # which waits for the device
        budget.stepped(done)
        if done == FIRST and not progress.planned:
            budget.plan(done)
            display.plan(self.total(progress))
            display.say(f"hours={self.recipe.hours:g} leave time for {progress.planned:.1f} epochs, as far as can be told")
        if progress.count and budget.used_up and not self.ended(progress):
            progress.planned = done / self.steps
            display.say(f"hours={self.recipe.hours:g} are over after {progress.planned:.1f} epochs")

    def step(self, batch: Portion, lr: float) -> tuple[Tensor, Tensor, int]:
        """One optimizer step, as `train.step.take_step` does it."""
        return take_step(self.recipe, self.state, self.forward, self.task, self.precision, batch, lr)

    def _look(self, run: Run, recent: Recent, display: Display) -> None:
        """Waits for the device; lists the steps that were not finite. Raises NonFiniteError unless such steps are skipped."""
        for bad in recent.bad():
            own: list[int] = [] if bad.step.samples is None else bad.step.samples.tolist()
            images = [self.train.split.name(sample) for samples in self.state.ranks.gathered(own) for sample in samples]
            record = {"epoch": bad.step.epoch, "step": bad.step.step, "lr": bad.step.lr}
            record |= {"loss": str(bad.loss), "gradient_norm": str(bad.norm), "images": images}
            self._append(run.path / "nonfinite.jsonl", record)
            sentence = f"{bad}; its {len(images):,} images are listed in {run.path / 'nonfinite.jsonl'}"
            if self.recipe.nonfinite != "skip":
                raise NonFiniteError(sentence)
            display.say(f"{sentence}; skipped")

    def _rewind(self, saver: Saver, progress: Progress, display: Display, found: NonFiniteError) -> None:
        """Back to what was saved last, to go on with half the learning rate. Raises FloatingPointError where that is not wanted
        or was done often enough."""
        if self.recipe.nonfinite != "rewind" or progress.rewinds == REWINDS:
            tried = f", given up after {REWINDS} rewinds" if progress.rewinds else ""
            ways = [f"a lower lr than {self.recipe.lr:g}"]
            ways += ["nonfinite=rewind"] if self.recipe.nonfinite != "rewind" else []
            ways += ["precision=fp32"] if self.precision != torch.float32 else []
            raise FloatingPointError(f"{found}{tried}; try {' or '.join(ways)}") from found
        rewinds = progress.rewinds + 1
        saver.wait()
        self.state.ranks.wait()  # the first one writes what all of them read
        progress.become(replace(restore(saver.run, self.state), rewinds=rewinds, spent=progress.spent))
        saver.save(self.state, progress)
        for watcher in self.watchers:
            watcher.begin(self.done(progress))
        back = f"back to epoch {progress.epoch + 1}, step {progress.step + 1}, with lr times {0.5**rewinds:g}"
        display.say(f"{found}; {back}")

    def _close_epoch(self, saver: Saver, progress: Progress, display: Display, budget: Budget | None) -> None:
        """Judges the model, keeps it if it is the best, writes the epoch's line, saves; says how long the run now is."""
        run = saver.run
        epoch = progress.epoch + 1
        if not progress.count:
            raise NonFiniteError(f"in epoch {epoch} no step had a loss that is a number")
        loss = progress.loss_sum / progress.count
        judge = self.state.model if self.state.average is None else self.state.average.model
        saver.wait()  # as the workers that read held-out images are forked now, at first
        judged = self.task.evaluate(judge, self.val.epoch(), self.state.ranks)
        for damaged in self.state.ranks.gathered(self.train.damaged):
            self.train.damaged.update(damaged)
        if not math.isfinite(loss + (judged.loss or 0.0)):
            raise NonFiniteError(f"the loss on held-out images became {judged.loss} in epoch {epoch}")
        line = {
            "epoch": epoch,
            "train_loss": loss,
            **({} if judged.loss is None else {"val_loss": judged.loss}),
            **judged.scores,
            "lr": self.state.optimizer.param_groups[0]["lr"],
            "gradient_norm": progress.norm_sum / progress.count,
            "seconds": progress.seconds,
            "images_per_second": progress.images / progress.seconds,
        }
        line |= {"image_size": progress.side} if self.recipe.start_size is not None else {}
        line |= {"planned": progress.planned} if progress.planned else {}
        key, score = next(iter(judged.scores.items()))
        about = self.about | {"epoch": epoch, **judged.scores}
        grown = progress.side == self.recipe.image_size
        progress.stale += grown  # an epoch of smaller images than it is judged on says little of those to come
        if score > progress.best:
            progress.best, progress.stale = score, 0
            if self.state.ranks.first:
                replace_folder(run.path / "best", lambda folder: save_pretrained(judge, folder, about))
        if self.recipe.keep and self.state.ranks.first:
            self._keep(run, epoch, lambda folder: save_pretrained(judge, folder, about))
        self._append(run.path / "metrics.jsonl", line)
        held_out = "" if judged.loss is None else f"loss {judged.loss:.4f}  "
        speed = line["images_per_second"]
        display.say(
            f"{self._counted(progress)}  loss {loss:.4f}  held out: {held_out}"
            f"{SCORES[key]} {score:6.2f} %  {speed:5.{0 if speed >= 10 else 1}f} images/s"
        )
        progress.next_epoch()
        if budget is not None:
            budget.closed()
            if not (progress.planned and self.ended(progress)):
                budget.plan(self.done(progress))
                display.plan(self.total(progress))
        if progress.stale == self.recipe.patience and not self.ended(progress):
            progress.stopped = True
            display.say(f"ends here: no better {SCORES[key]} in {progress.stale} epochs (patience={self.recipe.patience})")
        if self.ended(progress) and not grown:
            display.say(f"images were to grow to {self.recipe.image_size} pixels, but hours={self.recipe.hours:g} ended before")
        saver.save(self.state, progress)
        for watcher in self.watchers:
            watcher.epoch(self.done(progress), line)

    def _append(self, file: Path, record: dict[str, Any]) -> None:
        """Adds a line to a file of the run; of several ranks the first one does."""
        if self.state.ranks.first:
            append_line(file, record)

    def _keep(self, run: Run, epoch: int, write: Callable[[Path], None]) -> None:
        """Puts an epoch's weights beside those of the epochs before it, of which the oldest go."""
        folder = run.path / "epochs" / f"{epoch:05d}"
        folder.parent.mkdir(exist_ok=True)
        replace_folder(folder, write)
        for old in run.kept:
            if int(old.name) <= epoch - self.recipe.keep:
                shutil.rmtree(old)
