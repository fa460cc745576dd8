"""The maps of a model at its levels: the stages of a MetaFormer, what timm calls a model's features, some blocks of others."""

from typing import Any

from torch import Tensor, nn

from metaformer.core.model import MetaFormer
from metaformer.lab.cam import as_map
from metaformer.weights.peers import Peer

MOST = 6
"""Levels of timm's models that are shown; of more, such as a transformer's blocks, four spread evenly."""


def level_names(model: nn.Module) -> list[str]:
    """What the levels are called."""
    if isinstance(model, MetaFormer):
        return [f"stage {number}" for number in range(1, len(model.stages) + 1)]
    inner: Any = model.model if isinstance(model, Peer) else model
    chosen = _chosen(inner)
    return [inner.feature_info[place]["module"] for place in chosen] if chosen else ["last map"]


def level_maps(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Of images (B, C, H, W), the map (B, c, h, w) of each level."""
    if isinstance(model, MetaFormer):
        return model.features(images)
    inner: Any = model.model if isinstance(model, Peer) else model
    chosen = _chosen(inner)
    if not chosen:
        return [as_map(model, inner.forward_features(images))]
    return inner.forward_intermediates(images, indices=chosen, intermediates_only=True, output_fmt="NCHW")


def _chosen(inner: Any) -> list[int]:
    """Empty for a model that gives its last map alone."""
    if not hasattr(inner, "forward_intermediates") or not hasattr(inner, "feature_info"):
        return []
    count = len(inner.feature_info)
    return list(range(count)) if count <= MOST else [count * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
