"""Risk over coverage, against sums written out."""

import itertools

import pytest
import torch

from metaformer.tasks import selective

CONFIDENCE = torch.tensor([0.9, 0.2, 0.7, 0.4, 0.8], dtype=torch.float64)
RIGHT = torch.tensor([True, False, False, True, True])


def test_risks_by_hand() -> None:
    """From the surest on: right, right, wrong, right, wrong."""
    curve = selective.risk_coverage(CONFIDENCE, RIGHT)
    assert curve.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])
    told = dict(zip(selective.NAMES, selective.figures(curve).tolist(), strict=True))
    assert told["aurc"] == pytest.approx((1 / 3 + 1 / 4 + 2 / 5) / 5)
    best = (0 + 0 + 0 + 1 / 4 + 2 / 5) / 5  # both errors last
    assert told["eaurc"] == pytest.approx(told["aurc"] - best)
    assert told["accuracy_at_50"] == pytest.approx(2 / 3)  # three of five images
    assert told["accuracy_at_80"] == pytest.approx(3 / 4)


def test_equally_sure_answers_count_as_the_mean_of_their_orders() -> None:
    confidence, right = torch.tensor([0.9, 0.5, 0.5, 0.5, 0.1]), torch.tensor([True, False, True, True, False])
    orders = [[0, *middle, 4] for middle in itertools.permutations((1, 2, 3))]
    every = [[sum(not right[i] for i in order[:k]) / k for k in range(1, 6)] for order in orders]
    mean = [sum(column) / len(orders) for column in zip(*every, strict=True)]
    assert selective.risk_coverage(confidence, right).tolist() == pytest.approx(mean)


@pytest.mark.parametrize("errors", [0, 3, 10])
def test_the_best_order_has_no_excess(errors: int) -> None:
    right = torch.arange(10) >= errors
    curve = selective.risk_coverage(torch.arange(10) / 10, right)
    assert selective.figures(curve)[1].item() == pytest.approx(0)
    if errors == 3:  # the integral that the paper takes for the sum, r + (1 - r) ln(1 - r), is near it
        many = torch.tensor(300.0)
        assert selective.least_area(many, 1000).item() == pytest.approx(0.3 + 0.7 * torch.tensor(0.7).log().item(), abs=2e-3)
