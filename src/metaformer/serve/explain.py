"""Where a classifier looked: Grad-CAM as a grey picture, and which part of the image it lies on. Needs torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from metaformer.core.device import with_threads
from metaformer.data.preprocess import Pixels, Preprocess
from metaformer.infer.predictor import Predictor
from metaformer.lab.cam import class_activation
from metaformer.serve.records import png


class Explainer:
    """Of a predictor whose model is there in torch."""

    def __init__(self, predictor: Predictor) -> None:
        assert predictor.model is not None
        self.model, self.preprocess = predictor.model, predictor.preprocess
        self.classes, self.several = predictor.classes, predictor.several
        self.threads = predictor.options.threads
        self.device = next(self.model.parameters()).device

    @property
    def tells(self) -> bool:
        """Whether the model has a map of more than one place."""
        size = self.preprocess.size
        try:
            self.explain(np.zeros((1, len(self.preprocess.mean), size, size), np.uint8), [(size, size)], [None])
        except ValueError:
            return False
        return True

    def explain(self, pixels: Pixels, sizes: Sequence[tuple[int, int]], labels: Sequence[str | None]) -> list[dict[str, Any]]:
        """For each image (B, C, size, size) of bytes what speaks for a class, None for the most probable one.

        `sizes` are the images' heights and widths before they were fitted; `box` is in these pixels, and reaches beyond the
        image where it was padded. Raises ValueError for a model that has no map.
        """
        with with_threads(self.threads):
            images = self.preprocess.normalise(torch.from_numpy(pixels).to(self.device))
            with torch.inference_mode():
                logits = self.model(images).float()
                sure = logits.sigmoid() if self.several else logits.softmax(1)
            best = sure.argmax(1).tolist()
            places = [top if one is None else self.classes.index(one) for one, top in zip(labels, best, strict=True)]
            heat = class_activation(self.model, images, torch.tensor(places, device=self.device)).float().cpu().numpy()
        return [
            {
                "label": self.classes[place], "probability": round(float(row[place]), 6), "width": width, "height": height,
                "box": seen_box(self.preprocess, height, width), "heat": grey_png(one, self.preprocess.size),
            }
            for place, row, (height, width), one in zip(places, sure, sizes, heat, strict=True)
        ]  # fmt: skip


def seen_box(preprocess: Preprocess, height: int, width: int) -> list[float]:
    """x1, y1, x2, y2 of the square that a model sees, in an image's own pixels."""
    at, size = preprocess.placing(height, width), preprocess.size
    across, down = at.width / at.wide, at.height / at.tall
    x, y = at.left - at.right * across, at.top - at.down * down
    return [round(side, 2) for side in (x, y, x + size * across, y + size * down)]


def grey_png(values: np.ndarray[Any, np.dtype[np.float32]], side: int) -> bytes:
    """(h, w) from 0 to 1 as a grey PNG of so many pixels a side."""
    picture = Image.fromarray((values * 255).round().astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
    return png(picture)
