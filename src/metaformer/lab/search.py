"""`tune`: a search over a few settings of a recipe. Every trial is a run directory; the study is a file beside them."""

import math
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaformer.config import Recipe, revise
from metaformer.data.dataset import Data
from metaformer.data.dense import DenseData
from metaformer.lab import plots
from metaformer.lab.jobs import resolve
from metaformer.lab.proposals import (
    Judge,
    Pruned,
    TimeIsUp,
    as_texts,
    check_optuna,
    ended,
    importances,
    next_trial,
    opened_study,
    suggest,
)
from metaformer.lab.report import report
from metaformer.lab.space import CHANGED, Choice, Range, Space, read_space, setting
from metaformer.lab.trials import Plan, Search, Tried, read_plan
from metaformer.own import ask
from metaformer.runs import SCORES, Run, check_name, is_run, score, score_of, write_text
from metaformer.train.dense import finds_masks
from metaformer.train.display import Display
from metaformer.train.hold import reopen
from metaformer.train.stop import Terminated
from metaformer.train.train import go_on, prepare, start
from metaformer.zoo import ZOO, get_config

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

HOPELESS = 3
"""Trials that may fail before any other has come to an end."""


def tune(
    model: str | Path,
    space: Mapping[str, str] | None = None,
    *,
    trials: int | None = None,
    within_hours: float | None = None,
    prune: bool | None = None,
    name: str | None = None,
    root: str | Path = "runs",
    quiet: bool = False,
    **settings: Any,
) -> Search:
    """Searches for the settings with the highest top-1 on held-out images, until `trials` of them have come to an end.

    20 of them unless `trials` says otherwise, and a search that goes on has as many as were wanted last.
    `space` says what to choose from: {"lr": "1e-4..1e-2", "mixup": "0|0.2|0.8"}; a range whose ends are ten times apart
    or more is searched on a logarithmic scale. `settings` are the same in every trial, as `train` takes them. A trial
    ends early where it is worse than the median of those before it was at that epoch; `prune=False` trains all to the
    end, and by default a search goes on as it began. The search lies in `root/name`; calling it again, or with that
    folder as `model`, goes on, and so does a trial that was cut short, at the very step. After `within_hours` it stops at
    the end of an epoch. Needs Optuna.

    Raises ValueError, FileNotFoundError or FileExistsError with a sentence; KeyboardInterrupt after Ctrl-C, all work saved.
    """
    check_optuna()
    ask([settings.get("changes", {}), dict(space or {})])
    if (trials is not None and trials < 1) or (within_hours is not None and not 0 < within_hours < math.inf):
        raise ValueError(f"{trials} trials within {within_hours} hours: at least one trial, and more than no time, are wanted")
    if (Path(model) / "tune.json").is_file():
        if space or settings or name is not None or Path(root) != Path("runs"):
            raise ValueError(f"a search goes on as it is: tune {model} without settings, or start a new one")
        path = Path(model)
        plan = read_plan(path)
        if prune not in (None, plan.prune):
            raise ValueError(f"a search goes on as it is: {path} prunes {'' if plan.prune else 'no '}trials")
    else:
        plan = Plan(str(model), settings, dict(space or {}), prune is not False)
        path = _folder(plan, root, name)
        plan = read_plan(path) if (path / "tune.json").is_file() else plan
    plan = plan if trials is None else replace(plan, trials=trials)
    ranges = _checked(plan)
    until = math.inf if within_hours is None else time.monotonic() + 3600 * within_hours
    recipe, data = resolve(plan.model, plan.settings, quiet=quiet, split=_place(path, 0) / "split.csv")
    if not (path / "tune.json").exists():
        _try_out(recipe, data, ranges)
        path.mkdir(parents=True, exist_ok=True)
    if not (path / "tune.json").exists() or read_plan(path).trials != plan.trials:
        write_text(path / "tune.json", plan.to_json())
    with opened_study(path, recipe.epochs, prune=plan.prune) as study:
        with Display(path / "log.txt", recipe.epochs * plan.trials, recipe.epochs * ended(study), quiet=quiet) as display:
            for sentence in () if study.trials else data.notes:
                display.say(sentence)
            display.say(_to_come(path, ended(study), plan.trials))
            Searching(path, recipe, data, ranges, study, display, plan.trials, until)()
        tried = tuple(_tried(trial, path, ranges) for trial in study.trials)
        found = Search(path, plan, tried, importances(study))
    logs = {key: isinstance(values, Range) and values.log for key, values in ranges.items()}
    called = SCORES[_score_key(recipe, data)]
    plots.search(found.trials, found.importances, logs, path / "search.png", called=called)
    return found


def _score_key(recipe: Recipe, data: Data | DenseData) -> str:
    """What trials are judged by, a key of SCORES."""
    if isinstance(data, DenseData):
        return "miou" if data.regions else "mask_ap" if finds_masks(recipe.model) else "box_ap"
    return "map" if data.multi else "top1"


def _to_come(path: Path, done: int, wanted: int) -> str:
    """How many trials are done, and how many are to come."""
    if done < wanted:
        return f"{done} trials are done, {wanted - done} to come"
    return f"{done} trials are done and no more are wanted; to go on: metaformer tune {path} --trials {done + 10}"


