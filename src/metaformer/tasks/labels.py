"""Classes from logits, without torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def decode_labels(logits: NDArray[Any], classes: Sequence[str], most: int = 5) -> list[list[tuple[str, float]]]:
    """For each row of logits (B, classes) the `most` probable classes with their probabilities, best first."""
    exponents = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    probabilities = exponents / exponents.sum(1, keepdims=True)
    places = np.argsort(-probabilities, axis=1, kind="stable")[:, :most]
    return [[(classes[i], float(row[i])) for i in best] for row, best in zip(probabilities, places, strict=True)]
