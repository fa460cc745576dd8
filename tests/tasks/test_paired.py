"""McNemar's exact test and that by signs, against scipy's binomial test, fractions and every sign there is."""

from fractions import Fraction
from itertools import product
from math import comb

import pytest
import torch
from scipy.stats import binomtest

from metaformer.tasks.paired import mcnemar, sign_flip


@pytest.mark.parametrize(("one", "other"), [(0, 0), (3, 0), (5, 5), (2, 9), (40, 17), (300, 380)])
def test_p_is_that_of_a_fair_coin(one: int, other: int) -> None:
    first = torch.tensor([True] * one + [False] * other + [True] * 7 + [False] * 4)
    second = torch.tensor([False] * one + [True] * other + [True] * 7 + [False] * 4)
    found = mcnemar(first, second)
    assert (found.both, found.only_first, found.only_second, found.neither) == (7, one, other, 4)
    total = one + other
    tail = Fraction(sum(comb(total, k) for k in range(min(one, other) + 1)), 2**total)
    assert found.p == pytest.approx(float(min(Fraction(1), 2 * tail)))
    if total:
        assert found.p == pytest.approx(binomtest(one, total).pvalue)
    assert mcnemar(second, first).p == found.p


@pytest.mark.parametrize("values", [[0], [2], [1, -1], [3, 1, 0, -2], [1, 1, 1, 1, -1, 0, 0], [3, 3, 2, 1, 1, -1, -2, 0, 3, 1]])
def test_signs_are_fair_coins(values: list[int]) -> None:
    sums = [
        abs(sum(sign * abs(value) for sign, value in zip(signs, values, strict=True)))
        for signs in product((1, -1), repeat=len(values))
    ]
    expected = sum(one >= abs(sum(values)) for one in sums) / len(sums)
    assert sign_flip(torch.tensor(values)) == pytest.approx(expected)
    assert sign_flip(-torch.tensor(values)) == pytest.approx(expected)


@pytest.mark.parametrize(("one", "other"), [(3, 0), (2, 9), (40, 17), (300, 380), (2000, 2000)])
def test_signs_of_a_single_seed_are_mcnemar_s(one: int, other: int) -> None:
    found = sign_flip(torch.tensor([1] * one + [-1] * other + [0] * 50))
    assert found == pytest.approx(binomtest(one, one + other).pvalue)
