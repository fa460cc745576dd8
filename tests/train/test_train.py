"""A run from its recipe: every setting counts, one's own mixer trains and goes on, mistakes are sentences."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.photos import photos
from tests.tiny import QUICK, after_steps, one_core, same, timeless, weights
from torch import Tensor, nn

import metaformer
from metaformer import MetaFormer, Predictor, create_model
from metaformer.config import KEYS, Recipe
from metaformer.data import scan
from metaformer.data.sources import open_data
from metaformer.runs import Run, create_run
from metaformer.train import train as train_module
from metaformer.train.train import go_on, prepare, start

pytestmark = pytest.mark.usefixtures("thread")


class Shift(nn.Module):
    """A mixer of a user's own, with something to learn."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.roll(1, 3) - x


def own(num_classes: int = 10, in_chans: int = 1, **changes: Any) -> MetaFormer:
    torch.manual_seed(0)
    settings = {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "mixers": Shift} | changes
    return create_model("poolformerv2_t6", num_classes=num_classes, in_chans=in_chans, **settings)


def quick(fashion: str, **settings: Any) -> Recipe:
    return Recipe(**{"model": "caformer_t6", "data": fashion, **QUICK, **settings})


def begin(recipe: Recipe, root: Path, model: MetaFormer | None = None) -> Run:
    return start(recipe, open_data(recipe.data), model, name="run", root=root, quiet=True)


# --- every setting counts ---------------------------------------------------------------------------------------------

OTHER: dict[str, Any] = {
    "model": "convformer_t6", "changes": {**QUICK["changes"], "norm": "MLN()"}, "image_size": 9,
    "epochs": 3, "batch": 24, "seed": 1, "optimizer": "lamb", "lr": 1e-3, "warmup_epochs": 0.0, "warmup_lr": 1e-4,
    "min_lr": 1e-3, "weight_decay": 0.5, "clip": 0.01, "drop_path": 0.5, "head_dropout": 0.5, "label_smoothing": 0.0,
    "crop": 0.5, "pad": 0.3, "flip": 0.0, "randaugment": "rand-m9", "erase": 0.5, "mixup": 0.5, "cutmix": 0.5,
    "schedule": "epochwise", "normalise": "imagenet", "start_size": 4,
    "learn": "last:1", "freeze_norms": True, "layer_decay": 0.5, "class_weights": "balanced", "sampling": "balanced",
}  # fmt: skip
ELSEWHERE = {
    "recipe": "test_jobs",
    "patience": "test_length",
    "hours": "test_length",
    "keep": "test_loop: it must not change what is learnt",
    "save_minutes": "test_saver: it must not change what is learnt",
    "weights": "below: it starts from them",
    "smoke": "test_recipes",
    "crop_fraction": "below: it takes fit=crop",
    "nonfinite": "test_numerics",
    "deterministic": "test_numerics",
    "ema_warmup": "test_loop: it changes what is kept",
    "data": "test_sources",
    "augment": "test_dense: it is for objects and regions",
    "checkpointing": "below: it must not change what is learnt",
    "accumulate": "test_loop: it must not change what is learnt",
    "ema": "test_loop: it changes what is kept",
    "device": "test_device",
    "fit": "below: fashion is square",
    "compile": "below",
    "precision": "below: PyTorch 2.15 on CPUs leaves gradients of a convolution on 1×1 maps unfilled in bf16",
    "labels": "data/test_several, lab/test_several: it says how data is read",
    "log": "test_trackers: it must not change what is learnt",
    "teacher": "test_task",
    "distill": "test_task",
    "distill_weight": "test_task",
    "distill_temperature": "test_task",
    "window": "data/test_formats: it takes shards",
    "workers": "test_loader: it must not change what is learnt",
}


