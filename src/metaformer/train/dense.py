"""A run that learns to find objects or regions: model, batches and task, from its recipe."""

from ast import literal_eval
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metaformer.config import Recipe, read_json
from metaformer.core.ranks import Ranks
from metaformer.data.dense import DenseData
from metaformer.data.dense_loader import DenseLoader
from metaformer.data.dense_views import DenseView, Flip, ShortSide, Step, steps_of
from metaformer.data.loader import default_workers
from metaformer.data.scenes import Scenes
from metaformer.dense.backbone import fill_published
from metaformer.dense.config import IMAGENET, SEGMENTERS, TIMM, DenseConfig, get_dense_config
from metaformer.dense.make import make_dense
from metaformer.dense.model import DIVISOR, Dense
from metaformer.recipes import OBJECTS, RECIPES
from metaformer.runs import Run, weights_of
from metaformer.train.checkpoint import State
from metaformer.train.length import least_part
from metaformer.train.loop import Fit
from metaformer.train.memory import Trial
from metaformer.train.numerics import notice_after
from metaformer.train.optim import Average, make_optimizer
from metaformer.train.parts import choose_parts, training_mode
from metaformer.train.worst import crowded
from metaformer.weights.create import find_weights, told_spread
from metaformer.weights.load import fit_weights
from metaformer.zoo import HEADS

SIDE = 512
"""Of images, where a recipe says no image_size."""
WIDE = {"objects": 1.0, "regions": 4.0, "coco": 5 / 3, "ade20k": 4.0}
"""The longest that an image is judged at, over image_size, which its short side has where that allows."""
FOREIGN = (
    "start_size", "fit", "crop_fraction", "crop", "pad", "randaugment", "erase", "mixup", "cutmix", "label_smoothing",
    "class_weights", "sampling", "window", "labels", "teacher", "compile",
)  # fmt: skip
"""Settings that are for images of labels alone."""


def is_dense_model(name: str) -> bool:
    """Whether a model's name is that of a detector or segmenter."""
    return "/" in name and name.partition("/")[0] in HEADS


def finds_regions(name: str) -> bool:
    """Whether a model of that name is a segmenter."""
    return name.partition("/")[0] in SEGMENTERS


def finds_masks(name: str) -> bool:
    """Whether a model of that name finds masks beside boxes."""
    return name.startswith("mask_rcnn/")


def prepare_dense(
    recipe: Recipe, data: DenseData, run: Run | None, device: torch.device, precision: torch.dtype, ranks: Ranks
) -> Fit:
    """Checks and builds all that training needs; nothing is written. `run` is the one that goes on, if any."""
    _check(recipe)
    saved = run.last if run is not None and run.last.is_dir() else None
    recipe = replace(recipe, image_size=recipe.image_size or SIDE)
    model, notes, knows = _learner(recipe, data, saved)
    model = model.to(device)
    task: Any = _task(model.config, data.classes)
    worst, side = crowded(recipe, data.train, device, masks=finds_masks(recipe.model)), recipe.image_size or SIDE
    batch, why = Trial(model, recipe, task, precision, worst, side, few=1, ranks=ranks).batch(len(data.train))
    recipe = replace(recipe, batch=batch)
    train, val = _loaders(recipe, data, model.config.mean, device, ranks)
    scaler = torch.amp.GradScaler(device.type) if precision == torch.float16 else None
    average = None if recipe.ema is None else Average(model, recipe.ema, warmup=recipe.ema_warmup)
    fit = Fit(
        recipe=recipe,
        state=State(model, make_optimizer(model, recipe), average, scaler, ranks),
        forward=model,
        task=task,
        train=train,
        val=val,
        precision=precision,
        about=_about(recipe, model, data),
        every=notice_after(device),
        notes=(*notes, *why),
        knows=knows,
        shown=f"{recipe.image_size} pixels (augment={recipe.augment})",
        chance=task.chance(),
    )
    _try(fit)
    return fit


def judging_steps(augment: str, side: int) -> tuple[Step, ...]:
    """How images are shown that judge: whole, the short side `side` pixels where the long one allows."""
    return (ShortSide((side, side), int(side * WIDE[augment])),)


def _check(recipe: Recipe) -> None:
    """Raises ValueError for settings that mean nothing here."""
    if recipe.recipe in RECIPES and not is_dense_model(RECIPES[recipe.recipe].model):
        fitting = "regions" if finds_regions(recipe.model) else "objects"
        raise ValueError(
            f"recipe={recipe.recipe} is for classifiers, and {recipe.model} finds {fitting}: leave it out for recipe={fitting}"
        )
    if recipe.head_dropout and not finds_regions(recipe.model):
        raise ValueError(f"head_dropout={recipe.head_dropout} is for segmenters and classifiers: leave it out")
    if recipe.image_size is not None and recipe.image_size < DIVISOR:
        raise ValueError(
            f"image_size={recipe.image_size} is too small for {recipe.model}: {DIVISOR} at least, {SIDE} unless told"
        )
    for key in FOREIGN:
        value, usual = getattr(recipe, key), getattr(OBJECTS, key)
        if value != usual:
            told = str(value).lower() if isinstance(value, bool) else value
            raise ValueError(f"{key}={told} is for classifiers, and {recipe.model} finds objects or regions: leave it out")


# --- the model --------------------------------------------------------------------------------------------------------


