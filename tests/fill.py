"""Weights from a rule, so that two implementations can be compared without a file: one tensor per key."""

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from metaformer import MetaFormer, create_model, load_weights


def fill(key: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor that the rule gives to a published key."""
    a = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    last = key.split(".")[-1]
    if "random_matrix" in key:
        e = np.exp(a - a.max(-1, keepdims=True))
        value = e / e.sum(-1, keepdims=True)
    elif len(shape) >= 2 and "pos_embed" not in key:
        value = a / np.sqrt(np.prod(shape[1:]))
    elif last == "scale" or "layer_scale" in key or "res_scale" in key:
        value = 0.8 + 0.1 * a
    elif last == "weight":
        value = 1 + 0.1 * a
    else:
        value = 0.1 * a
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def filled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the names and shapes of `state` and the rule's values."""
    return {key: fill(key, tuple(tensor.shape)) for key, tensor in state.items()}


def image(batch: int = 2, size: int = 224) -> Tensor:
    """The rule's input."""
    shape = (batch, 3, size, size)
    return torch.from_numpy(np.random.RandomState(0).standard_normal(shape).astype(np.float32))


def empty_model(name: str, **changes: object) -> MetaFormer:
    """A model without a costly initialisation, full of NaN."""
    with torch.device("meta"):
        model = create_model(name, **changes)
    model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(torch.nan)
    return model


def filled_model(name: str, dtype: torch.dtype = torch.float32, **changes: object) -> MetaFormer:
    """A model with weights far from their initialisation, so that no branch is too small to see; in evaluation mode."""
    model = empty_model(name, **changes).to(dtype)
    return load_weights(model, filled(model.state_dict())).eval()
