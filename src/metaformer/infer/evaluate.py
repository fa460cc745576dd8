"""`evaluate`: a predictor judged on a data set, by whatever engine it runs on."""

import re
from pathlib import Path

import torch

from metaformer.data.dataset import Data
from metaformer.data.loader import Loader, default_workers
from metaformer.data.sources import open_judged
from metaformer.data.splits import Encoded, Images
from metaformer.infer.exported import is_exported
from metaformer.infer.predictor import Predictor
from metaformer.infer.source import find_source
from metaformer.runs import is_run, open_run
from metaformer.tasks.classification import Evaluation
from metaformer.tasks.multilabel import MultilabelEvaluation
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
    if data is None and not is_run(source):
        if not str(source).startswith(HUB) and not is_exported(source) and isinstance(find_source(source), Path):
            Predictor(source, model=model)  # says first what is wrong with it
        own_data(source, data)  # says that there is none before anything is fetched
    predictor = Predictor(source, engine, device=device, precision=precision, threads=threads, streams=streams, model=model)
    named, split, _ = own_data(source, data)
    return judge(predictor, _open_judged(named, predictor, split).val, batch=batch)


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


def judge(predictor: Predictor, split: Images | Encoded, *, batch: int = 64) -> Evaluation | MultilabelEvaluation:
    """The predictor's answers on every image of a split, beside the right ones."""
    device = torch.device("cpu")
    loader = Loader(split, batch, predictor.preprocess, device, workers=default_workers(split, None, device))
    logits = [torch.from_numpy(predictor.logits(pixels.contiguous().numpy())) for pixels, _ in loader.pixels()]
    made = MultilabelEvaluation if predictor.several else Evaluation
    return made(torch.cat(logits), split.labels, predictor.classes)


def _open_judged(named: str, predictor: Predictor, split: Path | None) -> Data:
    """The data to judge on, whose classes are called as the model calls them, or by WordNet's numbers."""
    channels, labels = len(predictor.preprocess.mean), "multi" if predictor.several else "single"
    try:
        return open_judged(named, predictor.classes, channels, split=split, labels=labels)
    except ValueError as error:
        if not predictor.synsets or not re.search(r"\bn\d{8}\b", str(error)):
            raise
        return open_judged(named, predictor.synsets, channels, split=split)


def _same(one: str, other: str) -> bool:
    """Whether two texts name the same data, so that nothing that was learnt from is judged."""
    return one == other or Path(one).expanduser().resolve() == Path(other).expanduser().resolve()
