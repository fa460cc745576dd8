"""`soup`: the mean of several models' weights, after Wortsman et al. 2022 (arXiv 2203.05482), judged before it is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaformer.core.device import choose_device, memory_told
from metaformer.data.augment import Augment
from metaformer.data.dataset import Data
from metaformer.data.loader import Loader, default_workers
from metaformer.data.sources import open_data
from metaformer.infer.about import TASKS, read_about
from metaformer.lab.tables import Rows, columns
from metaformer.runs import SCORES, Run, open_run, replace_folder
from metaformer.tasks.classification import Classification, Evaluation
from metaformer.tasks.multilabel import Multilabel, MultilabelEvaluation
from metaformer.weights.files import read_file
from metaformer.weights.pretrained import Model, read_pretrained, save_pretrained

BATCH, BATCHES = 64, 50
"""Images at once, and batches of training images from which BatchNorm's statistics are taken anew."""
STILL = Augment(pad=0.0, flip=0.0, erase=0.0, mixup=0.0, cutmix=0.0, seed=0)
"""Training images in an order by chance, as they are."""


@dataclass(frozen=True)
class Ingredient:
    """Weights that may go into a soup."""

    folder: Path
    score: float
    """In percent, on the held-out images."""
    used: bool = False


@dataclass(frozen=True)
class Soup:
    """What was averaged, and what that is worth."""

    ingredients: tuple[Ingredient, ...]
    score: float
    key: str
    """What the scores are, a key of SCORES: top-1, or mAP where images have several labels."""
    images: int
    """Held-out images on which all were judged."""
    renewed: bool
    """Whether there are statistics of BatchNorm, which were taken anew."""
    folder: Path | None
    """Where the soup is; None where it is worse than one of its ingredients."""

    @property
    def best(self) -> Ingredient:
        """The best of the ingredients, the first one where several are."""
        return max(self.ingredients, key=lambda one: one.score)

    def __str__(self) -> str:
        rows: Rows = [("weights", SCORES[self.key], "in the soup")]
        rows += [(str(one.folder), f"{one.score:.2f} %", "yes" if one.used else "no") for one in self.ingredients]
        rows.append((f"soup of {sum(one.used for one in self.ingredients)}", f"{self.score:.2f} %", ""))
        said = f"Judged on {self.images:,} held-out images, which also chose: on others expect a little less."
        if self.renewed:
            said += f" BatchNorm's statistics were taken anew from up to {BATCH * BATCHES:,} training images."
        return f"{columns(rows, right=(1,))}\n\n{said}"


def soup(
    *runs: str | Path,
    out: str | Path | None = None,
    greedy: bool = False,
    force: bool = False,
    device: str = "auto",
    model: Model | None = None,
) -> Soup:
    """Averages the best weights of runs, or those that a single run kept of its last epochs (keep=), and judges the mean.

    It is written into the folder `out`, by default `soup` in the single run or beside the first one, if it is at least as
    good as the best of its ingredients, or `force` is given; `force` also replaces a model that is there. `greedy` takes
    in, the best first, only what does not make the soup worse. `model` where its mixers are code of your own. Raises
    ValueError or OSError with a sentence.
    """
    opened = [open_run(run) for run in runs]
    folders = _folders(opened)
    place = _place(out, opened, force=force)
    kitchen = _Kitchen.of(opened, folders, choose_device(device), model)
    ingredients = [Ingredient(folder, kitchen.score([folder])[0]) for folder in folders]
    used = _chosen(ingredients, kitchen) if greedy else folders
    score, key, images = kitchen.score(used)
    made = Soup(
        ingredients=tuple(replace(one, used=one.folder in used) for one in ingredients),
        score=score,
        key=key,
        images=images,
        renewed=bool(kitchen.norms) and len(used) > 1,
        folder=place,
    )
    if made.score < made.best.score and not force:
        return replace(made, folder=None)
    of = ["/".join(folder.resolve().parts[-2:]) for folder in used]  # where they lie is nobody's business
    facts = {key: score, "images": images, "soup": {"of": of, "greedy": greedy}}
    place.parent.mkdir(parents=True, exist_ok=True)
    replace_folder(place, lambda folder: save_pretrained(kitchen.model, folder, kitchen.about | facts))
    return made


def _folders(runs: Sequence[Run]) -> list[Path]:
    """The weights to average. Raises ValueError where there are not two of them."""
    if not runs:
        raise ValueError("name the runs to average: metaformer soup RUN RUN ...")
    folders = runs[0].kept if len(runs) == 1 else [run.best for run in runs]
    if len(folders) < 2:
        raise ValueError(
            f"{runs[0].path} kept the weights of {len(folders)} epochs: a soup takes two or more; train with keep=5, "
            "or name several runs"
        )
    for run, folder in zip(runs, folders, strict=False):
        if not folder.is_dir():
            raise ValueError(f"{run.path} has no weights yet: go on with it, metaformer train {run.path}")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError("the same run is named twice")
    return folders


def _place(out: str | Path | None, runs: Sequence[Run], *, force: bool) -> Path:
    """Where the soup goes. Raises FileExistsError where something is there that may not be replaced."""
    place = (runs[0].path if len(runs) == 1 else runs[0].path.parent) / "soup" if out is None else Path(out).expanduser()
    if not place.exists():
        return place
    if not force:
        raise FileExistsError(f"{place} exists: choose another --out (out=), or --force (force=True) to replace it")
    if not place.is_dir() or {file.name for file in place.iterdir()} - {"model.json", "model.safetensors"}:
        raise FileExistsError(f"{place} holds more than a model, so it is not replaced: choose another --out (out=)")
    return place


