"""`train`: the whole job, from a name to a run directory with its pictures."""

from pathlib import Path
from typing import Any

from metaformer.config import Recipe, read_json, revise
from metaformer.core.model import MetaFormer
from metaformer.lab.report import report
from metaformer.recipes import DEFAULT
from metaformer.runs import Run, is_run, open_run
from metaformer.train.train import CUSTOM, go_on, start
from metaformer.zoo import ZOO


def train(
    model: str | Path | MetaFormer,
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
    own = model if isinstance(model, MetaFormer) else None
    if own is None and is_run(str(model)):
        resume = str(model)
    if resume is None:
        base = DEFAULT if own is not None else _recipe(str(model))
        recipe = revise(base, settings | ({"model": CUSTOM} if own is not None else {}))
        run = start(recipe, own, name=name, root=root, quiet=quiet)
    elif settings or name is not None or Path(root) != Path("runs"):
        raise ValueError(f"a run goes on where it is with its own recipe: train {resume} without settings, or start a new run")
    else:
        run = go_on(open_run(resume), own, quiet=quiet)
    report(run, own)
    return run


def _recipe(model: str) -> Recipe:
    if model.endswith(".json"):
        return Recipe.from_dict(read_json(Path(model)))
    if model not in ZOO and (Path(model).name != model or Path(model).is_dir()):
        raise FileNotFoundError(f"{model} is not a run directory: it has no recipe.json")
    return revise(DEFAULT, {"model": model})
