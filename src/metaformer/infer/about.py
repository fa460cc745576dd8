"""What is to know of a model beside its weights: classes and preprocessing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaformer.config import read_json
from metaformer.data.preprocess import Preprocess
from metaformer.infer.said import said_in
from metaformer.runs import is_run, open_run

TASKS = ("classification", "multilabel")
"""What a model.json may say that its model is for."""


def is_dense_source(source: str | Path) -> bool:
    """Whether a run, a folder of weights or a file is that of a model of objects or regions."""
    folder = open_run(source).best if is_run(source) else Path(source)
    if folder.is_file():
        return "dense" in said_in(folder)
    file = folder / "model.json"
    return file.is_file() and "dense" in read_json(file)


@dataclass(frozen=True)
class Known:
    """Read strictly from what a file says of itself."""

    classes: tuple[str, ...]
    preprocess: Preprocess
    synsets: tuple[str, ...]
    """WordNet's numbers of the classes, by which ImageNet's folders are called; empty for classes of other kinds."""
    several: bool
    """Whether an image may have several labels: each logit is then a label's own."""
    probabilities: bool
    """Whether the file gives probabilities, not logits."""


def read_about(about: Mapping[str, Any], source: str | Path, count: int | None = None) -> Known:
    """`count` is how many classes there must be, where that is known. Raises ValueError with a sentence."""
    if "dense" in about:
        raise ValueError(f"{source} finds objects or regions: metaformer.DensePredictor opens it")
    classes, preprocess = about.get("classes"), about.get("preprocess")
    right = len(classes) == count if isinstance(classes, list) and count is not None else bool(classes)
    named = isinstance(classes, list) and right and all(type(name) is str for name in classes)
    if not named or not isinstance(preprocess, dict):
        raise ValueError(f"{source} does not say the {f'{count} ' if count else ''}classes or the preprocessing of its model")
    synsets = about.get("synsets", [])
    if not isinstance(synsets, list) or len(synsets) not in (0, len(classes)) or any(type(name) is not str for name in synsets):
        raise ValueError(f"{source} is damaged: its synsets are WordNet's numbers, one for each class, or none")
    task = about.get("task", "classification")
    if task not in TASKS:
        raise ValueError(f"{source} is a model for {task!r}; this version predicts {' and '.join(TASKS)}")
    probabilities = about.get("probabilities", False)
    if type(probabilities) is not bool:
        raise ValueError(f"{source} is damaged: whether it gives probabilities is true or false, not {probabilities!r}")
    return Known(tuple(classes), Preprocess.from_dict(preprocess), tuple(synsets), task == "multilabel", probabilities)
