"""What every format is: an ending, a way to write it, and how far off it may be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaformer.data.preprocess import Preprocess
from metaformer.weights.pretrained import Model

Save = Callable[[Path, Mapping[str, Any]], None]
"""Writes the converted model and what is to know of it; called twice, because the comparison needs the file."""


@dataclass(frozen=True)
class Format:
    """A row of the table in export.py."""

    suffix: str
    prepare: Callable[[Model, Preprocess, str, str], Save]
    """Converts a model for a precision; it gives logits, their softmax or their sigmoid."""
    bounds: Mapping[str, float]
    """For each precision, the greatest difference from torch in fp32 that is let through, over the mean absolute logit."""
    beside: tuple[str, ...] = ()
    """Endings of what is written beside the file."""
