"""The recipes: the papers' figures by value, timm's own functions where they are the origin, and a smoke test of each row."""

import math
import re
from dataclasses import FrozenInstanceError, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.scened import data_for
from tests.tiny import command, one_core
from torch import nn

import metaformer
from metaformer import MetaFormer
from metaformer.config import Recipe
from metaformer.core.layers import DropPath
from metaformer.data.augment import Augment, View, _rand_augment
from metaformer.data.preprocess import Preprocess
from metaformer.lab import jobs
from metaformer.recipes import RECIPES, ROWS, SMALL
from metaformer.train.optim import learning_rate, make_optimizer
from metaformer.weights.catalogue import MEAN, STD, find
from metaformer.zoo import DENSE_SCORES, TOP1, get_config

# --- typed from the papers' tables and scripts ------------------------------------------------------------------------

COMMON = {
    "epochs": 300, "min_lr": 1e-5, "warmup_lr": 1e-6, "weight_decay": 0.05, "label_smoothing": 0.1, "mixup": 0.8,
    "cutmix": 1.0, "erase": 0.25, "flip": 0.5, "crop": 0.08, "pad": 0.0, "ema": None, "schedule": "epochwise",
    "randaugment": "rand-m9-mstd0.5-inc1", "normalise": "imagenet", "fit": "crop", "image_size": 224,
    "data": "imagenet-1k", "weights": None, "accumulate": 1,
}  # fmt: skip
ADAMW_V1 = {"optimizer": "adamw", "lr": 1e-3, "batch": 1024, "warmup_epochs": 5, "clip": None}
ADAMW_V2 = {"optimizer": "adamw", "lr": 4e-3, "batch": 4096, "warmup_epochs": 5, "clip": None}
ADAMW_CONV = ADAMW_V2 | {"warmup_epochs": 20}
LAMB_CA = {"optimizer": "lamb", "lr": 8e-3, "batch": 4096, "warmup_epochs": 20, "clip": 1.0}
FIVE, FOUR = ("s12", "s24", "s36", "m36", "m48"), ("s18", "s36", "m36", "b36")
# fmt: off
SCRATCH: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[float, ...], tuple[float, ...], tuple[float, ...]]] = {
    # family          optimizer   sizes  drop path               head dropout    top-1
    "poolformer":     (ADAMW_V1,   FIVE, (.1, .1, .2, .3, .4),   (0,) * 5,       (77.2, 80.3, 81.4, 82.1, 82.5)),
    "identityformer": (ADAMW_V2,   FIVE, (.1, .1, .2, .3, .4),   (0,) * 5,       (74.6, 78.2, 79.3, 80.0, 80.4)),
    "randformer":     (ADAMW_V2,   FIVE, (.1, .1, .2, .3, .3),   (0,) * 5,       (76.6, 78.2, 79.5, 81.2, 81.4)),
    "poolformerv2":   (ADAMW_V2,   FIVE, (.1, .1, .2, .3, .4),   (0,) * 5,       (78.0, 80.7, 81.6, 82.2, 82.6)),
    "convformer":     (ADAMW_CONV, FOUR, (.2, .3, .4, .6),       (0,) * 4,       (83.0, 84.1, 84.5, 84.8)),
    "caformer":       (LAMB_CA,    FOUR, (.15, .3, .4, .6),      (0, .4, .4, .5), (83.6, 84.5, 85.2, 85.5)),
}
TUNED = COMMON | {
    "epochs": 30, "batch": 1024, "schedule": "constant", "warmup_epochs": 0.0, "mixup": 0.0, "cutmix": 0.0, "ema": 0.9999,
    "ema_warmup": False,
}
FINE: dict[str, tuple[dict[str, Any], tuple[float, ...], tuple[float, ...], tuple[tuple[float, ...], ...]]] = {
    # family      optimizer                                           drop path          head dropout
    "convformer": ({"optimizer": "adamw", "lr": 5e-5, "clip": None}, (.3, .5, .8, .8),  (.4, .4, .5, .5),
                   ((84.4, 85.4, 85.6, 85.7), (83.7, 85.4, 86.1, 87.0), (85.0, 86.4, 86.9, 87.6))),
    "caformer":   ({"optimizer": "lamb", "lr": 1e-4, "clip": 1.0},   (.3, .5, .7, .8),  (.4, .4, .4, .5),
                   ((85.0, 85.7, 86.2, 86.4), (84.1, 85.8, 86.6, 87.4), (85.4, 86.9, 87.5, 88.1))),
}
# fmt: on
STARTS = {"in1k_384": ("in1k", 384), "in21k_ft_in1k": ("in21k", 224), "in21k_ft_in1k_384": ("in21k", 384)}