def _chosen(ingredients: Sequence[Ingredient], kitchen: "_Kitchen") -> list[Path]:
    """Recipe 1 of the paper: from the best on, each that does not make the mean worse."""
    best, *others = sorted(ingredients, key=lambda one: -one.score)
    used, score = [best.folder], best.score
    for one in others:
        with_it = kitchen.score([*used, one.folder])[0]
        if with_it >= score:
            used, score = [*used, one.folder], with_it
    return used


@dataclass(frozen=True)
class _Kitchen:
    """A model that takes the mean of any of the weights, and the images to judge it on."""

    model: Model
    about: dict[str, Any]
    """What every ingredient says: task, classes, preprocessing."""
    task: Classification | Multilabel
    val: Loader
    train: Loader
    norms: tuple[nn.BatchNorm2d, ...]
    """Those whose statistics differ between the weights: no mean can replace them. What was frozen is the same in all."""

    @classmethod
    def of(cls, runs: Sequence[Run], folders: Sequence[Path], device: torch.device, model: Model | None) -> "_Kitchen":
        """Raises ValueError where the runs are not of one kind, or were not judged on the same images."""
        made, about = read_pretrained(folders[0], model)
        for folder in folders[1:]:
            _check_alike(folders[0], about, folder, read_pretrained(folder, model)[1])
        data = _data(runs)
        known = read_about(about, folders[0], made.config.num_classes)

        def loader(split: Any, augment: Augment | None) -> Loader:
            workers = default_workers(split, None, device)
            return Loader(split, BATCH, known.preprocess, device, workers=workers, augment=augment)

        kept = {key: about[key] for key in ("task", "classes", "preprocess") if key in about}
        task = Multilabel(known.classes) if known.several else Classification(known.classes)
        made = made.to(device).eval()
        return cls(made, kept, task, loader(data.val, None), loader(data.train, STILL), _moved_norms(made, folders))

    def score(self, folders: Sequence[Path]) -> tuple[float, str, int]:
        """Puts the mean of these weights into the model: its score, of which key of SCORES, on how many held-out images."""
        self.model.load_state_dict(mean(folders))
        with memory_told(self.val.device, "--device cpu (device=) judges there"):
            if len(folders) > 1 and self.norms:
                self._renew()
            judged: Evaluation | MultilabelEvaluation = self.task.evaluate(self.model, self.val.epoch())
        key, score = next(iter(judged.scores.items()))
        return score, key, len(judged.labels)

    @torch.no_grad()
    def _renew(self) -> None:
        """Takes BatchNorm's statistics anew: the plain mean over batches of training images; nothing else is in training."""
        before = [norm.momentum for norm in self.norms]
        for norm in self.norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        whole = max(1, len(self.train.split) // BATCH)
        for batch in islice(self.train.epoch(), min(BATCHES, whole)):
            self.model(batch.images)
        for norm, momentum in zip(self.norms, before, strict=True):
            norm.momentum = momentum
            norm.eval()


def mean(folders: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of each value in the folders' weights, added up in float64; of what is counted, the first folder's."""
    first = read_file(folders[0] / "model.safetensors")
    total = {key: value.double() for key, value in first.items() if value.is_floating_point()}
    for folder in folders[1:]:
        state = read_file(folder / "model.safetensors")
        for key, value in total.items():
            value += state[key]
    return first | {key: (value / len(folders)).to(first[key].dtype) for key, value in total.items()}


def _moved_norms(model: Model, folders: Sequence[Path]) -> tuple[nn.BatchNorm2d, ...]:
    """The BatchNorms of the model whose mean or variance is not the same in all these weights."""
    first, *others = (read_file(folder / "model.safetensors") for folder in folders)
    named = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]

    def moved(name: str) -> bool:
        keys = (f"{name}.running_mean", f"{name}.running_var")
        return any(not torch.equal(other[key], first[key]) for other in others for key in keys)

    return tuple(module for name, module in named if moved(name))


def _check_alike(first: Path, one: Mapping[str, Any], second: Path, other: Mapping[str, Any]) -> None:
    """Raises ValueError where two models cannot be averaged. They may differ in what only training knows."""
    configs = [{**about.get("config", {}), **about.get("timm", {})} for about in (one, other)]
    unlike = [key for key in configs[0].keys() | configs[1].keys() if configs[0].get(key) != configs[1].get(key)]
    unlike = sorted(set(unlike) - {"drop_path", "head_dropout"})
    if unlike:
        told = ", ".join(unlike)
        raise ValueError(f"{second} is of another architecture than {first} ({told}): only weights of one can be averaged")
    if one.get("task", TASKS[0]) != other.get("task", TASKS[0]):
        raise ValueError(f"of {second} and {first} only one gives images several labels: they cannot be averaged")
    for key, what in (("classes", "knows other classes"), ("preprocess", "is fed its images otherwise")):
        if one.get(key) != other.get(key):
            raise ValueError(f"{second} {what} than {first}: they cannot be averaged")


def _data(runs: Sequence[Run]) -> Data:
    """What all the runs learnt from. Raises ValueError where one of them learnt from images that judge another."""
    first = runs[0]
    recipe, split = first.recipe, first.path / "split.csv"
    drawn = split.read_text() if split.is_file() else None
    for run in runs[1:]:
        if run.recipe.data != recipe.data:
            raise ValueError(
                f"{run.path} learnt from {run.recipe.data}, {first.path} from {recipe.data}: no soup of two data sets"
            )
        theirs = run.path / "split.csv"
        if (theirs.read_text() if theirs.is_file() else None) != drawn:
            raise ValueError(
                f"{run.path} and {first.path} hold out other images, as their seeds drew them: no image judges both; put "
                "images into train/ and val/ for runs of several seeds"
            )
    return open_data(recipe.data, seed=recipe.seed, split=split, labels=recipe.labels)
