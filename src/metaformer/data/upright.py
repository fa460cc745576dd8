"""Boxes and maps that were drawn on an image as it is stored → on the image as it is shown, where EXIF turns it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Turn = Image.Transpose
SIDEWAYS = (Turn.TRANSPOSE, Turn.TRANSVERSE, Turn.ROTATE_90, Turn.ROTATE_270)
"""Turns that make width of height."""


def upright_size(size: tuple[int, int], turn: Turn | None) -> tuple[int, int]:
    """(width, height) as shown of an image that is stored as `size`."""
    return (size[1], size[0]) if turn in SIDEWAYS else size


def turned_map(pixels: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """(..., H, W) → (..., W, H), for the turns that lie sideways."""
    across = pixels.swapaxes(-1, -2)
    down, right = turn in (Turn.ROTATE_90, Turn.TRANSVERSE), turn in (Turn.ROTATE_270, Turn.TRANSVERSE)
    return across[..., :: -1 if down else 1, :: -1 if right else 1]


def turned_boxes(boxes: NDArray[np.float32], size: tuple[int, int], turn: Turn) -> NDArray[np.float32]:
    """(N, 4) in an image stored as `size`, (width, height) → in the image as it is shown, for the same turns."""
    left, top, right, bottom = boxes.T
    width, height = size
    if turn in (Turn.ROTATE_270, Turn.TRANSVERSE):
        top, bottom = height - bottom, height - top
    if turn in (Turn.ROTATE_90, Turn.TRANSVERSE):
        left, right = width - right, width - left
    return np.stack([top, left, bottom, right], 1)