def expected() -> dict[str, tuple[dict[str, Any], float | None]]:
    """Settings and top-1 of every row of the papers, by the row's name."""
    found: dict[str, tuple[dict[str, Any], float | None]] = {}
    for family, (optimizer, sizes, drops, heads, tops) in SCRATCH.items():
        for size, drop, head, top in zip(sizes, drops, heads, tops, strict=True):
            crop = (0.95 if size in ("m36", "m48") else 0.9) if family == "poolformer" else 1.0
            own = {"drop_path": drop, "head_dropout": head, "crop_fraction": crop, "model": f"{family}_{size}"}
            found[f"{family}_{size}.in1k"] = (COMMON | optimizer | own, top)
    for family, (optimizer, drops, heads, tops) in FINE.items():
        for (tag, (start, pixels)), row in zip(STARTS.items(), tops, strict=True):
            for size, drop, head, top in zip(FOUR, drops, heads, row, strict=True):
                own = {"drop_path": drop, "head_dropout": head, "crop_fraction": 1.0, "model": f"{family}_{size}"}
                found[f"{family}_{size}.{tag}"] = (
                    TUNED | optimizer | own | {"weights": start, "image_size": pixels}, top
                )  # fmt: skip
    for family, optimizer in (("convformer", ADAMW_CONV), ("caformer", LAMB_CA)):
        for size, drop in zip(FOUR, (0.0, 0.1, 0.2, 0.3), strict=True):
            own = {"epochs": 90, "warmup_epochs": 5, "drop_path": drop, "head_dropout": 0.0, "crop_fraction": 1.0}
            own |= {"data": "imagenet-21k", "model": f"{family}_{size}"}
            found[f"{family}_{size}.in21k"] = (COMMON | optimizer | own, None)
    return found


EXPECTED = expected()
PAPERS = list(EXPECTED)

COCO = {
    "image_size": 800, "augment": "coco", "epochs": 12, "batch": 16, "optimizer": "adamw", "lr": 1e-4, "schedule": "steps",
    "weight_decay": 1e-4, "clip": None, "ema": None, "drop_path": 0.0, "head_dropout": 0.0, "weights": "in1k",
    "normalise": "imagenet", "layer_decay": 1.0, "flip": None, "warmup_lr": 1e-7,
}  # fmt: skip
ADE20K = COCO | {
    "image_size": 512, "augment": "ade20k", "epochs": 63, "batch": 32, "lr": 2e-4, "schedule": "poly", "min_lr": 0.0,
    "warmup_epochs": 0.0, "head_dropout": 0.1,
}  # fmt: skip
DENSE = {
    **{f"retinanet/poolformer_{size}.coco": COCO for size in ("s12", "s24", "s36")},
    **{f"mask_rcnn/poolformer_{size}.coco": COCO | {"lr": 2e-4, "warmup_lr": 2e-7} for size in ("s12", "s24", "s36")},
    **{f"semantic_fpn/poolformer_{size}.ade20k": ADE20K for size in FIVE},
}


def test_the_rows_are_the_papers_and_four_of_ours() -> None:
    assert len(PAPERS) == 28 + 3 * 8 + 8
    assert set(ROWS) == {"small", "photos", "objects", "regions", *PAPERS, *DENSE}
    assert list(RECIPES) == list(ROWS)


