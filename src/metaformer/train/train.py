"""A run from its recipe: check, build, fit, close."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metaformer.config import Recipe
from metaformer.core.device import choose_device, choose_precision, keep_memory, precision_name
from metaformer.core.mixers import Random, SpatialFC
from metaformer.core.model import MetaFormer
from metaformer.core.ranks import ALONE, Ranks, own_device
from metaformer.data.augment import Augment, View
from metaformer.data.dataset import Data, split_csv
from metaformer.data.dense import DenseData
from metaformer.data.loader import Loader, default_workers
from metaformer.data.preprocess import Preprocess
from metaformer.own import bring
from metaformer.runs import SCORES, Run, create_run, score_of, weights_of, write_text
from metaformer.train.checkpoint import State, restore
from metaformer.train.dense import prepare_dense
from metaformer.train.display import Display, say
from metaformer.train.hold import held
from metaformer.train.joined import check_same, joined
from metaformer.train.length import least_part
from metaformer.train.loop import Fit, Watcher
from metaformer.train.memory import Trial
from metaformer.train.numerics import exactness, notice_after
from metaformer.train.optim import Average, make_optimizer
from metaformer.train.parts import choose_parts, learns_whole, training_mode
from metaformer.train.stop import Terminated
from metaformer.train.task import keep_teacher, make_task
from metaformer.train.told import CUSTOM, list_unreadable, warnings_of, where
from metaformer.train.trackers import check_installed, tracked
from metaformer.train.worst import black
from metaformer.weights.catalogue import MEAN, STD, TAGS
from metaformer.weights.create import create_model, find_weights, told_preprocess
from metaformer.weights.load import fit_weights
from metaformer.weights.peer_head import fill_peer
from metaformer.weights.peers import PREFIX, Peer, PeerConfig, has_one_size, peer_size
from metaformer.weights.pretrained import Model
from metaformer.zoo import get_config


def start(
    recipe: Recipe,
    data: Data | DenseData,
    model: Model | None,
    *,
    name: str | None,
    root: str | Path,
    quiet: bool,
    watchers: Sequence[Watcher] = (),
    ranks: Ranks = ALONE,
) -> Run:
    """Trains a recipe in a new directory `root/name`, which the first of `ranks` writes; `model` where the caller built it.

    Everything is checked before the directory is made. Raises ValueError or FileExistsError with a sentence, OSError where
    the disk fails; KeyboardInterrupt after Ctrl-C and Terminated after SIGTERM, with all work saved.
    """
    fit = prepare(recipe, data, model, ranks=ranks)
    run = ranks.told(create_run(fit.recipe, root, name) if ranks.first else None)
    assert run is not None
    with held(run, ranks):
        if ranks.first:
            _begin(run, data, quiet=quiet)
        return _fit(replace(fit, watchers=tuple(watchers)), run, quiet=quiet)


def _begin(run: Run, data: Data | DenseData, *, quiet: bool) -> None:
    """Says and writes what is known of a new run's data."""
    for sentence in data.notes:
        say(sentence, quiet=quiet)
    if data.drawn:
        write_text(run.path / "split.csv", split_csv(data))
    list_unreadable(run, data.unreadable, quiet=quiet)


def go_on(
    run: Run,
    data: Data | DenseData,
    model: Model | None,
    *,
    quiet: bool,
    watchers: Sequence[Watcher] = (),
    ranks: Ranks = ALONE,
) -> Run:
    """Trains an unfinished run, of `reopen`, to its end, from the exact step at which it was last saved."""
    with held(run, ranks):
        fit = prepare(run.recipe, data, model, run, ranks=ranks)
        return _fit(replace(fit, watchers=tuple(watchers)), run, quiet=quiet)


def prepare(
    recipe: Recipe, data: Data | DenseData, model: Model | None, run: Run | None = None, *, ranks: Ranks = ALONE
) -> Fit:
    """Checks and builds all that training needs; nothing is written. `run` is the one that goes on, if any."""
    check_installed(recipe)
    own = bring(recipe.changes.values())
    check_same(data, ranks)
    device = own_device(choose_device(recipe.device), ranks)
    precision = _precision(recipe.precision, device)
    named = precision_name(precision) if recipe.precision == "auto" else recipe.precision
    torch.manual_seed(recipe.seed)
    if isinstance(data, DenseData):
        fit = prepare_dense(replace(recipe, precision=named), data, run, device, precision, ranks)
    else:
        fit = _prepare(replace(recipe, precision=named), data, model, run, device, precision, ranks)
    fit = replace(fit, notes=(*own, *fit.notes))
    return replace(fit, forward=joined(fit)) if ranks.count > 1 else fit


