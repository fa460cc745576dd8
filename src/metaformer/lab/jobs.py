"""`train`: the whole job, from a name to a run directory with its pictures."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from metaformer.config import Recipe, read_json, revise
from metaformer.core.model import MetaFormer
from metaformer.core.spec import nearest
from metaformer.data.sources import open_data
from metaformer.lab.report import report
from metaformer.recipes import RECIPES
from metaformer.runs import Run, is_run, no_run, open_run
from metaformer.train.display import Watch
from metaformer.train.train import CUSTOM, go_on, report_finished, start
from metaformer.weights.peers import PREFIX, Peer
from metaformer.weights.pretrained import Model
from metaformer.zoo import ZOO, get_config


def train(
    model: str | Path | Model,
    *,
    name: str | None = None,
    root: str | Path = "runs",
    resume: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Trains a classifier and returns its run directory `root/name`, pictures included.

    `model` is a published name, a MetaFormer that you built, a recipe.json to repeat, or the directory of an unfinished
    run, which then goes on (where the model is your own, give it, and the directory as `resume`). `settings` are the
    keys of `Recipe`: data, epochs, batch, lr ... Raises ValueError, FileNotFoundError or FileExistsError with a sentence;
    KeyboardInterrupt after Ctrl-C, with all work saved.
    """
    own = model if isinstance(model, MetaFormer | Peer) else None
    if own is None and is_run(str(model)):
        resume = str(model)
    if resume is not None:
        if settings or name is not None or Path(root) != Path("runs"):
            raise ValueError(f"a run goes on with its own recipe: train {resume} without settings, or start a new run")
        run, data = open_run(resume), None
        if run.finished:
            report_finished(run, quiet=quiet)
        else:
            data = open_data(run.recipe.data, seed=run.recipe.seed, split=run.path / "split.csv", progress=Watch(quiet=quiet))
            go_on(run, data, own, quiet=quiet)
    else:
        if str(model).endswith(".json") and "recipe" in settings:
            raise ValueError(f"{model} sets everything itself: leave recipe={settings['recipe']} out")
        settings = (_handed(own, settings) if own is not None else _named(str(model))) | settings
        asked = _row(settings, "small")
        data = open_data(asked.data, seed=asked.seed, progress=Watch(quiet=quiet))
        recipe = asked if data.image_size is not None else _row(settings, "photos")
        run = start(recipe, data, own, name=name, root=root, quiet=quiet)
    report(run, own, data)
    return run


def _row(settings: dict[str, Any], fitting: str) -> Recipe:
    """The row that `settings` names, else the `fitting` one, with the settings in it. Raises ValueError for a wrong one."""
    name = settings.get("recipe", fitting)
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}{nearest(str(name), list(RECIPES))}")
    recipe = revise(RECIPES[name], settings | {"recipe": name})
    if "warmup_epochs" in settings:
        return recipe
    return replace(recipe, warmup_epochs=min(recipe.warmup_epochs, recipe.epochs / 4))  # so that a short run arrives at its lr


def _handed(model: Model, settings: dict[str, Any]) -> dict[str, Any]:
    """What a recipe says of a model that is built already. Raises ValueError for settings that would build it otherwise."""
    for key in ("model", "changes", "drop_path", "head_dropout"):
        if key in settings:
            raise ValueError(f"{key}= comes too late for a model that is built: set it when you build the model")
    return {"model": CUSTOM, "drop_path": model.config.drop_path, "head_dropout": model.config.head_dropout}


def _named(model: str) -> dict[str, Any]:
    """The settings that a name or a recipe.json stands for. Raises FileNotFoundError where it is neither."""
    if model.endswith(".json"):
        recipe = Recipe.from_dict(read_json(Path(model)))
        return {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    if model not in ZOO and not model.startswith(PREFIX) and model != CUSTOM:
        if Path(model).name != model or Path(model).is_dir():
            raise no_run(model)
        get_config(model)  # which says what there is, before images are looked at
    return {"model": model}