@pytest.mark.parametrize("name", PAPERS)
def test_figures_by_value(name: str) -> None:
    settings, top1 = EXPECTED[name]
    row = ROWS[name]
    assert {key: getattr(row.recipe, key) for key in settings} == settings
    assert row.recipe.recipe == name
    assert row.expected == top1
    left = {field.name for field in fields(Recipe)} - settings.keys() - {"recipe"}
    plain = Recipe(model="x")
    assert all(getattr(row.recipe, key) == getattr(plain, key) for key in left)
    ours = "21k" in name
    assert row.source.startswith(
        "our choice" if ours else "arXiv 2111.11418" if name[:11] == "poolformer_" else "arXiv 2210.13452"
    )


@pytest.mark.parametrize("name", DENSE)
def test_figures_of_detectors_and_segmenters_by_value(name: str) -> None:
    row = ROWS[name]
    assert {key: getattr(row.recipe, key) for key in DENSE[name]} == DENSE[name]
    assert (row.recipe.model, row.recipe.recipe) == (name.partition(".")[0], name)
    assert row.expected == DENSE_SCORES[row.recipe.model][-1]
    if "coco" in name:  # 117,266 of its images to learn from have objects
        assert row.recipe.warmup_epochs * 117_266 / 16 == pytest.approx(500, abs=5)
    else:
        assert row.recipe.epochs * (20_210 / 32) == pytest.approx(40_000, rel=0.01)


@pytest.mark.parametrize("name", PAPERS)
def test_expected_accuracy_is_that_of_the_published_weights(name: str) -> None:
    model, _, tag = name.partition(".")
    assert ROWS[name].expected == find(model, tag).top1
    assert ROWS[name].recipe.crop_fraction == find(model, tag).crop_fraction
    assert tag != "in1k" or ROWS[name].expected == TOP1[model][0]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_whole(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.model in (*metaformer.list_models(), *metaformer.list_models("*/*"))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.warmup_epochs < recipe.epochs
    assert recipe.schedule in ("steps", "poly") or recipe.warmup_lr < recipe.min_lr < recipe.lr
    with pytest.raises(FrozenInstanceError):
        ROWS[name].source = "elsewhere"  # frozen: that is the test
    with pytest.raises(FrozenInstanceError):
        recipe.lr = 1.0  # frozen too


# --- against timm, where the papers' runs have them from --------------------------------------------------------------


@lru_cache(maxsize=1)
def on_paper(model: str, drop_path: float, head_dropout: float) -> MetaFormer:
    """The model without its numbers."""
    with torch.device("meta"):
        return MetaFormer(get_config(model, drop_path=drop_path, head_dropout=head_dropout))


def built(name: str) -> MetaFormer:
    recipe = RECIPES[name]
    return on_paper(recipe.model, recipe.drop_path, recipe.head_dropout)


SCRATCH_ROWS = [name for name in PAPERS if name.endswith((".in1k", ".in21k"))]


@pytest.mark.parametrize("name", SCRATCH_ROWS)
@pytest.mark.parametrize("steps", [1, 312])
def test_learning_rate_of_every_epoch_is_timms(name: str, steps: int) -> None:
    from timm.scheduler import create_scheduler_v2

    recipe = RECIPES[name]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    scheduler, epochs = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=recipe.epochs, min_lr=recipe.min_lr, warmup_lr=recipe.warmup_lr,
        warmup_epochs=int(recipe.warmup_epochs),
    )  # fmt: skip
    assert epochs == recipe.epochs == (300 if name.endswith(".in1k") else 90)  # 300 are 300: no cool-down of ten more
    for epoch in range(epochs):
        scheduler.step(epoch)
        theirs = optimizer.param_groups[0]["lr"]
        for step in (epoch * steps, epoch * steps + steps - 1):
            assert learning_rate(recipe, step, steps) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "epoch", "lr"),
    [
        ("poolformer_s12.in1k", 0, 1e-6),
        ("poolformer_s12.in1k", 1, 1e-6 + (1e-3 - 1e-6) / 5),
        ("caformer_b36.in1k", 19, 1e-6 + (8e-3 - 1e-6) * 19 / 20),
        ("caformer_b36.in1k", 20, 1e-5 + (8e-3 - 1e-5) * 0.98907380),
        ("convformer_s18.in1k", 150, (4e-3 + 1e-5) / 2),
        ("convformer_s18.in1k", 299, 1e-5 + (4e-3 - 1e-5) * (1 - math.cos(math.pi / 300)) / 2),
        ("convformer_m36.in1k_384", 0, 5e-5),
        ("caformer_m36.in1k_384", 29, 1e-4),
    ],
)
def test_learning_rate_by_value(name: str, epoch: int, lr: float) -> None:
    assert learning_rate(RECIPES[name], epoch * 10 + 7, 10) == pytest.approx(lr, rel=1e-7)