def _prepare(
    recipe: Recipe,
    data: Data,
    model: Model | None,
    run: Run | None,
    device: torch.device,
    precision: torch.dtype,
    ranks: Ranks,
) -> Fit:
    """The same of a classifier."""
    if recipe.augment != Recipe.augment:
        raise ValueError(
            f"augment={recipe.augment} is for objects and regions, and {recipe.model} calls whole images: leave it out"
        )
    size = recipe.image_size or data.image_size or _native_size(recipe, model)
    saved = run.last if run is not None and run.last.is_dir() else None
    model, notes, knows = _learner(recipe, data, model, size, fresh=saved is None)
    model = model.to(device)
    keep_less(model, recipe)

    preprocess = Preprocess(size, *_spread(recipe, data, saved), recipe.fit, recipe.crop_fraction)
    task, told = make_task(recipe, data, preprocess, device)
    worst = black((data.channels, size, size), data.train.labels[:1], device)
    batch, why = Trial(model, recipe, task, precision, worst, size, ranks=ranks).batch(len(data.train))
    train, val, augment = _loaders(recipe, data, preprocess, device, batch, ranks)
    average = None if recipe.ema is None else Average(model, recipe.ema, warmup=recipe.ema_warmup)
    scaler = torch.amp.GradScaler(device.type) if precision == torch.float16 else None
    recipe = replace(recipe, image_size=size, flip=augment.flip, batch=batch)
    kind = "multilabel" if data.multi else "classification"
    fit = Fit(
        recipe=recipe,
        state=State(model, make_optimizer(model, recipe), average, scaler, ranks),
        forward=torch.compile(model) if recipe.compile else model,  # pyrefly: ignore[bad-argument-type]
        task=task,
        train=train,
        val=val,
        precision=precision,
        about={"task": kind, "classes": list(data.classes), "preprocess": preprocess.to_dict()},
        every=notice_after(device),
        notes=(*notes, *told, *why),
        stride=_stride(model),
        knows=knows,
        shown=f"{size} pixels ({recipe.fit})",
        chance=task.chance(data.val.labels),
        probe=(data.channels, recipe.start_size or size, recipe.start_size or size),
    )
    _try(fit)
    return fit


def _learner(recipe: Recipe, data: Data, model: Model | None, size: int, *, fresh: bool) -> tuple[Model, tuple[str, ...], bool]:
    """The model, with the weights that a fresh run starts from and with what is not to learn frozen; a sentence on each.

    And whether its classifier is of those weights too.
    """
    model = _build(recipe, data, size) if model is None else _fitting(model, data, recipe)
    notes, knows = _fill(model, recipe) if recipe.weights is not None and fresh else ((), False)
    if recipe.start_size is not None:
        _check_growth(recipe, model, size)
    return model, (*notes, *choose_parts(model, recipe)), knows


def keep_less(model: Model, recipe: Recipe) -> None:
    """Has blocks computed again in the backward pass, where a recipe wants that."""
    if recipe.checkpointing and isinstance(model, Peer):
        model.model.set_grad_checkpointing(True)
    elif isinstance(model, MetaFormer):
        model.checkpointing = recipe.checkpointing


def _loaders(
    recipe: Recipe, data: Data, preprocess: Preprocess, device: torch.device, batch: int, ranks: Ranks
) -> tuple[Loader, Loader, Augment]:
    """What is learnt from, augmented, and what judges; and what is done to whole batches."""
    view = None
    if recipe.crop is not None or recipe.randaugment is not None:
        view = View(preprocess, recipe.crop, recipe.randaugment, recipe.seed)
    learning, judging = (
        default_workers(split, seen, device, near=ranks.near) if recipe.workers is None else recipe.workers
        for split, seen in ((data.train, view), (data.val, None))
    )
    augment, balanced = Augment.of(recipe, mirrors=data.mirrors), recipe.sampling == "balanced"
    train = Loader(
        data.train, batch, preprocess, device, workers=learning, view=view, augment=augment, balanced=balanced,
        ranks=ranks, accumulate=recipe.accumulate, window=recipe.window,
    )  # fmt: skip
    return train, Loader(data.val, batch, preprocess, device, workers=judging, ranks=ranks), augment


