"""Where a model looked: class-activation maps."""

from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from metaformer.core.model import MetaFormer
from metaformer.weights.peers import Peer

LEAST = 4
"""Places on the shorter side of a map that tells where."""


@torch.inference_mode(False)
@torch.enable_grad()
def class_activation(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM: which places of each image (B, C, H, W) speak for its class of `classes` (B,); (B, h, w) from 0 to 1.

    ReLU(Σ over channels of weight · map), where a weight is the mean gradient of the class's logit over its channel
    (Selvaraju et al. 2017, eq. 1 and 2), divided by its maximum; all 0 where no place speaks for the class. Of a MetaFormer
    the map is that of the deepest stage with at least 4 places on its shorter side, else of the first; of one of timm's models
    the last. The model is left as it was. Raises ValueError for a model that has no map, or one of a single place.
    """
    training = model.training
    logits, features = _forward(model.eval(), images.detach().clone().requires_grad_())
    model.train(training)
    own = logits.gather(1, classes.clone().to(logits.device).unsqueeze(1)).sum()
    if min(as_map(model, features).shape[2:]) < 2:
        raise ValueError("the images are so small that the model's last map is one place wide, which does not tell where")
    (gradient,) = torch.autograd.grad(own, features)
    maps, slopes = as_map(model, features.detach()), as_map(model, gradient)
    heat = (slopes.mean((2, 3), keepdim=True) * maps).sum(1).relu()
    return heat / heat.amax((1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)


def _forward(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the last map on the way to them, as the model lays it out."""
    if isinstance(model, MetaFormer):
        maps = model.features(images)
        return model.head(maps[-1]), next((one for one in reversed(maps) if min(one.shape[2:]) >= LEAST), maps[0])
    inner: Any = model.model if isinstance(model, Peer) else model
    if not hasattr(inner, "forward_features") or not hasattr(inner, "forward_head"):
        raise ValueError(f"{type(inner).__name__} has no forward_features and forward_head, so no map to explain it by")
    if not hasattr(inner, "blocks"):
        features = inner.forward_features(images)
        return inner.forward_head(features), features
    # What leaves the last block of a transformer may reach the head by its class token alone; what enters it, wholly.
    entered: list[Tensor] = []
    hook = inner.blocks[-1].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    try:
        logits = inner.forward_head(inner.forward_features(images))
    finally:
        hook.remove()
    return logits, entered[0]


def as_map(model: nn.Module, features: Tensor) -> Tensor:
    """(B, C, h, w) from a map with its channels first or last, or from tokens (B, N, C) of a square grid."""
    inner = model.model if isinstance(model, Peer) else model
    if features.ndim == 4:
        last = features.shape[1] != features.shape[3] == getattr(inner, "num_features", None)
        return features.permute(0, 3, 1, 2) if last else features
    grid = features[:, getattr(inner, "num_prefix_tokens", 0) :]
    side = isqrt(grid.shape[1])
    if side * side != grid.shape[1]:
        raise ValueError(f"{grid.shape[1]} tokens of {type(inner).__name__} are no square grid, so no map to explain it by")
    return grid.transpose(1, 2).unflatten(2, (side, side))
