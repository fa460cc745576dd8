"""Trackers that `log=` names, each through its own client: TensorBoard, Weights & Biases, MLflow."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

from metaformer.config import Recipe, read_json
from metaformer.runs import Run, score, write_text
from metaformer.train.display import Display

CLIENTS = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""The module through which a tracker is told; that of TensorBoard is torch's and needs the package tensorboard."""
PATIENCE = 300.0
"""Seconds that Weights & Biases may upload for when training has ended; the rest stays on disk."""


def check_installed(recipe: Recipe) -> None:
    """Raises ValueError with what to type where a tracker's client is missing."""
    for name in recipe.trackers:
        try:
            import_module(CLIENTS[name])
        except ImportError as error:
            raise ValueError(f"log={name} needs the package {name}: pip install '.[watch]'") from error


class Enough(BaseException):
    """No error, as KeyboardInterrupt is none: a watcher wants no more of a run, which has come to its end by that."""


@contextmanager
def tracked(run: Run, display: Display) -> Iterator[tuple["Trackers", ...]]:
    """What passes everything on to the trackers of a run's recipe, while it trains; nothing where it names none."""
    names = run.recipe.trackers
    if not names:
        yield ()
        return
    trackers, finished = Trackers([KINDS[name](run) for name in names], display), False
    try:
        yield (trackers,)
        finished = True
    except Enough:
        finished = True
        raise
    finally:
        trackers.end(finished)


Failures = tuple[type[Exception], ...]


class Tracker(Protocol):
    """As a `Watcher` of the loop, and told when it ends."""

    failures: Failures
    """What its client raises when network, disk or server fail."""

    def begin(self, done: int) -> str | None:
        """May say where to look, when it opens its record."""
        ...

    def step(self, done: int, figures: Mapping[str, float]) -> None: ...
    def epoch(self, done: int, line: Mapping[str, Any]) -> None: ...
    def end(self, finished: bool) -> None:
        """Closes the record, if it was opened."""
        ...


class Trackers:
    """Passes on what it is told. A tracker that fails is named once and left out from then on: training goes on."""

    def __init__(self, trackers: list[Tracker], display: Display) -> None:
        self.trackers = trackers
        self.display = display

    def begin(self, done: int) -> None:
        self._each(lambda tracker: tracker.begin(done))

    def step(self, done: int, figures: Mapping[str, float]) -> None:
        self._each(lambda tracker: tracker.step(done, figures))

    def epoch(self, done: int, line: Mapping[str, Any]) -> None:
        numbers = {key: value for key, value in line.items() if isinstance(value, (int, float))}
        self._each(lambda tracker: tracker.epoch(done, numbers))

    def end(self, finished: bool) -> None:
        self._each(lambda tracker: tracker.end(finished))

    def _each(self, tell: Callable[[Tracker], str | None]) -> None:
        for tracker in list(self.trackers):
            try:
                said = tell(tracker)
            except tracker.failures as error:
                self.trackers.remove(tracker)
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                said = f"{type(tracker).__name__} fails and is told nothing more; training goes on: {reason}"
            if said:
                self.display.say(said)


class TensorBoard:
    """Event files in the run's `tensorboard/`; what is void is purged as TensorBoard does it, by a step in a new file."""

    failures: Failures = (OSError,)

    def __init__(self, run: Run) -> None:
        self.run, self.folder = run, run.path / "tensorboard"
        self.writer: Any = None
        self.done = 0

    def begin(self, done: int) -> str | None:
        from torch.utils.tensorboard import SummaryWriter

        first, new = self.writer is None, not self.folder.exists()
        if self.writer is not None:
            self.writer.close()
        self.done = done
        self.writer = SummaryWriter(str(self.folder), purge_step=None if new else done + 1)
        if new:
            rows = "".join(f"| {key} | {value} |\n" for key, value in self.run.recipe.flat().items())
            self.writer.add_text("recipe", f"| setting | value |\n|---|---|\n{rows}", 0)
        return f"to watch: tensorboard --logdir {self.run.path.parent}" if first else None

    def step(self, done: int, figures: Mapping[str, float]) -> None:
        for key, value in figures.items():
            self.writer.add_scalar(f"step/{key}", value, done)
        self.writer.flush()  # a run that goes on after a kill does not tell them again

    def epoch(self, done: int, line: Mapping[str, Any]) -> None:
        for key, value in line.items():
            self.writer.add_scalar(f"epoch/{key}", value, done)
        self.writer.flush()
        self.done = done

    def end(self, finished: bool) -> None:
        if self.writer is None:
            return
        best = best_of(self.run)
        if finished and best is not None:
            self.writer.add_hparams(self.run.recipe.flat(), {"best_score": best}, run_name=".", global_step=self.done)
        self.writer.close()


