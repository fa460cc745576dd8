"""`Embedder`: images → vectors, the pooled features that a classifier's head is given; of models in torch."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaformer.core.device import choose_precision, with_threads
from metaformer.core.model import MetaFormer
from metaformer.data.preprocess import Pixels
from metaformer.infer.predictor import Predictor
from metaformer.weights.pretrained import Model


def pooled(model: Model, images: Tensor) -> Tensor:
    """(B, C, H, W), normalised → (B, dimensions): what the classifier is given."""
    if isinstance(model, MetaFormer):
        return model.head.pooled(model.features(images)[-1])
    return model.model.forward_head(model.forward_map(images), pre_logits=True).flatten(1)


class Embedder:
    """The vectors of a predictor's model, on its device and in its precision. Raises ValueError for an exported file."""

    def __init__(self, predictor: Predictor) -> None:
        if predictor.model is None:
            raise ValueError(
                f"{predictor.source} gives answers and keeps its features to itself: embed with what it was exported from"
            )
        self.model, self.preprocess = predictor.model.eval(), predictor.preprocess
        self.threads = predictor.options.threads
        self.device = next(self.model.parameters()).device
        self.precision = choose_precision(predictor.options.precision, self.device)
        channels, size = len(self.preprocess.mean), self.preprocess.size
        self.dimensions = self._vectors(np.zeros((1, channels, size, size), np.uint8)).shape[1]
        """Numbers in a vector."""

    def embed(self, pixels: Pixels) -> NDArray[np.float32]:
        """(B, C, size, size) of bytes, as `preprocess` fits them → (B, dimensions). Raises ValueError for other arrays."""
        channels, size = len(self.preprocess.mean), self.preprocess.size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (channels, size, size):
            wanted = f"an array (B, {channels}, {size}, {size}) of uint8"
            raise ValueError(f"{pixels.dtype} {tuple(pixels.shape)}: this model takes {wanted}")
        return self._vectors(pixels) if len(pixels) else np.empty((0, self.dimensions), np.float32)

    def _vectors(self, pixels: Pixels) -> NDArray[np.float32]:
        half = self.precision != torch.float32
        with with_threads(self.threads), torch.inference_mode():
            images = self.preprocess.normalise(torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device))
            with torch.autocast(self.device.type, self.precision, enabled=half):
                return pooled(self.model, images).float().cpu().numpy()
