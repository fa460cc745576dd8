"""The study behind a search: Optuna's, in a file. What a trial chooses, when it ends early, what each setting explains."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from metaformer.lab.space import Choice, Range, Space
from metaformer.runs import Run, score
from metaformer.train.trackers import Enough

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

WHOLE = 5
"""Trials that are trained to their end before any is compared with others."""
YOUNG = 0.25
"""Part of the epochs that each trial is left alone for: a high learning rate shows late what it is worth."""
FEW = 5
"""Finished trials below which nothing is said of how much a setting matters."""


class Pruned(Enough):
    """A trial is worse than the median of those before it was at that epoch."""


class TimeIsUp(BaseException):
    """No error, as KeyboardInterrupt is none: the hours are over, and the trial can go on."""


def check_optuna() -> None:
    """Raises ValueError with what to type where Optuna is missing."""
    if find_spec("optuna") is None:
        raise ValueError("a search needs Optuna: pip install '.[search]'")


@contextmanager
def opened_study(path: Path, epochs: int, *, prune: bool) -> Iterator["Study"]:
    """The study in a folder, new or as it was left; nobody else has it meanwhile, and Optuna is quiet.

    Raises ValueError where another process has it.
    """
    import optuna
    from optuna.pruners import MedianPruner, NopPruner
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    loud = optuna.logging.get_verbosity()
    try:
        with FileLock(path / "tune.lock", timeout=0):
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            yield optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(_mended(path / "study.jsonl")))),
                study_name="search",
                direction="maximize",
                pruner=MedianPruner(WHOLE, math.ceil(YOUNG * epochs)) if prune else NopPruner(),
                load_if_exists=True,
            )
    except Timeout as error:
        raise ValueError(f"{path} is being searched by another process: wait for it, or give another name=") from error
    finally:
        optuna.logging.set_verbosity(loud)


def _mended(file: Path) -> Path:
    """The journal without what a kill leaves, a line cut short and a lock; absolute, as Optuna's lock is a link to it."""
    file = file.resolve()
    file.with_name(file.name + ".lock").unlink(missing_ok=True)
    if file.exists():
        with file.open("r+b") as journal:
            journal.truncate(journal.read().rfind(b"\n") + 1)
    return file


def next_trial(study: "Study", space: Space, seed: int) -> "Trial":
    """The trial that was cut short, else a new one. What it chooses depends on the seed, its number and those before it."""
    from optuna.trial import Trial, TrialState

    known = study.get_trials(deepcopy=False)
    cut = [trial for trial in known if trial.state == TrialState.RUNNING]
    if cut:
        return Trial(study, cut[0]._trial_id)
    if all(trial.state.is_finished() for trial in known):  # else a kill left one that is still to be asked for
        study.enqueue_trial(_proposed(known, space, seed))
    return study.ask()


def _proposed(known: Sequence["FrozenTrial"], space: Space, seed: int) -> dict[str, Any]:
    """What TPE proposes after these trials; found aside, so that a trial is written down with all of it or not at all."""
    import optuna
    from optuna.samplers import TPESampler

    drawn = np.random.SeedSequence((seed, len(known))).generate_state(1)[0]
    aside = optuna.create_study(direction="maximize", sampler=TPESampler(seed=int(drawn)))
    aside.add_trials(known)
    trial = aside.ask()
    suggest(trial, space)
    return trial.params


def suggest(trial: "Trial", space: Space) -> dict[str, str]:
    """What a trial chooses; the same again for one that has chosen."""
    for key, values in space.items():
        if isinstance(values, Choice):
            trial.suggest_categorical(key, values.texts)
        elif values.whole:
            trial.suggest_int(key, int(values.low), int(values.high), log=values.log)
        else:
            trial.suggest_float(key, values.low, values.high, log=values.log)
    return as_texts(trial.params, space)


def as_texts(chosen: Mapping[str, Any], space: Space) -> dict[str, str]:
    """What was chosen, as a command line has it: of a number four digits, which are as good and can be typed."""
    ranges = {key: values for key, values in space.items() if isinstance(values, Range)}
    return {key: str(ranges[key].nearest(chosen[key]) if key in ranges else chosen[key]) for key in space if key in chosen}


def ended(study: "Study") -> int:
    """Trials that have come to an end, whichever."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def importances(study: "Study") -> dict[str, float]:
    """Of each setting the part of the variance between finished trials that it explains (fANOVA); nothing of few trials."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    values = [trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    if len(values) < FEW or len(set(values)) == 1:
        return {}
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))


@dataclass(frozen=True)
class Judge:
    """A watcher of the loop: tells the study each epoch's top-1, and ends a trial that is not worth more epochs."""

    trial: "Trial"
    run: Run
    epochs: int
    until: float
    """On the monotonic clock; a trial then stops at the end of an epoch."""
    told: Callable[[int, Mapping[str, Any]], None]

    def catch_up(self) -> None:
        """Tells what a kill kept from being told."""
        known = self.trial.study.trials[self.trial.number].intermediate_values
        for line in self.run.metrics:
            if line["epoch"] not in known:
                self.trial.report(score(line), line["epoch"])

    def begin(self, done: int) -> None:
        """Also ends a trial that a kill kept from being ended."""
        self.catch_up()
        for line in self.run.metrics[-1:]:
            self._judge(line)

    def step(self, done: int, figures: Mapping[str, float]) -> None:
        """Nothing: epochs are compared."""

    def epoch(self, done: int, line: Mapping[str, Any]) -> None:
        self.trial.report(score(line), line["epoch"])
        self.told(self.trial.number, line)
        self._judge(line)

    def _judge(self, line: Mapping[str, Any]) -> None:
        if line["epoch"] >= self.epochs:
            return
        if self.trial.should_prune():
            raise Pruned
        if time.monotonic() > self.until:
            raise TimeIsUp
