"""Shearing and moving by parts of a pixel: whole lines slide along themselves. timm's operations, several times faster."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Filters = int | Sequence[int]
"""A filter of Pillow's, or several of which one is drawn, as timm does."""
Slide = Callable[..., Image.Image]


def shear_x(image: Image.Image, factor: float, *, fillcolor: tuple[int, int, int], resample: Filters) -> Image.Image:
    """Each row by `factor` times its height."""
    return _rows(image, factor * (np.arange(image.height) + 0.5), _drawn(resample), fillcolor)


def shear_y(image: Image.Image, factor: float, *, fillcolor: tuple[int, int, int], resample: Filters) -> Image.Image:
    """Each column by `factor` times its place."""
    return _columns(image, factor * (np.arange(image.width) + 0.5), _drawn(resample), fillcolor)


def translate_x(image: Image.Image, part: float, *, fillcolor: tuple[int, int, int], resample: Filters) -> Image.Image:
    """By a part of the width."""
    return _rows(image, np.full(image.height, part * image.width), _drawn(resample), fillcolor)


def translate_y(image: Image.Image, part: float, *, fillcolor: tuple[int, int, int], resample: Filters) -> Image.Image:
    """By a part of the height."""
    return _columns(image, np.full(image.width, part * image.height), _drawn(resample), fillcolor)


SLIDES: dict[str, Slide] = {
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateXRel": translate_x,
    "TranslateYRel": translate_y,
}
"""By timm's names."""


def _drawn(resample: Filters) -> int:
    return resample if isinstance(resample, int) else random.choice(resample)


def _rows(image: Image.Image, moves: NDArray[Any], resample: int, colour: tuple[int, int, int]) -> Image.Image:
    lines = np.frombuffer(image.tobytes("raw", "RGBX"), np.uint32).reshape(image.height, image.width)
    return Image.frombytes("RGB", image.size, _slid(lines, moves, resample, colour).tobytes(), "raw", "RGBX")


def _columns(image: Image.Image, moves: NDArray[Any], resample: int, colour: tuple[int, int, int]) -> Image.Image:
    lines = np.frombuffer(image.tobytes("raw", "RGBX"), np.uint32).reshape(image.height, image.width)
    slid = _slid(np.ascontiguousarray(lines.T), moves, resample, colour)
    return Image.frombytes("RGB", image.size, slid.T.tobytes(), "raw", "RGBX")


def _slid(lines: NDArray[Any], moves: NDArray[Any], resample: int, colour: tuple[int, int, int]) -> NDArray[Any]:
    """Lines (N, L) of four bytes a pixel: pixel p of line n comes from p + moves[n], and is `colour` where that is outside.

    As Pillow's affine transform does it: edges repeat, and what lies half a pixel outside is outside.
    """
    count, length = lines.shape
    whole = np.floor(moves).astype(np.int32)
    weights = _weights((moves - whole).astype(np.float32), resample)
    before = len(weights) // 2 - 1
    places = np.arange(-before, length + before + 1, dtype=np.int32) + whole[:, None]
    places = places.clip(0, length - 1, out=places) + np.arange(0, count * length, length)[:, None]
    values = lines.take(places).view(np.uint8).astype(np.float32)  # four numbers a pixel
    slid, part = np.zeros((2, count, 4 * length), np.float32)
    for tap, weight in enumerate(weights):
        slid += np.multiply(values[:, 4 * tap : 4 * (tap + length)], weight[:, None], out=part)
    pixels = slid.clip(0, 255, out=slid).astype(np.uint8).view(np.uint32)
    place, first, last = np.arange(length), np.ceil(-0.5 - moves), np.ceil(length - 0.5 - moves)
    outside = (place < first[:, None]) | (place >= last[:, None])
    pixels[outside] = np.frombuffer(bytes((*colour, 0)), np.uint32)
    return pixels


def _weights(share: NDArray[Any], resample: int) -> tuple[NDArray[Any], ...]:
    """Of the neighbours, two for bilinear and four for bicubic (a = -1, as Pillow's transforms have it), by how far along."""
    x = share
    if resample == Image.Resampling.BILINEAR:
        return 1 - x, x
    return (2 - x) * x * x - x, (x - 2) * x * x + 1, (1 + x - x * x) * x, (x - 1) * x * x