@pytest.mark.parametrize("name", PAPERS)
def test_drop_path_rises_over_the_blocks_and_the_head_drops(name: str) -> None:
    recipe, model = RECIPES[name], built(name)
    rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
    blocks = sum(model.config.depths)
    assert rates == pytest.approx([recipe.drop_path * i / (blocks - 1) for i in range(blocks) for _ in range(2)])
    (dropout,) = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert dropout == recipe.head_dropout


@pytest.mark.parametrize("name", [name for name in PAPERS if name.endswith((".in1k", ".in1k_384"))])
def test_weight_decay_and_optimizer_are_timms(name: str) -> None:
    from timm.optim import create_optimizer_v2
    from timm.optim._param_groups import param_groups_weight_decay

    recipe, model = RECIPES[name], built(name)
    ours = make_optimizer(model, recipe)
    theirs = create_optimizer_v2(
        param_groups_weight_decay(model, recipe.weight_decay), opt=recipe.optimizer, lr=recipe.lr,
        eps=1e-6 if recipe.optimizer == "lamb" else 1e-8,
    )  # fmt: skip
    assert type(ours) is type(theirs)
    groups = [{g["weight_decay"]: {id(p) for p in g["params"]} for g in made.param_groups} for made in (ours, theirs)]
    assert groups[0] == groups[1]
    assert {0.0, 0.05} == groups[0].keys()
    same = ("lr", "betas", "eps") + (("max_grad_norm", "always_adapt", "trust_clip") if recipe.optimizer == "lamb" else ())
    assert [ours.defaults[key] for key in same] == [theirs.defaults[key] for key in same]
    if recipe.optimizer == "lamb":
        assert (ours.defaults["max_grad_norm"], ours.defaults["eps"], ours.defaults["always_adapt"]) == (1.0, 1e-6, False)


@pytest.mark.parametrize("name", PAPERS)
def test_augmentation_is_timms(name: str) -> None:
    from timm.data import create_transform
    from timm.data.random_erasing import RandomErasing

    recipe = RECIPES[name]
    assert recipe.image_size is not None
    flow = create_transform(
        recipe.image_size, is_training=True, color_jitter=0.4, auto_augment="rand-m9-mstd0.5-inc1", interpolation="random",
        re_prob=0.25, re_mode="pixel", re_count=1,
    )  # fmt: skip
    crop, flip, theirs, *_, erasing = flow.transforms
    assert (crop.scale, crop.ratio) == ((recipe.crop, 1.0), (3 / 4, 4 / 3))
    assert flip.p == recipe.flip
    assert isinstance(erasing, RandomErasing)
    assert (erasing.probability, erasing.min_area, erasing.max_area) == (recipe.erase, 0.02, 1 / 3)
    assert recipe.randaugment is not None
    preprocess = Preprocess(recipe.image_size, MEAN, STD)
    ours = _rand_augment(recipe.randaugment, preprocess.size, preprocess.mean)
    assert ours.num_layers == theirs.num_layers == 2
    assert [operation.name for operation in ours.ops] == [operation.name for operation in theirs.ops]
    assert len(ours.ops) == 15
    for one, other in zip(ours.ops, theirs.ops, strict=True):
        assert (
            (one.prob, one.magnitude, one.magnitude_std) == (other.prob, other.magnitude, other.magnitude_std) == (0.5, 9, 0.5)
        )
        assert (one.hparams, one.kwargs) == (other.hparams, other.kwargs)
        assert one.level_fn is other.level_fn
    augment = Augment.of(recipe, mirrors=True)
    assert (augment.mixup, augment.cutmix) == ((0.0, 0.0) if recipe.weights else (0.8, 1.0))
    assert (augment.erase, augment.flip, augment.pad) == (0.25, 0.5, 0.0)
    View(preprocess, recipe.crop, recipe.randaugment, 0)


