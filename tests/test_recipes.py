"""The recipes: each names a model and repeats from its JSON; the default one does what we say of it."""

from pathlib import Path

import pytest

import metaformer
from metaformer import recipes
from metaformer.config import Recipe

RECIPES = {name: value for name, value in vars(recipes).items() if isinstance(value, Recipe)}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_whole(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.model in metaformer.list_models()
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.warmup_epochs < recipe.epochs
    assert recipe.warmup_lr < recipe.min_lr < recipe.lr


def test_default() -> None:
    assert recipes.DEFAULT.to_dict() == {
        "schema": 1, "model": "caformer_t6", "changes": {}, "data": "digits", "image_size": None,
        "epochs": 20, "batch": 64, "accumulate": 1, "seed": 0,
        "lr": 2e-3, "warmup_epochs": 2.0, "warmup_lr": 1e-6, "min_lr": 1e-5, "weight_decay": 0.05, "clip": 1.0,
        "drop_path": 0.05, "head_dropout": 0.0, "label_smoothing": 0.1, "flip": None, "pad": 0.125, "device": "auto",
    }  # fmt: skip


@pytest.mark.slow
def test_default_reads_digits(tmp_path: Path) -> None:
    run = metaformer.train("caformer_t6", root=tmp_path, quiet=True)
    assert max(line["top1"] for line in run.metrics) >= 97
    assert metaformer.evaluate(run.path).top1 >= 0.97
