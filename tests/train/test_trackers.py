"""Trackers are told each epoch once, whatever stops the run, and none of their failures stops it."""

import json
import signal
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tests.tiny import QUICK, Stopped, after_steps, same, weights

import metaformer
from metaformer.config import Recipe
from metaformer.data.sources import open_data
from metaformer.lab.proposals import Pruned, TimeIsUp
from metaformer.runs import Run, create_run, open_run
from metaformer.train import loop, trackers
from metaformer.train.display import Display
from metaformer.train.train import go_on, start

pytestmark = pytest.mark.usefixtures("thread")


def recipe(fashion: str, **settings: Any) -> Recipe:
    return Recipe(**{"model": "caformer_t6", "data": fashion, **QUICK, **settings})


def begin(made: Recipe, root: Path) -> Run:
    return start(made, open_data(made.data), None, name="run", root=root, quiet=True)


def finish(path: Path) -> Run:
    return go_on(open_run(path), open_data(open_run(path).recipe.data), None, quiet=True)


def said(run: Run) -> list[str]:
    return [line[20:] for line in (run.path / "log.txt").read_text().splitlines()]


# --- TensorBoard, for real --------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one second are read in the order of their numbers, as texts: from 0, or 10 would come before 9."""
    from tensorboard.summary.writer import event_file_writer

    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: steps and values by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert "_hparams_/session_start_info" in shown.PluginTagToContent("hparams")
    assert shown.Tags()["tensors"] == ["recipe/text_summary"]
    return {tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}


def assert_shown(run: Run) -> None:
    """All steps and epochs of a run of two epochs with three steps each, told every second step, once."""
    shown = scalars(run)
    for key in ("train_loss", "val_loss", "top1", "lr", "gradient_norm", "epoch"):
        assert shown[f"epoch/{key}"] == [(3 * line["epoch"], pytest.approx(line[key])) for line in run.metrics]
    assert [step for step, _ in shown["step/loss"]] == [2, 4, 6]
    assert shown.keys() >= {"step/lr", "step/gradient_norm"}
    assert shown["best_score"] == [(6, pytest.approx(max(line["top1"] for line in run.metrics)))]


