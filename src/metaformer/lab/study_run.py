"""`study`: every row of a study with every seed, each trained once and only once, several at a time; then what they say."""

import hashlib
import json
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from metaformer.config import Recipe, check_key
from metaformer.core.device import choose_device
from metaformer.data.dataset import Data, split_csv
from metaformer.data.splits import Encoded, Images
from metaformer.lab.jobs import resolve
from metaformer.lab.study import SETTLED, Entry, Study, computed_in, entries, sized
from metaformer.lab.study_asked import Asked, Known, Wanted, chosen, found
from metaformer.lab.study_locks import Locks
from metaformer.lab.study_results import DIVERGED, FAILED, FINISHED, Result, borrow, done, keep, mend, name_rows, read_results
from metaformer.lab.study_worker import Place, StudyWorker
from metaformer.runs import Run, write_text
from metaformer.train.display import Display
from metaformer.train.stop import Stop, stops

WAIT = 5.0
"""Seconds for which the lock is asked for: processes of a study that was killed may hold it until they notice."""

FEW = 32
"""Images of shards that are read to tell data from other data."""


@dataclass(frozen=True)
class Plan:
    """A study, resolved: all that is to be trained, and where."""

    study: Study
    """With the rows that were asked for."""
    path: Path
    beside: Path | None
    """The folder of the user's file that it is from."""
    asked: Asked
    recipe: Recipe
    """Of all rows, without what each changes."""
    data: Data
    entries: tuple[Entry, ...]
    slots: tuple[str, ...]
    """A device for each row that is trained at a time."""
    threads: int
    """Of each."""

    def results(self) -> list[Result]:
        """What became of its entries so far, in their order, by the names that the rows have here."""
        known = read_results(self.path)
        named = [(entry.row, known[entry.key]) for entry in self.entries if entry.key in known]
        return [replace(one, row=row) for row, one in named]

    def todo(self) -> list[Entry]:
        """What is still to be trained, each key once."""
        final = done(self.path)
        return list({entry.key: entry for entry in reversed(self.entries) if entry.key not in final}.values())[::-1]

    def known(self) -> Known:
        """What its tables are made of."""
        return Known(self.study, self.path, self.asked, tuple(self.results()), len(self.todo()))


