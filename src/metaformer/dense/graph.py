"""A dense model as a graph of fixed sides: the answers of the model itself, in tensors whose shapes no image changes."""

import torch
from torch import Tensor, nn

from metaformer.dense.model import DIVISOR, Dense, Size
from metaformer.dense.regions import Segmenter


class Graph(nn.Module):
    """Bytes (B, C, H, W) of one height and width → what `names` names. Raises ValueError for sides that are not allowed."""

    names: tuple[str, ...] = ("logits",)

    def __init__(self, model: Dense, size: Size) -> None:
        super().__init__()
        if model.training:
            raise ValueError("a graph is for inference: call model.eval() first")
        if any(side < DIVISOR or side % DIVISOR for side in size):
            near = " ".join(str(max(DIVISOR, round(side / DIVISOR) * DIVISOR)) for side in size)
            raise ValueError(f"a height of {size[0]} and a width of {size[1]} are not multiples of {DIVISOR}: take {near}")
        self.model, self.size = model, size

    def normal(self, x: Tensor) -> Tensor:
        """As the model normalises bytes."""
        return (x.to(self.model.mean.dtype) / 255 - self.model.mean) / self.model.std

    def black(self) -> Tensor:
        """An image of this size, normalised already, to learn shapes from."""
        return torch.zeros(1, len(self.model.mean), *self.size, device=self.model.mean.device)


class RegionGraph(Graph):
    """Any number of images → logits (B, classes, H / 4, W / 4)."""

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.model, Segmenter)
        return self.model.predict(self.normal(x))
