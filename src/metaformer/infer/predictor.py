"""`Predictor`: load, decode, batch, run, decode the answer. Of an exported file it needs no torch."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer.data.preprocess import Pixels
from metaformer.infer.about import read_about
from metaformer.infer.engines import Logits, Options
from metaformer.infer.exported import is_exported, open_exported
from metaformer.infer.given import is_tensor, pixels_of
from metaformer.tasks.labels import decode_labels, decode_several, logits_of

if TYPE_CHECKING:
    from metaformer.infer.choose import Measured
    from metaformer.infer.given import Picture
    from metaformer.weights.pretrained import Model

PAYS = 60.0
"""Seconds of work from which on measuring the engines pays."""


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
    a model's name for its published weights, such as caformer_s18 or caformer_s18.in1k_384, or a file that `export` wrote.
    `engine` is what runs it: torch, compiled, openvino, onnxruntime, or auto, which is the fastest that was measured for
    this model on this machine (`tune`), torch before that, and for a file the runtime that it was written for.
    `precision` is fp32, bf16, fp16 (GPUs) or auto; `threads` are a processor's, `streams` OpenVINO's. `model` is needed where
    its mixers are code of your own; it is copied. Raises ValueError or OSError with a sentence.
    """

    def __init__(
        self,
        source: str | Path,
        engine: str = "auto",
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        streams: int | None = None,
        model: "Model | None" = None,
    ) -> None:
        self.source = Path(source)
        self.options = Options(device, precision, threads, streams)
        self.model: Model | None = None
        """The model in torch; None of an exported file."""
        if is_exported(source):
            self.engine, known = open_exported(self.source, engine, self.options)
            self.choice = f"{self.engine.name}: {'what the file is for' if engine == 'auto' else 'as was asked for'}"
        else:
            from metaformer.infer.choose import choose
            from metaformer.infer.source import open_source

            self.model, about = open_source(source, model, self.options.device)
            known = read_about(about, source, self.model.config.num_classes)
            self.engine, self.choice = choose(self.model, known.preprocess, engine, self.options)
        self.classes, self.preprocess, self.synsets = known.classes, known.preprocess, known.synsets
        self.several = known.several
        """Whether an image may have several labels."""
        self.probabilities = known.probabilities
        """Whether the engine gives probabilities, as a file may that was exported so."""
        self.tunes = engine == "auto" and self.model is not None and "measured" not in self.choice

    def __call__(self, images: "Sequence[Picture]", *, batch: int = 32, top: int = 5) -> list[Prediction]:
        """Predictions in the order of `images`, each with the `top` most probable classes; of a model for several labels all
        that are over 0.5, or the most probable one if none is.

        An image is a path, the bytes of a file, a PIL image, or pixels as uint8: a tensor (C, H, W) or an array (H, W, C)
        or (H, W). One that cannot be read gives its reason.
        """
        return list(self.stream(images, batch=batch, top=top))

    def stream(self, images: "Sequence[Picture]", *, batch: int = 32, top: int = 5) -> Iterator[Prediction]:
        """The same, one by one, with no more than a batch in memory.

        Where the engine is to be chosen and was not measured yet, that is done as soon as enough images are left to pay it.
        """
        if top < 1 or batch < 1:
            raise ValueError(f"top={top}, batch={batch}: both are at least 1")
        stacked = (is_tensor(images) or isinstance(images, np.ndarray)) and images.ndim == 4
        if not stacked and (not isinstance(images, Sequence) or isinstance(images, str | bytes)):
            raise ValueError("give a list of images, be it of one: predictor([image])")
        for start in range(0, len(images), batch):
            began = time.perf_counter()
            answers = self._predict(images[start : start + batch], top)
            seconds = time.perf_counter() - began  # without what the caller does with the answers
            yield from answers
            if self.tunes and seconds * (len(images) - start - batch) / batch > PAYS:
                self.tune(batch)

    def tune(self, batch: int = 32) -> list["Measured"]:
        """Measures the engines that are installed in turns, takes the fastest, remembers it for this model on this machine."""
        from metaformer.infer.choose import tune

        if self.model is None:
            raise ValueError(f"{self.source} is for one runtime; what it was exported from can be tuned")
        self.engine, self.choice, measured = tune(self.model, self.preprocess, self.options, batch)
        self.tunes = False
        return measured

    def __repr__(self) -> str:
        return (
            f"Predictor({str(self.source)!r}, {len(self.classes)} classes, {self.preprocess.size} pixels, {self.engine.name})"
        )

    def logits(self, pixels: Pixels) -> Logits:
        """(B, C, size, size) of bytes, as `preprocess` fits them → (B, classes). Raises ValueError for other arrays.

        Of a file that gives probabilities, logits that have these.
        """
        channels = len(self.preprocess.mean)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] != channels or 0 in pixels.shape[2:]:
            raise ValueError(f"{pixels.dtype} {tuple(pixels.shape)}: this model takes an array (B, {channels}, H, W) of uint8")
        if not len(pixels):
            return np.empty((0, len(self.classes)), np.float32)
        found = self.engine(np.ascontiguousarray(pixels))
        return logits_of(found, several=self.several) if self.probabilities else found

    def fitted(self, image: "Picture") -> Pixels:
        """(C, size, size) of bytes, as `logits` takes many of. Raises ValueError with why the image cannot be read."""
        return self.preprocess.fitted_array(pixels_of(image, len(self.preprocess.mean))).transpose(2, 0, 1)

    def labels(self, pixels: Pixels, top: int = 5) -> list[list[tuple[str, float]]]:
        """Classes with probabilities, best first, for each of (B, C, size, size), as a Prediction has them."""
        logits = self.logits(pixels)
        return decode_several(logits, self.classes) if self.several else decode_labels(logits, self.classes, top)

    def _predict(self, images: "Sequence[Picture]", top: int) -> list[Prediction]:
        fed: dict[int, Pixels] = {}
        errors: dict[int, str] = {}
        for i, image in enumerate(images):
            try:
                fed[i] = self.fitted(image)
            except ValueError as error:
                errors[i] = str(error)
        answers: dict[int, list[tuple[str, float]]] = {}
        if fed:
            answers = dict(zip(fed, self.labels(np.stack(list(fed.values())), top), strict=True))
        paths = [str(image) if isinstance(image, str | Path) else "" for image in images]
        return [Prediction(path, tuple(answers.get(i, ())), errors.get(i)) for i, path in enumerate(paths)]
