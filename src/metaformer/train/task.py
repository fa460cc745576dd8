"""What a run learns: its task, by its data and settings; class weights; a teacher that is opened, checked and asked."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaformer.config import Recipe, read_json
from metaformer.data.dataset import Data
from metaformer.data.preprocess import Preprocess
from metaformer.runs import Run, no_run, weights_of, write_text
from metaformer.tasks.classification import Classification, Distillation, balanced_weights
from metaformer.tasks.multilabel import Multilabel
from metaformer.train.step import Task
from metaformer.weights.create import create_published
from metaformer.weights.hub import HUB, fetch_pretrained
from metaformer.weights.peers import PREFIX, create_published_peer
from metaformer.weights.pretrained import Model, read_pretrained
from metaformer.zoo import ZOO

DISTILLING = ("distill", "distill_weight", "distill_temperature")
"""Settings that say how a teacher is learnt from."""


def make_task(
    recipe: Recipe, data: Data, preprocess: Preprocess, device: torch.device
) -> tuple[Classification | Multilabel, tuple[str, ...]]:
    """The task of a run, and what a person should know of it, a sentence each.

    Nothing is drawn from torch's generator. Raises ValueError or OSError with a sentence where a teacher cannot be had.
    """
    if data.multi:
        for key in ("teacher", *DISTILLING, "class_weights", "sampling"):
            if getattr(recipe, key) != getattr(Recipe, key):
                raise ValueError(
                    f"{key}={getattr(recipe, key)} is for images of one label, and these have several: leave it out"
                )
        return Multilabel(data.classes, recipe.label_smoothing), ()
    weights = None
    if recipe.class_weights == "balanced":
        weights = balanced_weights(data.train.labels, len(data.classes)).to(device)
    if recipe.teacher is None:
        for key in DISTILLING:
            if getattr(recipe, key) != getattr(Recipe, key):
                raise ValueError(f"{key}={getattr(recipe, key)} has nobody to learn from: give teacher= too, or leave it out")
        return Classification(data.classes, recipe.label_smoothing, weights), ()
    with torch.random.fork_rng(devices=[]):
        teacher, notes = open_teacher(recipe.teacher, data, preprocess, device, start_size=recipe.start_size)
    temperature = recipe.distill_temperature if recipe.distill == "soft" else None
    task = Distillation(
        data.classes, recipe.label_smoothing, weights,
        teacher=teacher, weight=recipe.distill_weight, temperature=temperature,
    )  # fmt: skip
    return task, notes


@dataclass(frozen=True, eq=False)
class Teacher:
    """A model that is asked about images (B, C, H, W) as a student is fed them, and answers with logits (B, classes)."""

    model: nn.Module
    scale: Tensor
    """(C, 1, 1): with `shift`, from the student's normalised pixels to the teacher's."""
    shift: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model(images * self.scale + self.shift)

    @property
    def sha256(self) -> str:
        """The sum of its weights and of what they are called."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return found.hexdigest()


def open_teacher(
    source: str, data: Data, preprocess: Preprocess, device: torch.device, *, start_size: int | None = None
) -> tuple[Teacher, tuple[str, ...]]:
    """The teacher that `teacher=` names, ready for pixels that `preprocess` normalised; what a person should know of it.

    `start_size` where images are smaller at first.

    Raises ValueError or OSError with a sentence where it cannot be had or does not suit the data.
    """
    model, about = _open(source)
    if about.get("task", "classification") != "classification":
        raise ValueError(f"teacher={source} is no classifier of one label for each image, as the student is to be")
    if not isinstance(about.get("preprocess"), dict):
        raise ValueError(f"teacher={source} does not say how its pixels are normalised: it cannot be fed")
    own = Preprocess.from_dict(about["preprocess"])
    _check_classes(source, about, data.classes)
    if len(own.mean) != data.channels:
        raise ValueError(f"teacher={source} takes {len(own.mean)} channels, this data has {data.channels}: choose another")
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (preprocess.mean, preprocess.std))
    own_mean, own_std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (own.mean, own.std))
    scale, shift = std / own_std, (mean - own_mean) / own_std
    model = model.eval().requires_grad_(False).to(device)
    teacher = Teacher(model, scale.float().to(device), shift.float().to(device))
    for size in sorted({preprocess.size, start_size or preprocess.size}):
        _try(teacher, source, data, size, device)
    notes = [f"learns from the labels and from {source}"]
    if own.size != preprocess.size:
        notes.append(f"the teacher learnt from images of {own.size} pixels and is shown {preprocess.size} here")
    return teacher, tuple(notes)


def keep_teacher(run: Run, task: Task) -> None:
    """Writes the sum of the teacher's weights into the run, where it has one.

    Raises ValueError where it is another than the one that the run began with.
    """
    if not isinstance(task, Distillation) or not isinstance(task.teacher, Teacher):
        return
    file, found = run.path / "teacher.json", task.teacher.sha256
    if not file.exists():
        write_text(file, json.dumps({"sha256": found}) + "\n")
    elif read_json(file).get("sha256") != found:
        raise ValueError(
            f"teacher={run.recipe.teacher} is not the one that {run.path} began with: its weights are others. Put those back, "
            f"or begin again: metaformer train {run.path}/recipe.json"
        )


def _open(source: str) -> tuple[Model, dict[str, Any]]:
    """A model and what is to know of it, from a run, a folder or file, a published name, timm or Hugging Face."""
    if source.startswith(PREFIX):
        return create_published_peer(source.removeprefix(PREFIX))
    if source.startswith(HUB):
        return read_pretrained(fetch_pretrained(source))
    if Path(source).exists():
        return read_pretrained(weights_of(source))
    if source.partition(".")[0] in ZOO:
        return create_published(source)
    raise no_run(source)


def _check_classes(source: str, about: dict[str, Any], classes: tuple[str, ...]) -> None:
    """Raises ValueError where a teacher's classes are not the data's, in its order, nor WordNet's numbers of them."""
    named, numbered = (tuple(about[key]) if isinstance(about.get(key), list) else () for key in ("classes", "synsets"))
    if classes in (named, numbered):
        return
    place = next((i for i, pair in enumerate(zip(named, classes, strict=False)) if len(set(pair)) > 1), None)
    where = f"{len(named)} and {len(classes)}"
    if place is not None:
        where = f"class {place} is {named[place]!r} and {classes[place]!r}"
    raise ValueError(f"teacher={source} knows other classes than this data, {where}: it must have the same in the same order")


def _try(teacher: Teacher, source: str, data: Data, size: int, device: torch.device) -> None:
    """Asks about one black image. Raises ValueError where the teacher cannot answer."""
    try:
        answer = tuple(teacher(torch.zeros(1, data.channels, size, size, device=device)).shape)
    except (ValueError, AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"teacher={source} cannot be shown images of {size} pixels: {reason}") from error
    if answer != (1, len(data.classes)):
        raise ValueError(f"teacher={source} answers an image with {answer[1:]}, not with a number for each class")
