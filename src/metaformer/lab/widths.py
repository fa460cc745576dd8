"""How wide a model is to be that it comes to a number of parameters: what mixers are compared at, where not at equal width."""

import math
from collections.abc import Callable

import torch

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.model import MetaFormer

Dims = tuple[int, ...]
STEP = 8
"""Channels are multiples of it."""
EQUAL = ("parameters", "width")
"""What models that are compared may have as much of."""


def parameters_of(config: MetaFormerConfig) -> int:
    """Those of the model that learn: what is frozen, as random mixing is, the papers count apart. Takes no memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in MetaFormer(config).parameters() if p.requires_grad)


def nearest_dims(make: Callable[[Dims], MetaFormerConfig], usual: Dims, parameters: int) -> Dims:
    """Multiples of 8 whose model comes nearest to the number of parameters.

    They are `usual` times one factor, from a quarter to four, but for one stage that may have 8 more or fewer.
    """
    tried: dict[Dims, int] = {}

    def counted(dims: Dims) -> int:
        if dims not in tried:
            tried[dims] = parameters_of(make(dims))
        return tried[dims]

    low, high = 0.25, 4.0
    for _ in range(12):
        factor = math.sqrt(low * high)
        fewer = counted(tuple(max(STEP, STEP * round(factor * dim / STEP)) for dim in usual)) < parameters
        low, high = (factor, high) if fewer else (low, factor)
    best = min(tried, key=lambda dims: abs(tried[dims] - parameters))
    beside = [
        (*best[:stage], best[stage] + step, *best[stage + 1 :])
        for stage in range(len(best))
        for step in (-STEP, STEP)
        if best[stage] + step > 0
    ]
    return min([best, *beside], key=lambda dims: abs(counted(dims) - parameters))


def check_equal(equal: str) -> None:
    """Raises ValueError where it is none of EQUAL."""
    if equal not in EQUAL:
        raise ValueError(f"equal={equal} is not one of {', '.join(EQUAL)}")
