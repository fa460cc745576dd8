"""How alike features are: linear CKA, by minibatches, with the unbiased estimate of HSIC.

Kornblith et al. 2019 (arXiv 1905.00414); minibatches Nguyen et al. 2021 (arXiv 2010.15327), section 3; the estimate Song et al.
2012, section 4.1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

LEAST = 4
"""Images that the estimate needs."""


def gram(features: Tensor) -> Tensor:
    """(B, B) of doubles: the products of (B, ...) with each other, their diagonal 0, as the estimate wants it."""
    flat = features.flatten(1).cpu().double()
    return (flat @ flat.t()).fill_diagonal_(0)


def hsic(one: Tensor, other: Tensor) -> Tensor:
    """The unbiased estimate of HSIC from two (B, B) of `gram`, B at least 4."""
    n = len(one)
    product = (one * other).sum() + one.sum() * other.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * one.sum(0) @ other.sum(0)
    return product / (n * (n - 3))


class Similarity:
    """Linear CKA between the levels of one model and of another, on images that come in batches of 4 or more.

    HSIC is summed over the batches before the quotient is formed. 1 for features that differ by a rotation, a shift and a
    factor, about 0, be it below it, for unrelated ones.
    """

    def __init__(self) -> None:
        self.both: list[Tensor] = []
        self.ones: list[Tensor] = []
        self.others: list[Tensor] = []

    def add(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
        """The maps of a batch: level by level (B, ...), the same images for both."""
        rows, columns = ([gram(x) for x in maps] for maps in (one, other))
        self.both.append(torch.stack([torch.stack([hsic(row, column) for column in columns]) for row in rows]))
        self.ones.append(torch.stack([hsic(row, row) for row in rows]))
        self.others.append(torch.stack([hsic(column, column) for column in columns]))

    def value(self) -> Tensor:
        """(levels of one, levels of the other); 0 for features that do not depend on the image."""
        both, ones, others = (torch.stack(parts).sum(0) for parts in (self.both, self.ones, self.others))
        return (both / (ones[:, None] * others[None]).clamp(min=0).sqrt()).nan_to_num(0.0, 0.0, 0.0)
