"""What a person is told of a run before, beside and after its training."""

import csv
from collections.abc import Iterable
from io import StringIO

from metaformer.config import Recipe
from metaformer.recipes import RECIPES
from metaformer.runs import Run, write_text
from metaformer.train.display import say
from metaformer.train.loop import Fit

CUSTOM = "custom"
LARGE = 1024
"""Images in a batch from which on a person is told what can be done about it."""


def list_unreadable(run: Run, images: Iterable[tuple[str, str]], *, quiet: bool) -> None:
    """Adds images with their reasons to the run's list and says how many there are now."""
    file = run.path / "bad_images.csv"
    with file.open(newline="", encoding="utf-8") if file.exists() else StringIO() as lines:
        known = dict(list(csv.reader(lines))[1:])
    every = known | dict(images)
    if len(every) == len(known):
        return
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([("image", "reason"), *every.items()])
    write_text(file, text.getvalue())
    say(f"unreadable and left out: {len(every)}, listed in {file}", quiet=quiet)


def where(fit: Fit) -> str:
    """What is computed on, by how many processes."""
    count = fit.state.ranks.count
    return f"{fit.train.device}" if count == 1 else f"{fit.train.device.type} in {count} processes"


def report_finished(run: Run, *, quiet: bool) -> None:
    """Says that there is nothing left to train, and how to train longer where a command can."""
    done, epochs = len(run.metrics), run.epochs
    why = f", as patience={run.recipe.patience} asked" if done < epochs else ""
    say(f"{run.path} is finished: {done} of {epochs} epochs{why}", quiet=quiet)
    if run.recipe.model != CUSTOM and not run.recipe.smoke:
        command = f"metaformer train {run.path / 'recipe.json'} weights={run.path} name=NEW"
        say(f"to train longer, in a new run that starts from its best weights: {command}", quiet=quiet)


def warnings_of(recipe: Recipe, batch: int) -> list[str]:
    """What a person should know before it starts, a sentence each."""
    if recipe.smoke:
        what = f"SMOKE TEST: a shrunk model, from no weights, on a few images; batch={batch} and no hours= whatever was said"
        return [f"{what}; NO FIGURE OF THIS RUN IS A RESULT, and it cannot become a real one"]
    row = RECIPES.get(recipe.recipe)
    said: list[str] = []
    if recipe.start_size is not None:
        said.append(f"images grow from {recipe.start_size} to {recipe.image_size} pixels over two thirds of the epochs")
    if batch >= LARGE and recipe.accumulate == 1:
        parts = batch // 128
        said.append(f"each step learns from {batch:,} images at once; accumulate={parts} learns the same in parts of 128")
    usual = row.batch if row is not None and isinstance(row.batch, int) and row.lr == recipe.lr else batch
    if usual >= LARGE and usual != batch:
        said.append(f"lr={recipe.lr:g} is for batches of {usual:,}; with batch={batch} nothing is rescaled")
    if recipe.learn != "all" and recipe.weights is None and recipe.model != CUSTOM:
        said.append(f"learn={recipe.learn} leaves the rest as it was drawn at random: weights= says what to start from")
    return said