def test_smoothed_and_mixed_targets_are_timms() -> None:
    import torch.nn.functional as F
    from timm.data.mixup import mixup_target
    from timm.loss import SoftTargetCrossEntropy

    from metaformer.data.batch import Batch
    from metaformer.tasks.classification import Classification

    recipe = RECIPES["caformer_s18.in1k"]
    logits, labels = torch.randn(6, 10, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 3, 9, 1, 2])
    task = Classification(tuple("0123456789"), recipe.label_smoothing)
    ours = task.loss_sum(nn.Identity(), Batch(logits, labels, labels.flip(0), 0.3)) / 6
    theirs = SoftTargetCrossEntropy()(logits, mixup_target(labels, 10, 0.3, 0.1))
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(ours, F.cross_entropy(logits, labels))


# --- every row runs ---------------------------------------------------------------------------------------------------

QUICK = {
    "poolformer_s12.in1k", "identityformer_s12.in1k", "randformer_s12.in1k", "poolformerv2_s12.in1k", "convformer_s18.in1k",
    "caformer_s18.in1k", "convformer_b36.in1k_384", "caformer_b36.in21k", "caformer_s18.in21k_ft_in1k", "photos",
    "semantic_fpn/poolformer_s12.ade20k",
}  # fmt: skip
SHRUNK = {
    "model",
    "data",
    "changes",
    "image_size",
    "weights",
    "workers",
    "epochs",
    "warmup_epochs",
    "batch",
    "smoke",
    "precision",
}


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ROWS])
def test_every_row_smokes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "report", lambda *_: None)
    recipe = RECIPES[name]
    head, slash, _ = recipe.model.partition("/")
    data = data_for(head, tmp_path / "data") if slash else "digits"
    with one_core():
        run = metaformer.train(recipe.model, recipe=name, data=data, smoke=True, root=tmp_path, quiet=True)
    assert run.finished
    assert run.path.name == f"smoke-{recipe.model.replace('/', '-')}-{Path(data).name}"
    kept = {field.name for field in fields(Recipe)} - SHRUNK - {"flip"}
    assert {key: getattr(run.recipe, key) for key in kept} == {key: getattr(recipe, key) for key in kept}
    assert run.recipe.smoke
    steps = -(-(9 if slash else 16) // int(run.recipe.batch))
    rates = [learning_rate(run.recipe, steps * (epoch + 1) - 1, steps) for epoch in range(3)]
    assert [line["lr"] for line in run.metrics] == pytest.approx(rates)
    for line in run.metrics:
        assert math.isfinite(line["train_loss"] + line.get("val_loss", 0.0) + line["gradient_norm"])
    assert "SMOKE TEST" in (run.path / "log.txt").read_text()


def test_a_smoke_test_is_loud_short_and_stays_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "report", lambda *_: None)
    with one_core():
        code, out, err = command("train", "caformer_b36", "recipe=caformer_b36.in1k", "smoke=true")
        assert (code, err) == (0, "")
        assert (
            "SMOKE TEST: a shrunk model, from no weights, on a few images; batch=8 and no hours= whatever was said; NO FIGURE"
            in out
        )
        assert "16 images to learn, 16 to judge" in out
        path = "runs/smoke-caformer_b36-digits"
        code, _, err = command("train", f"{path}/recipe.json", "smoke=false")
        meant = "train caformer_b36 with recipe=caformer_b36.in1k"
        assert (code, err) == (2, f"metaformer: {path}/recipe.json is a smoke test's, of a shrunk model: {meant}\n")
        code, out, _ = command("train", f"{path}/recipe.json", "name=again")
        assert code == 0
    assert metaformer.Run(Path("runs/again")).recipe == metaformer.Run(Path(path)).recipe
    code, _, err = command("train", "caformer_b36", f"weights={path}", "data=digits", "name=real")
    assert code == 2
    assert err.startswith("metaformer: these weights do not fit")
    assert not Path("runs/real").exists()


