"""Numbers that are none are noticed in time, reported with their images, and handled as the recipe says."""

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import QUICK, after_steps, begin, one_core, same, timeless, weights
from torch import Tensor, nn

from metaformer.config import Recipe
from metaformer.core import layers
from metaformer.data.batch import Batch
from metaformer.data.sources import open_data
from metaformer.runs import Run, create_run, open_run
from metaformer.tasks.classification import Classification
from metaformer.train.checkpoint import Progress, restore, snapshot, write
from metaformer.train.display import Display
from metaformer.train.loop import Fit
from metaformer.train.numerics import EVERY, Recent, Step, exactness, notice_after
from metaformer.train.optim import learning_rate
from metaformer.train.train import go_on, prepare

pytestmark = pytest.mark.usefixtures("thread")

STEPS = 6  # two epochs of three


def quick(fashion: str, **settings: Any) -> Recipe:
    return Recipe(**{"model": "caformer_t6", "data": fashion, **QUICK, **settings})


def spoil(monkeypatch: pytest.MonkeyPatch, when: Callable[[int], bool], what: str = "loss") -> list[int]:
    """Makes the loss NaN, or finite with a gradient that is none, in the losses whose number, from 1, is asked for."""
    calls, loss_sum = [0], Classification.loss_sum

    def spoilt(self: Classification, model: nn.Module, batch: Any) -> Tensor:
        calls[0] += 1
        loss = loss_sum(self, model, batch)
        if not when(calls[0]):
            return loss
        return loss * torch.nan if what == "loss" else loss + (next(model.parameters()).sum() * 0).sqrt()

    monkeypatch.setattr(Classification, "loss_sum", spoilt)
    return calls


# --- noticed, and where -----------------------------------------------------------------------------------------------


def test_recent_finds_the_first_of_the_bad() -> None:
    recent = Recent(torch.device("cpu"), 4)
    values = [(1.0, 2.0), (1.0, float("inf")), (float("nan"), 1.0), (1.0, 1.0)]
    for number, (loss, norm) in enumerate(values, 1):
        assert not recent.full
        recent.add(Step(7, number, 0.5, None), torch.tensor(loss), torch.tensor(norm))
    assert recent.full
    bad = recent.bad()
    assert [found.step.step for found in bad] == [2, 3]
    assert str(bad[0]) == ("the loss or its gradient became no number in epoch 7, step 2 (lr 0.5, loss 1, gradient norm inf)")
    assert not recent.full
    recent.add(Step(7, 5, 0.5, None), torch.tensor(1.0), torch.tensor(1.0))
    assert recent.bad() == []  # what was there before is forgotten


