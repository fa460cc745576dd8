"""From stored pixels to what a model is fed: the same preprocessing in training and prediction, and augmentation."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metaformer.config import Recipe
from metaformer.data.sources import Data, Images


@dataclass(frozen=True)
class Preprocess:
    """Resize to a square and normalise. Travels with the weights, so that prediction does what training did."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) of 0 to 255 → (B, C, size, size) of mean 0 and standard deviation 1 over the training set."""
        x = pixels.float() / 255
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        shape = (1, -1, 1, 1)
        return (x - x.new_tensor(self.mean).view(shape)) / x.new_tensor(self.std).view(shape)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Preprocess":
        return cls(size=data["size"], mean=tuple(data["mean"]), std=tuple(data["std"]))


def preprocess_for(data: Data, recipe: Recipe) -> Preprocess:
    """Size from the recipe or the data; mean and standard deviation from the training pixels."""
    mean, std = data.statistics()
    return Preprocess(recipe.image_size or data.image_size, mean, std)


@dataclass(frozen=True)
class Augment:
    """Random shift and flip of stored pixels. What happens to a sample follows from (seed, epoch, sample) alone."""

    flip: float
    pad: float
    seed: int

    def __call__(self, pixels: Tensor, index: Tensor, epoch: int, total: int) -> Tensor:
        """(B, C, H, W) → the same shape; `index` (B,) says which of the `total` samples these are."""
        draw = _draws(self.seed, epoch, total)[index]
        height, width = pixels.shape[2:]
        mirrored = torch.where(draw[:, 0].view(-1, 1, 1, 1) < self.flip, pixels.flip(3), pixels)
        return shift(mirrored, _moves(draw[:, 1], self.pad * height), _moves(draw[:, 2], self.pad * width))


@lru_cache(maxsize=1)
def _draws(seed: int, epoch: int, total: int) -> Tensor:
    return torch.rand(total, 3, generator=generator(seed, epoch, "augment"))


def generator(*key: int | str) -> torch.Generator:
    """A generator that depends on the key alone: not on the process, not on what was drawn before."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def _moves(draw: Tensor, most: float) -> Tensor:
    """Whole moves, uniform over -n … n, n the greatest move rounded to the nearest."""
    n = round(most)
    return (draw * (2 * n + 1)).long() - n


def shift(pixels: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each image (B, C, H, W) moved by its own whole pixels (B,), black where nothing moves in."""
    height, width = pixels.shape[2:]
    rows = torch.arange(height) - down.unsqueeze(1)  # (B, H): where each new row comes from
    columns = torch.arange(width) - right.unsqueeze(1)
    inside = ((rows >= 0) & (rows < height)).unsqueeze(2) & ((columns >= 0) & (columns < width)).unsqueeze(1)
    batch = torch.arange(len(pixels)).view(-1, 1, 1)
    moved = pixels.permute(0, 2, 3, 1)[batch, rows.clamp(0, height - 1).unsqueeze(2), columns.clamp(0, width - 1).unsqueeze(1)]
    return (moved * inside.unsqueeze(3)).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Batch:
    """What a model is fed: images (B, C, H, W), normalised, and labels (B,)."""

    images: Tensor
    labels: Tensor

    def parts(self, count: int) -> "list[Batch]":
        """The batch cut into at most `count` micro-batches."""
        size = -(-len(self.labels) // count)
        return [Batch(x, y) for x, y in zip(self.images.split(size), self.labels.split(size), strict=True)]


def batches(
    images: Images,
    order: Tensor,
    size: int,
    preprocess: Preprocess,
    device: torch.device,
    *,
    augment: Augment | None = None,
    epoch: int = 0,
    start: int = 0,
) -> Iterator[Batch]:
    """Batches of `size` in the given order of samples, from batch number `start` on; the last one may be smaller."""
    for index in order.split(size)[start:]:
        pixels, labels = images.read(index)
        if augment is not None:
            pixels = augment(pixels, index, epoch, len(images))
        yield Batch(preprocess(pixels.to(device)), labels.to(device))


def shuffled(count: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's samples, the same for the same seed and epoch."""
    return torch.randperm(count, generator=generator(seed, epoch, "order"))
