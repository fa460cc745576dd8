"""From stored pixels to what a model is fed: the same fitting and normalising in training and in prediction."""

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LONG = 20
"""Sides' ratio beyond which only the middle of an image is looked at before it is resized."""


@dataclass(frozen=True)
class Preprocess:
    """Fit to a square and normalise. Travels with the weights, so that prediction does what training did."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: str = "squash"
    """`squash` changes the aspect ratio and shows everything; `crop` shows the centre; `pad` adds bars of the mean colour."""
    crop_fraction: float | None = None
    """With `crop`, as published weights were judged: the short side becomes floor(size / this), then the centre is cut out."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) of bytes → (B, C, size, size), normalised."""
        return self.normalise(self.fitted(pixels))

    def fitted(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, size, size), both of bytes."""
        height, width = pixels.shape[-2:]
        if self.fit == "crop" and self.crop_fraction is not None:
            return self._centre(pixels, math.floor(self.size / self.crop_fraction))
        if (height, width) == (self.size, self.size):
            return pixels
        if self.fit == "crop":
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            pixels = pixels[..., top : top + side, left : left + side]
        if self.fit != "pad":
            return resize(pixels, self.size, self.size)
        scale = self.size / max(height, width)
        inner = resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
        colour = (pixels.new_tensor([round(255 * value) for value in self.mean])).view(1, -1, 1, 1)
        canvas = colour.expand(len(pixels), -1, self.size, self.size).clone()
        top, left = (self.size - inner.shape[2]) // 2, (self.size - inner.shape[3]) // 2
        canvas[..., top : top + inner.shape[2], left : left + inner.shape[3]] = inner
        return canvas

    def _centre(self, pixels: Tensor, short: int) -> Tensor:
        """The centre after resizing the short side, the long one rounded down: torchvision's Resize and CenterCrop."""
        height, width = pixels.shape[-2:]
        least = min(height, width)
        if max(height, width) > LONG * least:  # all of such a band would be resized for a part of its middle
            tall, wide = min(height, LONG * least), min(width, LONG * least)
            top, left = (height - tall) // 2, (width - wide) // 2
            return self._centre(pixels[..., top : top + tall, left : left + wide], short)
        pixels = resize(pixels, short * height // least, short * width // least)
        top, left = (round((side - self.size) / 2) for side in pixels.shape[-2:])
        return pixels[..., top : top + self.size, left : left + self.size]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Bytes → mean 0 and standard deviation 1 over the training set."""
        x = pixels.float() / 255
        shape = (1, -1, 1, 1)
        return (x - x.new_tensor(self.mean).view(shape)) / x.new_tensor(self.std).view(shape)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Preprocess":
        """What `to_dict` wrote. Raises ValueError for anything else."""
        try:
            made = cls(data["size"], tuple(data["mean"]), tuple(data["std"]), data["fit"], data.get("crop_fraction"))
            numbers = [made.size, *made.mean, *made.std, made.crop_fraction or 1.0]
            right = type(made.size) is int and len(made.mean) == len(made.std) > 0 and min(made.size, *made.std) > 0
        except (TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"{data!r} is no preprocessing: size, mean, std and fit are needed") from error
        if not right or made.fit not in ("squash", "crop", "pad") or not all(isinstance(n, int | float) for n in numbers):
            raise ValueError(f"{data!r} is no preprocessing: a size, mean and std by channel, squash, crop or pad")
        return made


def resize(pixels: Tensor, height: int, width: int, mode: str = "bicubic") -> Tensor:
    """(B, C, H, W) → (B, C, height, width), bytes, with the filter widened when it shrinks, as Pillow does."""
    return F.interpolate(pixels, (height, width), mode=mode, align_corners=False, antialias=True)


@dataclass(frozen=True)
class Batch:
    """What a model is fed: images (B, C, H, W), normalised, and labels (B,).

    Mixed batches also have the labels of what was mixed in, and the share that each image keeps of its own.
    """

    images: Tensor
    labels: Tensor
    partners: Tensor | None = None
    share: float = 1.0

    def parts(self, count: int) -> "list[Batch]":
        """The batch cut into at most `count` micro-batches."""
        size = -(-len(self.labels) // count)
        cut = zip(self.images.split(size), self.labels.split(size), strict=True)
        partners = self.partners.split(size) if self.partners is not None else None
        return [Batch(x, y, None if partners is None else partners[i], self.share) for i, (x, y) in enumerate(cut)]


def generator(*key: int | str) -> torch.Generator:
    """A generator that depends on the key alone: not on the process, not on what was drawn before."""
    return torch.Generator().manual_seed(number(*key))


def number(*key: int | str) -> int:
    """A whole number of 63 bits that follows from the key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
