"""Selective prediction: what is right of the answers that are kept when the least sure ones are left to somebody else."""

import math

import torch
from torch import Tensor

COVERAGES = (0.5, 0.8, 0.9)
"""Parts of the images of which it is told how many of the surest answers are right."""


def risk_coverage(confidence: Tensor, right: Tensor) -> Tensor:
    """(N,): the part that is wrong of the k surest answers, for k of 1 to N (El-Yaniv and Wiener 2010, JMLR 11, section 2).

    Where answers are equally sure, what is expected when they come in any order. Its mean is AURC, over all coverages 1/N to 1
    (Geifman, Uziel and El-Yaniv, Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, 2019, section 2).
    """
    return risks(expected_errors(confidence, right)[1])


def expected_errors(confidence: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The order (N,) from the surest answer on, and in it whether each is wrong; of equally sure ones, the part of them."""
    order = confidence.argsort(descending=True, stable=True)
    wrong = (~right[order]).double()
    _, group, counts = confidence[order].unique_consecutive(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, group, wrong)
    return order, (sums / counts)[group]


def risks(wrong: Tensor) -> Tensor:
    """Means of the first 1, 2, ... N errors in order (..., N)."""
    return wrong.cumsum(-1) / torch.arange(1, wrong.shape[-1] + 1)


def least_area(errors: Tensor, images: int) -> Tensor:
    """The AURC of so many errors (...) among so many images if every error were less sure than every right answer.

    AURC minus this is E-AURC (Geifman et al. 2019, section 2), here by the sum itself where the paper takes an integral for it.
    """
    k = torch.arange(1, images + 1)
    return ((k - (images - errors.unsqueeze(-1))).clamp(min=0) / k).mean(-1)


def kept(images: int, coverage: float) -> int:
    """How many images are the surest part of all of them, rounded up."""
    return max(1, math.ceil(images * coverage - 1e-9))


def figures(curve: Tensor) -> Tensor:
    """AURC, E-AURC, and the part that is right at each of COVERAGES (..., 2 + coverages) of risk-coverage curves (..., N)."""
    images = curve.shape[-1]
    area, right = curve.mean(-1), [1 - curve[..., kept(images, part) - 1] for part in COVERAGES]
    return torch.stack([area, area - least_area(curve[..., -1] * images, images), *right], -1)


NAMES = ("aurc", "eaurc", *(f"accuracy_at_{100 * part:g}" for part in COVERAGES))
"""What `figures` gives, in its order."""