@pytest.fixture(scope="module")
def base(fashion: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with one_core():
        return begin(quick(fashion), tmp_path_factory.mktemp("base"))


def test_every_setting_is_tested() -> None:
    assert {*OTHER, *ELSEWHERE} == {"model", "changes", *KEYS}


@pytest.mark.parametrize("key", OTHER)
def test_every_setting_counts(base: Run, tmp_path: Path, key: str) -> None:
    recipe = replace(base.recipe, **{key: OTHER[key]})
    assert getattr(recipe, key) != getattr(base.recipe, key)
    assert not same(weights(begin(recipe, tmp_path).last), weights(base.last))


def test_the_same_recipe_gives_the_same_bits(base: Run, tmp_path: Path) -> None:
    torch.manual_seed(123)
    assert same(weights(begin(base.recipe, tmp_path).last), weights(base.last))


def test_compile_runs_the_compiled_model(fashion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: nn.Sequential(model))
    data = open_data(fashion)
    assert isinstance(prepare(quick(fashion, compile=True), data, None).forward, nn.Sequential)
    plain = prepare(quick(fashion), data, None)
    assert plain.forward is plain.state.model


def test_blocks_are_computed_again(fashion: str) -> None:
    data = open_data(fashion)
    model = prepare(quick(fashion, checkpointing=True), data, None).state.model
    assert isinstance(model, MetaFormer)
    assert model.checkpointing
    with pytest.raises(ValueError, match="augment=coco is for objects and regions, and caformer_t6 calls whole"):
        prepare(quick(fashion, augment="coco"), data, None)


def test_precision_is_that_of_the_products_alone(fashion: str, tmp_path: Path) -> None:
    runs = [begin(quick(fashion, image_size=16, precision=name), tmp_path / name) for name in ("fp32", "bf16")]
    full, half = (weights(run.last) for run in runs)
    assert not same(full, half)
    assert {tensor.dtype for tensor in half.values()} == {torch.float32}
    assert runs[1].metrics[0]["train_loss"] == pytest.approx(runs[0].metrics[0]["train_loss"], rel=0.02)


def test_fit_and_size_travel_with_the_weights(fashion: str) -> None:
    data = open_data(fashion)
    fit = prepare(quick(fashion, fit="pad", image_size=11), data, None)
    assert fit.about["preprocess"] == {"size": 11, "mean": data.mean, "std": data.std, "fit": "pad", "crop_fraction": None}
    assert {fit.train.preprocess, fit.val.preprocess} == {fit.train.preprocess}
    assert prepare(quick(fashion, image_size=None), data, None).val.preprocess.size == 28


def test_the_crop_fraction_travels_with_the_weights(fashion: str) -> None:
    fit = prepare(quick(fashion, fit="crop", crop_fraction=0.5), open_data(fashion), None)
    assert fit.about["preprocess"]["crop_fraction"] == 0.5
    assert fit.val.preprocess.placing(28, 28).tall == 16


def test_imagenets_mean_and_deviation_in_grey(fashion: str) -> None:
    fit = prepare(quick(fashion, normalise="imagenet"), open_data(fashion), None)
    assert fit.val.preprocess.mean == pytest.approx((0.449,))
    assert fit.val.preprocess.std == pytest.approx((0.226,))


# --- from weights -----------------------------------------------------------------------------------------------------


def test_training_starts_from_a_runs_best_weights(base: Run, fashion: str, tmp_path: Path) -> None:
    data = open_data(fashion)
    for source in (base.path, base.best, base.best / "model.safetensors"):
        fit = prepare(quick(fashion, weights=str(source), seed=5), data, None)
        assert same(fit.state.model.state_dict(), weights(base.best))
    still = {"lr": 0.0, "warmup_lr": 0.0, "min_lr": 0.0, "epochs": 1, "ema": 0.9}
    run = begin(quick(fashion, weights=str(base.path), **still), tmp_path)
    assert same(weights(run.best), weights(base.best))
    top1 = max(line["top1"] for line in base.metrics)
    assert run.metrics[0]["top1"] == top1
    assert f"before training: top-1 {top1:.2f} %\n" in (run.path / "log.txt").read_text()
    assert f"starts from {base.path}" in (run.path / "log.txt").read_text()
    assert run.recipe.weights == str(base.path)


def test_weights_of_other_classes_are_made_to_fit_and_it_is_said(tmp_path: Path, fashion: str) -> None:
    other = create_model("caformer_t6", num_classes=7, in_chans=3, dims=(16, 16, 32, 32), depths=(1, 1, 1, 1))
    metaformer.save_pretrained(other, tmp_path / "other")
    run = begin(quick(fashion, weights=str(tmp_path / "other"), epochs=1), tmp_path)
    log = (run.path / "log.txt").read_text()
    assert "classifier" in log
    assert "7" in log
    assert "before training" not in log  # a new classifier knows nothing
    assert "10 classes: chance is 10 % top-1, always the most frequent one 10 %\n" in log


def test_normalising_is_that_of_the_weights_unless_said_otherwise(base: Run, fashion: str, tmp_path: Path) -> None:
    data = open_data(fashion)
    other = create_model("caformer_t6", num_classes=10, in_chans=1, dims=(16, 16, 32, 32), depths=(1, 1, 1, 1))
    told = {"preprocess": {"size": 8, "mean": [0.25], "std": [0.5], "fit": "squash"}}
    metaformer.save_pretrained(other, tmp_path / "told", told)
    metaformer.save_pretrained(other, tmp_path / "silent")
    for folder, normalise, mean in (
        ("told", "auto", (0.25,)), ("told", "data", data.mean), ("silent", "auto", data.mean),
        ("told", "imagenet", pytest.approx((0.449,))),
    ):  # fmt: skip
        recipe = quick(fashion, weights=str(tmp_path / folder), normalise=normalise)
        assert prepare(recipe, data, None).val.preprocess.mean == mean


def test_a_run_goes_on_without_the_weights_that_it_started_from(
    fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = create_model("caformer_t6", num_classes=10, in_chans=1, dims=(16, 16, 32, 32), depths=(1, 1, 1, 1))
    told = {"preprocess": {"size": 8, "mean": [0.25], "std": [0.5], "fit": "squash"}}
    metaformer.save_pretrained(other, tmp_path / "start", told)
    recipe = quick(fashion, weights=str(tmp_path / "start"))
    whole = begin(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        after_steps(patch, 4, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            begin(recipe, tmp_path / "part")
    for file in (tmp_path / "start").iterdir():
        file.unlink()
    part = go_on(Run(tmp_path / "part" / "run"), open_data(fashion), None, quiet=True)
    assert same(weights(part.last), weights(whole.last))
    assert timeless(part.metrics) == timeless(whole.metrics)


def test_a_published_tag_is_asked_for(fashion: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def find_weights(name: str, tag: str) -> Path:
        asked.append((name, tag))
        raise ValueError("not here")

    monkeypatch.setattr(train_module, "find_weights", find_weights)
    recipe = quick(fashion, model="caformer_s18", weights="in21k", changes={})
    with pytest.raises(ValueError, match="not here"):
        begin(recipe, tmp_path)
    assert asked == [("caformer_s18", "in21k")]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"weights": "in1k"}, "no weights are published for caformer_t6"),
        ({"weights": "runs/nothing"}, "no file of weights at runs/nothing"),
        (
            {"model": "timm:test_resnet", "changes": {}, "image_size": 32, "weights": "in1k"},
            "weights=in1k are for our models: timm:test_resnet",
        ),
    ],
)
def test_weights_that_cannot_be_had(fashion: str, tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, OSError), match=sentence):
        begin(quick(fashion, **settings), tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentences"),
    [
        ({}, []),
        ({"recipe": "caformer_s18.in1k", "batch": 4096, "lr": 8e-3},
         ["each step learns from 4,096 images at once; accumulate=32 learns the same in parts of 128"]),
        ({"recipe": "caformer_s18.in1k", "batch": 4096, "lr": 8e-3, "accumulate": 32}, []),
        ({"recipe": "caformer_s18.in1k", "batch": 64, "lr": 8e-3},
         ["lr=0.008 is for batches of 4,096; with batch=64 nothing is rescaled"]),
        ({"recipe": "caformer_s18.in1k", "batch": 64, "lr": 1e-3}, []),
    ],
)  # fmt: skip
def test_what_a_large_batch_means_is_said(fashion: str, tmp_path: Path, settings: dict[str, Any], sentences: list[str]) -> None:
    run = begin(quick(fashion, epochs=1, **settings), tmp_path)
    log = [line[20:] for line in (run.path / "log.txt").read_text().splitlines()]
    assert log[1:-3] == sentences
    assert "chance is" in log[-3]


