"""Colours for classes that stay apart for colour-blind eyes too, as many as there are classes."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

FIRST: tuple[Colour, ...] = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66),
)  # fmt: skip
"""Okabe and Ito's colours (2008), without black."""
VOID_COLOUR: Colour = (224, 224, 224)
"""What is nothing in a label PNG, or is not judged."""

_LEVELS = np.linspace(0, 255, 13).round()
_EYES = np.array([  # linear RGB as people see it: all, those without red, green and blue cones (Machado et al. 2009, table 1)
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
])  # fmt: skip
_TO_CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
_TO_LAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip


def palette(count: int) -> tuple[Colour, ...]:
    """Colours for `count` classes; a class keeps its own whatever `count` is, up to 512.

    Okabe and Ito's seven first, then each as far from all before as it gets, for the eyes for which it is nearest.
    """
    return _all(512 if count > 64 else 64)[:count]


@lru_cache
def _all(count: int) -> tuple[Colour, ...]:
    """By farthest points of a grid of colours that are neither very dark nor very light, nor grey."""
    grid = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), -1).reshape(-1, 3)
    places = seen(grid)
    lightness, chroma = places[0, :, 0], np.linalg.norm(places[0, :, 1:], axis=1)
    usable = (lightness > 0.4) & (lightness < 0.9) & (chroma > 0.06)
    grid, places = grid[usable], places[:, usable]
    chosen = list(FIRST)
    apart = np.min([_distance(places, seen(np.array([colour], float))) for colour in chosen], 0)
    while len(chosen) < count:
        best = int(apart.argmax())
        red, green, blue = grid[best].astype(int).tolist()
        chosen.append((red, green, blue))
        apart = np.minimum(apart, _distance(places, places[:, best : best + 1]))
    return tuple(chosen)


def _distance(places: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,): from places (eyes, N, 3) to one, for the eyes for which it is shortest."""
    return np.linalg.norm(places - other, axis=2).min(0)


def seen(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (N, 3), 0 to 255, → where they lie in Oklab (Ottosson 2020) for four kinds of eyes, (4, N, 3)."""
    part = colours / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    as_seen = np.einsum("eij,nj->eni", _EYES, linear).clip(0, 1)
    return np.cbrt(as_seen @ _TO_CONES.T) @ _TO_LAB.T


def ink(colour: Colour) -> str:
    """What is read best on a colour: black or white, by the contrast of WCAG 2."""
    part = np.array(colour) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"
