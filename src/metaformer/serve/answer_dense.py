"""Detectors and segmenters that are served: objects with boxes and masks, or regions as a picture. Needs torch."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metaformer.core.device import precision_name
from metaformer.data.decode import decode_array
from metaformer.infer.dense import Asking, DensePredictor
from metaformer.infer.outline import polygons
from metaformer.infer.results import DensePrediction
from metaformer.serve.jobs import Asked, Model, Record
from metaformer.serve.records import png, shown_source, why
from metaformer.serve.settings import Running
from metaformer.tasks.found import Found, rle_text, run_lengths

VOID = 255
"""What a picture of regions has where no class is."""


def open_finder(name: str, source: str, running: Running, pixels: int) -> "Finder":
    """Raises ValueError or OSError with a sentence."""
    if running.streams is not None:
        raise ValueError(f"streams={running.streams} is for classifiers, and {source} finds objects or regions: leave it out")
    engine, device, precision = running.engine, running.device, running.precision
    return Finder(name, DensePredictor(source, engine, device=device, precision=precision, threads=running.threads), pixels)


class Finder:
    """Answers with objects or regions, as `DensePredictor` gives them, one image at a time."""

    batch = 1

    def __init__(self, name: str, predictor: DensePredictor, pixels: int) -> None:
        self.predictor, self.most = predictor, pixels
        own = getattr(predictor.model, "name", None)
        engine, _, precision = (own or f"torch {precision_name(predictor.precision)}").partition(" ")
        self.model = Model(
            name, shown_source(str(predictor.source)), predictor.model.config.task, predictor.classes, None, engine, precision
        )

    def read(self, images: Sequence[bytes]) -> list[Tensor | str]:
        return [self._read(image) for image in images]

    def _read(self, image: bytes) -> Tensor | str:
        """(3, H, W) of bytes, or why there is none."""
        try:
            return torch.from_numpy(decode_array(image, 3, most=self.most)).permute(2, 0, 1)
        except ValueError as error:
            return why(error)

    def answer(self, read: Sequence[Tensor | str], asked: Sequence[Asked]) -> list[Record]:
        return [self._answer(pixels, one) for pixels, one in zip(read, asked, strict=True)]

    def _answer(self, pixels: Tensor | str, asked: Asked) -> Record:
        if isinstance(pixels, str):
            return {"error": pixels}
        try:
            found = self.predictor.ask(pixels, asking=Asking(asked.threshold))
        except ValueError as error:  # an image that a file does not take
            return {"error": str(error)}
        return dense_record(found, self.predictor.classes, asked)

    def warm(self) -> tuple[int, float]:
        side = self.predictor.short if self.predictor.within is None else min(self.predictor.within)
        pixels = torch.zeros(3, side, side, dtype=torch.uint8)
        self.predictor.ask(pixels)
        began = time.perf_counter()
        self.predictor.ask(pixels)
        return 1, time.perf_counter() - began


def dense_record(found: DensePrediction, classes: Sequence[str], asked: Asked) -> Record:
    """What was found in an image, in the pixels of the image as it was read."""
    known: Record = {"width": found.size[1], "height": found.size[0]}
    if found.found is not None:
        return known | {"objects": object_rows(found.found, classes, asked)}
    assert found.regions is not None
    return known | region_parts(found.regions.numpy(), classes)


def object_rows(found: Found, classes: Sequence[str], asked: Asked) -> list[Record]:
    """The best first. A box is x1, y1, x2, y2; a polygon x, y, x, y and so on, in pixels."""
    columns = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    rows: list[Record] = [
        {"label": classes[label], "score": round(score, 6), "box": [round(side, 2) for side in box]}
        for label, score, box in columns
    ]
    if found.masks is None:
        return rows
    if asked.masks == "rle":
        return [row | {"rle": rle_text(rle)} for row, rle in zip(rows, run_lengths(found.masks), strict=True)]
    masks = zip(rows, found.masks.numpy(), strict=True)
    return [row | {"polygons": [ring.round(1).ravel().tolist() for ring in polygons(mask)]} for row, mask in masks]


def region_parts(regions: np.ndarray[Any, Any], classes: Sequence[str]) -> Record:
    """A grey PNG of the numbers of classes, 255 of none; and the part of the image that each has, the largest first."""
    picture = regions.astype(np.uint8)
    counts = np.bincount(picture.ravel(), minlength=VOID + 1)[: min(len(classes), VOID)]
    order = [place for place in np.argsort(-counts, kind="stable").tolist() if counts[place]]
    parts = [{"label": classes[p], "index": p, "share": round(int(counts[p]) / picture.size, 6)} for p in order]
    return {"png": png(Image.fromarray(picture)), "regions": parts}
