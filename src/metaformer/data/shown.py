"""Stored pixels of any kind → grey or colour of 8 bits, on white, not larger than a model can use."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

LARGE = 16_000_000
"""Pictures of more pixels are shrunk by a whole number while they are read: no model sees the difference."""

GREY = ("1", "L", "LA", "La", "I", "F")
# What Pillow's parsers raise for bytes that are not as the format demands, found by damaging files at random.
DAMAGED = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError, TypeError,
    ValueError, struct.error, zlib.error, Image.DecompressionBombError, ImageCms.PyCMSError,
)  # fmt: skip


def shown(image: Image.Image) -> Image.Image:
    """Mode L or RGB on white, not larger than LARGE. A large one goes band by band, for the memory's sake."""
    to_plain = _converter(image)
    scale = shrink(image.size)
    if scale == 1:
        return to_plain(image)
    width, height = image.size
    whole = Image.new("L" if is_grey(image) else "RGB", (-(-width // scale), -(-height // scale)))
    for top in range(0, height, 64 * scale):
        band = image.crop((0, top, width, min(height, top + 64 * scale)))
        whole.paste(to_plain(band).reduce(scale), (0, top // scale))
    return whole


def _converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """What makes mode L or RGB of this image, or of bands of it."""
    mode = "L" if is_grey(image) else "RGB"
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        low, high = _range(image)
        clear = image.info.get("transparency")
        return lambda band: _levels(np.asarray(band), low, high, clear)
    if image.has_transparency_data:
        return lambda band: _on_white(band).convert(mode)
    profile = image.info.get("icc_profile")
    if image.mode == "CMYK" and profile:
        try:
            inks = ImageCms.getOpenProfile(BytesIO(profile))
            to_screen = ImageCms.buildTransform(inks, ImageCms.createProfile("sRGB"), "CMYK", "RGB")
        except DAMAGED:  # a profile that is broken or of other inks: as if there were none
            return lambda band: band.convert(mode)
        return lambda band: ImageCms.applyTransform(band, to_screen) or band.convert(mode)
    return lambda band: band.convert(mode)


def _on_white(band: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", band.size, "white"), band.convert("RGBA"))


def _range(image: Image.Image) -> tuple[float, float]:
    """The values that become black and white: see `decode`."""
    bands = (image.crop((0, top, image.width, min(image.height, top + 256))) for top in range(0, image.height, 256))
    low, high = np.inf, -np.inf
    for band in bands:
        values = np.asarray(band)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if image.mode == "F" and low >= 0 and high <= 255:
        return 0.0, 1.0 if high <= 1 else 255.0
    if image.mode != "F" and low >= 0 and high < 2**16:
        return 0.0, float(next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if high < 2**bits))
    return (low, high) if low < high else (low, low + 1)


def _levels(values: NDArray[Any], low: float, high: float, clear: object) -> Image.Image:
    """Numbers (H, W) → grey of 8 bits; those equal to `clear` are transparent, so white."""
    scaled = np.nan_to_num((values.astype(np.float32) - low) * np.float32(255 / (high - low)))
    levels = scaled.round().clip(0, 255).astype(np.uint8)
    if isinstance(clear, int):
        levels[values == clear] = 255
    return Image.fromarray(levels)


def is_grey(image: Image.Image) -> bool:
    """Whether an image is stored without colour."""
    return image.mode in GREY or image.mode.startswith("I;16")


def shrink(size: tuple[int, int]) -> int:
    """By how much to shrink a picture to at most LARGE pixels."""
    return max(1, int(np.ceil((size[0] * size[1] / LARGE) ** 0.5)))
