"""Masks → polygons, for files that have no masks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(N, 2): x and y in pixels; the last point is joined with the first."""


def polygons(mask: NDArray[np.bool_], tolerance: float = 0.5) -> list[Points]:
    """The outer edges of a mask (H, W), the largest part first, none further than `tolerance` pixels off. Holes are filled."""
    from contourpy import contour_generator

    padded = np.pad(mask, 1).astype(np.float32)
    lines: list[Any] = list(contour_generator(z=padded).lines(0.5))
    rings: list[Points] = [line[:-1] - 0.5 for line in lines]  # a pixel's centre is half a pixel in
    outer = [ring for ring in rings if _area(ring) > 0]  # what is high lies on a line's left
    return [_simple(ring, tolerance) for ring in sorted(outer, key=_area, reverse=True)]


def one_polygon(parts: list[Points]) -> Points:
    """Several polygons as one, joined by lines that have no width, for a format that has one for each object."""
    whole = parts[0]
    for part in parts[1:]:
        apart = np.linalg.norm(whole[:, None] - part, axis=2)
        here, there = np.unravel_index(apart.argmin(), apart.shape)
        turned = np.roll(part, -there, 0)
        whole = np.concatenate([whole[: here + 1], turned, turned[:1], whole[here:]])
    return whole


def _area(ring: Points) -> float:
    """Positive where the inside is on the left, as a person counts who has y upwards."""
    x, y = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _simple(ring: Points, tolerance: float) -> Points:
    """Without points that lie within `tolerance` of the line through those that are kept (Douglas and Peucker 1973)."""
    far = int(np.linalg.norm(ring - ring[0], axis=1).argmax())
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), bool)
    keep[[0, far, -1]] = True
    open_ = [(0, far), (far, len(closed) - 1)]
    while open_:
        start, end = open_.pop()
        if end - start < 2:
            continue
        apart = _from_line(closed[start + 1 : end], closed[start], closed[end])
        worst = int(apart.argmax())
        if apart[worst] > tolerance:
            middle = start + 1 + worst
            keep[middle] = True
            open_ += [(start, middle), (middle, end)]
    return closed[:-1][keep[:-1]] if keep[:-1].sum() > 2 else ring  # a speck would lose its area


def _from_line(points: Points, start: Points, end: Points) -> Points:
    """Distances of points (N, 2) from a line; from its start where it has no length."""
    along = end - start
    length = float(np.hypot(*along))
    away = points - start
    if length == 0:
        return np.linalg.norm(away, axis=1)
    return np.abs(away[:, 0] * along[1] - away[:, 1] * along[0]) / length
