"""Classes from logits, one or several for an image, without torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.5
"""Probability over which a label is given to an image that may have several."""
LEAST, MOST = float(np.finfo(np.float32).tiny), 1 - 2.0**-25
"""Between these a probability in fp32 has a logit; 0 and 1 stand for what is nearest to them."""


def logits_of(probabilities: NDArray[Any], *, several: bool) -> NDArray[np.float32]:
    """(B, classes) that have these probabilities: of several labels, whose sigmoid they are; else, whose softmax they are."""
    values = probabilities.astype(np.float64)
    if several:
        values = values.clip(LEAST, MOST)
        return (np.log(values) - np.log1p(-values)).astype(np.float32)
    return np.log(values.clip(LEAST)).astype(np.float32)


def decode_several(logits: NDArray[Any], classes: Sequence[str]) -> list[list[tuple[str, float]]]:
    """For each row of logits (B, classes) all labels over 0.5 with their probabilities, best first; the best one if none is.

    Each label has a logit of its own, whose probability is its sigmoid.
    """
    probabilities = 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))  # the sigmoid, without overflow
    places = np.argsort(-probabilities, axis=1, kind="stable")
    counts = np.maximum((probabilities > THRESHOLD).sum(1), 1)
    rows = zip(probabilities, places, counts, strict=True)
    return [[(classes[i], float(row[i])) for i in best[:count]] for row, best, count in rows]


def decode_labels(logits: NDArray[Any], classes: Sequence[str], most: int = 5) -> list[list[tuple[str, float]]]:
    """For each row of logits (B, classes) the `most` probable classes with their probabilities, best first."""
    exponents = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    probabilities = exponents / exponents.sum(1, keepdims=True)
    places = np.argsort(-probabilities, axis=1, kind="stable")[:, :most]
    return [[(classes[i], float(row[i])) for i in best] for row, best in zip(probabilities, places, strict=True)]
