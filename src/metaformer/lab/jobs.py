"""`train`: the whole job, from a name to a run directory with its pictures."""

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from metaformer.config import Recipe, parse, read_json, revise
from metaformer.core.model import MetaFormer
from metaformer.core.ranks import Ranks, speaks, together
from metaformer.data.dataset import Data
from metaformer.data.dense import OBJECTS, DenseData, few_scenes, is_dense, open_dense, parts_of
from metaformer.data.sources import check_there, few, open_data
from metaformer.dense.config import get_dense_config
from metaformer.dense.model import Dense
from metaformer.lab.report import report
from metaformer.own import ask
from metaformer.recipes import RECIPES, no_recipe
from metaformer.runs import Run, check_free, is_run, no_run
from metaformer.train.checkpoint import check_processes
from metaformer.train.dense import finds_masks, finds_regions, is_dense_model
from metaformer.train.display import Watch, say
from metaformer.train.hold import holder, reopen
from metaformer.train.launch import launched
from metaformer.train.told import CUSTOM, report_finished
from metaformer.train.train import go_on, start
from metaformer.weights.peers import PREFIX, Peer
from metaformer.weights.pretrained import Model, fill
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
    """Trains a classifier, detector or segmenter and returns its run directory `root/name`, pictures included.

    `model` is a published name, `head/backbone` of those (retinanet/poolformer_s12), a MetaFormer that you built, a recipe.json
    to repeat, or the directory of an unfinished run, which then goes on (where the model is your own, give it, and the
    directory as `resume`). A model that you built has the best weights in the end. `settings` are the keys of `Recipe`: data,
    epochs, batch, lr ... Raises ValueError, FileNotFoundError or FileExistsError with a sentence, OSError where the disk fails;
    KeyboardInterrupt after Ctrl-C and SystemExit after SIGTERM, with all work saved.

    Started by torchrun, all processes train one run together, and the first one writes it (docs/many.md). Started by it again,
    the same call goes on with its run.
    """
    if "devices" in settings:
        raise ValueError(f"devices={settings['devices']} is for the command: metaformer train; start a script with torchrun")
    ask(settings.get("changes", {}).values())
    with together() as ranks:
        return _train(model, settings, ranks, name=name, root=root, resume=resume, quiet=quiet or not ranks.first)


def train_command(model: str, pairs: list[str]) -> Path | None:
    """`metaformer train MODEL KEY=VALUE...`: the run's directory, or None where another process tells it."""
    settings = parse(pairs, ("name", "root", "devices"))
    settings.pop("devices", None)
    if launched(["train", model, *pairs], lambda count: _check(model, settings, count)):
        return None
    path = train(model, **settings).path
    return path if speaks() else None


def _check(model: str, settings: dict[str, Any], count: int) -> None:
    """Raises what each of `count` processes would, as far as that is known before data is opened."""
    name, root = settings.get("name"), settings.get("root", "runs")
    settings = {key: value for key, value in settings.items() if key not in ("name", "root")}
    if is_run(model):
        _check_bare(model, settings, name, root)
        check_processes(Run(Path(model)), count)
        return
    data = _row(_named(model, settings) | settings, "small").data
    if is_dense(data):
        parts_of(data)
    else:
        check_there(data)
    if name is not None:
        check_free(root, name)


def _check_bare(run: str | Path, settings: dict[str, Any], name: str | None, root: str | Path) -> None:
    """Raises ValueError where a run that goes on is given settings."""
    if settings or name is not None or Path(root) != Path("runs"):
        raise ValueError(f"a run goes on with its own recipe: train {run} without settings, or start a new run")


def _train(
    model: str | Path | Model,
    settings: dict[str, Any],
    ranks: Ranks,
    *,
    name: str | None,
    root: str | Path,
    resume: str | Path | None,
    quiet: bool,
) -> Run:
    if isinstance(model, Dense):
        raise ValueError(f"detectors and segmenters are trained by their names, such as {model.config.head}/poolformer_s12")
    own = model if isinstance(model, MetaFormer | Peer) else None
    if own is None and is_run(str(model)):
        resume = str(model)
    if ranks.told(ranks.first and _started_again(resume, root, name)):
        ranks = replace(ranks, again=True)
        if resume is None:
            resume, name, root = Path(root) / str(name), None, "runs"
            settings = dict[str, Any]()
    if resume is not None:
        _check_bare(resume, settings, name, root)
        run, data = reopen(resume, quiet=quiet, ranks=ranks), None
        if run.finished:
            report_finished(run, quiet=quiet)
        else:
            data = _opened(run.recipe, run.path / "split.csv", quiet=quiet)
            go_on(run, data, own, quiet=quiet, ranks=ranks)
    else:
        recipe, data = resolve(model, settings, quiet=quiet)
        run = start(recipe, data, own, name=name, root=root, quiet=quiet, ranks=ranks)
    try:
        if ranks.first:
            report(run, own, data)
    except KeyboardInterrupt:
        say(f"stopped before the report was whole; to write it: metaformer train {run.path}", quiet=quiet)
        raise
    if own is not None:
        fill(own, run.best)
    return run


def _started_again(resume: str | Path | None, root: str | Path, name: str | None) -> bool:
    """Whether torchrun starts this command again, after a crash or because a node came or went, and its run is there.

    Raises ValueError where it could be so and nothing tells which run that is.
    """
    if resume is None and name is None:
        if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
            raise ValueError("--max-restarts starts this command again: give the run a name=, by which it is found and goes on")
        return False
    run = Run(Path(root) / str(name) if resume is None else Path(resume))
    if not is_run(run.path):
        return False
    job = os.environ.get("TORCHELASTIC_RUN_ID", "none")  # what torchrun calls a job that was given no --rdzv-id
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0 or (job != "none" and holder(run).get("job") == job)