@dataclass(frozen=True)
class Searching:
    """All that trials need. Call it to try until there are enough of them."""

    path: Path
    recipe: Recipe
    data: Data | DenseData
    space: Space
    study: "Study"
    display: Display
    trials: int
    until: float

    def __call__(self) -> None:
        """Ctrl-C ends the step, saves, then raises KeyboardInterrupt; SIGTERM the same, then Terminated."""
        to_go_on = f"to go on: metaformer tune {self.path}"
        try:
            while ended(self.study) < self.trials and time.monotonic() < self.until:
                self._try(next_trial(self.study, self.space, self.recipe.seed))
        except TimeIsUp:
            self.display.say(f"the hours are over; {to_go_on}")
        except (KeyboardInterrupt, Terminated):
            self.display.say(f"stopped and saved; {to_go_on}")
            raise

    def _try(self, trial: "Trial") -> None:
        from optuna.trial import TrialState

        texts, run = suggest(trial, self.space), Run(_place(self.path, trial.number))
        try:
            self._train(run.path, _with(self.recipe, texts), Judge(trial, run, self.recipe.epochs, self.until, self._told))
            report(run, None, self.data)
        except Pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
            how = f"pruned after epoch {len(run.metrics)} with {score(run.metrics[-1]):.2f} %"
        except (FloatingPointError, ValueError) as error:
            trial.set_user_attr("why", str(error))
            self.study.tell(trial, state=TrialState.PRUNED)
            how = f"failed: {error}"
        else:
            best = max(map(score, run.metrics))
            self.study.tell(trial, best)
            how = f"{SCORES[score_of(run.metrics[-1])]} {best:.2f} %, the best so far is {self.study.best_value:.2f} %"
        chosen = "  ".join(f"{key}={text}" for key, text in texts.items())
        self.display.say(f"trial {trial.number:03d}  {chosen}  {how}")
        self._despair()

    def _train(self, path: Path, recipe: Recipe, judge: Judge) -> None:
        """Starts the trial's run, or goes on with it."""
        if not is_run(path):
            shutil.rmtree(path, ignore_errors=True)  # cut short before there was anything in it
            start(recipe, self.data, None, name=path.name, root=path.parent, quiet=True, watchers=[judge])
        elif (run := reopen(path, quiet=True)).finished:
            judge.catch_up()
        else:
            go_on(run, self.data, None, quiet=True, watchers=[judge])

    def _despair(self) -> None:
        """Raises ValueError where all trials so far have failed, and these are enough."""
        failed = [trial.user_attrs["why"] for trial in self.study.trials if "why" in trial.user_attrs]
        if len(failed) == ended(self.study) and len(failed) >= HOPELESS:
            raise ValueError(f"all {len(failed)} trials failed, the last one because {failed[-1]}")

    def _told(self, number: int, line: Mapping[str, Any]) -> None:
        if self.display.due():
            done, epochs = ended(self.study), self.recipe.epochs
            where = f"trial {number:03d}, {done + 1} of {self.trials}  epoch {line['epoch']}/{epochs}"
            self.display.step(epochs * done + line["epoch"], where, f"{SCORES[score_of(line)]} {score(line):.2f} %")


def _checked(plan: Plan) -> Space:
    """What is searched. Raises ValueError where something of it is wrong, or fixed at the same time."""
    for key in plan.space:
        field = key.removeprefix(CHANGED)
        if key in plan.settings or (field != key and field in plan.settings.get("changes", {})):
            raise ValueError(f"{key}= is given twice")
    return read_space(plan.space)


def _try_out(recipe: Recipe, data: Data | DenseData, space: Space) -> None:
    """Builds what every trial builds. Raises ValueError for what no trial could do."""
    if recipe.hours is not None:
        raise ValueError(
            f"hours={recipe.hours:g} is for one run, and trials of unlike lengths cannot be compared: set epochs=, and give "
            "the whole search its time, --hours (within_hours=)"
        )
    for key, values in space.items():
        for text in values.texts if isinstance(values, Choice) and key.startswith(CHANGED) else ():
            get_config(recipe.model, **_with(recipe, {key: text}).changes)
    prepare(recipe, data, None)


def _with(recipe: Recipe, texts: Mapping[str, str]) -> Recipe:
    """The recipe with what a trial chose."""
    for key, text in texts.items():
        change = setting(key, text)
        recipe = revise(recipe, {"changes": {**recipe.changes, **change["changes"]}} if "changes" in change else change)
    return recipe


def _tried(trial: "FrozenTrial", path: Path, space: Space) -> Tried:
    """What became of a trial."""
    states = {"COMPLETE": "finished", "PRUNED": "failed" if "why" in trial.user_attrs else "pruned"}
    return Tried(
        number=trial.number,
        settings=as_texts(trial.params, space),
        state=states.get(trial.state.name, "stopped"),
        score=max(trial.intermediate_values.values(), default=None),
        epochs=len(trial.intermediate_values),
        path=_place(path, trial.number),
        why=trial.user_attrs.get("why"),
    )


def _place(path: Path, number: int) -> Path:
    return path / "trials" / f"{number:03d}"


def _folder(plan: Plan, root: str | Path, name: str | None) -> Path:
    """Where a search for just this was left, else `root/name` or the first free `root/<model>-<data>-search[-2 …]`.

    Raises FileExistsError where the name is taken.
    """
    if plan.model not in ZOO and Path(plan.model).is_dir():
        raise ValueError(f"{plan.model} is no search: it has no tune.json. Name a model, such as caformer_t6")
    check_name(name)
    data = str(plan.settings.get("data", "digits"))
    stem, number = name or re.sub(r"[^\w.-]+", "-", f"{Path(plan.model).stem}-{Path(data).name or data}-search"), 1
    path = Path(root) / stem
    while path.exists():
        if (path / "tune.json").is_file() and read_plan(path) == plan:
            return path
        if path.is_dir() and {file.name for file in path.iterdir()} <= {"tune.json.tmp"}:
            return path  # a search that was killed before it said what it is
        if name is not None:
            raise FileExistsError(f"{path} exists and is not this search: choose another name=")
        number += 1
        path = Path(root) / f"{stem}-{number}"
    return path
