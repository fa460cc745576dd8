"""A process that trains rows of a study, one after the other. Whatever ends it, a row's failure is only that row's."""

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaformer.config import Recipe
from metaformer.core.count import count
from metaformer.core.device import choose_device, choose_precision, precision_name
from metaformer.core.parent import die_with_parent
from metaformer.core.spec import OWN
from metaformer.data.dataset import Data
from metaformer.data.loader import default_workers
from metaformer.data.sources import open_data
from metaformer.data.splits import Images
from metaformer.infer.evaluate import evaluate_split
from metaformer.infer.predictor import Predictor
from metaformer.lab.study import Entry, marks_of
from metaformer.lab.study_results import DIVERGED, FAILED, FINISHED, Result, stamped
from metaformer.lab.worker import most_resident, resident, why_ended
from metaformer.own import ask
from metaformer.runs import Run, is_run
from metaformer.tasks.classification import Evaluation
from metaformer.train.hold import reopen
from metaformer.train.train import go_on, prepare, start

CONTEXT = get_context("spawn")
"""A fork would take over the parent's threads and memory."""
CURVE = ("epoch", "train_loss", "val_loss", "top1", "seconds")
"""What is kept of each epoch."""


@dataclass(frozen=True)
class Place:
    """What is the same for all rows that a process trains."""

    study: str
    folder: Path
    data: str
    seed: int
    """By which a split is drawn, the same for all seeds of a row."""
    device: str
    threads: int
    near: int
    """Processes that train beside each other."""
    beside: Path | None
    """The folder of the user's file that the study is from."""
    log: Path
    labels: str = "auto"
    """Whether an image has one label, as the plan was told."""


class StudyWorker:
    """The parent's end: starts the process at once."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.entry: Entry | None = None
        """What it trains now."""
        self.link, far = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=serve, args=(far, place))  # no daemon, for it may have processes that read images
        self.process.start()
        far.close()

    def train(self, entry: Entry) -> None:
        """Has it train a row; it then tells (its line, None) of each epoch and at last (its result, right or None)."""
        self.entry = entry
        with suppress(OSError):  # where the process is dead, its answer is the end of the pipe
            self.link.send(replace(entry, shape=None))  # code of the user's own is told as text

    def stop(self) -> None:
        """Asks it to save and end."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGTERM)

    def close(self, patience: float = 5.0) -> None:
        """Waits so many seconds for its end, then kills it."""
        self.link.close()
        self.process.join(patience)
        self.process.kill()
        self.process.join()

    def why(self) -> str:
        """What ended it, in a line."""
        self.process.join()
        return why_ended(self.process.exitcode or 0, self.place.log)


# --- the child --------------------------------------------------------------------------------------------------------


def serve(link: Connection, place: Place) -> None:
    """The process: trains what it is sent until the parent is gone. An error that is nobody's ends it, and is in its log."""
    parent = parent_process()
    die_with_parent(None if parent is None else parent.pid)
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # a terminal's Ctrl-C is for the parent, which asks for the end
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # but while it trains, which then saves
    file = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(place.threads)
    if place.beside is not None:
        sys.path.append(str(place.beside))
    data = None
    while True:
        try:
            entry: Entry = link.recv()
        except EOFError:
            return
        if data is None:
            data = open_data(place.data, seed=place.seed, split=place.folder / "split.csv", labels=place.labels)
        result, right = train_entry(entry, place, data, link)
        link.send((result, None if right is None else right.numpy()))  # a tensor would be shared, and die with this process


@dataclass(frozen=True)
class Teller:
    """A watcher of the loop that passes each epoch on."""

    link: Connection

    def begin(self, done: int) -> None:
        """Nothing: what a kill cut short is told when its epoch ends."""

    def step(self, done: int, figures: Mapping[str, float]) -> None:
        """Nothing: a line per epoch is enough."""

    def epoch(self, done: int, line: Mapping[str, Any]) -> None:
        self.link.send((dict(line), None))


def train_entry(entry: Entry, place: Place, data: Data, link: Connection) -> tuple[Result, Tensor | None]:
    """Trains a row, or goes on where it was cut short, and judges it: what became of it, and which images it calls right."""
    recipe = replace(entry.recipe, device=place.device, workers=_readers(entry.recipe, data, place))
    precision = precision_name(choose_precision(recipe.precision, choose_device(recipe.device)))
    result = Result(
        key=entry.key, study=place.study, row=entry.row, seed=entry.seed, state=FAILED, recipe=recipe.to_dict(),
        images=len(data.val), classes=len(data.classes), device=place.device, precision=precision, threads=place.threads,
    )  # fmt: skip
    run = Run(place.folder / "runs" / entry.key)
    try:
        _ask_for(entry)
        model = prepare(recipe, data, None).state.model
        costs = count(model, recipe.image_size or data.image_size or 224)
        result = replace(
            result, parameters=costs.parameters, frozen=costs.frozen, macs=costs.macs, activation_flops=costs.activation_flops
        )
        del model
        idle = _forget_peak(place.device)
        trained = _train(entry, recipe, run, data, link)
        peak = _peak(place.device, idle) if trained else None
        judged = _judged(entry, run, place, data)
    except FloatingPointError as error:
        return stamped(replace(result, state=DIVERGED, why=str(error), curve=_curve(run))), None
    except (ValueError, OSError) as error:
        return stamped(replace(result, why=str(error), curve=_curve(run))), None
    curve = _curve(run)
    seconds = sum(line["seconds"] for line in curve)
    return stamped(replace(result, state=FINISHED, top1=judged.top1, peak=peak, seconds=seconds, curve=curve)), judged.right


def _readers(recipe: Recipe, data: Data, place: Place) -> int | None:
    """Processes that read images, where the recipe leaves that open: this one's part of the cores."""
    if recipe.workers is not None or isinstance(data.train, Images):
        return recipe.workers
    return default_workers(data.train, None, torch.device(place.device), near=place.near)


def _ask_for(entry: Entry) -> None:
    """Imports the user's code that it names, once. Raises ValueError where that is not what its key is of."""
    if not entry.code.keys() <= OWN.keys():
        ask(entry.recipe.changes.values())
    for module, mark in marks_of(entry.recipe).items():
        if entry.code.get(module) != mark:
            raise ValueError(f"{module} was changed while the study ran: the same command trains this row as it is now")


def _train(entry: Entry, recipe: Recipe, run: Run, data: Data, link: Connection) -> bool:
    """Whether there was something left to train."""
    told = [Teller(link)]
    if not is_run(run.path):
        shutil.rmtree(run.path, ignore_errors=True)  # cut short before there was anything in it
        start(recipe, data, None, name=run.path.name, root=run.path.parent, quiet=True, watchers=told)
        return True
    if (found := reopen(run.path, quiet=True)).finished:
        return False
    go_on(found, data, None, quiet=True, watchers=told)
    return True


def _judged(entry: Entry, run: Run, place: Place, data: Data) -> Evaluation:
    """The weights of the last epoch, in fp32, on every held-out image."""
    predictor = Predictor(run.kept[-1], "torch", device=place.device, precision="fp32")
    found = evaluate_split(predictor, data.val)
    assert isinstance(found, Evaluation)
    return found


def _curve(run: Run) -> list[dict[str, Any]]:
    return [{key: line[key] for key in CURVE if key in line} for line in run.metrics]


def _forget_peak(device: str) -> int | None:
    """Bytes that are held now, which the rows before may have left."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return None
    return resident()


def _peak(device: str, idle: int | None) -> int | None:
    """Bytes held at most since it was forgotten."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return None if idle is None else max(0, most_resident() - idle)