def test_a_processor_is_asked_at_every_step_and_a_gpu_at_every_fiftieth() -> None:
    assert (notice_after(torch.device("cpu")), notice_after(torch.device("cuda")), EVERY) == (1, 50, 50)


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("every", [1, 2, 5, 50])
@pytest.mark.parametrize("seed", range(3))
def test_noticed_within_the_stated_steps(
    fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, every: int, seed: int
) -> None:
    steps = 12
    at = random.Random(seed).randint(1, steps)
    calls = spoil(monkeypatch, lambda number: number == at, what)
    data = open_data(fashion)
    fit = replace(prepare(quick(fashion, batch=8, epochs=2), data, None), every=every)
    assert fit.steps == steps
    run = create_run(fit.recipe, tmp_path, "run")
    with pytest.raises(FloatingPointError, match=rf"no number in epoch 1, step {at} \(lr .*nonfinite=rewind"):
        fit(run, Progress(), Display(tmp_path / "log.txt", steps, 0, quiet=True))
    assert calls[0] == min(steps, -(-at // every) * every)
    (record,) = [json.loads(line) for line in (run.path / "nonfinite.jsonl").read_text().splitlines()][:1]
    assert (record["epoch"], record["step"]) == (1, at)
    assert record["lr"] == learning_rate(fit.recipe, at - 1, steps)
    assert record["loss" if what == "loss" else "gradient_norm"] == "nan"
    _, samples = list(fit.train.pixels(0))[at - 1]
    assert record["images"] == [f"image {sample}" for sample in samples.tolist()]
    assert run.metrics == []


# --- stop, skip, rewind -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(fashion: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run in which nothing goes wrong."""
    with one_core():  # a module's fixture comes before the function's
        return begin(quick(fashion), tmp_path_factory.mktemp("whole"))


def test_stop_leaves_the_last_good_save(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Run) -> None:
    with monkeypatch.context() as patch:
        spoil(patch, lambda number: number == 5)
        with pytest.raises(FloatingPointError, match=r"epoch 2, step 2 .*; its 32 images are listed in .*run/nonfinite\.jsonl"):
            begin(quick(fashion), tmp_path)
    run = open_run(tmp_path / "run")
    assert len(run.metrics) == 1
    again = go_on(run, open_data(fashion), None, quiet=True)
    assert same(weights(again.last), weights(whole.last))
    assert timeless(again.metrics) == timeless(whole.metrics)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_skip_leaves_the_step_out(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    spoil(monkeypatch, lambda number: number in (2, 5), what)
    kept: list[dict[str, Tensor]] = []
    step = Fit.step

    def noted(self: Fit, *arguments: Any) -> Any:
        before = {name: p.detach().clone() for name, p in self.state.model.named_parameters()}
        result = step(self, *arguments)
        kept.append({} if same(before, dict(self.state.model.named_parameters())) else before)
        return result

    monkeypatch.setattr(Fit, "step", noted)
    run = begin(quick(fashion, nonfinite="skip", ema=0.5), tmp_path)
    assert [bool(changed) for changed in kept] == [True, False, True, True, False, True]
    assert run.finished
    records = [json.loads(line) for line in (run.path / "nonfinite.jsonl").read_text().splitlines()]
    assert [(record["epoch"], record["step"], len(record["images"])) for record in records] == [(1, 2, 32), (2, 2, 32)]
    assert (run.path / "log.txt").read_text().count("; skipped") == 2
    assert all(tensor.isfinite().all() for tensor in weights(run.last).values())


def test_an_epoch_of_skipped_steps_is_an_error(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda number: True)
    with pytest.raises(FloatingPointError, match="in epoch 1 no step had a loss that is a number; try a lower lr"):
        begin(quick(fashion, nonfinite="skip"), tmp_path)


@pytest.mark.parametrize("at", [2, 5])  # before the first epoch was saved, and after
def test_rewind_goes_back_and_on_at_half_the_rate(
    fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Run, at: int
) -> None:
    calls = spoil(monkeypatch, lambda number: number == at)
    run = begin(quick(fashion, nonfinite="rewind"), tmp_path)
    assert run.finished
    assert calls[0] == STEPS + 2  # the steps since the save were done twice
    halved = [0.5, 0.5] if at == 2 else [1.0, 0.5]
    rates = [line["lr"] * factor for line, factor in zip(whole.metrics, halved, strict=True)]
    assert [line["lr"] for line in run.metrics] == pytest.approx(rates)
    assert (run.metrics[0]["train_loss"] == whole.metrics[0]["train_loss"]) is (at == 5)
    assert f"back to epoch {1 if at == 2 else 2}, step 1, with lr times 0.5" in (run.path / "log.txt").read_text()
    state = torch.load(run.last / "training.pt", weights_only=True)
    assert state["progress"]["rewinds"] == 1
    assert all(tensor.isfinite().all() for tensor in weights(run.last).values())


def test_rewind_gives_up_after_three(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda number: number >= 5)
    with pytest.raises(FloatingPointError, match=r"epoch 2, step 1 .* given up after 3 rewinds; try a lower lr than 0\.005$"):
        begin(quick(fashion, nonfinite="rewind"), tmp_path)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert [f"lr times {factor}" in log for factor in ("0.5", "0.25", "0.125", "0.0625")] == [True, True, True, False]
    with pytest.raises(FloatingPointError, match="after 3 rewinds"):  # nor does starting the command again give three more
        go_on(open_run(tmp_path / "run"), open_data(fashion), None, quiet=True)
    assert (tmp_path / "run" / "log.txt").read_text().count("back to epoch") == 3


def test_a_rewind_is_that_of_the_save(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after the rewind, and gone on with: the same bits as the run that was not interrupted."""
    settings = {"nonfinite": "rewind", "ema": 0.9, "drop_path": 0.2, "optimizer": "lamb"}
    with monkeypatch.context() as patch:
        spoil(patch, lambda number: number == 5)
        straight = begin(quick(fashion, **settings), tmp_path / "one")
    with monkeypatch.context() as patch:
        spoil(patch, lambda number: number == 5)
        after_steps(patch, 6, lambda: os.kill(os.getpid(), 2))
        with pytest.raises(KeyboardInterrupt):
            begin(quick(fashion, **settings), tmp_path / "two")
    resumed = go_on(open_run(tmp_path / "two" / "run"), open_data(fashion), None, quiet=True)
    assert same(weights(resumed.last), weights(straight.last))
    assert timeless(resumed.metrics) == timeless(straight.metrics)


def test_the_norm_of_the_gradient_is_logged(fashion: str, tmp_path: Path) -> None:
    clipped, free = (
        begin(quick(fashion, clip=clip, lr=0.0, warmup_lr=0.0, min_lr=0.0), tmp_path / str(clip)) for clip in (0.01, None)
    )
    for one, other in zip(clipped.metrics, free.metrics, strict=True):
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"])  # that of before clipping
        assert one["gradient_norm"] > 0.1


# --- half precision ---------------------------------------------------------------------------------------------------


def half(fashion: str, **settings: Any) -> Fit:
    """What users report as NaN, small: CAFormer's head, LAMB, fp16, and features that have grown."""
    fit = prepare(quick(fashion, precision="fp16", optimizer="lamb", image_size=32, **settings), open_data(fashion), None)
    head = fit.state.model.head.classifier
    with torch.no_grad():
        head.fc1.weight.mul_(2000)
    return fit


def first(fit: Fit) -> Batch:
    return next(iter(fit.train.epoch()))


def test_the_head_that_overflows_in_half_does_not_here(fashion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = half(fashion)
    batch = first(fit)
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        hidden = fit.state.model.head.classifier.fc1(fit.state.model.head.pooled(fit.state.model.features(batch.images)[-1]))
    assert hidden.dtype == torch.float16
    assert hidden.abs().max() > 256  # whose square is beyond half's 65504
    before = fit.state.model.state_dict()["stages.0.blocks.0.mlp.branch.fc1.weight"].clone()
    for _ in range(8):  # the scaler may leave out some of the first
        loss, norm, _ = fit.step(batch, 1e-3)
        assert (loss + norm).isfinite()
    assert not torch.equal(before, fit.state.model.state_dict()["stages.0.blocks.0.mlp.branch.fc1.weight"])

    monkeypatch.setattr(layers, "squared_relu", lambda x: F.relu(x).square())
    naive, *_ = half(fashion).step(batch, 1e-3)
    assert not naive.isfinite()


def test_the_naive_head_is_noticed(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "squared_relu", lambda x: F.relu(x).square())
    fit = half(fashion)
    run = create_run(fit.recipe, tmp_path, "run")
    with pytest.raises(FloatingPointError, match=r"became no number in epoch 1, step 1 .* precision=fp32"):
        fit(run, Progress(), Display(tmp_path / "log.txt", STEPS, 0, quiet=True))


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_fp16_learns_what_fp32_learns(fashion: str, tmp_path: Path, optimizer: str) -> None:
    settings = {"optimizer": optimizer, "image_size": 16, "lr": 1e-3}
    runs = [begin(quick(fashion, precision=name, **settings), tmp_path / name) for name in ("fp32", "fp16")]
    full, less = (run.metrics[-1] for run in runs)
    assert less["train_loss"] == pytest.approx(full["train_loss"], rel=0.02)
    assert less["gradient_norm"] == pytest.approx(full["gradient_norm"], rel=0.1)
    assert {tensor.dtype for tensor in weights(runs[1].last).values()} == {torch.float32}
    assert torch.load(runs[1].last / "training.pt", weights_only=True)["scaler"]["scale"] == 65536.0


def test_fp16_goes_on_with_its_scale(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = quick(fashion, precision="fp16", image_size=16)
    straight = begin(recipe, tmp_path / "one")
    with monkeypatch.context() as patch:
        after_steps(patch, 2, lambda: os.kill(os.getpid(), 2))
        with pytest.raises(KeyboardInterrupt):
            begin(recipe, tmp_path / "two")
    resumed = go_on(open_run(tmp_path / "two" / "run"), open_data(fashion), None, quiet=True)
    assert same(weights(resumed.last), weights(straight.last))


def test_the_scale_of_losses_is_kept(fashion: str, tmp_path: Path) -> None:
    fit = prepare(quick(fashion, precision="fp16"), open_data(fashion), None)
    run = create_run(fit.recipe, tmp_path, "run")
    state = replace(fit.state, scaler=torch.amp.GradScaler("cpu", init_scale=128.0))
    moment = snapshot(state, Progress(), {})
    assert moment is not None
    write(run, moment, {})
    assert fit.state.scaler is not None
    assert fit.state.scaler.get_scale() == 65536.0
    restore(run, fit.state)
    assert fit.state.scaler.get_scale() == 128.0


# --- how exactly ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_exactness_is_as_said_and_then_as_before(precision: str, deterministic: bool) -> None:
    def now() -> tuple[object, ...]:
        return (
            torch.get_float32_matmul_precision(), torch.backends.cudnn.conv.fp32_precision,
            torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
            os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        )  # fmt: skip

    before = now()
    with exactness(Recipe(model="x", precision=precision, deterministic=deterministic)):
        loose = precision == "tf32"
        assert now()[:3] == ("high" if loose else "highest", "tf32" if loose else "ieee", deterministic)
        assert now()[4] == (":4096:8" if deterministic else before[4])
    assert now() == before


def test_training_runs_under_it(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    after_steps(monkeypatch, 1, lambda: seen.append(torch.are_deterministic_algorithms_enabled()))
    begin(quick(fashion, deterministic=True, epochs=1), tmp_path)
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is cuda")
def test_tf32_is_a_gpus(fashion: str) -> None:
    with pytest.raises(ValueError, match="precision=tf32 is a GPU's: on cpu there are fp32, bf16 and fp16"):
        prepare(quick(fashion, precision="tf32"), open_data(fashion), None)
