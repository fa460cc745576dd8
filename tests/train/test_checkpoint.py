"""Whatever stops a run, it goes on to the very bits of the run that was never stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import QUICK, Killer, Stopped, after_steps, begin, finish, one_core, pairs, same, timeless, weights
from torch import Tensor, nn

from metaformer import create_model
from metaformer.config import Recipe
from metaformer.core.ranks import Ranks
from metaformer.data.sources import open_data
from metaformer.runs import Run, create_run, is_run
from metaformer.tasks.classification import Classification
from metaformer.train.checkpoint import Progress, Snapshot, State, restore, snapshot, write
from metaformer.train.hold import reopen
from metaformer.train.optim import Average, make_optimizer
from metaformer.train.saver import Saver
from metaformer.train.stop import Terminated
from metaformer.train.train import prepare

pytestmark = pytest.mark.usefixtures("thread")

# everything that draws or remembers: drop path, dropout, mixing, erasing, an average, two micro-batches
DRAWING = {
    "drop_path": 0.2, "head_dropout": 0.2, "erase": 0.3, "mixup": 0.2, "cutmix": 0.5, "ema": 0.9, "accumulate": 2, "keep": 1,
}  # fmt: skip
STEPS = 6


@pytest.fixture(scope="module")
def recipe(fashion: str) -> Recipe:
    return Recipe(**{"model": "caformer_t6", "data": fashion, **QUICK, **DRAWING})


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nothing stopped."""
    with one_core():
        return begin(recipe, tmp_path_factory.mktemp("whole"))


def assert_equal(run: Run, whole: Run) -> None:
    assert run.finished
    assert timeless(run.metrics) == timeless(whole.metrics)
    assert [folder.name for folder in run.kept] == [folder.name for folder in whole.kept] == ["00002"]
    for one, other in ((run.last, whole.last), (run.best, whole.best), (run.kept[0], whole.kept[0])):
        assert same(weights(one), weights(other))
        assert (one / "model.json").read_text() == (other / "model.json").read_text()
    states = [torch.load(one.last / "training.pt", weights_only=True) for one in (run, whole)]
    for state in states:
        del state["progress"]["seconds"]
    assert str(states[0]) == str(states[1])
    unlike = {path.name for path in run.path.iterdir()} ^ {path.name for path in whole.path.iterdir()}
    assert unlike <= {"best.old", "last.new"}  # where the kill left the last thing of all undone