def test_tensorboard_shows_what_metrics_say(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(loop, "TOLD", 2)
    watched = begin(recipe(fashion, log="tensorboard"), tmp_path)
    assert_shown(watched)
    assert f"to watch: tensorboard --logdir {tmp_path}" in said(watched)
    assert same(weights(watched.last), weights(run.last))  # to be told changes nothing


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_tensorboard_goes_on_with_one_record(
    fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, how: str
) -> None:
    def kill() -> None:
        raise Stopped

    monkeypatch.setattr(loop, "TOLD", 2)
    with monkeypatch.context() as patch:
        after_steps(patch, steps, kill if how == "killed" else lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises((Stopped, KeyboardInterrupt)):
            begin(recipe(fashion, log="tensorboard"), tmp_path)
    assert_shown(finish(tmp_path / "run"))


def test_after_a_rewind_what_was_told_is_void(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, step = [5], loop.Fit.step

    def spoilt(self: loop.Fit, *arguments: Any) -> Any:
        loss, norm, count = step(self, *arguments)
        left[0] -= 1
        return (loss * float("nan") if left[0] == 0 else loss), norm, count

    monkeypatch.setattr(loop, "TOLD", 1)
    monkeypatch.setattr(loop.Fit, "step", spoilt)
    run = begin(recipe(fashion, log="tensorboard", nonfinite="rewind"), tmp_path)
    shown = scalars(run)
    assert [place for place, _ in shown["step/lr"]] == [1, 2, 3, 4, 5, 6]
    assert shown["epoch/lr"][1][1] == pytest.approx(run.metrics[1]["lr"])


# --- others, by modules that write down what they are told ------------------------------------------------------------


class Fake:
    """Stands for a service: its records outlive the clients."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}

    def open(self, known: str | None, **facts: Any) -> dict[str, Any]:
        name = known or f"record{len(self.records)}"
        record = self.records.setdefault(name, {"id": name, "told": [], "best": None, "ends": [], "opened": []})
        record["opened"].append(facts)
        return record


class ClientError(Exception):
    """What both clients raise here."""


def install(monkeypatch: pytest.MonkeyPatch, **modules: dict[str, Any]) -> None:
    for name, parts in modules.items():
        module = ModuleType(name.replace("_", "."))
        module.__spec__ = ModuleSpec(module.__name__, None)
        vars(module).update(parts)
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Fake:
    service = Fake()

    class Client:
        def __init__(self, record: dict[str, Any]) -> None:
            self.record, self.id, self.offline, self.url, self.summary = record, record["id"], False, "https://x/y", {}

        def log(self, figures: dict[str, float], step: int) -> None:
            self.record["told"].append((step, figures))

        def finish(self, exit_code: int) -> None:
            self.record["ends"].append(exit_code)
            self.record["best"] = self.summary.get("best_score")

    def init(**options: Any) -> Client:
        return Client(service.open(options.pop("id"), **options))

    died = {"HandleAbandonedError": type("A", (Exception,), {}), "MailboxClosedError": type("B", (Exception,), {})}
    install(monkeypatch, wandb={"init": init, "Error": ClientError, "__path__": []})
    install(monkeypatch, wandb_sdk={"__path__": []}, wandb_sdk_mailbox=died)
    return service


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Fake:
    service = Fake()

    def start_run(run_id: str | None, run_name: str | None, nested: bool) -> Any:
        assert nested  # somebody else's run may be going on
        record = service.open(run_id, name=run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id=record["id"]))

    def log_params(params: dict[str, Any], run_id: str) -> None:
        assert "params" not in service.records[run_id]  # which MLflow refuses
        service.records[run_id]["params"] = params

    def log_metrics(figures: dict[str, float], step: int, run_id: str) -> None:
        record = service.records[run_id]
        if "best_score" in figures:
            record["best"] = figures["best_score"]
        else:
            record["told"].append((step, figures))

    def end_run(status: str) -> None:
        list(service.records.values())[-1]["ends"].append({"FINISHED": 0, "KILLED": 1}[status])

    parts = {"start_run": start_run, "log_params": log_params, "log_metrics": log_metrics, "end_run": end_run}
    parts |= {"MlflowException": ClientError, "get_tracking_uri": lambda: "sqlite:///mlflow.db"}
    install(monkeypatch, mlflow=parts)
    return service


@pytest.fixture(params=["wandb", "mlflow"])
def service(request: pytest.FixtureRequest) -> tuple[str, Fake]:
    return request.param, request.getfixturevalue(request.param)


def test_a_record_holds_the_run(service: tuple[str, Fake], fashion: str, tmp_path: Path) -> None:
    name, fake = service
    run = begin(recipe(fashion, log=name), tmp_path)
    (record,) = fake.records.values()
    assert [step for step, _ in record["told"]] == [3, 6]
    assert [figures for _, figures in record["told"]] == run.metrics
    assert record["best"] == max(line["top1"] for line in run.metrics)
    assert record["ends"] == [0]
    (opened,) = record["opened"]
    settings = opened["config"] if name == "wandb" else record["params"]
    assert opened["name"] == "run"
    assert (settings["model"], settings["lr"], settings["model.dims"]) == ("caformer_t6", 5e-3, "(16, 16, 32, 32)")
    assert json.loads((run.path / "trackers.json").read_text()) == {name: record["id"]}
    assert any(line.startswith("to watch: ") for line in said(run))


def test_a_record_of_a_trial_is_called_by_its_search(service: tuple[str, Fake], fashion: str, tmp_path: Path) -> None:
    name, fake = service
    trials = tmp_path / "found" / "trials"
    trials.mkdir(parents=True)
    (trials.parent / "tune.json").write_text("{}")
    made = recipe(fashion, log=name, epochs=1)
    start(made, open_data(made.data), None, name="003", root=trials, quiet=True)
    (record,) = fake.records.values()
    assert record["opened"][0]["name"] == "found-003"


def test_wandb_lies_in_the_run_and_is_quiet(wandb: Fake, fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    run = begin(recipe(fashion, log="wandb"), tmp_path)
    (opened,) = wandb.records["record0"]["opened"]
    assert (opened["dir"], opened["project"], opened["resume"], opened["reinit"]) == (run.path, "mine", "allow", "create_new")
    assert opened["settings"]["console"] == "off"


@pytest.mark.parametrize("steps", [2, 3, 4])
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_resumed_run_goes_on_with_its_record(
    service: tuple[str, Fake], fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, how: str
) -> None:
    def kill() -> None:
        raise Stopped

    name, fake = service
    with monkeypatch.context() as patch:
        after_steps(patch, steps, kill if how == "killed" else lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises((Stopped, KeyboardInterrupt)):
            begin(recipe(fashion, log=name), tmp_path)
    run = finish(tmp_path / "run")
    (record,) = fake.records.values()
    assert [figures for _, figures in record["told"]] == run.metrics
    assert record["ends"] == [1, 0]
    assert len(record["opened"]) == 2


class Content:
    """A watcher that one epoch is enough for."""

    def __init__(self, end: type[BaseException]) -> None:
        self.end = end

    def begin(self, done: int) -> None: ...
    def step(self, done: int, figures: Any) -> None: ...
    def epoch(self, done: int, line: Any) -> None:
        raise self.end


@pytest.mark.parametrize(("end", "status"), [(Pruned, 0), (TimeIsUp, 1)])
def test_what_is_pruned_has_not_crashed(
    service: tuple[str, Fake], fashion: str, tmp_path: Path, end: type[BaseException], status: int
) -> None:
    name, fake = service
    made = recipe(fashion, log=name)
    with pytest.raises(end):
        start(made, open_data(made.data), None, name="run", root=tmp_path, quiet=True, watchers=[Content(end)])
    (record,) = fake.records.values()
    assert record["ends"] == [status]
    assert [step for step, _ in record["told"]] == [3]


@pytest.mark.parametrize("where", ["begin", "epoch", "end"])
@pytest.mark.parametrize("kind", [ClientError, ConnectionResetError])
def test_a_failing_tracker_is_named_once_and_training_goes_on(
    service: tuple[str, Fake],
    fashion: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    kind: Callable[[str], Exception],
    run: Run,
) -> None:
    def fail(*_: object) -> None:
        raise kind("no network\nand a long story")

    name, fake = service
    tracker = {"wandb": trackers.WeightsAndBiases, "mlflow": trackers.MLflow}[name]
    monkeypatch.setattr(tracker, where, fail)
    tried = begin(recipe(fashion, log=f"{name},tensorboard"), tmp_path)
    said_of_it = [line for line in said(tried) if "no network" in line]
    assert said_of_it == [f"{tracker.__name__} fails and is told nothing more; training goes on: no network"]
    assert not any("long story" in line for line in said(tried))
    assert same(weights(tried.last), weights(run.last))
    assert len(scalars(tried)["epoch/top1"]) == 2  # the others are told
    assert sum(len(record["told"]) for record in fake.records.values()) == (2 if where == "end" else 0)


def test_what_is_no_failure_of_a_client_is_not_hidden(
    wandb: Fake, fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> None:
        raise TypeError("ours")

    monkeypatch.setattr(trackers.WeightsAndBiases, "epoch", wrong)
    with pytest.raises(TypeError, match="ours"):
        begin(recipe(fashion, log="wandb"), tmp_path)
    assert wandb.records["record0"]["ends"] == [1]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_that_was_never_begun_is_ended_without_trouble(
    name: str, wandb: Fake, mlflow: Fake, fashion: str, tmp_path: Path
) -> None:
    run = create_run(recipe(fashion, log=name), tmp_path, "run")
    with Display(run.path / "log.txt", 1, 0, quiet=True) as display, trackers.tracked(run, display) as told:
        assert len(told) == 1
    assert not (run.path / "log.txt").exists()
    assert not wandb.records | mlflow.records


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_what_is_not_installed_is_told_before_anything_is_made(
    name: str, fashion: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, trackers.CLIENTS[name], None)
    with pytest.raises(ValueError, match=rf"^log={name} needs the package {name}: pip install '\.\[watch\]'$"):
        metaformer.train("caformer_t6", data=fashion, quiet=True, log=name, **QUICK)
    assert list(here.iterdir()) == []


def test_none_is_nobody(fashion: str, tmp_path: Path) -> None:
    run = create_run(recipe(fashion), tmp_path, "run")
    with Display(run.path / "log.txt", 1, 0, quiet=True) as display, trackers.tracked(run, display) as told:
        assert told == ()
