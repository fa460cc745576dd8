"""The recipes: each names a model and repeats from its JSON; the small one does what we say of it."""

from pathlib import Path

import pytest

import metaformer
from metaformer.config import Recipe
from metaformer.recipes import RECIPES, SMALL


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_whole(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.model in metaformer.list_models()
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.warmup_epochs < recipe.epochs
    assert recipe.warmup_lr < recipe.min_lr < recipe.lr


def test_small_is_the_default() -> None:
    assert Recipe(model="caformer_t6") == SMALL
    assert SMALL.to_dict() == {
        "schema": 1, "model": "caformer_t6", "recipe": "small", "changes": {}, "data": "digits",
            "image_size": None, "fit": "squash",
        "epochs": 20, "batch": 64, "accumulate": 1, "seed": 0,
        "optimizer": "adamw", "lr": 2e-3, "warmup_epochs": 2.0, "warmup_lr": 1e-6, "min_lr": 1e-5,
        "weight_decay": 0.05, "clip": 1.0, "ema": None,
        "drop_path": 0.05, "head_dropout": 0.0, "label_smoothing": 0.1, "crop": None, "pad": 0.125, "flip": None,
        "randaugment": None, "erase": 0.0, "mixup": 0.0, "cutmix": 0.0,
        "device": "auto", "precision": "auto", "compile": False, "workers": None,
    }  # fmt: skip


@pytest.mark.slow
def test_small_reads_digits(tmp_path: Path) -> None:
    run = metaformer.train("caformer_t6", root=tmp_path, quiet=True)
    assert max(line["top1"] for line in run.metrics) >= 97
    assert metaformer.evaluate(run.path).top1 >= 97