# --- what is built ----------------------------------------------------------------------------------------------------


def test_the_model_is_the_seed_s_and_trying_it_leaves_no_trace(fashion: str) -> None:
    changes = {**QUICK["changes"], "norm": "BatchNorm()"}
    fit = prepare(quick(fashion, seed=3, head_dropout=0.3, changes=changes), open_data(fashion), None)
    drawn = torch.get_rng_state()
    torch.manual_seed(3)
    expected = create_model("caformer_t6", num_classes=10, in_chans=1, head_dropout=0.3, drop_path=0.05, **changes)
    assert torch.equal(drawn, torch.get_rng_state())
    assert same(fit.state.model.state_dict(), expected.state_dict())
    assert fit.state.model.config == expected.config


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": "caformr_t6"}, r"no model 'caformr_t6', did you mean caformer_t6\?"),
        ({"changes": {"nrm": "MLN()"}}, r"a model has no 'nrm', did you mean norm\?"),
        ({"changes": {"norm": "MNL()"}}, r"norm: unknown 'MNL', did you mean MLN\?"),
        ({"changes": {"num_classes": "3"}}, "model.num_classes follows from the data, 10 here: leave it out"),
        ({"changes": {"in_chans": "3"}}, "model.in_chans follows from the data, 1 here: leave it out"),
        ({"model": "custom"}, "this run's model is code of your own: go on from Python"),
        ({"device": "cuda:99"}, "device=cuda:99 is not "),
        ({"device": "cpu:x"}, "device=cpu:x is not a device, such as cpu"),
        ({"changes": {"norm": "BatchNorm()"}, "batch": 19}, "the smallest part of a batch, 1 of 8×8 pixels, does not do"),
        ({"changes": {"norm": "BatchNorm()"}, "accumulate": 32}, "the smallest part of a batch, 1 of 8×8 pixels"),
        ({"image_size": 2, "changes": {"stem_stride": "4"}}, "32 of 2×2 pixels, does not do: .* H and W at least 3"),
        ({"randaugment": "much"}, "randaugment=much is not a RandAugment string"),
    ],
)
def test_mistakes_are_sentences_and_leave_nothing(
    fashion: str, tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    if settings.get("device") == "cuda:99" and torch.cuda.is_available():
        pytest.skip("there is cuda")
    with pytest.raises(ValueError, match=sentence):
        begin(quick(fashion, **settings), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("num_classes", "in_chans"), [(7, 1), (10, 3), (1000, 3)])
def test_a_model_that_does_not_suit_the_data(fashion: str, tmp_path: Path, num_classes: int, in_chans: int) -> None:
    found, needed = f"num_classes={num_classes}, in_chans={in_chans}", "num_classes=10, in_chans=1"
    with pytest.raises(ValueError, match=f"^the model has {found}; this data needs {needed}$"):
        begin(quick(fashion), tmp_path, own(num_classes, in_chans))
    assert list(tmp_path.iterdir()) == []


def test_a_mixer_that_changes_the_shape_is_refused(fashion: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the smallest part of a batch"):
        begin(quick(fashion), tmp_path, own(mixers=lambda dim: nn.Conv2d(dim, dim, 2)))
    assert list(tmp_path.iterdir()) == []


# --- a mixer of one's own, and going on -------------------------------------------------------------------------------


def test_own_mixer_trains_stops_and_goes_on(
    fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {key: value for key, value in QUICK.items() if key not in ("changes", "drop_path")} | {"data": fashion}
    model = own()
    with pytest.raises(ValueError, match="drop_path= comes too late for a model that is built"):
        metaformer.train(model, root=tmp_path, drop_path=0.1, **settings)
    whole = metaformer.train(model, name="whole", root=tmp_path, **settings)
    assert whole.recipe.model == "custom"
    assert not torch.equal(model.state_dict()["stages.0.blocks.0.mixer.branch.scale"], torch.ones(8, 1, 1))
    with monkeypatch.context() as patch:
        after_steps(patch, 4, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            metaformer.train(own(), name="part", root=tmp_path, **settings)
    for source in (Path.__str__(tmp_path / "part"), tmp_path / "part"):
        with pytest.raises(ValueError, match=r"code of your own: go on from Python, metaformer\.train\(model, resume="):
            metaformer.train(source)
    with pytest.raises(ValueError, match="these weights do not fit"):
        metaformer.train(own(dims=(8, 8, 16, 24)), resume=tmp_path / "part")
    part = metaformer.train(own(), resume=tmp_path / "part")
    assert same(weights(part.last), weights(whole.last))
    assert timeless(part.metrics) == timeless(whole.metrics)

    with pytest.raises(ValueError, match="is code of your own, which a file cannot bring back"):
        Predictor(part.path)
    pixels = open_data(fashion).val.image(0)
    assert Predictor(part.path, model=own())([pixels]) == Predictor(whole.path, model=own())([pixels])
    assert metaformer.evaluate(part.path, model=own()).top1 == pytest.approx(max(line["top1"] for line in part.metrics))
    assert "best top-1" in capsys.readouterr().out


def test_a_run_killed_before_its_first_save_starts_again(base: Run, tmp_path: Path) -> None:
    run = create_run(base.recipe, tmp_path, "run")
    assert not run.finished
    again = go_on(run, open_data(base.recipe.data), None, quiet=True)
    assert again.finished
    assert same(weights(again.last), weights(base.last))
    assert timeless(again.metrics) == timeless(base.metrics)


def test_a_run_goes_on_past_images_that_turn_out_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, first in (("a", 0), ("b", 60)):
        photos(tmp_path / "data/train" / name, 60, first)
        photos(tmp_path / "data/val" / name, 3, 200 + first)
    broken = tmp_path / "data/train/a/7.png"
    damaged = bytearray(broken.read_bytes())
    damaged[1000:2000] = bytes(1000)  # header and end are whole, so that a look at those sees nothing
    broken.write_bytes(damaged)
    monkeypatch.setattr(scan, "ALL", 100)
    monkeypatch.setattr(scan, "SAMPLE", 0)
    recipe = quick(str(tmp_path / "data"), batch=25, workers=0)
    run = begin(recipe, tmp_path)
    assert run.finished
    rows = (run.path / "bad_images.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["image", str(broken)]
    go_on(run, open_data(recipe.data), None, quiet=True)
    assert (run.path / "bad_images.csv").read_text().splitlines() == rows


def test_what_is_said_is_logged(fashion: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = quick(fashion)
    loud = start(recipe, open_data(fashion), None, name="loud", root=tmp_path, quiet=False)
    said = capsys.readouterr().out.splitlines()
    assert "96 images to learn, 40 to judge, 10 classes, 8 pixels" in said[0]
    assert "chance is" in said[1]
    assert [line.split()[1] for line in said[2:4]] == ["1/2", "2/2"]
    assert f"best top-1 {max(line['top1'] for line in loud.metrics):.2f} % on 40 held-out images" in said[4]
    logged = (loud.path / "log.txt").read_text().splitlines()
    assert [line[20:] for line in logged] == said
    quiet = start(recipe, open_data(fashion), None, name="quiet", root=tmp_path, quiet=True)
    assert capsys.readouterr().out == ""
    assert len((quiet.path / "log.txt").read_text().splitlines()) == len(said)


def test_the_recipe_of_a_run_is_resolved(fashion: str, tmp_path: Path) -> None:
    asked = replace(quick(fashion), image_size=None, flip=None, precision="auto", device="cpu")
    recipe = start(asked, open_data(fashion), None, name="run", root=tmp_path, quiet=True).recipe
    assert (recipe.image_size, recipe.flip, recipe.precision) == (28, 0.5, "fp32")
