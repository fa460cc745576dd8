"""`Predictor`: load, decode, batch, run, decode the answer. `evaluate`: the same model judged on a data set."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metaformer.core.device import choose_device
from metaformer.data.dataset import Data
from metaformer.data.decode import decode
from metaformer.data.loader import Loader, default_workers
from metaformer.data.sources import open_judged
from metaformer.data.splits import Encoded, Images
from metaformer.data.transforms import Preprocess
from metaformer.runs import is_run, no_run, open_run
from metaformer.tasks.classification import Classification, Evaluation
from metaformer.weights.catalogue import Published, find
from metaformer.weights.create import create_published
from metaformer.weights.hub import HUB, fetch_pretrained
from metaformer.weights.pretrained import Model, read_pretrained
from metaformer.zoo import ZOO

Picture = str | Path | bytes | Image.Image | np.ndarray[Any, Any] | Tensor


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: classes with probabilities, best first; or why there is none."""

    path: str
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The most probable class."""
        return self.top[0][0] if self.top else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        top = [{"label": name, "probability": round(value, 6)} for name, value in self.top]
        return {"path": self.path, "label": self.label, "probability": top[0]["probability"], "top": top}


class Predictor:
    """A trained classifier: `Predictor("runs/demo")(["a.png", "b.jpg"])` gives a Prediction for each image.

    `source` is a run directory (its best weights), a folder that `save_pretrained` wrote, `hf:USER/NAME` on Hugging Face,
    or a model's name for its published weights, such as caformer_s18 or caformer_s18.in1k_384. `engine` is "auto" or
    "torch". `model` is needed where its mixers are code of your own. Raises ValueError or OSError with a sentence.
    """

    def __init__(self, source: str | Path, engine: str = "auto", *, device: str = "auto", model: Model | None = None) -> None:
        if engine not in ("auto", "torch"):
            raise ValueError(f"no engine {engine!r}; allowed: auto, torch")
        self.source = Path(source)
        self.device = choose_device(device)
        model, about = _open(source, model)
        classes, count = about.get("classes"), model.config.num_classes
        named = isinstance(classes, list) and len(classes) == count and all(isinstance(name, str) for name in classes)
        if not named or not isinstance(about.get("preprocess"), dict):
            raise ValueError(f"{source} does not say the {count} classes or the preprocessing of its model")
        self.model = model.eval().to(self.device)
        self.task = Classification(tuple(about["classes"]))
        self.preprocess = Preprocess.from_dict(about["preprocess"])
        self.synsets: tuple[str, ...] = tuple(about.get("synsets", ()))
        """WordNet's numbers of the classes, by which ImageNet's folders are called; empty for classes of other kinds."""

    def __call__(self, images: Sequence[Picture], *, batch: int = 32, top: int = 5) -> list[Prediction]:
        """Predictions in the order of `images`, each with the `top` most probable classes.

        An image is a path, the bytes of a file, a PIL image, or pixels as uint8: a tensor (C, H, W) or an array (H, W, C)
        or (H, W). One that cannot be read gives its reason.
        """
        return list(self.stream(images, batch=batch, top=top))

    def stream(self, images: Sequence[Picture], *, batch: int = 32, top: int = 5) -> Iterator[Prediction]:
        """The same, one by one, with no more than a batch in memory."""
        if top < 1 or batch < 1:
            raise ValueError(f"top={top}, batch={batch}: both are at least 1")
        stacked = isinstance(images, Tensor | np.ndarray) and images.ndim == 4
        if not stacked and (not isinstance(images, Sequence) or isinstance(images, str | bytes)):
            raise ValueError("give a list of images, be it of one: predictor([image])")
        for start in range(0, len(images), batch):
            yield from self._predict(images[start : start + batch], top)

    def __repr__(self) -> str:
        return (
            f"Predictor({str(self.source)!r}, {len(self.task.classes)} classes, {self.preprocess.size} pixels, {self.device})"
        )

    def _predict(self, images: Sequence[Picture], top: int) -> Iterator[Prediction]:
        fed: dict[int, Tensor] = {}
        errors: dict[int, str] = {}
        for i, image in enumerate(images):
            try:
                fed[i] = self.preprocess.fitted(self._pixels(image))
            except ValueError as error:
                errors[i] = str(error)
        answers: dict[int, list[tuple[str, float]]] = {}
        if fed:
            with torch.inference_mode():
                logits = self.model(self.preprocess.normalise(torch.cat(list(fed.values())).to(self.device)))
            answers = dict(zip(fed, self.task.decode(logits, top), strict=True))
        for i, image in enumerate(images):
            path = str(image) if isinstance(image, str | Path) else ""
            yield Prediction(path, tuple(answers.get(i, ())), errors.get(i))

    def _pixels(self, image: Picture) -> Tensor:
        """(1, C, H, W) as uint8."""
        channels = self.model.config.in_chans
        if isinstance(image, str | Path | bytes | Image.Image):
            return decode(image, channels)
        if isinstance(image, np.ndarray) and image.dtype == np.uint8:
            pixels = torch.from_numpy(np.ascontiguousarray(image))
            image = pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels.unsqueeze(0)
        if not isinstance(image, Tensor):
            kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ValueError(f"{kind}: an image is a path, bytes, a PIL image, or pixels as uint8, 0 to 255")
        if image.ndim != 3 or len(image) != channels or image.dtype != torch.uint8 or not image.numel():
            raise ValueError(
                f"{image.dtype} {tuple(image.shape)}: this model takes pixels ({channels}, H, W) as uint8, 0 to 255"
            )
        return image.unsqueeze(0)


def evaluate(
    source: str | Path,
    *,
    data: str | None = None,
    batch: int = 64,
    device: str = "auto",
    model: Model | None = None,
) -> Evaluation:
    """Judges a run's best weights on the held-out part of its own data, or of `data`; `model` as in Predictor.

    Raises ValueError with a sentence if the classes are not those that the model knows.
    """
    unsaid = f"{source} is no run, so say what to judge it on: data=NAME"
    if data is None and (str(source).startswith(HUB) or isinstance(_find(source), Published)):
        raise ValueError(unsaid)  # before anything is fetched
    predictor = Predictor(source, device=device, model=model)
    if data is None and not is_run(source):
        raise ValueError(unsaid)
    own = open_run(source) if is_run(source) else None
    named = own.recipe.data if own is not None and data is None else str(data)
    split = own.path / "split.csv" if own is not None and _same(named, own.recipe.data) else None
    opened = _open_judged(named, predictor, split)
    return judge(predictor, opened.val, batch=batch)


def _open_judged(named: str, predictor: Predictor, split: Path | None) -> Data:
    """The data to judge on, whose classes are called as the model calls them, or by WordNet's numbers."""
    channels = len(predictor.preprocess.mean)
    try:
        return open_judged(named, predictor.task.classes, channels, split=split)
    except ValueError as error:
        if not predictor.synsets or not re.search(r"\bn\d{8}\b", str(error)):
            raise
        return open_judged(named, predictor.synsets, channels, split=split)


