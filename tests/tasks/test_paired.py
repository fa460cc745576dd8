"""McNemar's exact test, against scipy's binomial test and fractions."""

from fractions import Fraction
from math import comb

import pytest
import torch
from scipy.stats import binomtest

from metaformer.tasks.paired import mcnemar


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
