"""Held-out images as small pictures that a page can hold."""

import base64
from collections.abc import Iterable
from io import BytesIO

import matplotlib
import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from metaformer.data.splits import Split

SIDE = 192
"""Longest side of a picture on the page, in pixels."""


def pictures(split: Split, index: Iterable[int]) -> list[Tensor]:
    """What a person sees of each sample: (C, H, W) as uint8, one or three channels, sizes as they come."""
    return [split.image(sample) for sample in index]


def thumbnail(pixels: Tensor) -> str:
    """The address of a picture (C, H, W) that lies in the page itself: PNG where it is small, else a JPEG of at most 192."""
    return shrunk(as_image(pixels))


def overlay(pixels: Tensor, heat: Tensor) -> str:
    """That of `blended`, at about 192 pixels."""
    return shrunk(blended(pixels, heat))


def blended(pixels: Tensor, heat: Tensor, side: int = SIDE, *, smooth: bool = True) -> Image.Image:
    """The picture (C, H, W) in grey with a map (h, w) of 0 to 1 over it: clear where it is 0, red where it is 1.

    Small pictures are enlarged by a whole number, to at most `side`. The map is smoothed, or each place of it is a rectangle.
    """
    image = picture(pixels, side).convert("L").convert("RGB")
    way = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    strength = np.asarray(Image.fromarray(heat.float().cpu().numpy()).resize(image.size, way)).clip(0, 1)
    colour = matplotlib.colormaps["turbo"](0.3 + 0.55 * strength)[..., :3] * 255
    weight = 0.75 * strength[..., None] ** 0.7
    return Image.fromarray(((1 - weight) * np.asarray(image) + weight * colour).astype(np.uint8))


def picture(pixels: Tensor, side: int = SIDE) -> Image.Image:
    """The picture (C, H, W) in colour; a small one enlarged by a whole number, to at most `side`."""
    image = as_image(pixels).convert("RGB")
    scale = max(1, side // max(image.size))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def matrix(shares: Tensor) -> str:
    """A confusion matrix (classes, classes) of 0 to 1 as a picture: blue on the diagonal, red beside it, clear where 0.

    Of more than 250 classes several share a pixel, which then shows the largest.
    """
    block = -(-len(shares) // 250)
    strength = F.max_pool2d(shares.double().sqrt()[None], block, ceil_mode=True)[0].numpy()
    right = np.eye(len(strength), dtype=bool)[..., None]
    colour = np.where(right, (37, 99, 235), (220, 38, 38))
    alpha = np.where(strength > 0, 60 + 195 * strength, 0)[..., None]
    return shrunk(Image.fromarray(np.concatenate([colour, alpha], 2).astype(np.uint8)))


def as_image(pixels: Tensor) -> Image.Image:
    """(C, H, W) of bytes, one or three channels."""
    array = pixels.cpu().numpy()
    return Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def shrunk(image: Image.Image) -> str:
    """The address of a picture that lies in the page itself: PNG where it is small, else a JPEG of at most 192."""
    small = max(image.size) <= SIDE // 2 or image.mode == "RGBA"
    if not small:
        image.thumbnail((SIDE, SIDE))
    return embedded(image, "png" if small else "jpeg")


def embedded(image: Image.Image, kind: str = "jpeg") -> str:
    """The address of a picture that lies in the page itself."""
    file = BytesIO()
    image.save(file, kind, optimize=True, quality=82)
    return address(file.getvalue())


def address(file: bytes) -> str:
    """That of a JPEG's or PNG's content."""
    kind = "png" if file.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"