def _learner(recipe: Recipe, data: DenseData, saved: Path | None) -> tuple[Dense, tuple[str, ...], bool]:
    """The model, with the weights that a fresh run starts from, and what is not to learn frozen; a sentence on each.

    And whether these weights answer already.
    """
    config = _config(recipe, data)
    if saved is not None:  # it goes on with the mean and deviation with which it began
        began = DenseConfig.from_dict(read_json(saved / "model.json")["dense"])
        config = replace(config, mean=began.mean, std=began.std)
    model = make_dense(config)
    notes, knows = _fill(model, recipe) if recipe.weights is not None and saved is None else ((), False)
    notes = (*notes, *choose_parts(model, recipe))
    model.checkpointing = recipe.checkpointing
    return model, notes, knows


def _config(recipe: Recipe, data: DenseData) -> DenseConfig:
    """What the recipe's model is. Raises ValueError for a wrong name or field."""
    for key in {"num_classes", "in_chans"} & recipe.changes.keys():
        raise ValueError(f"model.{key} follows from the data: leave it out")
    spread = {"mean": data.mean, "std": data.std}
    if recipe.normalise == "imagenet" or (recipe.normalise == "auto" and recipe.weights is not None):
        spread = IMAGENET
    if recipe.normalise == "auto" and recipe.weights is not None:
        spread = spread | told_spread(recipe.model.partition("/")[2], weights_of(recipe.weights))
    changes: dict[str, Any] = {
        "drop_path": recipe.drop_path,
        "head_dropout": recipe.head_dropout,
        **spread,
        **_read(recipe.changes),
    }
    return get_dense_config(recipe.model, num_classes=len(data.classes), **changes)


def _read(changes: Any) -> dict[str, Any]:
    """Changed fields, given as text: numbers and tuples as what they stand for, specs as text."""
    return {key: _value(text) for key, text in changes.items()}


def _value(text: str) -> Any:
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _fill(model: Dense, recipe: Recipe) -> tuple[tuple[str, ...], bool]:
    """Puts the weights that a recipe starts from into the model; sentences, and whether all of it was read."""
    assert recipe.weights is not None
    backbone = recipe.model.partition("/")[2]
    if recipe.weights == "timm":
        if not backbone.startswith(TIMM):
            raise ValueError(f"weights=timm are for backbones of timm's, and {backbone} is ours: weights=in1k")
        fill_published(model.backbone)
        return ("starts from a backbone with timm's weights",), False
    file = find_weights(backbone, weights_of(recipe.weights))
    about = file.with_name("model.json")
    head = read_json(about).get("dense", {}).get("head", model.config.head) if about.is_file() else model.config.head
    if head != model.config.head:
        own = model.config.head
        raise ValueError(f"weights={recipe.weights} are of {head}, and {recipe.model} takes those of {own} or of a classifier")
    read = fit_weights(model, file, adapt=True)
    return (f"starts from {recipe.weights}", *read.notes), read.answers


def _task(config: DenseConfig, classes: tuple[str, ...]) -> Any:
    """What is learnt. Detectors import torchvision, which nothing else needs."""
    if config.task == "segmentation":
        from metaformer.tasks.segmentation import Segmentation

        return Segmentation(classes)
    from metaformer.tasks.detection import Detection

    return Detection(classes)


def _about(recipe: Recipe, model: Dense, data: DenseData) -> dict[str, Any]:
    """What is written beside the weights."""
    assert recipe.image_size is not None
    shown = {"short": recipe.image_size, "long": int(recipe.image_size * WIDE[recipe.augment])}
    told = {"task": model.config.task, "classes": list(data.classes), "shown": shown}
    return told | ({"numbers": list(data.numbers)} if data.numbers else {})


# --- batches ----------------------------------------------------------------------------------------------------------


def _loaders(
    recipe: Recipe, data: DenseData, mean: Sequence[float], device: torch.device, ranks: Ranks
) -> tuple[DenseLoader, DenseLoader]:
    """What is learnt from, augmented, and what judges, an image at a time: no padding changes what is found in it.

    Where an augmentation has no image there is the `mean`, in units of 0 to 1.
    """
    assert recipe.image_size is not None
    assert isinstance(recipe.batch, int)
    steps = steps_of(recipe.augment, recipe.image_size)
    workers = _workers(recipe, data.train, device, ranks)
    red, green, blue = (round(255 * channel) for channel in mean)
    shown = DenseView(_flipped(steps, recipe.flip), recipe.seed, (red, green, blue))
    train = DenseLoader(
        data.train, recipe.batch, shown, device, workers=workers, shuffled=True, ranks=ranks, accumulate=recipe.accumulate
    )
    view = DenseView(judging_steps(recipe.augment, recipe.image_size), judging=True)
    return train, DenseLoader(data.val, 1, view, device, workers=workers, ranks=ranks)


def _flipped(steps: Sequence[Step], probability: float | None) -> tuple[Step, ...]:
    """The steps, with mirrors as flip= says."""
    if probability is None:
        return tuple(steps)
    return tuple(Flip(probability) if isinstance(step, Flip) else step for step in steps)


def _workers(recipe: Recipe, scenes: Scenes, device: torch.device, ranks: Ranks) -> int:
    return default_workers(scenes, None, device, near=ranks.near) if recipe.workers is None else recipe.workers


def _try(fit: Fit) -> None:
    """Asks a copy of the model for the loss of the smallest part of a batch. Raises ValueError where it cannot be trained."""
    with torch.random.fork_rng([fit.train.device] if fit.train.device.type == "cuda" else []), torch.no_grad():
        model = training_mode(deepcopy(fit.state.model), fit.recipe)
        least = least_part(len(fit.train.split), fit.train.batch, fit.recipe.accumulate)
        try:
            fit.task.no_loss(model, torch.zeros(least, *fit.probe, device=fit.train.device))
        except (ValueError, AssertionError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"the smallest part of a batch, of {least}, does not do: {reason}") from error
