"""Decodes of a picture what a crop shows: the same bytes as cut out of the whole picture, in less time."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer.data.decode import decode, plain_jpeg
from metaformer.data.preprocess import Pixels

if TYPE_CHECKING:
    from torch import Tensor

Box = tuple[int, int, int, int]
"""Top, left, height, width."""
Choose = Callable[[int, int], Box]
"""What to show of a picture of a height and a width. Asked once per picture, for it may draw random numbers."""
BELOW = 4
"""Rows below the crop that its last rows are interpolated with, where colours are stored at half the height."""
FRAMES = (0xC0, 0xC1, 0xC2)
"""Markers of the headers that say the height, in JPEGs of the usual kinds."""
RESTART = 0xDD
"""Marker of an interval after which decoding starts anew: it then goes on after damage, as if there were none."""


def decode_part(source: Path | bytes, channels: int, name: str, choose: Choose) -> "Tensor":
    """(channels, height, width) as uint8: what `choose` wants of the upright picture.

    Raises ValueError as `decode` does. Damage below what is shown may go unnoticed, a file that was cut off does not.
    """
    import torch

    jpeg = plain_jpeg(source, channels)
    if jpeg is None:
        return cut(decode(source, channels, name)[0], choose)
    data, height, width = jpeg
    box = top, left, high, wide = choose(height, width)
    rows = min(height, top + high + BELOW)
    lower = _lower(data, height, rows) if rows < height else None
    pixels = _decoded(*((data, height) if lower is None else (lower, rows)), width, channels)
    if pixels is None:
        return cut(decode(lower or data, channels, name)[0], lambda *_: box)
    return torch.from_numpy(pixels[top : top + high, left : left + wide]).permute(2, 0, 1)


def cut(pixels: "Tensor", choose: Choose) -> "Tensor":
    """What `choose` wants of (C, H, W)."""
    top, left, height, width = choose(*pixels.shape[1:])
    return pixels[:, top : top + height, left : left + width]


@cache
def faster() -> Callable[..., Any] | None:
    """What decodes a JPEG faster than Pillow, to the same bytes, where it is installed."""
    if find_spec("simplejpeg") is None:
        return None
    from simplejpeg import decode_jpeg

    return decode_jpeg


def _decoded(data: bytes, height: int, width: int, channels: int) -> Pixels | None:
    """(height, width, channels); None where there is no faster decoder or it finds fault, and Pillow is to judge."""
    fast = faster()
    if fast is None:
        return None
    pixels = np.empty((height, width, channels), np.uint8)
    try:
        fast(data, "GRAY" if channels == 1 else "RGB", buffer=pixels, strict=True)
    except ValueError as error:
        if "extraneous bytes before marker 0xd9" not in str(error):  # the end: what was left over of a lowered file
            return None
    return pixels


def _lower(data: bytes, height: int, rows: int) -> bytes | None:
    """A copy of a JPEG whose header says that it has so many rows, so that no more are decoded; None if it is unusual."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker in FRAMES and int.from_bytes(data[at + 5 : at + 7]) == height:
            return data[: at + 5] + rows.to_bytes(2) + data[at + 7 :]
        if marker == RESTART or length < 2:
            return None
        at += 2 + length
    return None
