"""`study`: every row of a study with every seed, each trained once and only once, several at a time; then what they say."""

import hashlib
import json
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from metaformer.config import Recipe, check_key, read_json
from metaformer.core.device import choose_device, choose_precision, precision_name
from metaformer.data.dataset import Data, split_csv
from metaformer.data.splits import Images
from metaformer.lab.jobs import resolve
from metaformer.lab.studies import STUDIES
from metaformer.lab.study import SETTLED, Entry, Study, entries, sized
from metaformer.lab.study_find import find_study
from metaformer.lab.study_results import DIVERGED, FAILED, FINISHED, Result, borrow, keep, mend, read_results
from metaformer.lab.study_worker import Place, StudyWorker
from metaformer.own import ask, bring, load, strange
from metaformer.runs import Run, check_name, write_text
from metaformer.train.display import Display
from metaformer.train.stop import Stop, stops

SCHEMA = 1
"""Version of `study.json`."""
WAIT = 5.0
"""Seconds for which the lock is asked for: processes of a study that was killed may hold it until they notice."""


@dataclass(frozen=True)
class Asked:
    """What `study.json` holds: what must be the same when a study goes on."""

    study: str
    """Its name, or the file or module that it is from."""
    settings: dict[str, Any]
    scale: str

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps({"schema": SCHEMA} | asdict(self), indent=2) + "\n"


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
        final = {key for key, one in read_results(self.path).items() if one.final}
        return list({entry.key: entry for entry in self.entries if entry.key not in final}.values())


@dataclass(frozen=True)
class Wanted:
    """How much of a study is wanted, how it is trained, and where it goes; None is what the study says."""

    seeds: int | None = None
    scale: str | None = None
    rows: str = "*"
    """Globs, with commas between."""
    devices: int = 1
    jobs: int = 1
    name: str | None = None
    root: Path = Path("studies")


