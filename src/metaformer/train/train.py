"""A run from its recipe: check, build, fit, close."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from metaformer.config import Recipe
from metaformer.core.device import choose_device
from metaformer.core.model import MetaFormer
from metaformer.data.sources import Data, open_data
from metaformer.data.transforms import Batch, preprocess_for
from metaformer.runs import Run, create_run
from metaformer.tasks.classification import Classification
from metaformer.train.checkpoint import restore
from metaformer.train.display import Display, say
from metaformer.train.loop import Fit
from metaformer.train.optim import make_optimizer
from metaformer.weights.create import create_model

CUSTOM = "custom"


def start(recipe: Recipe, model: MetaFormer | None, *, name: str | None, root: str | Path, quiet: bool) -> Run:
    """Trains a recipe in a new directory `root/name`; `model` where it was built by the caller.

    Everything is checked before the directory is made. Raises ValueError or FileExistsError with a sentence;
    KeyboardInterrupt after Ctrl-C, with all work saved.
    """
    fit = prepare(recipe, model)
    return _fit(fit, create_run(recipe, root, name), quiet=quiet)


def go_on(run: Run, model: MetaFormer | None, *, quiet: bool) -> Run:
    """Trains an unfinished run to its end, from the exact step at which it was last saved."""
    if run.finished:
        say(f"{run.path} is finished: {len(run.metrics)} of {run.recipe.epochs} epochs", quiet=quiet)
        return run
    return _fit(prepare(run.recipe, model), run, quiet=quiet)


def prepare(recipe: Recipe, model: MetaFormer | None) -> Fit:
    """Checks and builds all that training needs; nothing is written."""
    device = choose_device(recipe.device)
    data = open_data(recipe.data)
    torch.manual_seed(recipe.seed)
    model = _build(recipe, data) if model is None else _fitting(model, data)
    model = model.to(device)
    task = Classification(data.classes, recipe.label_smoothing)
    fit = Fit(recipe, model, make_optimizer(model, recipe), task, data, preprocess_for(data, recipe), device)
    _try(fit)
    return fit


def _try(fit: Fit) -> None:
    """Feeds a copy of the model the smallest part of a batch. Raises ValueError where the model cannot take it."""
    batch, rest = fit.recipe.batch, len(fit.data.train) % fit.recipe.batch
    sizes = {min(batch, len(fit.data.train)), rest or batch}
    parts = [part for size in sizes for part in Batch(torch.empty(size), torch.empty(size)).parts(fit.recipe.accumulate)]
    least, side = min(len(part.labels) for part in parts), fit.preprocess.size
    images = torch.zeros(least, fit.data.channels, side, side, device=fit.device)
    with torch.random.fork_rng([fit.device] if fit.device.type == "cuda" else []), torch.no_grad():
        try:
            deepcopy(fit.model).train()(images)
        except ValueError as error:
            raise ValueError(f"the smallest part of a batch, {least} of {side}×{side} pixels, does not do: {error}") from error


def _fit(fit: Fit, run: Run, *, quiet: bool) -> Run:
    progress = restore(run, fit.model, fit.optimizer)
    done = fit.done(progress)
    with Display(run.path / "log.txt", fit.recipe.epochs * fit.steps, done, quiet=quiet) as display:
        parameters = sum(p.numel() for p in fit.model.parameters())
        display.say(
            f"{fit.recipe.model}, {parameters:,} parameters, on {fit.device}: {len(fit.data.train):,} images to learn, "
            f"{len(fit.data.val):,} to judge, {len(fit.data.classes)} classes, {fit.preprocess.size} pixels"
        )
        if done:
            display.say(f"going on at epoch {progress.epoch + 1}, step {progress.step + 1}")
        try:
            fit(run, progress, display)
        except KeyboardInterrupt:
            display.say(f"stopped and saved; to go on: metaformer train {run.path}")
            raise
        display.say(f"best top-1 {100 * progress.best:.2f} % on {len(fit.data.val):,} held-out images")
    return run


def _build(recipe: Recipe, data: Data) -> MetaFormer:
    if recipe.model == CUSTOM:
        raise ValueError("this run's model is code of your own: go on from Python, metaformer.train(model, resume=...)")
    fixed = {"num_classes": len(data.classes), "in_chans": data.channels}
    for key in fixed.keys() & recipe.changes.keys():
        raise ValueError(f"model.{key} follows from the data, {fixed[key]} here: leave it out")
    options: dict[str, Any] = {"drop_path": recipe.drop_path, "head_dropout": recipe.head_dropout}
    return create_model(recipe.model, **fixed, **(options | dict(recipe.changes)))


def _fitting(model: MetaFormer, data: Data) -> MetaFormer:
    config = model.config
    if (config.num_classes, config.in_chans) != (len(data.classes), data.channels):
        raise ValueError(
            f"the model has num_classes={config.num_classes}, in_chans={config.in_chans}; this data needs "
            f"num_classes={len(data.classes)}, in_chans={data.channels}"
        )
    return model
