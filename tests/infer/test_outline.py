import numpy as np
import pytest
from numpy.typing import NDArray

from metaformer.infer.outline import one_polygon, polygons

Points = NDArray[np.float64]


def disc(high: int = 80, wide: int = 90, row: float = 40, column: float = 44, radius: float = 25) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[:high, :wide]
    return (rows + 0.5 - row) ** 2 + (columns + 0.5 - column) ** 2 <= radius**2


def filled(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """As pycocotools fills a polygon."""
    from pycocotools import mask

    return mask.decode(mask.frPyObjects([points.flatten().tolist()], *size))[..., 0].astype(bool)


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_a_box_has_its_corners() -> None:
    mask = np.zeros((20, 30), bool)
    mask[3:11, 5:25] = True
    (ring,) = polygons(mask, tolerance=0.8)
    assert (ring.min(0).tolist(), ring.max(0).tolist()) == ([5, 3], [25, 11])
    assert len(ring) <= 8
    assert iou(filled(ring, mask.shape), mask) > 0.95


@pytest.mark.parametrize("tolerance", [0.2, 0.5, 1.0])
def test_a_disc_is_as_round_as_asked_for(tolerance: float) -> None:
    mask = disc()
    (ring,) = polygons(mask, tolerance)
    apart = np.abs(np.linalg.norm(ring - [44, 40], axis=1) - 25)
    assert apart.max() < 1
    assert iou(filled(ring, mask.shape), mask) > 0.97 - 0.03 * tolerance
    assert len(ring) < 60 / (0.6 + tolerance)


def test_parts_come_the_largest_first_and_holes_are_filled() -> None:
    mask = disc(radius=20) | disc(row=8, column=10, radius=6)
    mask &= ~disc(radius=5)
    first, second = polygons(mask)
    for ring, middle in ((first, [44, 40]), (second, [10, 8])):
        assert np.abs((ring.min(0) + ring.max(0)) / 2 - middle).max() <= 0.5
    whole = disc(radius=20) | disc(row=8, column=10, radius=6)
    assert iou(filled(one_polygon([first, second]), mask.shape), whole) > 0.95


def test_masks_at_the_edge_of_nothing_and_of_a_pixel() -> None:
    everything = np.ones((6, 9), bool)
    (ring,) = polygons(everything)
    assert (ring.min(0).tolist(), ring.max(0).tolist()) == ([0, 0], [9, 6])
    assert polygons(~everything) == []
    speck = np.zeros((6, 9), bool)
    speck[2, 3] = True
    (ring,) = polygons(speck)
    assert len(ring) >= 3
    assert np.abs(ring - [3.5, 2.5]).max() <= 0.5


# --- what is fast, against what is readable ---------------------------------------------------------------------------


def slow_polygons(mask: NDArray[np.bool_], tolerance: float) -> list[Points]:
    """As `polygons`, on the whole mask and one stretch after another."""
    from contourpy import contour_generator

    lines = contour_generator(z=np.pad(mask, 1).astype(np.float32)).lines(0.5)
    rings = [np.asarray(line)[:-1] - 0.5 for line in lines]
    areas = [float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2 for x, y in (ring.T for ring in rings)]
    order = sorted((i for i, area in enumerate(areas) if area > 0), key=lambda i: -areas[i])
    return [slow_simple(rings[i], tolerance) for i in order]


def slow_simple(ring: Points, tolerance: float) -> Points:
    """Douglas and Peucker 1973, as they wrote it."""
    closed = np.concatenate([ring, ring[:1]])
    far = int(np.linalg.norm(ring - ring[0], axis=1).argmax())
    kept = sorted({0, far, *slow_kept(closed, 0, far, tolerance), *slow_kept(closed, far, len(ring), tolerance)})
    return ring[kept] if len(kept) > 2 else ring


def slow_kept(points: Points, start: int, stop: int, tolerance: float) -> list[int]:
    if stop - start < 2:
        return []
    along, away = points[stop] - points[start], points[start + 1 : stop] - points[start]
    length = np.hypot(*along)
    apart = np.abs(away[:, 0] * along[1] - away[:, 1] * along[0]) / length if length else np.linalg.norm(away, axis=1)
    middle = start + 1 + int(apart.argmax())
    if apart.max() <= tolerance:
        return []
    return [*slow_kept(points, start, middle, tolerance), middle, *slow_kept(points, middle, stop, tolerance)]


@pytest.mark.parametrize("tolerance", [0.0, 0.5, 2.0])
def test_all_stretches_at_once_give_the_same(tolerance: float) -> None:
    """Ragged masks with holes, islands and specks, somewhere on the image and at its edges."""
    random = np.random.default_rng(0)
    for _ in range(10):
        mask = np.zeros((60, 70), bool)
        top, left = random.integers(0, 30, 2)
        coarse = random.random((10, 12)) < 0.4
        mask[top : top + 30, left : left + 36] = np.kron(coarse, np.ones((3, 3))) * (random.random((30, 36)) < 0.9)
        found, expected = polygons(mask, tolerance), slow_polygons(mask, tolerance)
        assert len(found) == len(expected) > 5
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one, other)