def plan_study(what: str | Path | Study, settings: Mapping[str, Any], wanted: Wanted, *, quiet: bool = False) -> Plan:
    """Checks and resolves everything; nothing is written.

    Raises ValueError, FileExistsError or FileNotFoundError with a sentence.
    """
    study, file, path, asked = _found(what, settings, wanted)
    for key in asked.settings:
        check_key(key, ("changes",))
        if key in SETTLED and key != "seed":
            raise ValueError(f"{key}= is not for a study: all rows learn equally long, seeds=N says how often")
    study = _chosen(study, wanted.rows)
    seeds = study.seeds if wanted.seeds is None else wanted.seeds
    if min(seeds, wanted.devices, wanted.jobs) < 1:
        raise ValueError(f"seeds={seeds}, {wanted.devices} devices, {wanted.jobs} jobs: each is at least 1")
    fixed = dict(study.settings) | asked.settings
    first = sized(study.rows[0].model or study.model, asked.scale)[0]
    recipe, data = resolve(first, fixed, quiet=quiet, split=path / "split.csv")
    if not isinstance(data, Data) or data.multi:
        raise ValueError(f"a study compares top-1, and images of {recipe.data} have no label each")
    device = choose_device(recipe.device)
    slots = _slots(device, wanted.devices, wanted.jobs)
    named = precision_name(choose_precision(recipe.precision, device))
    found = entries(
        study,
        replace(recipe, changes=dict(fixed.get("changes", {}))),
        asked.scale,
        seeds,
        channels=data.channels,
        classes=len(data.classes),
        mark=mark_of(data),
        size=recipe.image_size or data.image_size,
        precision=recipe.precision if recipe.precision == "tf32" else named,
    )
    threads = max(1, torch.get_num_threads() // len(slots))
    beside = None if file is None else file.absolute().parent
    return Plan(study, path, beside, asked, recipe, data, tuple(found), slots, threads)


def _found(what: str | Path | Study, settings: Mapping[str, Any], wanted: Wanted) -> tuple[Study, Path | None, Path, Asked]:
    """The study, the user's file that it is from, its folder, and what study.json holds or is to hold."""
    if not isinstance(what, Study) and (Path(what) / "study.json").is_file():
        path = Path(what)
        if settings or wanted.scale or wanted.name is not None:
            raise ValueError(f"a study goes on as it is: study {path} without settings, or start another with name=")
        asked = _read_asked(path)
        bring(asked.settings.get("changes", {}).values())
        return *find_study(asked.study, STUDIES, lambda module: _recalled(module, path, asked)), path, asked
    ask(settings.get("changes", {}).values())
    study, file = (what, None) if isinstance(what, Study) else find_study(str(what), STUDIES)
    check_name(wanted.name)
    path = wanted.root / (wanted.name or study.name)
    source = study.name if isinstance(what, Study) else str(what)
    asked = Asked(source, dict(settings), wanted.scale or study.scale)
    if (path / "study.json").is_file() and (then := _read_asked(path)) != asked:
        told = ", ".join(f"{key}={value}" for key, value in then.settings.items()) or "no settings"
        raise FileExistsError(f"{path} is of {then.study} at scale={then.scale} with {told}: give this one another name=")
    return study, file, path, asked


def _recalled(module: str, path: Path, asked: Asked) -> ModuleType:
    """The module that a study.json names. Raises ValueError where no command has named it as it is."""
    if (why := strange(module, f"metaformer study {asked.study} ...")) is not None:
        raise ValueError(f"{path} is of {asked.study}: {why}")
    return load(module)


def _read_asked(path: Path) -> Asked:
    told = read_json(path / "study.json")
    if told.pop("schema", None) != SCHEMA:
        raise ValueError(f"{path / 'study.json'} is not of schema {SCHEMA}, the one this version reads and writes")
    return Asked(**told)


def _chosen(study: Study, rows: str) -> Study:
    """The study with the rows that match one of some globs, and those that they are compared with."""
    globs = rows.split(",")
    chosen = {row.name for row in study.rows if any(fnmatchcase(row.name, glob) for glob in globs)}
    if not chosen:
        raise ValueError(f"no row of {study.name} matches {rows!r}: {', '.join(row.name for row in study.rows)}")
    chosen |= {study.base(name) for name in chosen}
    return replace(study, rows=tuple(row for row in study.rows if row.name in chosen))


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
    """The hash of what a data set holds, wherever it lies: images in memory, else names and labels."""
    digest = hashlib.sha256(json.dumps([data.classes, data.channels, data.mirrors]).encode())
    for split in (data.train, data.val):
        digest.update(split.labels.numpy().tobytes())
        if isinstance(split, Images):
            digest.update(split.pixels.contiguous().numpy().tobytes())
        else:
            for item in split.items if isinstance(split.items, list) else ():
                digest.update(item if isinstance(item, bytes) else f"{item.name} {item.stat().st_size}".encode())
    return digest.hexdigest()


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
        if not (plan.path / "study.json").is_file():
            write_text(plan.path / "study.json", plan.asked.to_json())
        if plan.data.drawn and not (plan.path / "split.csv").is_file():
            write_text(plan.path / "split.csv", split_csv(plan.data))
        mend(plan.path)
        todo = plan.todo()
        others = sorted(file.parent for file in plan.path.parent.glob("*/results.jsonl") if file.parent != plan.path)
        taken = {one.key for one in borrow(plan.path, others, {entry.key: entry.row for entry in todo})}
        todo = [entry for entry in todo if entry.key not in taken]
        _tidy(plan, todo)
        epochs = plan.recipe.epochs
        with Display(plan.path / "log.txt", epochs * len(todo), 0, quiet=quiet) as display:
            all_keys = len({entry.key for entry in plan.entries})
            display.say(
                f"{plan.study.name}: {all_keys} rows with their seeds, {all_keys - len(todo)} are done "
                f"({len(taken)} of them in other studies), {len(todo)} to come, {len(plan.slots)} at a time"
            )
            for sentence in plan.data.notes if todo else ():
                display.say(sentence)
            with stops() as stop:
                Running(plan, display, models, deque(todo))(stop)


def _tidy(plan: Plan, todo: list[Entry]) -> None:
    """Takes away the runs of rows that are done."""
    final = {key for key, one in read_results(plan.path).items() if one.final}
    for folder in (plan.path / "runs").glob("*"):
        if folder.name in final:
            shutil.rmtree(folder, ignore_errors=True)
    if todo:
        (plan.path / "runs").mkdir(exist_ok=True)


@dataclass
class Running:
    """Rows being trained. Call it to train until none is left."""

    plan: Plan
    display: Display
    models: bool
    todo: deque[Entry]
    done: int = 0
    """Epochs of rows that are done."""

    def __call__(self, stop: Stop) -> None:
        slots: dict[int, StudyWorker] = {}
        under_way: dict[int, int] = {}
        try:
            while (self.todo or under_way) and not stop.wanted():
                for number in range(len(self.plan.slots)):
                    if number not in under_way and self.todo:
                        slots[number] = slots.get(number) or self._worker(number)
                        slots[number].train(self.todo.popleft())
                        under_way[number] = 0
                for link in wait([slots[number].link for number in under_way], timeout=0.5):
                    number = next(n for n in under_way if slots[n].link is link)
                    self._hear(number, slots, under_way)
        finally:
            self._end(slots, under_way)
        if stop.wanted():
            self.display.say("stopped and saved; the same command goes on")
            raise stop.error()

    def _worker(self, number: int) -> StudyWorker:
        plan = self.plan
        log = plan.path / "runs" / f"worker-{number}.txt"
        return StudyWorker(
            Place(
                study=plan.study.name, folder=plan.path, data=plan.recipe.data, seed=plan.recipe.seed, beside=plan.beside,
                log=log, device=plan.slots[number], threads=plan.threads, near=len(plan.slots),
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
            _move(Run(folder).kept[-1], self.plan.path / "models" / f"{entry.row}-{entry.seed}")
        if result.final:
            shutil.rmtree(folder, ignore_errors=True)
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


PATIENCE = 60.0
"""Seconds that rows have to save when all is to stop."""


def _move(folder: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    shutil.rmtree(to, ignore_errors=True)
    folder.rename(to)