@pytest.mark.parametrize("steps", range(1, STEPS + 1))
def test_ctrl_c_after_any_step(recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    after_steps(monkeypatch, steps, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        begin(recipe, tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    stopped = torch.load(tmp_path / "run" / "last" / "training.pt", weights_only=True)["progress"]
    done = stopped["epoch"] * 3 + stopped["step"]
    assert done == steps  # at the end of an epoch, the epoch is closed first
    assert "stopped and saved; to go on: metaformer train" in (tmp_path / "run" / "log.txt").read_text()
    assert_equal(finish(tmp_path / "run"), whole)
    assert f"going on at epoch {done // 3 + 1}, step {done % 3 + 1}" in (tmp_path / "run" / "log.txt").read_text()


def test_ctrl_c_again_and_again(recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for attempt in range(4):
        with monkeypatch.context() as patch:
            after_steps(patch, 1, lambda: signal.raise_signal(signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                begin(recipe, tmp_path) if attempt == 0 else finish(tmp_path / "run")
    assert_equal(finish(tmp_path / "run"), whole)


def test_the_second_ctrl_c_stops_at_once(recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    after_steps(monkeypatch, 5, twice)
    with pytest.raises(KeyboardInterrupt):
        begin(recipe, tmp_path)
    progress = torch.load(tmp_path / "run" / "last" / "training.pt", weights_only=True)["progress"]
    assert (progress["epoch"], progress["step"]) == (1, 0)  # the save before
    assert_equal(finish(tmp_path / "run"), whole)


def test_sigterm_saves_as_ctrl_c_does_and_ends_with_143(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    after_steps(monkeypatch, 5, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Terminated) as ended:
        begin(recipe, tmp_path)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    progress = torch.load(tmp_path / "run" / "last" / "training.pt", weights_only=True)["progress"]
    assert (progress["epoch"], progress["step"]) == (1, 2)
    assert "stopped and saved; to go on: metaformer train" in (tmp_path / "run" / "log.txt").read_text()
    assert_equal(finish(tmp_path / "run"), whole)


def stop(*_: object) -> None:
    raise Stopped


@pytest.mark.parametrize("epoch", [1, 2])
def test_killed_between_the_line_of_metrics_and_the_save(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    saves = iter([Saver.save, stop] if epoch == 2 else [stop])
    with monkeypatch.context() as patch:
        patch.setattr(Saver, "save", lambda *arguments: next(saves)(*arguments))
        with pytest.raises(Stopped):
            begin(recipe, tmp_path)
    assert len(Run(tmp_path / "run").metrics) == epoch
    assert not Run(tmp_path / "run").finished  # even where all lines are there: the weights of the last one are not
    assert_equal(finish(tmp_path / "run"), whole)


def test_killed_within_the_line_of_metrics(recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Saver, "save", stop)
        with pytest.raises(Stopped):
            begin(recipe, tmp_path)
    file = tmp_path / "run" / "metrics.jsonl"
    file.write_text(file.read_text()[:-40])
    assert_equal(finish(tmp_path / "run"), whole)


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_touch_of_the_disk(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    at = 0
    while True:
        root = tmp_path / str(at)
        try:
            with monkeypatch.context() as patch:
                Killer(patch, at)
                begin(recipe, root)
            break
        except Stopped:
            if is_run(root / "run"):
                assert_equal(finish(root / "run"), whole)
            else:
                assert not (root / "run").exists() or list((root / "run").glob("*")) in ([], [root / "run" / "recipe.json.tmp"])
            shutil.rmtree(root, ignore_errors=True)
        at += stride
    assert at > 60


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGTERM))]
)
def test_a_process_is_stopped_from_outside(fashion: str, tmp_path: Path, number: signal.Signals) -> None:
    settings = {**QUICK, "drop_path": 0.2, "epochs": 16}
    command = [sys.executable, "-m", "metaformer", "train", "caformer_t6", f"data={fashion}", f"root={tmp_path}", "name=run"]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    log = (tmp_path / "said.txt").open("w")
    with log, subprocess.Popen([*command, *pairs(settings)], env=environment, stdout=log, stderr=log) as process:
        metrics = tmp_path / "run" / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 3):
            time.sleep(0.005)
        process.send_signal(number)
        process.wait()
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    assert process.returncode == codes[number]
    said = (tmp_path / "said.txt").read_text()
    assert "Traceback" not in said
    assert ("to go on: metaformer train" in said) is (number != signal.SIGKILL)
    run = Run(tmp_path / "run")
    assert 3 <= len(run.metrics) < 16
    finish(run.path)
    recipe = Recipe(**{"model": "caformer_t6", "data": fashion, **settings})
    straight = begin(recipe, tmp_path / "whole")
    assert timeless(run.metrics) == timeless(straight.metrics)
    assert same(weights(run.last), weights(straight.last))


# --- where a part learns ----------------------------------------------------------------------------------------------

PARTS = [
    {"learn": "lora:2"},
    {"learn": "lora", "nonfinite": "rewind", "optimizer": "lamb"},
    {"learn": "head", "freeze_norms": True},
    {"learn": "last:2", "layer_decay": 0.7, "optimizer": "sgd"},
    {"layer_decay": 0.5},
]


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_a_part_that_learns_goes_on(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: dict[str, Any]
) -> None:
    tuned = replace(recipe, weights=str(whole.path), **part)
    straight = begin(tuned, tmp_path / "straight")
    for steps in (2, 1):
        with monkeypatch.context() as patch:
            after_steps(patch, steps, lambda: signal.raise_signal(signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                begin(tuned, tmp_path) if steps == 2 else finish(tmp_path / "run")
    assert_equal(finish(tmp_path / "run"), straight)
    assert weights(straight.best).keys() == weights(straight.last).keys() == weights(whole.best).keys()
    assert not same(weights(straight.last), weights(whole.best))


def test_updates_are_within_the_weights_and_kept_beside_them(recipe: Recipe, whole: Run, tmp_path: Path) -> None:
    run = begin(replace(recipe, weights=str(whole.path), learn="lora:2"), tmp_path)
    kept = torch.load(run.last / "training.pt", weights_only=True)["apart"]
    start, end, name = weights(whole.best), weights(run.last), "stages.1.blocks.0.mlp.branch.fc1"
    original, up, down = (kept[f"{name}.parametrizations.weight.{part}"] for part in ("original", "0.up", "0.down"))
    assert torch.equal(original, start[f"{name}.weight"])
    assert up.any()
    torch.testing.assert_close(end[f"{name}.weight"], original + 8 * (up @ down).view(original.shape))
    assert torch.load(whole.last / "training.pt", weights_only=True)["apart"] is None


@pytest.mark.parametrize("of_before", ["one parameter less", "no updates apart"])
def test_a_run_in_which_others_learnt_cannot_go_on(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_before: str
) -> None:
    with monkeypatch.context() as patch:
        after_steps(patch, 1, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            begin(replace(recipe, learn="lora:2"), tmp_path)
    file = tmp_path / "run" / "last" / "training.pt"
    kept = torch.load(file, weights_only=True)
    if of_before == "no updates apart":
        kept["apart"] = None
    else:
        kept["optimizer"]["param_groups"][1]["params"].pop()
    torch.save(kept, file)
    (file.parent / "checkpoint.json").unlink()  # such a version wrote none
    path = tmp_path / "run"
    with pytest.raises(ValueError, match=rf"^{path} was begun by another version, in which learn=lora:2 let other parameters"):
        finish(path)


def test_a_rewind_brings_updates_back(recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = replace(recipe, weights=str(whole.path), learn="lora:2", nonfinite="rewind")
    loss_sum, calls = Classification.loss_sum, [0]

    def spoilt(self: Classification, model: nn.Module, batch: Any) -> Tensor:
        calls[0] += 1
        return loss_sum(self, model, batch) * (torch.nan if calls[0] == 9 else 1)  # in the second epoch's second step

    monkeypatch.setattr(Classification, "loss_sum", spoilt)
    run = begin(tuned, tmp_path)
    assert run.finished
    assert "back to epoch 2, step 1, with lr times 0.5" in (run.path / "log.txt").read_text()
    assert all(tensor.isfinite().all() for tensor in weights(run.last).values())
    kept = torch.load(run.last / "training.pt", weights_only=True)["apart"]
    assert all(tensor.isfinite().all() for tensor in kept.values())


def test_a_run_from_before_updates_were_known_goes_on(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        after_steps(patch, 4, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            begin(recipe, tmp_path)
    file = tmp_path / "run" / "last" / "training.pt"
    kept = torch.load(file, weights_only=True)
    del kept["apart"]
    torch.save(kept, file)
    file.with_name("checkpoint.json").unlink()
    assert_equal(finish(tmp_path / "run"), whole)


# --- the parts --------------------------------------------------------------------------------------------------------


def taken(state: State, progress: Progress) -> Snapshot:
    """A moment, as the one rank that there is has it."""
    moment = snapshot(state, progress, {})
    assert moment is not None
    return moment


def state(ema: float | None = None) -> State:
    torch.manual_seed(0)
    model = create_model("identityformer_t6", num_classes=3, dims=(8, 8, 8, 8), depths=(1, 1, 1, 1))
    return State(model, make_optimizer(model, Recipe(model="x")), None if ema is None else Average(model, ema))


@pytest.mark.parametrize("ema", [None, 0.5])
def test_restore_brings_back_all_that_was_saved(tmp_path: Path, ema: float | None) -> None:
    run, saved = create_run(Recipe(model="x"), tmp_path, "run"), state(ema)
    assert restore(run, state(ema)) == Progress()
    for _ in range(2):
        saved.model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        saved.optimizer.step()
    if saved.average is not None:
        saved.average.update(saved.model, 1)
    progress = Progress(epoch=3, step=4, loss_sum=0.1, count=7, seconds=1.5, best=0.25)
    write(run, taken(saved, progress), {})
    expected = torch.rand(3)
    torch.manual_seed(5)
    fresh = state(ema)
    assert restore(run, fresh) == progress
    assert torch.equal(torch.rand(3), expected)
    assert same(fresh.model.state_dict(), saved.model.state_dict())
    assert str(fresh.optimizer.state_dict()) == str(saved.optimizer.state_dict())
    if fresh.average is not None and saved.average is not None:
        assert same(fresh.average.model.state_dict(), saved.average.model.state_dict())


def test_a_snapshot_stays_as_it_is_while_training_goes_on(tmp_path: Path) -> None:
    run, learning = create_run(Recipe(model="x"), tmp_path, "run"), state(0.5)
    learning.model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    learning.optimizer.step()
    moment = taken(learning, Progress(step=1))
    write(run, moment, {})
    first = (run.last / "model.safetensors").read_bytes(), str(torch.load(run.last / "training.pt", weights_only=True))
    with torch.no_grad():
        for tensor in (*learning.model.parameters(), *learning.optimizer.state_dict()["state"][0].values()):
            tensor.add_(1)
        assert learning.average is not None
        for tensor in learning.average.model.parameters():
            tensor.add_(1)
    torch.rand(3)
    write(run, moment, {})
    again = (run.last / "model.safetensors").read_bytes(), str(torch.load(run.last / "training.pt", weights_only=True))
    assert first == again


def test_a_save_leaves_the_sums_of_others_on(tmp_path: Path) -> None:
    write(create_run(Recipe(model="x"), tmp_path, "run"), taken(state(), Progress()), {})
    assert torch.serialization.get_crc32_options()


# --- damage -----------------------------------------------------------------------------------------------------------

DAMAGE = [
    "training.pt missing",
    "training.pt junk",
    "training.pt cut",
    "training.pt bit",
    "model.safetensors bit",
    "model.json bit",
    "checkpoint.json junk",
]


def spoil(file: Path, how: str) -> None:
    raw = file.read_bytes()
    if how == "missing":
        file.unlink()
    else:
        at = len(raw) // 2
        bit = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        file.write_bytes({"junk": b"junk", "cut": raw[: len(raw) // 2], "bit": bit}[how])


def stopped_after(recipe: Recipe, root: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> Path:
    """A run that Ctrl-C ended."""
    with monkeypatch.context() as patch:
        after_steps(patch, steps, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            begin(recipe, root)
    return root / "run"


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_save_is_told_and_the_one_before_goes_on_to_the_same_bits(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = stopped_after(recipe, tmp_path, monkeypatch, 4)
    name, how = damage.split()
    spoil(path / "last" / name, how)
    spoilt = {file.name: file.read_bytes() for file in (path / "last").iterdir()}
    reopen(path, quiet=False)
    said = capsys.readouterr().out
    assert f"{path / 'last' / name} is" in said
    assert "going on from the save before it; the damaged one is now" in said
    assert said.count("\n") == 1
    assert {file.name: file.read_bytes() for file in (path / "last.damaged").iterdir()} == spoilt
    assert_equal_but(finish(path), whole, "last.damaged")


def assert_equal_but(run: Run, whole: Run, extra: str) -> None:
    """Equal, where something more lies in the run."""
    assert (run.path / extra).is_dir()
    shutil.rmtree(run.path / extra)
    assert_equal(run, whole)


@pytest.mark.parametrize("before", ["damaged", "gone"])
def test_where_no_save_is_whole_that_is_a_sentence_and_all_stays(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    path = stopped_after(recipe, tmp_path, monkeypatch, 4)
    spoil(path / "last" / "training.pt", "cut")
    if before == "damaged":
        spoil(path / "last.before" / "model.safetensors", "missing")
    else:
        shutil.rmtree(path / "last.before")
    kept = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    wrong = "model.safetensors is missing" if before == "damaged" else "there is no save before it"
    with pytest.raises(ValueError, match=rf"training\.pt is not what was written, and .*{wrong}: this run cannot go on"):
        finish(path)
    assert kept == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_run_whose_save_says_nothing_of_itself_goes_on(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stopped_after(recipe, tmp_path, monkeypatch, 4)
    (path / "last" / "checkpoint.json").unlink()  # as before there were any
    shutil.rmtree(path / "last.before")
    assert_equal(finish(path), whole)


def test_a_save_of_another_version_is_a_sentence(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stopped_after(recipe, tmp_path, monkeypatch, 4)
    file = path / "last" / "checkpoint.json"
    file.write_text(file.read_text().replace('"schema": 1,\n  "sha256"', '"schema": 2,\n  "sha256"'))
    with pytest.raises(ValueError, match=r"last is a checkpoint of schema 2; this version goes on from 1"):
        finish(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lr": 0.5}, "lr=0.5 was 0.005"),
        ({"epochs": 3, "seed": 1}, "epochs=3 was 2, seed=1 was 0"),
        ({"workers": 0, "keep": 1}, None),
    ],
    ids=str,
)
def test_a_recipe_edited_in_the_middle_of_a_run(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], sentence: str | None
) -> None:
    path = stopped_after(recipe, tmp_path, monkeypatch, 4)
    file = path / "recipe.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    if sentence is None:
        assert_equal(finish(path), whole)
        return
    with pytest.raises(
        ValueError, match=rf"recipe\.json was changed in the middle of the run: {sentence}\. Change it back to go on, or"
    ):
        finish(path)


def test_in_the_middle_of_an_epoch_others_take_over_only_where_torchrun_starts_them(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(stopped_after(recipe, tmp_path, monkeypatch, 4))
    file = run.last / "training.pt"
    kept = torch.load(file, weights_only=True)
    torch.save(kept | {"others": [kept["random"]]}, file)  # as two would leave it
    fit = prepare(recipe, open_data(recipe.data), None, run)
    with pytest.raises(ValueError, match=r"in the middle of an epoch by 2 processes.*Go on with as many: .* devices=2"):
        restore(run, fit.state)
    progress = restore(run, replace(fit.state, ranks=Ranks(again=True)))
    assert (progress.epoch, progress.step) == (1, 1)
