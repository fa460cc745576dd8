"""Two models on the same images: how often only one of them is right, and whether that can be chance."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom
from torch import Tensor


@dataclass(frozen=True)
class McNemar:
    """How many images both, one or neither got right, and how likely so uneven a split of the disagreements is by chance."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float


def mcnemar(first: Tensor, second: Tensor) -> McNemar:
    """Of two masks (N,) of what is right: McNemar's test (1947) in its exact form, two-sided.

    If neither model is better, each image that only one of them gets right is a fair coin's throw (Dietterich 1998,
    Approximate Statistical Tests, section 3.1, whose approximation this replaces by the binomial itself).
    """
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    p = min(1.0, 2 * float(binom.cdf(min(one, other), one + other, 0.5)))
    return McNemar(int((first & second).sum()), one, other, int((~first & ~second).sum()), p)


def sign_flip(differences: Tensor) -> float:
    """Of whole numbers (N,), how much better one model is on each image, the exact p of their sum, two-sided.

    If neither is better, each difference had the other sign as well (Fisher 1935, The Design of Experiments, section 21).
    With differences of -1, 0 and 1 it is McNemar's exact test; with several seeds a difference is the number of seeds that
    only the one model got right less the other's, so that an image counts once, however many seeds there are.
    """
    sizes = differences.abs().bincount().tolist()
    total = int(differences.sum().abs())
    chances = np.ones(1)  # of the sum of all sizes with random signs, from its least value on
    least = 0
    for size, often in enumerate(sizes[1:], 1):
        if often:
            spread = np.zeros(2 * size * often + 1)
            spread[:: 2 * size] = binom.pmf(np.arange(often + 1), often, 0.5)
            chances = np.convolve(chances, spread)
            least -= size * often
    sums = np.arange(len(chances)) + least
    return min(1.0, float(chances[np.abs(sums) >= total].sum()))