def resolve(
    model: str | Path | Model, settings: dict[str, Any], *, quiet: bool, split: Path | None = None
) -> tuple[Recipe, Data | DenseData]:
    """The recipe of a new run, and the data set that it names; `model` and `settings` as `train` takes them."""
    own = model if isinstance(model, MetaFormer | Peer) else None
    if str(model).endswith(".json") and "recipe" in settings:
        raise ValueError(f"{model} sets everything itself: leave recipe={settings['recipe']} out")
    settings = (_handed(own, settings) if own is not None else _named(str(model), settings)) | settings
    if is_dense_model(settings["model"]):
        asked = _row(settings, "regions" if finds_regions(settings["model"]) else "objects")
        return asked, _opened(asked, split, quiet=quiet)
    asked = _row(settings, "small")
    data = _opened(asked, split, quiet=quiet)
    assert isinstance(data, Data)
    return asked if data.image_size is not None else _row(settings, "photos"), data


def _opened(recipe: Recipe, split: Path | None, *, quiet: bool) -> Data | DenseData:
    watch, name = Watch(quiet=quiet), recipe.model
    if is_dense_model(name):
        found = open_dense(
            recipe.data, regions=finds_regions(name), masks=finds_masks(name), seed=recipe.seed, split=split, progress=watch
        )
        return few_scenes(found, FEW) if recipe.smoke else found
    if is_dense(recipe.data):
        what, head = ("objects", "retinanet") if recipe.data.partition(":")[0] in OBJECTS else ("regions", "semantic_fpn")
        raise ValueError(f"data={recipe.data} has {what}, and {name} calls whole images: {head}/{name} finds them")
    data = open_data(recipe.data, seed=recipe.seed, split=split, labels=recipe.labels, progress=watch)
    return few(data, FEW) if recipe.smoke else data


def _row(settings: dict[str, Any], fitting: str) -> Recipe:
    """The row that `settings` names, else the `fitting` one, with the settings in it. Raises ValueError for a wrong one."""
    name = settings.get("recipe", fitting)
    if name not in RECIPES:
        raise no_recipe(str(name))
    changes = {**RECIPES[name].changes, **settings.get("changes", {})}
    recipe = revise(RECIPES[name], settings | {"recipe": name, "changes": changes})
    if "warmup_epochs" not in settings:  # a short run should arrive at its lr
        recipe = replace(recipe, warmup_epochs=min(recipe.warmup_epochs, recipe.epochs / 4))
    return shrunk(recipe, data=settings.get("data", "digits")) if recipe.smoke else recipe


def shrunk(recipe: Recipe, *, data: str) -> Recipe:
    """The recipe as a smoke test of seconds: the same optimizer, augmentation and shape of the schedule, all else tiny.

    Beside a teacher, which may be made for one size, images keep theirs.
    """
    small = TINY if recipe.model.rpartition("/")[2] in ZOO else {}
    epochs, size, start_size = min(recipe.epochs, 3), recipe.image_size, recipe.start_size
    if is_dense_model(recipe.model):
        small, size = small | TINY_HEAD, 64
    elif recipe.teacher is None:
        size, start_size = 32, None if start_size is None else 16
    batch = min(recipe.batch, 8) if isinstance(recipe.batch, int) else 8
    return replace(
        recipe, data=data, changes={**recipe.changes, **small}, weights=None, workers=0, hours=None,
        epochs=epochs, warmup_epochs=recipe.warmup_epochs * (epochs / recipe.epochs), batch=batch,
        image_size=size, start_size=start_size,
    )  # fmt: skip


FEW = 16
"""Images that a smoke test learns from, and that judge it."""
TINY = {"depths": "(1, 1, 1, 1)", "dims": "(16, 16, 32, 32)"}
TINY_HEAD = {"channels": "32", "head_channels": "32"}


def _handed(model: Model, settings: dict[str, Any]) -> dict[str, Any]:
    """What a recipe says of a model that is built already. Raises ValueError for settings that would build it otherwise."""
    for key in ("model", "changes", "weights", "drop_path", "head_dropout"):
        if key in settings:
            raise ValueError(f"{key}= comes too late for a model that is built: set it when you build the model")
    return {"model": CUSTOM, "weights": None, "drop_path": model.config.drop_path, "head_dropout": model.config.head_dropout}


def _named(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that a name or a recipe.json stands for. Raises FileNotFoundError where it is neither."""
    if model.endswith(".json"):
        recipe = Recipe.from_dict(read_json(Path(model)))
        if recipe.smoke and not settings.get("smoke", True):
            raise ValueError(f"{model} is a smoke test's, of a shrunk model: train {recipe.model} with recipe={recipe.recipe}")
        return {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    if is_dense_model(model) or ("/" in model and model.rpartition("/")[2] in ZOO and not Path(model).exists()):
        get_dense_config(model, num_classes=1)  # which says what there is, before images are looked at
    elif model not in ZOO and not model.startswith(PREFIX) and model != CUSTOM:
        if Path(model).name != model or Path(model).is_dir():
            raise no_run(model)
        get_config(model)  # which says what there is, before images are looked at
    return {"model": model}