# --- how they are shown -----------------------------------------------------------------------------------------------


def test_recipes_are_lines_or_one_column() -> None:
    code, out, err = command("recipes", "caformer_b36*")
    assert (code, err) == (0, "")
    lines = [re.split(r"\s{2,}", line) for line in out.splitlines()]
    assert lines[1][:12] == [
        "caformer_b36.in1k", "lamb", "0.008", "4096", "300", "20", "0.6", "0.5", "–", "224", "85.5", "–"
    ]  # fmt: skip
    assert lines[2][:12] == [
        "caformer_b36.in1k_384", "lamb", "0.0001", "1024", "30", "0", "0.8", "0.5", "0.9999", "384", "86.4", "in1k"
    ]  # fmt: skip
    code, out, err = command("recipes", "caformer_b36.in1k")
    assert (code, err) == (0, "")
    column = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (column["randaugment"], column["clip"], column["source"]) == (
        "rand-m9-mstd0.5-inc1", "1", "arXiv 2210.13452, section 3"
    )  # fmt: skip
    assert command("recipes", "caformr_b36.in1k")[::2] == (
        2,
        "metaformer: no recipe 'caformr_b36.in1k', did you mean caformer_b36.in1k?\n  metaformer recipes caformer_b36.in1k\n",
    )


def test_small_is_the_default() -> None:
    assert Recipe(model="caformer_t6") == SMALL
    assert SMALL.to_dict() == {
        "schema": 1, "model": "caformer_t6", "recipe": "small", "weights": None, "changes": {}, "data": "digits",
        "labels": "auto", "image_size": None, "start_size": None, "augment": "objects",
        "fit": "squash", "crop_fraction": None, "normalise": "auto",
        "learn": "all", "freeze_norms": False, "layer_decay": 1.0,
        "epochs": 20, "patience": None, "hours": None, "save_minutes": 10.0,
        "batch": 64, "accumulate": 1, "checkpointing": False, "keep": 0, "seed": 0, "smoke": False,
        "optimizer": "adamw", "lr": 2e-3, "schedule": "cosine", "warmup_epochs": 2.0, "warmup_lr": 1e-6, "min_lr": 1e-5,
        "weight_decay": 0.05, "clip": 1.0, "ema": None, "ema_warmup": True, "nonfinite": "stop",
        "drop_path": 0.05, "head_dropout": 0.0, "label_smoothing": 0.1, "crop": None, "pad": 0.125, "flip": None,
        "randaugment": None, "erase": 0.0, "mixup": 0.0, "cutmix": 0.0,
        "class_weights": "none", "sampling": "shuffle",
        "teacher": None, "distill": "soft", "distill_weight": 0.5, "distill_temperature": 3.0,
        "device": "auto", "precision": "auto", "deterministic": False, "compile": False, "workers": None, "window": None,
        "log": None,
    }  # fmt: skip


@pytest.mark.slow
def test_small_reads_digits(tmp_path: Path) -> None:
    run = metaformer.train("caformer_t6", root=tmp_path, quiet=True)
    assert max(line["top1"] for line in run.metrics) >= 97
    assert metaformer.evaluate(run.path).top1 >= 97
