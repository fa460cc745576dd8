import numpy as np
import pytest
from numpy.typing import NDArray

from metaformer.infer.outline import one_polygon, polygons


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
