"""Detectors and segmenters in the loop: exact resume, parts of batches, what learns, how fast, what is refused."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.scened import CHANGES, MODELS, QUICK, data_for, objects
from tests.tiny import after_steps, pairs, same, timeless, weights

import metaformer
from metaformer import create_model
from metaformer.config import Recipe
from metaformer.data.dense import open_dense
from metaformer.data.dense_loader import DenseBatch
from metaformer.data.dense_views import Flip
from metaformer.dense.config import get_dense_config
from metaformer.dense.make import make_dense
from metaformer.lab.jobs import resolve
from metaformer.recipes import OBJECTS
from metaformer.runs import Run, open_run
from metaformer.train.checkpoint import Progress
from metaformer.train.optim import learning_rate, make_optimizer
from metaformer.train.parts import choose_parts, training_mode
from metaformer.train.step import accumulate
from metaformer.train.train import prepare
from metaformer.weights.pretrained import save_pretrained

pytestmark = pytest.mark.usefixtures("thread")
ROOT = Path(__file__).parents[2]


def trained(head: str, root: Path, **settings: Any) -> Run:
    data = data_for(head, root)
    return metaformer.train(MODELS[head], data=data, root=root, name=head, quiet=True, **(QUICK | settings))


@pytest.mark.parametrize("head", ["retinanet", "semantic_fpn", pytest.param("mask_rcnn", marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_goes_on_exactly(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(head, tmp_path / "whole", drop_path=0.2)
    after_steps(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        trained(head, tmp_path / "again", drop_path=0.2)
    path = tmp_path / "again" / head
    assert (Progress(**torch.load(path / "last" / "training.pt")["progress"]).step) in (2, 3)
    stopped = metaformer.train(path, quiet=True)
    assert same(weights(whole.last), weights(stopped.last))
    assert same(weights(whole.best), weights(stopped.best))
    assert timeless(whole.metrics) == timeless(stopped.metrics)


@pytest.mark.parametrize(
    ("head", "keys"), [("retinanet", ("box_ap", "box_ap50")), ("semantic_fpn", ("miou",))]
)  # fmt: skip
def test_a_run_says_what_it_reached(head: str, keys: tuple[str, ...], tmp_path: Path) -> None:
    run = trained(head, tmp_path, epochs=1)
    (line,) = run.metrics
    assert all(0 <= line[key] <= 100 for key in keys)
    assert ("val_loss" in line) == (head == "semantic_fpn")
    assert run.recipe.recipe == ("regions" if head == "semantic_fpn" else "objects")
    names = {path.name for path in run.path.iterdir()}
    assert {"report.html", "curves.png", "predictions.png", "evaluation.json", "log.txt", "best", "last"} <= names
    assert ("results.json" in names) == (head == "retinanet")
    told = json.loads((run.path / "evaluation.json").read_text())
    found = told["miou"] if head == "semantic_fpn" else told["box"]["ap"]
    assert 100 * (found or 0.0) == pytest.approx(line[keys[0]], abs=1e-9)


@pytest.mark.parametrize("head", ["retinanet", "semantic_fpn"])
def test_parts_of_a_batch_give_the_same_gradient(head: str, tmp_path: Path) -> None:
    recipe, data = resolve(MODELS[head], {"data": data_for(head, tmp_path), **QUICK, "batch": 16, "drop_path": 0.0}, quiet=True)
    fit = prepare(replace(recipe, head_dropout=0.0), data, None)
    (batch,) = list(fit.train.epoch(0))
    assert isinstance(batch, DenseBatch)
    model, found = fit.state.model.double().train(), []
    for parts in (1, 2, 4):
        model.zero_grad()
        _, count = accumulate(model, fit.task, batch.parts(parts))
        assert count == (len(batch) if head == "retinanet" else sum(int((truth != 255).sum()) for truth in batch.truths))
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("head", ["retinanet", "semantic_fpn"])
def test_no_images_are_no_loss_and_a_gradient_for_all(head: str, tmp_path: Path) -> None:
    recipe, data = resolve(MODELS[head], {"data": data_for(head, tmp_path), **QUICK}, quiet=True)
    fit = prepare(recipe, data, None)
    model = fit.state.model
    nobody = DenseBatch([], [], torch.zeros(0, dtype=torch.int64))
    loss, count = accumulate(model, fit.task, [nobody])
    assert (loss.item(), count) == (0.0, 0)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad)


def test_the_last_stages_and_the_head_learn() -> None:
    model = make_dense(get_dense_config(MODELS["retinanet"], num_classes=2, **{key: _plain(CHANGES[key]) for key in CHANGES}))
    (said,) = choose_parts(model, Recipe(model="x", learn="last:1"))
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert said.startswith("learn=last:1: ")
    assert {name.split(".")[3] for name in learning if name.startswith("backbone.body.stages.")} == {"3"}
    assert any(name.startswith("fpn.") for name in learning)
    assert any(name.startswith("backbone.norms.") for name in learning)
    training_mode(model, Recipe(model="x", learn="last:1"))
    assert model.training


def _plain(text: str) -> Any:
    return int(text) if text.isdecimal() else text


def test_layers_of_a_backbone_learn_slower_the_deeper_they_lie() -> None:
    model = make_dense(get_dense_config(MODELS["retinanet"], num_classes=2, **{key: _plain(CHANGES[key]) for key in CHANGES}))
    groups = make_optimizer(model, Recipe(model="x", layer_decay=0.5)).param_groups
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    of = {name: scales[id(p)] for name, p in model.named_parameters()}
    assert {scale for name, scale in of.items() if not name.startswith("backbone.body.")} == {1.0}
    assert {scale for name, scale in of.items() if name.startswith("backbone.body.stages.3.blocks.0")} == {0.5}
    assert {scale for name, scale in of.items() if name.startswith("backbone.body.stages.0.blocks.0")} == {0.5**4}


def test_a_backbone_of_timms_is_one_layer() -> None:
    model = make_dense(get_dense_config("retinanet/timm:test_resnet", num_classes=2, channels=16, head_channels=16))
    groups = make_optimizer(model, Recipe(model="x", layer_decay=0.5)).param_groups
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert scales[id(parameter)] == (0.5 if name.startswith("backbone.body.") else 1.0), name


def test_schedules_as_published() -> None:
    steps = replace(OBJECTS, schedule="steps", epochs=12, warmup_epochs=0.0, lr=1.0)
    assert [round(learning_rate(steps, epoch * 10 + 9, 10), 9) for epoch in (0, 7, 8, 10, 11)] == [1.0, 1.0, 0.1, 0.1, 0.01]
    poly = replace(OBJECTS, schedule="poly", epochs=10, warmup_epochs=0.0, lr=1.0, min_lr=0.0)
    assert learning_rate(poly, 0, 10) == 1.0
    assert learning_rate(poly, 33, 10) == pytest.approx((1 - 33 / 99) ** 0.9)
    assert learning_rate(poly, 99, 10) == 0.0


def test_keys_of_pictures_are_heard(tmp_path: Path) -> None:
    settings = {"data": objects(tmp_path), **QUICK}
    recipe, data = resolve(MODELS["retinanet"], settings, quiet=True)
    assert [step.probability for step in prepare(recipe, data, None).train.view.steps if isinstance(step, Flip)] == [0.5]
    fit = prepare(replace(recipe, flip=0.25, augment="coco", checkpointing=True), data, None)
    kinds = [type(step).__name__ for step in fit.train.view.steps]
    assert kinds == ["ShortSide", "Flip"]
    assert [step.probability for step in fit.train.view.steps if isinstance(step, Flip)] == [0.25]
    assert fit.state.model.checkpointing
    assert fit.about["shown"] == {"short": 64, "long": 106}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"mixup": 0.5}, "mixup=0.5 is for classifiers, and retinanet/poolformerv2_t6 finds objects or regions: leave it out"),
        ({"compile": True}, "compile=true is for classifiers, and retinanet/poolformerv2_t6 finds objects or regions"),
        ({"start_size": 32}, "start_size=32 is for classifiers, and retinanet/poolformerv2_t6 finds objects or regions"),
        ({"image_size": 31}, "image_size=31 is too small for retinanet/poolformerv2_t6: 32 at least"),
        ({"recipe": "small"}, "recipe=small is for classifiers, and retinanet/poolformerv2_t6 finds objects: leave it out for"),
        ({"head_dropout": 0.1}, "head_dropout=0.1 is for segmenters and classifiers: leave it out"),
        ({"changes": {"num_classes": "7"}}, "model.num_classes follows from the data: leave it out"),
        ({"weights": "timm"}, "weights=timm are for backbones of timm's, and poolformerv2_t6 is ours: weights=in1k"),
        ({"changes": {"stem_strides": "2"}}, "did you mean stem_stride?"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    recipe, data = resolve(MODELS["retinanet"], {"data": objects(tmp_path), **QUICK}, quiet=True)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        prepare(replace(recipe, **settings), data, None)


def test_a_classifier_is_told_what_finds_objects(tmp_path: Path) -> None:
    data = objects(tmp_path)
    with pytest.raises(ValueError, match=r"has objects, and caformer_t6 calls whole images: retinanet/caformer_t6 "):
        metaformer.train("caformer_t6", data=data, root=tmp_path, quiet=True)
    with pytest.raises(ValueError, match=r"has regions, and caformer_t6 calls whole images: semantic_fpn/caformer_t6 "):
        metaformer.train("caformer_t6", data="masks:anywhere", root=tmp_path, quiet=True)
    with pytest.raises(ValueError, match=r"^data=digits has no objects and no regions; allowed: coco:PATH"):
        metaformer.train(MODELS["retinanet"], data="digits", root=tmp_path, quiet=True)


def test_weights_bring_their_normalisation(tmp_path: Path) -> None:
    recipe, data = resolve(MODELS["retinanet"], {"data": objects(tmp_path), **QUICK}, quiet=True)
    changes = {key: _plain(text) for key, text in CHANGES.items()}
    own = {"num_classes": 2, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)} | changes
    save_pretrained(make_dense(get_dense_config(MODELS["retinanet"], **own)), tmp_path / "whole")
    went_on = prepare(replace(recipe, weights=str(tmp_path / "whole")), data, None).state.model.config
    assert (went_on.mean, went_on.std) == (own["mean"], own["std"])
    assert create_model(MODELS["retinanet"], weights=tmp_path / "whole", **changes).config.mean == own["mean"]
    save_pretrained(
        create_model("poolformerv2_t6", num_classes=2, dims=changes["dims"], depths=changes["depths"]),
        tmp_path / "classifier",
        {"preprocess": {"size": 32, "mean": [0.7, 0.7, 0.7], "std": [0.2, 0.2, 0.2]}},
    )
    begun = prepare(replace(recipe, weights=str(tmp_path / "classifier")), data, None).state.model.config
    assert begun.mean == (0.7, 0.7, 0.7)
    told = prepare(replace(recipe, weights=str(tmp_path / "whole"), normalise="data"), data, None).state.model.config
    assert told.mean == pytest.approx(data.mean)


def test_weights_of_another_head_are_refused(tmp_path: Path) -> None:
    recipe, data = resolve(MODELS["retinanet"], {"data": objects(tmp_path), **QUICK}, quiet=True)
    other = make_dense(get_dense_config(MODELS["semantic_fpn"], num_classes=2, dims=(8, 8, 16, 16), depths=(1, 1, 1, 1)))
    save_pretrained(other, tmp_path / "other")
    with pytest.raises(ValueError, match=r"other are of semantic_fpn, and retinanet/poolformerv2_t6 takes those of "):
        prepare(replace(recipe, weights=str(tmp_path / "other")), data, None)


def test_pixels_are_normalised_by_the_data_and_a_run_keeps_that(tmp_path: Path) -> None:
    recipe, data = resolve(MODELS["retinanet"], {"data": objects(tmp_path), **QUICK}, quiet=True)
    own, imagenet = (prepare(replace(recipe, normalise=way), data, None) for way in (recipe.normalise, "imagenet"))
    assert own.state.model.config.mean == pytest.approx(data.mean)
    assert imagenet.state.model.config.mean == (0.485, 0.456, 0.406)
    colours = [fit.train.view.colour for fit in (own, imagenet)]  # where a mosaic has no image: 0 once it is normalised
    assert colours == [tuple(round(255 * channel) for channel in data.mean), (124, 116, 104)]
    assert colours[0] != colours[1]


def test_a_split_that_was_drawn_is_written_and_kept(tmp_path: Path) -> None:
    run = trained("retinanet", tmp_path, epochs=1)
    parts = dict(line.split(",") for line in (run.path / "split.csv").read_text().splitlines()[1:])
    again = open_dense(run.recipe.data, regions=False, seed=99, split=run.path / "split.csv")
    assert sorted(name for name, part in parts.items() if part == "val") == sorted(map(str, again.val.names))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["retinanet", "semantic_fpn"])
def test_two_processes_learn_and_judge_as_one(head: str, tmp_path: Path) -> None:
    settings = {"drop_path": 0.0, "head_dropout": 0.0, "accumulate": 2, "epochs": 3}
    alone = trained(head, tmp_path / "one", **settings)
    words = pairs(QUICK | settings | {"data": alone.recipe.data, "name": head, "root": tmp_path / "two", "devices": 2})
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "metaformer", "train", MODELS[head], *words]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    both = open_run(tmp_path / "two" / head)
    one, two = weights(alone.last), weights(both.last)
    assert max((one[key].double() - two[key].double()).abs().max().item() for key in one) <= 1e-5
    for line, other in zip(alone.metrics, both.metrics, strict=True):
        assert {key: line[key] for key in line if key in ("box_ap", "miou")} == pytest.approx(
            {key: other[key] for key in other if key in ("box_ap", "miou")}, abs=1e-3
        )
