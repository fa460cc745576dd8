"""Two models on the same images: how often only one of them is right, and whether that can be chance."""

from dataclasses import dataclass

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
