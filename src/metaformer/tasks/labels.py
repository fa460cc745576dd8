"""Classes from logits, one or several for an image, without torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.5
"""Probability over which a label is given to an image that may have several."""


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