class WeightsAndBiases:
    """One record for a run however often it is stopped; offline with WANDB_MODE=offline, in the run's folder."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.client: Any = import_module(CLIENTS["wandb"])
        died: Any = import_module("wandb.sdk.mailbox")  # what is raised when the process that sends is no more
        self.failures: Failures = (self.client.Error, OSError, died.HandleAbandonedError, died.MailboxClosedError)
        self.record: Any = None

    def begin(self, done: int) -> str | None:
        if self.record is not None:
            return None
        self.record = self.client.init(
            project=os.environ.get("WANDB_PROJECT", "metaformer"),
            name=self.run.title,
            id=_known(self.run).get("wandb"),
            resume="allow",
            reinit="create_new",
            dir=self.run.path,
            config=self.run.recipe.flat(),
            settings={"console": "off", "silent": True, "finish_timeout": PATIENCE, "finish_timeout_raises": True},
        )
        _remember(self.run, "wandb", self.record.id)
        return f"to watch: {f'wandb sync {self.run.path}/wandb/offline-run-*' if self.record.offline else self.record.url}"

    def step(self, done: int, figures: Mapping[str, float]) -> None:
        """Nothing: it could not take back the steps that a kill makes void."""

    def epoch(self, done: int, line: Mapping[str, Any]) -> None:
        self.record.log(dict(line), step=done)

    def end(self, finished: bool) -> None:
        if self.record is None:
            return
        best = best_of(self.run)
        if best is not None:
            self.record.summary["best_score"] = best
        self.record.finish(exit_code=0 if finished else 1)


class MLflow:
    """One record for a run however often it is stopped, where MLflow's own settings say: by default mlflow.db, here."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.client: Any = import_module(CLIENTS["mlflow"])
        self.failures: Failures = (self.client.MlflowException, OSError)
        self.record: str | None = None
        self.done = 0

    def begin(self, done: int) -> str | None:
        self.done = done
        if self.record is not None:
            return None
        known = _known(self.run).get("mlflow")
        name = None if known else self.run.title
        self.record = self.client.start_run(run_id=known, run_name=name, nested=True).info.run_id
        if known is None:
            self.client.log_params(self.run.recipe.flat(), run_id=self.record)
            _remember(self.run, "mlflow", self.record)
        return f"to watch: mlflow ui --backend-store-uri {self.client.get_tracking_uri()}"

    def step(self, done: int, figures: Mapping[str, float]) -> None:
        """Nothing: it could not take back the steps that a kill makes void."""

    def epoch(self, done: int, line: Mapping[str, Any]) -> None:
        self.client.log_metrics(dict(line), step=done, run_id=self.record)
        self.done = done

    def end(self, finished: bool) -> None:
        if self.record is None:
            return
        best = best_of(self.run)
        if best is not None:
            self.client.log_metrics({"best_score": best}, step=self.done, run_id=self.record)
        self.client.end_run("FINISHED" if finished else "KILLED")


KINDS: dict[str, Callable[[Run], Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}


def best_of(run: Run) -> float | None:
    """The highest score of a run's epochs, in percent."""
    return max(map(score, run.metrics), default=None)


def _known(run: Run) -> dict[str, str]:
    """The name that each tracker has given to this run's record."""
    file = run.path / "trackers.json"
    return read_json(file) if file.exists() else {}


def _remember(run: Run, tracker: str, record: str) -> None:
    write_text(run.path / "trackers.json", json.dumps(_known(run) | {tracker: record}, indent=2) + "\n")
