"""What the search goes by: images that are called right, then how sure the model is; and what a budget lets through."""

from typing import Any

import numpy as np
import pytest

from metaformer.infer.sensitivity import Labelled, _judged, _most

LABELS = np.arange(8) % 2
BATCHES: list[Labelled] = [(np.zeros((count, 1, 1, 1), np.uint8), LABELS[start:][:count]) for start, count in ((0, 5), (5, 3))]


def worth(right: int, margin: float) -> float:
    """What a model is worth that calls so many of the eight images right, by that margin; its mistakes are by no margin."""
    logits = np.zeros((8, 2), np.float32)
    for place, label in enumerate(LABELS):
        logits[place, label if place < right else 1 - label] = margin if place < right else 1e-6
    rows = iter((logits[:5], logits[5:]))

    def run(pixels: Any) -> list[np.ndarray]:
        return [next(rows)]

    total, each = _judged(lambda _: None, run, BATCHES)
    assert each == [min(right, 5), max(right - 5, 0)]
    return total


def test_one_more_image_outweighs_being_sure() -> None:
    assert worth(6, 0.1) > worth(5, 30.0) > worth(5, 1.0) > worth(5, 0.1) > worth(4, 30.0)
    assert worth(8, 1000.0) == pytest.approx(105)  # and no overflow


@pytest.mark.parametrize(("budget", "lost"), [(0.0, 0), (12.4, 0), (12.5, 1), (30.0, 2), (100.0, 8)])
def test_a_budget_lets_through_so_many_images(budget: float, lost: int) -> None:
    most = _most(budget, BATCHES)
    for before, after in ((30.0, 0.1), (0.1, 30.0)):
        assert worth(8, before) - worth(8 - lost, after) < most
        if lost < 8:
            assert worth(8, before) - worth(7 - lost, after) > most