def _same(one: str, other: str) -> bool:
    """Whether two texts name the same data, so that nothing that was learnt from is judged."""
    return one == other or Path(one).expanduser().resolve() == Path(other).expanduser().resolve()


def judge(predictor: Predictor, split: Images | Encoded, *, batch: int = 64) -> Evaluation:
    """The predictor's answers on every image of a split, beside the right ones."""
    workers = default_workers(split, None, predictor.device)
    loader = Loader(split, batch, predictor.preprocess, predictor.device, workers=workers)
    return predictor.task.evaluate(predictor.model, loader.epoch())


def _open(source: str | Path, model: Model | None) -> tuple[Model, dict[str, Any]]:
    """A model and what is to know of it."""
    found = _find(source)
    if isinstance(found, Path):
        return read_pretrained(found, model)
    return create_published(str(source))


def _find(source: str | Path) -> Path | Published:
    """Where the weights of a run or folder lie, or which published ones a name stands for; nothing but `hf:` is fetched."""
    if is_run(source):
        best = open_run(source).best
        if not best.is_dir():
            raise ValueError(f"{source} has no weights yet: go on with it, metaformer train {source}")
        return best
    name, _, tag = str(source).partition(".")
    if not Path(source).exists() and name in ZOO:
        return find(name, tag or True)
    if str(source).startswith(HUB):
        return fetch_pretrained(str(source))
    if not Path(source).exists():
        close = get_close_matches(name, ZOO, n=1, cutoff=0.8)
        raise FileNotFoundError(f"no run or model '{name}', did you mean {close[0]}?") if close else no_run(source)
    return Path(source)
