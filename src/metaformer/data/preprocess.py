"""From stored pixels to what a model is fed: the same fitting and normalising in training and in prediction.

Prediction may run where torch is not wanted, so torch is not needed to import this or to fit an array.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

Pixels = NDArray[np.uint8]

LARGEST = 2**14
"""Pixels of a side that a description may ask for: what is meant by more is to fill the memory."""
CACHED = 2**18
"""Numbers that are worked on at a time on a processor: as floats a megabyte."""
LONG = 20
"""Sides' ratio beyond which only the middle of an image is looked at before it is resized."""


@dataclass(frozen=True)
class Placing:
    """How an image becomes a square: cut to `top`, `left`, `height`, `width`; resized to `tall`, `wide`; laid on the square.

    `down` and `right` say where in the square its corner lies: below 0 where the middle of a larger one is cut out.
    """

    top: int
    left: int
    height: int
    width: int
    tall: int
    wide: int
    down: int = 0
    right: int = 0


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

    def __call__(self, pixels: "Tensor") -> "Tensor":
        """(B, C, H, W) of bytes → (B, C, size, size), normalised."""
        return self.normalise(self.fitted(pixels))

    def fitted(self, pixels: "Tensor") -> "Tensor":
        """(B, C, H, W) → (B, C, size, size), both of bytes."""
        at, size = self.placing(*pixels.shape[-2:]), self.size
        pixels = pixels[..., at.top : at.top + at.height, at.left : at.left + at.width]
        if (at.tall, at.wide) != (at.height, at.width):
            pixels = resize(pixels, at.tall, at.wide)
        if min(at.tall, at.wide) >= size:
            return pixels[..., -at.down : size - at.down, -at.right : size - at.right]
        canvas = pixels.new_tensor(self.colour).view(1, -1, 1, 1).expand(len(pixels), -1, size, size).clone()
        canvas[..., at.down : at.down + at.tall, at.right : at.right + at.wide] = pixels
        return canvas

    def fitted_array(self, pixels: Pixels) -> Pixels:
        """(H, W, C) → (size, size, C), both of bytes: what `fitted` gives, but for one unit of rounding, without torch."""
        at, size = self.placing(*pixels.shape[:2]), self.size
        pixels = pixels[at.top : at.top + at.height, at.left : at.left + at.width]
        if (at.tall, at.wide) != (at.height, at.width):
            layers = [Image.fromarray(pixels[..., c]).resize((at.wide, at.tall)) for c in range(pixels.shape[2])]  # bicubic
            pixels = np.stack([np.asarray(layer) for layer in layers], 2)
        if min(at.tall, at.wide) >= size:
            return pixels[-at.down : size - at.down, -at.right : size - at.right]
        canvas = np.empty((size, size, pixels.shape[2]), np.uint8)
        canvas[:] = self.colour
        canvas[at.down : at.down + at.tall, at.right : at.right + at.wide] = pixels
        return canvas

    @property
    def colour(self) -> list[int]:
        """The mean colour, in bytes."""
        return [round(255 * value) for value in self.mean]

    def placing(self, height: int, width: int) -> Placing:
        """How an image of these sides is fitted."""
        size = self.size
        if self.fit == "crop" and self.crop_fraction is not None:
            return self._centre(height, width, math.floor(size / self.crop_fraction))
        if self.fit == "crop":
            side = min(height, width)
            return Placing((height - side) // 2, (width - side) // 2, side, side, size, size)
        if self.fit != "pad":
            return Placing(0, 0, height, width, size, size)
        scale = size / max(height, width)
        tall, wide = max(1, round(height * scale)), max(1, round(width * scale))
        return Placing(0, 0, height, width, tall, wide, (size - tall) // 2, (size - wide) // 2)

    def _centre(self, height: int, width: int, short: int) -> Placing:
        """The centre after resizing the short side, the long one rounded down: torchvision's Resize and CenterCrop.

        Of a band of extreme sides only the middle is resized, for the rest would be cut off again.
        """
        least = min(height, width)
        high, broad = min(height, LONG * least), min(width, LONG * least)
        tall, wide = short * high // least, short * broad // least
        down, right = (-round((side - self.size) / 2) for side in (tall, wide))
        return Placing((height - high) // 2, (width - broad) // 2, high, broad, tall, wide, down, right)

    def normalise(self, pixels: "Tensor") -> "Tensor":
        """Bytes → mean 0 and standard deviation 1 over the training set."""
        import torch

        channels, lines = pixels.shape[1], pixels.permute(0, 2, 3, 1)
        whole = channels > 1 and lines.is_contiguous()  # then by whole lines: three numbers at a time are slow
        mean, std = (torch.tensor([255 * value for value in values], device=pixels.device) for values in (self.mean, self.std))
        if whole:
            pixels, mean, std = lines.flatten(2), mean.repeat(lines.shape[2]), std.repeat(lines.shape[2])
        else:
            mean, std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        images = torch.empty(pixels.shape, device=pixels.device)
        for part, image in zip(few(pixels), few(images), strict=True):
            image.copy_(part).sub_(mean).div_(std)
        return images.unflatten(2, (-1, channels)).permute(0, 3, 1, 2) if whole else images

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Preprocess":
        """What `to_dict` wrote. Raises ValueError for anything else."""
        try:
            made = cls(data["size"], tuple(data["mean"]), tuple(data["std"]), data["fit"], data.get("crop_fraction"))
            right = type(made.size) is int and 0 < made.size <= LARGEST and len(made.mean) == len(made.std) > 0
            right = right and all(0 <= mean <= 1 and 0 < std < math.inf for mean, std in zip(made.mean, made.std, strict=True))
            right = right and (made.crop_fraction is None or 0.1 <= made.crop_fraction <= 1)
        except (TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"{data!r} is no preprocessing: size, mean, std and fit are needed") from error
        if not right or made.fit not in ("squash", "crop", "pad"):
            raise ValueError(
                f"{data!r} is no preprocessing: a size up to {LARGEST}, mean (0 to 1) and std by channel, squash, crop or pad"
            )
        return made


def resize(pixels: "Tensor", height: int, width: int, mode: str = "bicubic") -> "Tensor":
    """(B, C, H, W) → (B, C, height, width), bytes, with the filter widened when it shrinks, as Pillow does."""
    import torch.nn.functional as F

    return F.interpolate(pixels, (height, width), mode=mode, align_corners=False, antialias=True)


def few(batch: "Tensor") -> "Sequence[Tensor]":
    """The batch (B, ...) in parts that stay in a processor's cache from one operation to the next; on a GPU in one."""
    count = len(batch) if batch.device.type != "cpu" else CACHED // max(1, batch[:1].numel())
    return batch.split(max(1, count))