def plan_study(
    what: str | Path | Study, settings: Mapping[str, Any], wanted: Wanted, *, as_it_is: bool = False, quiet: bool = False
) -> Plan:
    """Checks and resolves everything; nothing is written. With `as_it_is` no settings are those that its folder has.

    Raises ValueError, FileExistsError or FileNotFoundError with a sentence.
    """
    study, file, path, asked = found(what, settings, wanted, as_it_is=as_it_is)
    for key in asked.settings:
        check_key(key, ("changes",))
        if key in SETTLED and key != "seed":
            raise ValueError(f"{key}= is not for a study: all rows learn equally long, seeds=N says how often")
    whole, study = study, chosen(study, wanted.rows)
    seeds = (asked.seeds or study.seeds) if wanted.seeds is None else wanted.seeds
    asked = replace(asked, seeds=seeds)
    if min(seeds, wanted.devices, wanted.jobs) < 1:
        raise ValueError(f"seeds={seeds}, {wanted.devices} devices, {wanted.jobs} jobs: each is at least 1")
    fixed = dict(study.settings) | asked.settings
    first = sized(study.rows[0].model or study.model, asked.scale)[0]
    recipe, data = resolve(first, fixed, quiet=quiet, split=path / "split.csv")
    if not isinstance(data, Data) or data.multi:
        raise ValueError(f"a study compares top-1, and images of {recipe.data} have no label each")
    device = choose_device(recipe.device)
    slots = _slots(device, wanted.devices, wanted.jobs)
    made = entries(
        whole if whole.equal == "parameters" else study,  # how wide a row is does not hang on which others are asked for
        replace(recipe, changes=dict(fixed.get("changes", {}))),
        asked.scale,
        seeds,
        channels=data.channels,
        classes=len(data.classes),
        mark=mark_of(data),
        size=recipe.image_size or data.image_size,
        precision=computed_in(recipe),
    )
    rows = {row.name for row in study.rows}
    threads = max(1, torch.get_num_threads() // len(slots))
    beside = None if file is None else file.absolute().parent
    return Plan(study, path, beside, asked, recipe, data, tuple(one for one in made if one.row in rows), slots, threads)


def _slots(device: torch.device, devices: int, jobs: int) -> tuple[str, ...]:
    if device.type != "cuda":
        if devices > 1:
            raise ValueError(
                f"--devices {devices}: this computes on {device.type}, one device; --jobs 2 trains two rows at a time"
            )
        return (str(device),) * jobs
    there = torch.cuda.device_count()
    if devices > there:
        raise ValueError(f"--devices {devices}: there are {there} GPUs here")
    names = [str(device)] if device.index is not None else [f"cuda:{i}" for i in range(devices)]
    return tuple(names * jobs)


def mark_of(data: Data) -> str:
    """The hash of what a data set holds, wherever it lies: images in memory, else names and labels, with the files' sizes, or
    of what lies in shards a few of the images that judge, and mean and deviation of those that are learnt from."""
    digest = hashlib.sha256(json.dumps([data.classes, data.channels, data.mirrors]).encode())
    for split in (data.train, data.val):
        digest.update(split.labels.numpy().tobytes())
        if isinstance(split, Images):
            digest.update(split.pixels.contiguous().numpy().tobytes())
        else:
            for item in split.items if isinstance(split.items, list) else ():
                digest.update(_told(item))
    if isinstance(data.val, Encoded) and not isinstance(data.val.items, list):
        told = [[*(split.names or ())] for split in (data.train, data.val)]
        told += [[f"{value:.6f}" for value in values] for values in (data.mean, data.std)]
        digest.update(json.dumps(told).encode())
        for place in range(0, len(data.val), max(1, len(data.val) // FEW)):
            digest.update(_told(data.val.items[place]))
    return digest.hexdigest()


def _told(item: Path | bytes) -> bytes:
    return item if isinstance(item, bytes) else f"{item.name} {item.stat().st_size}".encode()


# --- running ----------------------------------------------------------------------------------------------------------


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Nobody else trains for this study meanwhile. Raises ValueError where another process does."""
    try:
        with FileLock(path / "study.lock", timeout=WAIT):
            yield
    except Timeout as error:
        raise ValueError(f"{path} is being trained for by another process: wait for it, or give another name=") from error


def run_study(plan: Plan, *, models: bool = False, quiet: bool = False) -> None:
    """Trains what is still to be trained. A row that fails is told and left; Ctrl-C and SIGTERM save, then are raised."""
    plan.path.mkdir(parents=True, exist_ok=True)
    with held(plan.path):
        write_text(plan.path / "study.json", plan.asked.to_json())
        if plan.data.drawn and not (plan.path / "split.csv").is_file():
            write_text(plan.path / "split.csv", split_csv(plan.data))
        mend(plan.path)
        todo = plan.todo()
        taken = {one.key for one in borrow(plan.path, {entry.key: entry.row for entry in todo})}
        todo = [entry for entry in todo if entry.key not in taken]
        _tidy(plan, todo, models=models)
        with Display(
            plan.path / "log.txt", sum(entry.recipe.epochs for entry in todo), 0, quiet=quiet, window=WINDOW
        ) as display:
            all_keys = len({entry.key for entry in plan.entries})
            display.say(
                f"{plan.study.name}: {all_keys} rows with their seeds, {all_keys - len(todo)} are done "
                f"({len(taken)} of them in other studies), {len(todo)} to come, {len(plan.slots)} at a time"
            )
            for sentence in plan.data.notes if todo else ():
                display.say(sentence)
            if models and (lost := [name for name in _weights_of(plan) if not (plan.path / "models" / name).is_dir()]):
                display.say(f"{len(lost)} rows were trained before, without --models: of them no weights are kept")
            with stops() as stop:
                Running(plan, display, models, deque(todo), Locks(plan.path.parent))(stop)
        name_rows(plan.path, ((entry.key, entry.row) for entry in plan.entries))


def _tidy(plan: Plan, todo: list[Entry], *, models: bool) -> None:
    """Takes away the runs of rows that are done; with `models` it keeps their weights, where a kill came before that."""
    final = done(plan.path)
    for folder in (plan.path / "runs").glob("*"):
        if (result := final.get(folder.name)) is not None:
            if models and result.state == FINISHED and (kept := Run(folder).kept):
                _move(kept[-1], plan.path / "models" / _title(result))
            shutil.rmtree(folder, ignore_errors=True)
    if todo:
        (plan.path / "runs").mkdir(exist_ok=True)


def _title(one: Entry | Result) -> str:
    """What its weights are called."""
    return f"{one.row}-{one.seed}".replace("/", "-")


def _weights_of(plan: Plan) -> list[str]:
    """What the weights of its rows that are done are called."""
    return [_title(one) for one in plan.results() if one.state == FINISHED]


@dataclass
class Running:
    """Rows being trained. Call it to train until none is left."""

    plan: Plan
    display: Display
    models: bool
    todo: deque[Entry]
    locks: Locks
    done: int = 0
    """Epochs of rows that are done."""
    waiting: bool = False
    """Whether it was said that others are waited for."""

    def __call__(self, stop: Stop) -> None:
        slots: dict[int, StudyWorker] = {}
        under_way: dict[int, int] = {}
        try:
            while (self.todo or under_way) and not stop.wanted():
                for number in range(len(self.plan.slots)):
                    if number not in under_way and (entry := self._next()):
                        slots[number] = slots.get(number) or self._worker(number)
                        slots[number].train(entry)
                        under_way[number] = 0
                if self.todo and not under_way and not self.waiting:
                    self.display.say(f"{len(self.todo)} are being trained for another study: waits for them")
                    self.waiting = True
                for link in wait([slots[number].link for number in under_way], timeout=0.5):
                    number = next(n for n in under_way if slots[n].link is link)
                    self._hear(number, slots, under_way)
        finally:
            self._end(slots, under_way)
        if stop.wanted():
            self.display.say("stopped and saved; the same command goes on")
            raise stop.error()

    def _next(self) -> Entry | None:
        """The next one that no other study trains now; what another has finished meanwhile is taken over."""
        for _ in range(len(self.todo)):
            entry = self.todo.popleft()
            if not self.locks.take(entry.key):
                self.todo.append(entry)
                continue
            taken = borrow(self.plan.path, {entry.key: entry.row})
            if not taken:
                return entry
            self.locks.leave(entry.key)
            self.done += entry.recipe.epochs
            self.display.say(f"{entry.row}, seed {entry.seed}: {taken[0].state} for another study meanwhile")
        return None

    def _worker(self, number: int) -> StudyWorker:
        plan = self.plan
        log = plan.path / "runs" / f"worker-{number}.txt"
        return StudyWorker(
            Place(
                study=plan.study.name, folder=plan.path, data=plan.recipe.data, seed=plan.recipe.seed, beside=plan.beside,
                log=log, device=plan.slots[number], threads=plan.threads, near=len(plan.slots), labels=plan.recipe.labels,
            )
        )  # fmt: skip

    def _hear(self, number: int, slots: dict[int, StudyWorker], under_way: dict[int, int]) -> None:
        """What a worker says, or that it is dead."""
        worker = slots[number]
        entry = worker.entry
        assert entry is not None
        told: Result | dict[str, Any]
        right: NDArray[np.bool_] | None = None
        try:
            told, right = worker.link.recv()
        except (EOFError, ConnectionError):
            told = Result(
                key=entry.key, study=self.plan.study.name, row=entry.row, seed=entry.seed, state=FAILED, why=worker.why(),
                recipe=entry.recipe.to_dict(), device=worker.place.device,
            )  # fmt: skip
            slots.pop(number).close(0)
        if isinstance(told, Result):
            del under_way[number]
            self._keep(entry, told, right)
        else:
            under_way[number] = told["epoch"]
            if self.display.due():
                self._show(entry, told, sum(under_way.values()))

    def _show(self, entry: Entry, line: Mapping[str, Any], epochs: int) -> None:
        where = f"{entry.row}, seed {entry.seed}  epoch {line['epoch']}/{entry.recipe.epochs}"
        self.display.step(self.done + epochs, where, f"top-1 {line['top1']:.2f} %")

    def _keep(self, entry: Entry, result: Result, right: NDArray[np.bool_] | None) -> None:
        keep(self.plan.path, result, right)
        folder = self.plan.path / "runs" / entry.key
        if self.models and result.state == FINISHED:
            _move(Run(folder).kept[-1], self.plan.path / "models" / _title(entry))
        if result.final:
            shutil.rmtree(folder, ignore_errors=True)
        self.locks.leave(entry.key)
        self.done += entry.recipe.epochs
        if result.state == FINISHED:
            said = f"top-1 {result.top1:.2f} %, {result.seconds:.0f} s"
        else:
            said = f"{'DIVERGED' if result.state == DIVERGED else 'FAILED'}: {result.why}"
        self.display.say(f"{entry.row}, seed {entry.seed}: {said}; {len(self.todo)} still wait")

    def _end(self, slots: dict[int, StudyWorker], under_way: dict[int, int]) -> None:
        """Ends all processes; those that train save what they have."""
        until = time.monotonic() + PATIENCE
        try:
            for number in under_way:
                slots[number].stop()
            for number in under_way:
                slots[number].process.join(max(0.0, until - time.monotonic()))
        finally:
            for worker in slots.values():
                worker.link.close()  # all are asked to end before one is waited for
            for worker in slots.values():
                worker.close()
            self.locks.leave_all()


WINDOW = 3600.0
"""Seconds by whose epochs it is told how long the rest takes: an epoch may take minutes."""
PATIENCE = 60.0
"""Seconds that rows have to save when all is to stop."""


def _move(folder: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    shutil.rmtree(to, ignore_errors=True)
    folder.rename(to)
