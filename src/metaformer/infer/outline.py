"""Masks → polygons, for files that have no masks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(N, 2): x and y in pixels; the last point is joined with the first."""
Places = NDArray[np.int64]


def polygons(mask: NDArray[np.bool_], tolerance: float = 0.5) -> list[Points]:
    """The outer edges of a mask (H, W), the largest part first, none further than `tolerance` pixels off. Holes are filled."""
    from contourpy import contour_generator

    rows = np.flatnonzero(mask.any(1))
    if not rows.size:
        return []
    band = mask[rows[0] : rows[-1] + 1]
    columns = np.flatnonzero(band.any(0))
    padded = np.pad(band[:, columns[0] : columns[-1] + 1], 1).astype(np.float32)
    lines: list[Any] = list(contour_generator(z=padded).lines(0.5))
    corner = np.array([columns[0], rows[0]]) - 0.5  # a centre is half a pixel in
    rings: list[Points] = [line[:-1] + corner for line in lines]
    outer = [(area, ring) for ring in rings if (area := _area(ring)) > 0]  # what is high lies on a line's left
    return _simple([ring for _, ring in sorted(outer, key=lambda one: -one[0])], tolerance)


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


def _simple(rings: list[Points], tolerance: float) -> list[Points]:
    """Without points that lie within `tolerance` of the line through those that are kept (Douglas and Peucker 1973).

    All stretches that are still to be divided are looked at together: one after the other takes twenty times as long.
    """
    if not rings:
        return []
    closed = np.concatenate([part for ring in rings for part in (ring, ring[:1])])
    lengths = np.array([len(ring) + 1 for ring in rings])
    last = np.cumsum(lengths) - 1
    first = last - lengths + 1
    far, _ = _farthest(closed, first, last)
    keep = np.zeros(len(closed), bool)
    keep[first], keep[far] = True, True
    starts, stops = np.concatenate([first, far]), np.concatenate([far, last])
    while (long := stops - starts > 1).any():
        starts, stops = starts[long], stops[long]
        middles, apart = _farthest(closed, starts, stops)
        cut = apart > tolerance
        starts, middles, stops = starts[cut], middles[cut], stops[cut]
        keep[middles] = True
        starts, stops = np.concatenate([starts, middles]), np.concatenate([middles, stops])
    kept = [keep[start:stop] for start, stop in zip(first, last, strict=True)]
    return [ring[own] if own.sum() > 2 else ring for ring, own in zip(rings, kept, strict=True)]  # a speck keeps its area


def _farthest(points: Points, starts: Places, stops: Places) -> tuple[Places, NDArray[np.float64]]:
    """Of each stretch the point between its ends that is farthest from the line through them, and how far."""
    counts = stops - starts - 1
    before = np.cumsum(counts) - counts
    whose = np.repeat(np.arange(len(counts)), counts)
    between = np.arange(len(whose)) + (starts + 1 - before)[whose]
    apart = _from_line(points[between], points[starts], points[stops], whose)
    most = np.maximum.reduceat(apart, before)
    reached = np.flatnonzero(apart == most[whose])
    firsts = reached[np.searchsorted(whose[reached], np.arange(len(counts)))]
    return between[firsts], most


def _from_line(points: Points, starts: Points, stops: Points, whose: Places) -> NDArray[np.float64]:
    """Distances of points (N, 2), each from the line `whose` it is; from its start where that has no length."""
    along = stops - starts
    lengths = np.hypot(*along.T)
    away = points - starts[whose]
    across = along[whose]
    cross = np.abs(away[:, 0] * across[:, 1] - away[:, 1] * across[:, 0])
    long = lengths[whose]
    return np.where(long > 0, cross / np.where(long > 0, long, 1), np.hypot(*away.T))
