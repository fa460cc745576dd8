"""The loop divides once: how a batch is cut does not change what is learnt."""

import copy
import json
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import QUICK, Stopped, after_steps, same, weights
from torch import Tensor, nn

from metaformer import MetaFormer, create_model
from metaformer.config import Recipe
from metaformer.data.batch import Batch
from metaformer.data.sources import open_data
from metaformer.runs import Run, create_run
from metaformer.tasks.classification import Classification, Distillation, Evaluation
from metaformer.tasks.multilabel import Multilabel
from metaformer.train import loop
from metaformer.train.checkpoint import Progress
from metaformer.train.display import Display
from metaformer.train.loop import Fit
from metaformer.train.step import accumulate
from metaformer.train.train import go_on, prepare, start

pytestmark = pytest.mark.usefixtures("thread")


SMALL = {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_classes": 10, "in_chans": 1}


class Ragged:
    """A task whose batches hold another count than images: those of class 0 are not asked about."""

    def count(self, batch: Batch) -> int:
        return int((batch.labels > 0).sum())

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        asked = batch.labels > 0
        return F.cross_entropy(model(batch.images)[asked], batch.labels[asked], reduction="sum")


CUTS = [(5, 7), (1, 4, 7), (7, 4, 1), (11, 1), (1,) * 12]


@pytest.fixture(scope="module")
def model() -> MetaFormer:
    torch.manual_seed(0)
    return create_model("caformer_t6", **SMALL).double()


@pytest.fixture(scope="module")
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(12, 1, 16, 16, dtype=torch.float64, generator=generator)
    return Batch(images, torch.tensor([3, 0, 0, 0, 0, 9, 1, 2, 0, 4, 4, 7]))


def gradients(model: nn.Module, task: Any, parts: list[Batch]) -> tuple[dict[str, Tensor], float, int]:
    """Gradients by name, loss sum and count."""
    model = copy.deepcopy(model)
    loss, count = accumulate(model, task, parts)
    assert not loss.requires_grad
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, loss.item(), count


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_gradients_do_not_depend_on_the_cut(model: MetaFormer, batch: Batch, cut: tuple[int, ...]) -> None:
    images, labels = batch.images.split(list(cut)), batch.labels.split(list(cut))
    parts = [Batch(x, y) for x, y in zip(images, labels, strict=True)]
    whole, loss, count = gradients(model, Ragged(), [batch])
    cut_up, cut_loss, cut_count = gradients(model, Ragged(), parts)
    assert (count, cut_count) == (7, 7)
    assert cut_loss == pytest.approx(loss, rel=1e-6)
    assert whole.keys() == cut_up.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(cut_up[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("accumulations", [1, 2, 3, 5, 12, 50])
def test_gradient_is_that_of_the_mean_loss(model: MetaFormer, batch: Batch, accumulations: int) -> None:
    task, alone = Classification(tuple("0123456789"), label_smoothing=0.1), copy.deepcopy(model)
    F.cross_entropy(alone(batch.images), batch.labels, label_smoothing=0.1).backward()
    found, _, count = gradients(model, task, batch.parts(accumulations))
    assert count == 12
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)  # the task's loss is in float32


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_weights_of_classes_and_a_teacher_do_not_depend_on_the_cut(
    model: MetaFormer, batch: Batch, cut: tuple[int, ...]
) -> None:
    weights = torch.linspace(0.1, 3, 10)
    task = Distillation(
        tuple("0123456789"), 0.1, weights, teacher=lambda x: x.flatten(1)[:, :10].float(), weight=0.4, temperature=2.0
    )
    parts = [Batch(x, y) for x, y in zip(batch.images.split(list(cut)), batch.labels.split(list(cut)), strict=True)]
    whole, loss, count = gradients(model, task, [batch])
    cut_up, cut_loss, cut_count = gradients(model, task, parts)
    assert (count, cut_count) == (12, 12)  # images, whatever their classes weigh
    assert cut_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(cut_up[name], gradient, rtol=1e-4, atol=1e-6)  # the task's loss is in float32


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_losses_of_several_labels_do_not_depend_on_the_cut(model: MetaFormer, batch: Batch, cut: tuple[int, ...]) -> None:
    task = Multilabel(tuple("0123456789"), 0.1)
    labels = (torch.arange(120).view(12, 10) % 3 == 0).to(torch.uint8)
    parts = [Batch(x, y, y.flip(0), 0.3) for x, y in zip(batch.images.split(list(cut)), labels.split(list(cut)), strict=True)]
    joined = Batch(batch.images, labels, torch.cat([part.partners for part in parts if part.partners is not None]), 0.3)
    whole, loss, count = gradients(model, task, [joined])
    cut_up, cut_loss, cut_count = gradients(model, task, parts)
    assert (count, cut_count) == (12, 12)
    assert cut_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(cut_up[name], gradient, rtol=1e-4, atol=1e-6)


def quick(fashion: str, **settings: Any) -> Recipe:
    return Recipe(**{"model": "caformer_t6", "data": fashion, **QUICK, **settings})


def train(root: Path, recipe: Recipe, model: MetaFormer | None = None) -> Run:
    return start(recipe, open_data(recipe.data), model, name=None, root=root, quiet=True)


def test_accumulation_gives_the_same_weights(tmp_path: Path, fashion: str) -> None:
    recipes = [quick(fashion, accumulate=n, drop_path=0.0, batch=40, lr=1e-3) for n in (1, 3, 7)]
    whole, *cut = [weights(train(tmp_path, recipe).last) for recipe in recipes]
    for other in cut:
        assert not same(whole, other)  # another order of additions: it was really cut
        assert max((whole[key] - other[key]).abs().max() for key in whole) < 2e-5


class Spy(MetaFormer):
    """Notes the size of every micro-batch."""

    fed: list[int]

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            self.fed.append(len(x))
        return super().forward(x)


@pytest.mark.parametrize(
    ("batch", "accumulate", "fed"),
    [
        (40, 1, [40, 40, 16]),
        (40, 3, [14, 14, 12, 14, 14, 12, 6, 6, 4]),
        (95, 2, [48, 47, 1]),  # a last batch of one image
        (96, 1, [96]),
        (1000, 1, [96]),  # larger than the data
        (48, 100, [1] * 96),  # more parts than images
    ],
)
def test_batches_and_their_parts(tmp_path: Path, fashion: str, batch: int, accumulate: int, fed: list[int]) -> None:
    spy = Spy(create_model("identityformer_t6", **SMALL).config)
    spy.fed = []
    train(tmp_path, quick(fashion, model="custom", changes={}, batch=batch, accumulate=accumulate, epochs=1), spy)
    assert spy.fed == fed


@pytest.mark.parametrize("batch", [40, 96])
def test_losses_are_means_over_images(tmp_path: Path, fashion: str, batch: int) -> None:
    still = {"lr": 0.0, "warmup_lr": 0.0, "min_lr": 0.0, "pad": 0.0, "flip": 0.0, "drop_path": 0.0, "label_smoothing": 0.2}
    recipe, data = quick(fashion, batch=batch, **still), open_data(fashion)
    fit = prepare(recipe, data, None)
    model, preprocess = fit.state.model.eval(), fit.val.preprocess
    with torch.no_grad():
        logits = model(preprocess(data.train.pixels))
        train_loss = F.cross_entropy(logits, data.train.labels, label_smoothing=0.2).item()
        logits = model(preprocess(data.val.pixels))
    run = train(tmp_path, recipe)
    assert [line["epoch"] for line in run.metrics] == [1, 2]
    for line in run.metrics:
        assert line["train_loss"] == pytest.approx(train_loss, rel=1e-5)
        assert line["val_loss"] == pytest.approx(F.cross_entropy(logits, data.val.labels).item(), rel=1e-5)
        assert line["top1"] == pytest.approx(100 * (logits.argmax(1) == data.val.labels).double().mean().item())
        assert line["lr"] == 0
        assert line["images_per_second"] == pytest.approx(96 / line["seconds"])
    assert '"epoch": 1,' in (run.best / "model.json").read_text()  # only a better one replaces the best


def test_best_and_last_are_what_they_say(run: Run) -> None:
    best = max(run.metrics, key=lambda line: line["top1"])
    about = json.loads((run.best / "model.json").read_text())
    assert (about["epoch"], about["top1"]) == (best["epoch"], best["top1"])
    assert about["classes"] == list(open_data(run.recipe.data).classes)
    assert run.metrics[-1]["lr"] == pytest.approx(run.recipe.min_lr)
    assert sorted(path.name for path in run.best.iterdir()) == ["model.json", "model.safetensors"]
    files = ["checkpoint.json", "model.json", "model.safetensors", "training.pt"]
    assert sorted(path.name for path in run.last.iterdir()) == files


def one_step(recipe: Recipe) -> Fit:
    """A fit after one step on the first 32 images."""
    data = open_data(recipe.data)
    fit = prepare(recipe, data, None)
    fit.step(Batch(fit.val.preprocess(data.train.pixels[:32]), data.train.labels[:32]), 1e-3)
    return fit


@pytest.mark.parametrize("clip", [0.01, None])
def test_clip_is_the_greatest_norm(fashion: str, clip: float | None) -> None:
    fit = one_step(quick(fashion, clip=clip))
    gradients = [p.grad.norm() for p in fit.state.model.parameters() if p.grad is not None]
    norm = torch.stack(gradients).norm().item()
    assert norm == pytest.approx(0.01, rel=1e-3) if clip else norm > 0.1


@pytest.mark.parametrize(("data", "default", "other"), [("fashion", 0.5, 0.0), ("digits", 0.0, 0.5)])
def test_images_are_mirrored_where_they_keep_their_meaning(
    tmp_path: Path, fashion: str, data: str, default: float, other: float
) -> None:
    settings = {"data": fashion if data == "fashion" else "digits", "batch": 512, "epochs": 1, "lr": 1e-3}
    unsaid, said, else_ = (
        weights(train(tmp_path, quick(fashion, **settings, flip=flip)).last) for flip in (None, default, other)
    )
    assert same(unsaid, said)
    assert not same(unsaid, else_)


@pytest.mark.parametrize("lr", [1e9, 1e18])
def test_divergence_is_an_error_that_leaves_nothing_wrong(tmp_path: Path, fashion: str, lr: float) -> None:
    sentence = r"^the loss .* became .* in epoch 1.*; try a lower lr than 1e\+"
    with pytest.raises(FloatingPointError, match=sentence):
        train(tmp_path, quick(fashion, lr=lr, warmup_lr=lr, clip=None))
    (folder,) = tmp_path.iterdir()
    left = {path.name for path in folder.iterdir()} - {"nonfinite.jsonl"}
    assert left == {"log.txt", "metrics.jsonl", "recipe.json", "train.lock", "trainer.json"}
    assert (folder / "metrics.jsonl").read_text() == ""


def test_batch_norm_learns_its_statistics(tmp_path: Path, fashion: str) -> None:
    run = train(tmp_path, quick(fashion, changes={**QUICK["changes"], "norm": "BatchNorm()"}))
    kept = weights(run.last)
    (name,) = [key for key in kept if key.endswith("stages.0.blocks.0.mixer.norm.num_batches_tracked")]
    assert kept[name] == 6


class Notes:
    """A watcher that writes down what it is told, and may stop the training after an epoch."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.told: list[tuple[str, int, Any]] = []
        self.stop_after = stop_after

    def begin(self, done: int) -> None:
        self.told.append(("begin", done, None))

    def step(self, done: int, figures: Any) -> None:
        self.told.append(("step", done, figures))

    def epoch(self, done: int, line: Any) -> None:
        self.told.append(("epoch", done, line))
        if line["epoch"] == self.stop_after:
            raise Stopped


def test_watchers_are_told_steps_and_epochs(tmp_path: Path, fashion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TOLD", 3)
    data, recipe, notes = open_data(fashion), quick(fashion, schedule="constant", warmup_epochs=0.0, batch=32), Notes()
    run = start(recipe, data, None, name=None, root=tmp_path, quiet=True, watchers=[notes])
    assert [(what, done) for what, done, _ in notes.told] == [
        ("begin", 0), ("step", 3), ("epoch", 3), ("step", 6), ("epoch", 6),
    ]  # fmt: skip
    assert [line for what, _, line in notes.told if what == "epoch"] == run.metrics
    first = notes.told[1][2]
    assert first.keys() == {"loss", "lr", "gradient_norm"}
    assert first["lr"] == recipe.lr
    assert 0 < first["loss"] < 5
    assert first["gradient_norm"] > 0


def test_what_a_watcher_raises_stops_after_the_save_and_no_epoch_is_told_twice(tmp_path: Path, fashion: str) -> None:
    data, first, second = open_data(fashion), Notes(stop_after=1), Notes()
    with pytest.raises(Stopped):
        start(quick(fashion), data, None, name="run", root=tmp_path, quiet=True, watchers=[first])
    run = go_on(Run(tmp_path / "run"), data, None, quiet=True, watchers=[second])
    whole = train(tmp_path, quick(fashion))
    assert same(weights(run.last), weights(whole.last))
    assert [(what, done) for what, done, _ in first.told + second.told] == [
        ("begin", 0), ("epoch", 3), ("begin", 3), ("epoch", 6),
    ]  # fmt: skip


def test_training_works_outside_the_main_thread(tmp_path: Path, fashion: str) -> None:
    runs: list[Run] = []
    thread = threading.Thread(target=lambda: runs.append(train(tmp_path, quick(fashion, epochs=1))))
    thread.start()
    thread.join()
    assert runs[0].finished


def test_every_image_is_learnt_once_an_epoch(tmp_path: Path, fashion: str) -> None:
    seen: list[Tensor] = []

    class Watching(Classification):
        def loss_sum(self, model: nn.Module, batch: Any) -> Tensor:
            seen.append(batch.images.sum((1, 2, 3)))
            return super().loss_sum(model, batch)

    data = open_data(fashion)
    fit = prepare(quick(fashion, pad=0.0, flip=0.0, accumulate=2), data, None)
    run = create_run(fit.recipe, tmp_path, None)
    replace(fit, task=Watching(data.classes))(run, Progress(), Display(tmp_path / "log.txt", 6, 0, quiet=True))
    first, second = torch.cat(seen).view(2, 96)
    expected = fit.val.preprocess(data.train.pixels).sum((1, 2, 3)).sort().values
    assert not torch.equal(first, second)
    for epoch in (first, second):
        torch.testing.assert_close(epoch.sort().values, expected)


def test_the_average_is_what_is_judged_and_kept(tmp_path: Path, fashion: str) -> None:
    plain, averaged = (train(tmp_path, quick(fashion, ema=ema, epochs=1)) for ema in (None, 0.5))
    assert same(weights(plain.last), weights(averaged.last))  # it does not touch what learns
    assert not same(weights(plain.best), weights(averaged.best))
    assert same(torch.load(averaged.last / "training.pt", weights_only=True)["average"], weights(averaged.best))


def test_losses_on_held_out_images_that_are_no_numbers_are_an_error(
    tmp_path: Path, fashion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Evaluation, "loss", torch.nan)
    with pytest.raises(FloatingPointError, match="the loss on held-out images became nan in epoch 1; try a lower lr than"):
        start(quick(fashion), open_data(fashion), None, name="run", root=tmp_path, quiet=True)
    assert not (tmp_path / "run" / "best").exists()


def test_the_average_of_timm_rises_at_once(tmp_path: Path, fashion: str) -> None:
    rising, steady = (train(tmp_path, quick(fashion, ema=0.5, ema_warmup=warmup)) for warmup in (True, False))
    assert same(weights(rising.last), weights(steady.last))
    assert not same(weights(rising.best), weights(steady.best))


def test_ctrl_c_counts_where_an_epoch_is_one_step(tmp_path: Path, fashion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    after_steps(monkeypatch, 1, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        start(replace(quick(fashion), batch=500), open_data(fashion), None, name="run", root=tmp_path, quiet=True)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("ema", "keep", "names"), [(None, 2, ["00003", "00004"]), (0.5, 9, ["00001", "00002", "00003", "00004"])]
)
def test_the_last_epochs_weights_are_kept(tmp_path: Path, fashion: str, ema: float | None, keep: int, names: list[str]) -> None:
    run, plain = (train(tmp_path, quick(fashion, epochs=4, ema=ema, keep=count)) for count in (keep, 0))
    assert [folder.name for folder in run.kept] == names
    assert plain.kept == []
    assert not (plain.path / "epochs").exists()
    assert same(weights(run.last), weights(plain.last))
    for folder in run.kept:
        about = json.loads((folder / "model.json").read_text())
        assert about["epoch"] == int(folder.name)
        assert about["top1"] == run.metrics[about["epoch"] - 1]["top1"]
    assert same(weights(run.kept[-1]), weights(run.last)) is (ema is None)
    best = next(folder for folder in run.kept if same(weights(folder), weights(run.best))) if keep == 9 else None
    assert (
        best is None
        or json.loads((best / "model.json").read_text())["epoch"] == json.loads((run.best / "model.json").read_text())["epoch"]
    )