def _try(fit: Fit) -> None:
    """Feeds a copy of the model the smallest part of a batch. Raises ValueError where the model cannot take it."""
    device, side = fit.train.device, fit.probe[1]
    least = least_part(len(fit.train.split), fit.train.batch, fit.recipe.accumulate)
    images = torch.zeros(least, *fit.probe, device=device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        try:
            training_mode(deepcopy(fit.state.model), fit.recipe)(images)
        except (ValueError, AssertionError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"the smallest part of a batch, {least} of {side}×{side} pixels, does not do: {reason}") from error


def _fit(fit: Fit, run: Run, *, quiet: bool) -> Run:
    with exactness(fit.recipe):
        return _fit_exactly(fit, run, quiet=quiet)


def _fit_exactly(fit: Fit, run: Run, *, quiet: bool) -> Run:
    keep_memory()
    progress, ranks = restore(run, fit.state), fit.state.ranks
    if ranks.first:
        keep_teacher(run, fit.task)
    done = fit.done(progress)
    train, val = len(fit.train.split), len(fit.val.split)
    log = run.path / "log.txt" if ranks.first else None
    with Display(log, fit.total(progress), done, quiet=quiet or not ranks.first) as display:
        parameters = sum(p.numel() for p in fit.state.model.parameters())
        display.say(
            f"{fit.recipe.model}, {parameters:,} parameters, on {where(fit)} in {fit.recipe.precision}: "
            f"{train:,} images to learn, {val:,} to judge, {len(fit.about['classes'])} classes, "
            f"{fit.shown}, recipe {fit.recipe.recipe}"
        )
        for sentence in (*warnings_of(fit.recipe, fit.train.batch), *fit.notes):
            display.say(sentence)
        if not done:
            display.say(fit.chance)
        else:
            display.say(f"going on at epoch {progress.epoch + 1}, step {progress.step + 1}")
        try:
            if ranks.first:
                with tracked(run, display) as trackers:
                    replace(fit, watchers=(*trackers, *fit.watchers))(run, progress, display)
            else:
                replace(fit, watchers=())(run, progress, display)
        except (KeyboardInterrupt, Terminated):
            several = f" devices={ranks.count}" if ranks.count > 1 else ""
            display.say(f"stopped and saved; to go on: metaformer train {run.path}{several}")
            raise
        except torch.OutOfMemoryError as error:
            batch, parts = fit.train.batch, 2 * fit.recipe.accumulate
            raise ValueError(
                f"{fit.train.device} has too little memory for {-(-batch // fit.recipe.accumulate)} images at once; "
                f"accumulate={parts} learns the same in parts of {-(-batch // parts)}"
            ) from error
        finally:
            if ranks.first:
                damaged = [(fit.train.split.name(sample), reason) for sample, reason in fit.train.damaged.items()]
                list_unreadable(run, damaged, quiet=quiet)
        display.say(f"best {SCORES[score_of(run.metrics[-1])]} {progress.best:.2f} % on {val:,} held-out images")
    return run


def _precision(name: str, device: torch.device) -> torch.dtype:
    """What autocast computes in. Raises ValueError for one that the device has not."""
    if name == "tf32" and device.type != "cuda":
        raise ValueError(f"precision=tf32 is a GPU's: on {device.type} there are fp32, bf16 and fp16")
    return choose_precision(name, device)


def _spread(recipe: Recipe, data: Data, saved: Path | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, by channel, that pixels are normalised by."""
    mean, std = MEAN, STD
    if recipe.normalise != "imagenet":
        told = None
        if recipe.normalise == "auto" and recipe.weights is not None:
            told = told_preprocess(recipe.model, saved or weights_of(recipe.weights))
        if told is None:
            return data.mean, data.std
        known = Preprocess.from_dict(told)
        mean, std = known.mean, known.std
    if len(mean) == data.channels:
        return mean, std
    return (sum(mean) / len(mean),) * data.channels, (sum(std) / len(std),) * data.channels


def _fill(model: Model, recipe: Recipe) -> tuple[tuple[str, ...], bool]:
    """Puts the weights that a recipe starts from into the model; what was changed to make them fit, a sentence each.

    And whether the classifier is of those weights, not a new one.
    """
    assert recipe.weights is not None
    if isinstance(model, Peer):
        if recipe.weights in TAGS:
            raise ValueError(f"weights={recipe.weights} are for our models: {recipe.model} takes a run or a folder of its own")
        notes = fill_peer(model, Path(weights_of(recipe.weights)))
        return (f"starts from {recipe.weights}", *notes), not notes
    file = find_weights(recipe.model, weights_of(recipe.weights))
    read = fit_weights(model, file, adapt=True)
    return (f"starts from {recipe.weights}", *read.notes), read.answers


def _check_growth(recipe: Recipe, model: Model, size: int) -> None:
    """Raises ValueError where images cannot grow from start_size to `size` as the model learns."""
    assert recipe.start_size is not None
    if recipe.start_size > size:
        raise ValueError(f"start_size={recipe.start_size} is larger than image_size={size}, to which images grow")
    if recipe.epochs == 1 and recipe.hours is None:
        raise ValueError("start_size= takes two epochs or more, as images grow from epoch to epoch: with epochs=1 leave it out")
    fixed = None
    if isinstance(model, Peer):
        fixed = "is made for one size of images" if has_one_size(model.config.name) else None
    elif any(model.config.pos_embed):
        fixed = "has position embeddings, made for one size of images"
    else:
        grids = [mixer for mixer in model.config.block_mixers() if isinstance(mixer, Random | SpatialFC)]
        fixed = f"has {grids[0]!r}, made for one size of images" if grids else None
    if fixed is not None:
        raise ValueError(f"start_size= is for models that take images of any size: {recipe.model} {fixed}; leave it out")


def _stride(model: Model) -> int:
    """Pixels of an image per place of the last map."""
    return model.config.stem_stride * 2 ** (len(model.config.dims) - 1) if isinstance(model, MetaFormer) else 32


def _native_size(recipe: Recipe, model: Model | None) -> int:
    """What a model was made for: 224 pixels, or 112 with a stem of stride 2."""
    if isinstance(model, Peer) or (model is None and recipe.model.startswith(PREFIX)):
        return peer_size(recipe.model.removeprefix(PREFIX)) if model is None else model.config.image_size
    config = model.config if isinstance(model, MetaFormer) else get_config(recipe.model, **dict(recipe.changes))
    return 56 * config.stem_stride


def _build(recipe: Recipe, data: Data, size: int) -> Model:
    if recipe.model == CUSTOM:
        raise ValueError("this run's model is code of your own: go on from Python, metaformer.train(model, resume=...)")
    fixed = {"num_classes": len(data.classes), "in_chans": data.channels}
    for key in fixed.keys() & recipe.changes.keys():
        raise ValueError(f"model.{key} follows from the data, {fixed[key]} here: leave it out")
    options: dict[str, Any] = {"drop_path": recipe.drop_path, "head_dropout": recipe.head_dropout}
    if recipe.model.startswith(PREFIX):
        if recipe.changes:
            raise ValueError(f"{recipe.model} is timm's: model.{next(iter(recipe.changes))} cannot be changed")
        name = recipe.model.removeprefix(PREFIX)
        return Peer(PeerConfig(name=name, image_size=size, **options, **fixed))
    return create_model(recipe.model, **fixed, **(options | dict(recipe.changes)))


def _fitting(model: Model, data: Data, recipe: Recipe) -> Model:
    """The model that was handed over; a copy where a part of it is to be frozen, which stays a matter of the run."""
    config = model.config
    if (config.num_classes, config.in_chans) != (len(data.classes), data.channels):
        raise ValueError(
            f"the model has num_classes={config.num_classes}, in_chans={config.in_chans}; this data needs "
            f"num_classes={len(data.classes)}, in_chans={data.channels}"
        )
    return model if learns_whole(recipe) else deepcopy(model)
