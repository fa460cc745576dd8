"""What all dense models have in common: bytes become a normalised batch, the backbone, what of it is frozen."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer.core.model import MetaFormer
from metaformer.dense.backbone import Backbone
from metaformer.dense.config import DenseConfig

DIVISOR = 32
"""Height and width of a batch are multiples of it."""
Images = Sequence[Tensor] | Tensor
"""Of different sizes, each (C, H, W), or (B, C, H, W): bytes, or floating-point pixels that are normalised already."""
Size = tuple[int, int]
"""Height and width."""


class Truth(Protocol):
    """The objects of one image, in its pixels."""

    @property
    def boxes(self) -> Tensor:
        """(N, 4): x1, y1, x2, y2."""
        ...

    @property
    def labels(self) -> Tensor: ...
    @property
    def masks(self) -> Tensor | None:
        """(N, H, W)."""
        ...

    @property
    def crowd(self) -> Tensor: ...


class Dense(nn.Module):
    """A backbone whose maps of `strides` a head reads. Subclasses give losses with truths and answers without."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: DenseConfig, strides: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, strides, config.map_norm)
        self.frozen = 0
        """Stages that do not learn."""
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(config, name)).view(-1, 1, 1), persistent=False)

    @property
    def checkpointing(self) -> bool:
        """Whether the backbone's blocks are computed again in the backward pass, which trades time for memory."""
        return self.backbone.body.checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        self.backbone.body.checkpointing = on

    def freeze(self, stages: int) -> None:
        """Stops the backbone's first so many stages, its stem the first of them, from learning, statistics included.

        Raises ValueError where it has not as many, or is timm's.
        """
        body = self.backbone.body
        if not isinstance(body, MetaFormer) or not 0 <= stages <= len(body.stages):
            have = f"up to {len(body.stages)}" if isinstance(body, MetaFormer) else "none, as the backbone is timm's"
            raise ValueError(f"{stages} stages cannot be frozen: this model has {have}")
        self.frozen = stages
        for place, stage in enumerate(body.stages):
            stage.requires_grad_(place >= stages)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Dense":
        super().train(mode)
        if self.frozen:
            assert isinstance(self.backbone.body, MetaFormer)
            for stage in self.backbone.body.stages[: self.frozen]:
                stage.eval()
        return self

    def stack(self, images: Images) -> tuple[Tensor, list[Size]]:
        """A batch (B, C, H, W) with H and W multiples of 32, and each image's height and width in it.

        Bytes are normalised; what is added at the right and at the bottom is 0 after that, the mean pixel.
        """
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        if not sizes:
            raise ValueError("a batch of no images: give one at least")
        height, width = (rounded_up(max(side)) for side in zip(*sizes, strict=True))
        whole = images.unbind() if isinstance(images, Tensor) else images
        if isinstance(images, Tensor) and images.is_floating_point() and sizes[0] == (height, width):
            return images, sizes
        padded = [F.pad(self._normal(image), (0, width - w, 0, height - h)) for image, (h, w) in zip(whole, sizes, strict=True)]
        return torch.stack(padded).contiguous(memory_format=torch.channels_last), sizes

    def _normal(self, image: Tensor) -> Tensor:
        if image.is_floating_point():
            return image
        return (image.to(self.mean.dtype) / 255 - self.mean) / self.std


def rounded_up(side: int, divisor: int = DIVISOR) -> int:
    """The least multiple of `divisor` that is not smaller."""
    return math.ceil(side / divisor) * divisor
