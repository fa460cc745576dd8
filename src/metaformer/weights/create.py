"""`create_model`: a name, some changes, weights if wanted."""

from pathlib import Path
from typing import Any

from metaformer.core.model import MetaFormer
from metaformer.weights.load import load_weights
from metaformer.zoo import get_config


def create_model(
    name: str, *, num_classes: int | None = None, in_chans: int = 3, weights: str | Path | None = None, **changes: Any
) -> MetaFormer:
    """A model by its published name, with any field of MetaFormerConfig changed.

    `num_classes` is 1000 unless given; 0 gives pooled features. `weights` is a file that `load_weights` reads. Specs may
    be text: `create_model("convformer_s18", norm="BatchNorm()", mixers="Pooling(window=5)")`.
    Raises ValueError for a wrong name, field or value and names the nearest right one.
    """
    classes = 1000 if num_classes is None else num_classes
    model = MetaFormer(get_config(name, num_classes=classes, in_chans=in_chans, **changes))
    return model if weights is None else load_weights(model, weights)
