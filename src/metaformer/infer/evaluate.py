"""`evaluate`: a predictor judged on a data set, by whatever engine it runs on."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from metaformer.data.dataset import Data
from metaformer.data.loader import Loader, default_workers
from metaformer.data.sources import open_judged
from metaformer.data.splits import Encoded, Images
from metaformer.infer.engines import Options
from metaformer.infer.exported import is_exported
from metaformer.infer.predictor import Predictor
from metaformer.infer.source import find_source
from metaformer.runs import is_run, open_run
from metaformer.tasks.classification import Evaluation
from metaformer.tasks.multilabel import MultilabelEvaluation
from metaformer.weights import imagenet
from metaformer.weights.hub import HUB
from metaformer.weights.pretrained import Model


def evaluate(
    source: str | Path,
    *,
    data: str | None = None,
    batch: int = 64,
    device: str = "auto",
    engine: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    streams: int | None = None,
    model: Model | None = None,
) -> Evaluation | MultilabelEvaluation:
    """Judges a run's best weights on the held-out part of its own data, or any model or exported file on that of `data`.

    `engine`, `precision`, `threads`, `streams` and `model` as in Predictor. Raises ValueError with a sentence if the classes
    are not those that the model knows.
    """
    predictor = open_predictor(source, data, engine, Options(device, precision, threads, streams), model)
    _, split = open_own(predictor, source, data)
    return evaluate_split(predictor, split, batch=batch)


def open_predictor(source: str | Path, data: str | None, engine: str, how: Options, model: Model | None = None) -> Predictor:
    """What is to be judged on `data`. Raises ValueError or OSError with a sentence, also where nothing says what judges."""
    if data is None and not is_run(source):
        if not str(source).startswith(HUB) and not is_exported(source) and isinstance(find_source(source), Path):
            Predictor(source, model=model)  # says first what is wrong with it
        own_data(source, data)  # says that there is none before anything is fetched
    return Predictor(
        source,
        engine,
        device=how.device,
        precision=how.precision,
        threads=how.threads,
        streams=how.streams,
        model=model,
    )


def open_own(predictor: Predictor, source: str | Path, data: str | None) -> tuple[str, Images | Encoded]:
    """The images that judge it, and what they are called: `data`, or what its run learnt from."""
    named, split, _ = own_data(source, data)
    return named, _open_judged(named, predictor, split).val


def own_data(source: str | Path, data: str | None) -> tuple[str, Path | None, str]:
    """`data`, or what a run learnt from, which of its images did, and its labels=; a file that lies in a run is the run's.

    Raises ValueError where neither says.
    """
    near = (Path(source), Path(source).parent) if Path(source).exists() else ()
    folder = next((path for path in near if is_run(path)), None)
    if folder is None:
        if data is None:
            raise ValueError(f"{source} is no run, so say what to judge it on: data=NAME")
        return data, None, "auto"
    own = open_run(folder)
    named = own.recipe.data if data is None else data
    return (named, own.path / "split.csv", own.recipe.labels) if _same(named, own.recipe.data) else (named, None, "auto")


def evaluate_split(
    predictor: Predictor, split: Images | Encoded, *, batch: int = 64, among: Tensor | None = None
) -> Evaluation | MultilabelEvaluation:
    """The predictor's answers on every image of a split, beside the right ones.

    `among` are the classes (K,) that an answer is one of, and labels are then places among them; by default all.
    """
    device = torch.device("cpu")
    loader = Loader(split, batch, predictor.preprocess, device, workers=default_workers(split, None, device))
    logits = [torch.from_numpy(predictor.logits(pixels.contiguous().numpy())) for pixels, _ in loader.pixels()]
    if among is not None:
        logits = [part[:, among] for part in logits]
        return Evaluation(torch.cat(logits), split.labels, tuple(predictor.classes[place] for place in among.tolist()))
    made = MultilabelEvaluation if predictor.several else Evaluation
    return made(torch.cat(logits), split.labels, predictor.classes)


def check_same(sources: Sequence[str | Path], predictors: Sequence[Predictor], named: str) -> None:
    """Raises ValueError with a sentence where the data `named` cannot judge all models as it can the first one.

    They must know the same classes in the same order, take grey images or all colour ones, give an image one label, and have
    left the same images unseen.
    """
    first, split = predictors[0], own_data(sources[0], named)[1]
    for source, predictor in zip(sources, predictors, strict=True):
        if predictor.several:
            raise ValueError(f"{source} gives an image several labels: metaformer eval judges it alone and without options")
        if predictor.classes != first.classes or len(predictor.preprocess.mean) != len(first.preprocess.mean):
            raise ValueError(f"{source} and {sources[0]} do not know the same classes of the same kind of images")
        if drawn(own_data(source, named)[1]) != drawn(split):
            raise ValueError(f"{source} and {sources[0]} learnt from different parts of {named}: give other images, data=NAME")


def drawn(split: Path | None) -> str | None:
    """What a run's file of its own split says, where there is one."""
    return split.read_text(encoding="utf-8") if split is not None and split.is_file() else None


def among_which(predictor: Predictor, split: Images | Encoded, name: str) -> tuple[Images | Encoded, Tensor | None]:
    """The images with labels that are places among the classes of an ImageNet test set, and these; None for all classes.

    `name` is one of `imagenet.SUBSETS`, `all`, or `auto`: the set whose classes are just those of the images. Raises ValueError
    where an image is of another class.
    """
    known = predictor.synsets == imagenet.synsets(1000)
    present = split.labels.unique().tolist()
    if name == "auto":
        name = next((key for key in imagenet.SUBSETS if known and list(imagenet.subset(key)) == present), "all")
    if name == "all":
        return split, None
    among = torch.tensor(imagenet.subset(name))
    if not known or not set(present) <= set(among.tolist()):
        raise ValueError(
            f"among={name}: the model's classes are not ImageNet's 1000, or some images are of others than its 200"
        )
    return replace(split, labels=torch.searchsorted(among, split.labels)), among


def _open_judged(named: str, predictor: Predictor, split: Path | None) -> Data:
    """The data to judge on, whose classes are called as the model calls them, or by WordNet's numbers, or by their places, as
    in ImageNet-V2."""
    channels, labels = len(predictor.preprocess.mean), "multi" if predictor.several else "single"
    try:
        return open_judged(named, predictor.classes, channels, split=split, labels=labels)
    except ValueError as error:
        strange = re.search(r" has class '(n\d{8}|\d{1,3})'", str(error))
        if not predictor.synsets or strange is None:
            raise
        names = predictor.synsets if strange[1].startswith("n") else tuple(map(str, range(len(predictor.synsets))))
        return open_judged(named, names, channels, split=split)


def _same(one: str, other: str) -> bool:
    """Whether two texts name the same data, so that nothing that was learnt from is judged."""
    return one == other or Path(one).expanduser().resolve() == Path(other).expanduser().resolve()
