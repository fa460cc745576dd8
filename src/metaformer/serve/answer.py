"""A model that is served: opens a source, and makes records of the bytes of image files. Runs in the model's own process.

`read` decodes and `answer` runs the model, so that one batch can be decoded while another runs.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from metaformer.data.decode import decode_array
from metaformer.data.preprocess import Pixels
from metaformer.infer.about import is_dense_source
from metaformer.infer.exported import is_exported
from metaformer.infer.predictor import Prediction, Predictor
from metaformer.serve.jobs import Asked, Model, Record
from metaformer.serve.records import shown_source, why
from metaformer.serve.settings import Limits, Running
from metaformer.tasks.labels import decode_labels, decode_several

WORTH = 0.9
"""What an image may cost at most in a larger batch, of what it costs in a smaller one, for that not to be enough."""
Tell = Callable[[str], object]
"""Takes a sentence for the log."""


class Answerer(Protocol):
    """Answers one kind of model's questions."""

    @property
    def model(self) -> Model: ...

    @property
    def batch(self) -> int:
        """Most images at once that are worth it."""
        ...

    def read(self, images: Sequence[bytes]) -> Any:
        """The images decoded, as `answer` takes them."""
        ...

    def answer(self, read: Any, asked: Sequence[Asked]) -> list[Record]:
        """A record for each image, in their order; all are asked the same kind of question."""
        ...

    def warm(self) -> tuple[int, float]:
        """Runs every size of a batch that is to come. Returns how many images at once are enough, and seconds for an image.

        Enough is a batch that is not worth doubling: its images need not wait for more.
        """
        ...


def open_answerer(
    name: str, source: str, running: Running, pixels: int = Limits.pixels, tell: Tell = lambda sentence: None
) -> Answerer:
    """Opens a source as `Predictor` and `DensePredictor` do. `pixels` is how many an image may have.

    Raises ValueError or OSError with a sentence.
    """
    if _is_dense(source):
        from metaformer.serve.answer_dense import open_finder

        return open_finder(name, source, running, pixels)
    predictor = Predictor(
        source, running.engine, device=running.device, precision=running.precision, threads=running.threads,
        streams=running.streams,
    )  # fmt: skip
    if predictor.tunes:
        tell(f"{name}: no engine was measured for this model on this machine yet, which is done now, once")
        predictor.tune(running.batch)
    tell(f"{name} is run by {predictor.choice}")
    return Classifier(name, predictor, running, pixels)


def _is_dense(source: str) -> bool:
    """Whether it finds objects or regions; of a file that is not there its runtime says so."""
    return (not is_exported(source) or Path(source).is_file()) and is_dense_source(source)


def ladder(most: int) -> list[int]:
    """1, 2, 4 and so on up to the largest batch."""
    return [*(2**power for power in range((most - 1).bit_length())), most]


@dataclass(frozen=True, eq=False)
class Read:
    """Images as a classifier is fed them."""

    pixels: Pixels
    """(B, C, size, size) of those that could be read."""
    places: list[int]
    """Which of the images these are."""
    sizes: list[tuple[int, int]]
    """Their heights and widths, upright."""
    errors: dict[int, str]
    """Why there is nothing of the others."""


def seconds(act: Callable[[], object]) -> float:
    """That it takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


class Classifier:
    """Answers with classes, as `Predictor` gives them; with embeddings and heat where the model is there in torch."""

    def __init__(self, name: str, predictor: Predictor, running: Running, pixels: int = Limits.pixels) -> None:
        self.predictor, self.preprocess, self.most = predictor, predictor.preprocess, pixels
        self.batch = running.batch
        self.compiled = predictor.engine.name.startswith("compiled")
        self.embedder: Any = None
        self.explainer: Any = None
        if predictor.model is not None:
            self._look_inside()
        engine, _, precision = predictor.engine.name.partition(" ")
        self.model = Model(
            name, shown_source(str(predictor.source)), "classification", predictor.classes, predictor.preprocess.size, engine,
            precision, predictor.several, 0 if self.embedder is None else self.embedder.dimensions,
            self.explainer is not None,
        )  # fmt: skip

    def _look_inside(self) -> None:
        """What needs the model itself; of images that are too small to say where, no heat."""
        from metaformer.infer.embed import Embedder
        from metaformer.serve.explain import Explainer

        self.embedder = Embedder(self.predictor)
        explainer = Explainer(self.predictor)
        self.explainer = explainer if explainer.tells else None

    def read(self, images: Sequence[bytes]) -> Read:
        channels, size = len(self.preprocess.mean), self.preprocess.size
        pixels = np.empty((len(images), channels, size, size), np.uint8)
        places: list[int] = []
        sizes: list[tuple[int, int]] = []
        errors: dict[int, str] = {}
        for place, image in enumerate(images):
            try:
                seen = decode_array(image, channels, most=self.most)
            except ValueError as error:
                errors[place] = why(error)
                continue
            pixels[len(places)] = self.preprocess.fitted_array(seen).transpose(2, 0, 1)
            places.append(place)
            sizes.append((seen.shape[0], seen.shape[1]))
        return Read(pixels[: len(places)], places, sizes, errors)

    def answer(self, read: Read, asked: Sequence[Asked]) -> list[Record]:
        found: list[Record] = [{"error": read.errors[place]} if place in read.errors else {} for place in range(len(asked))]
        if read.places:
            own = [asked[place] for place in read.places]
            kinds = {"predict": self._predict, "embed": self._embed, "explain": self._explain}
            for place, record in zip(read.places, kinds[own[0].kind](read, own), strict=True):
                found[place] = record
        return found

    def warm(self) -> tuple[int, float]:
        channels, size = len(self.preprocess.mean), self.preprocess.size
        batches = [np.zeros((count, channels, size, size), np.uint8) for count in ladder(self.batch)]
        for batch in batches[:1] if self.model.engine == "onnxruntime" else batches:  # it prepares nothing for a size
            self._logits(batch)
        enough, each = 0, math.inf
        for batch in batches:
            took = min(seconds(partial(self._logits, batch)) for _ in range(2)) / len(batch)
            if took > WORTH * each:
                break
            enough, each = len(batch), took
        return enough, each

    def _logits(self, pixels: Pixels) -> np.ndarray[Any, np.dtype[np.float32]]:
        """What is compiled for each size of a batch is shown those of the ladder alone, for compiling takes a minute."""
        count = len(pixels)
        if self.compiled and (full := next(size for size in ladder(self.batch) if size >= count)) > count:
            filled = np.zeros((full, *pixels.shape[1:]), np.uint8)
            filled[:count] = pixels
            return self.predictor.logits(filled)[:count]
        return self.predictor.logits(pixels)

    def _predict(self, read: Read, asked: Sequence[Asked]) -> list[Record]:
        logits, classes = self._logits(read.pixels), self.predictor.classes
        if self.predictor.several:
            return [class_record(top) for top in decode_several(logits, classes)]
        found = decode_labels(logits, classes, max(one.top for one in asked))
        return [class_record(top[: one.top]) for top, one in zip(found, asked, strict=True)]

    def _embed(self, read: Read, asked: Sequence[Asked]) -> list[Record]:
        return [{"embedding": row} for row in self.embedder.embed(read.pixels).tolist()]

    def _explain(self, read: Read, asked: Sequence[Asked]) -> list[Record]:
        return self.explainer.explain(read.pixels, read.sizes, [one.label for one in asked])


def class_record(top: Sequence[tuple[str, float]]) -> Record:
    """As `Prediction` writes it, without a path."""
    record = Prediction("", tuple(top)).to_dict()
    del record["path"]
    return record
