"""The maps inside a model: those of its levels, the one that Grad-CAM reads; of ours and of timm's, laid out (B, C, h, w)."""

from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from metaformer.core.model import MetaFormer
from metaformer.weights.peers import Peer

MOST = 6
"""Levels of timm's models that are shown; of more, such as a transformer's blocks, four spread evenly."""
LEAST = 4
"""Places on the shorter side of a map that tells where."""


def as_map(model: nn.Module, features: Tensor) -> Tensor:
    """(B, C, h, w) from a map with its channels first or last, or from tokens (B, N, C) of a square grid."""
    inner = inner_of(model)
    if features.ndim == 4:
        last = features.shape[1] != features.shape[3] == getattr(inner, "num_features", None)
        return features.permute(0, 3, 1, 2) if last else features
    grid = features[:, getattr(inner, "num_prefix_tokens", 0) :]
    side = isqrt(grid.shape[1])
    if side * side != grid.shape[1]:
        raise ValueError(f"{grid.shape[1]} tokens of {type(inner).__name__} are no square grid, so no map to explain it by")
    return grid.transpose(1, 2).unflatten(2, (side, side))


def inner_of(model: nn.Module) -> Any:
    """timm's own model, where it is under our roof."""
    return model.model if isinstance(model, Peer) else model


# --- levels -----------------------------------------------------------------------------------------------------------


def level_names(model: nn.Module) -> list[str]:
    """What the levels are called: the stages of a MetaFormer, what timm calls a model's features, some blocks of others."""
    if isinstance(model, MetaFormer):
        return [f"stage {number}" for number in range(1, len(model.stages) + 1)]
    inner = inner_of(model)
    chosen = _chosen(inner)
    return [inner.feature_info[place]["module"] for place in chosen] if chosen else ["last map"]


def level_maps(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Of images (B, C, H, W), the map (B, c, h, w) of each level."""
    if isinstance(model, MetaFormer):
        return model.features(images)
    inner = inner_of(model)
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


# --- what Grad-CAM reads ----------------------------------------------------------------------------------------------


class Through(nn.Module):
    """The model, with the map that Grad-CAM reads, (B, C, h, w), led through `place`; the answers stay the same.

    Of a MetaFormer it is that of the deepest stage with at least 4 places on its shorter side, else of the first; of timm's
    models the last before the head, where that is smaller the deepest level's of those that are not; of transformers what
    enters the last block, which may reach the head by its class token alone when it leaves it. Calling it raises ValueError
    for a model that has no map, or one of a single place.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.place = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        if isinstance(self.model, MetaFormer):
            return self._through_stages(self.model, images)
        inner = inner_of(self.model)
        if not hasattr(inner, "forward_features") or not hasattr(inner, "forward_head"):
            raise ValueError(f"{type(inner).__name__} has no forward_features and forward_head, so no map to explain it by")
        if hasattr(inner, "blocks"):
            hook = inner.blocks[-1].register_forward_pre_hook(lambda _, inputs: (self._placed(inputs[0]), *inputs[1:]))
        elif (level := self._level(inner, images[:1])) is not None:
            hook = level.register_forward_hook(lambda _, inputs, out: self._placed(out))
        else:
            return inner.forward_head(self._placed(inner.forward_features(images)))
        try:
            return inner.forward_head(inner.forward_features(images))
        finally:
            hook.remove()

    @torch.no_grad()
    def _level(self, inner: Any, images: Tensor) -> nn.Module | None:
        """What gives the map of the deepest of timm's levels that is large enough; None where the last map is, or no level."""
        modules, large = dict(inner.named_modules()), list[nn.Module]()
        levels = {one["module"]: one["num_chs"] for one in getattr(inner, "feature_info", ()) if one["module"] in modules}

        def note(module: nn.Module, out: Tensor, channels: int) -> None:
            if out.ndim == 4 and out.shape[1] == channels and min(out.shape[2:]) >= LEAST:
                large.append(module)

        hooks = [
            modules[name].register_forward_hook(lambda module, inputs, out, channels=channels: note(module, out, channels))
            for name, channels in levels.items()
        ]
        try:
            last = as_map(self.model, inner.forward_features(images))
        finally:
            for hook in hooks:
                hook.remove()
        return large[-1] if large and min(last.shape[2:]) < LEAST else None

    def _through_stages(self, model: MetaFormer, images: Tensor) -> Tensor:
        with torch.no_grad():
            sides = [min(one.shape[2:]) for one in model.features(images[:1])]
        read = max((place for place, side in enumerate(sides) if side >= LEAST), default=0)
        hook = model.stages[read].register_forward_hook(lambda _, inputs, out: self._placed(out))
        try:
            return model(images)
        finally:
            hook.remove()

    def _placed(self, features: Tensor) -> Tensor:
        """Leads a map through `place` and lays it out again as it came: channels first, channels last, or tokens."""
        led = as_map(self.model, features)
        if min(led.shape[2:]) < 2:
            raise ValueError("the images are so small that the model's last map is one place wide, which does not tell where")
        found = self.place(led)
        if features.ndim == 4:
            return found if found.shape == features.shape else found.permute(0, 2, 3, 1)
        grid = found.flatten(2).transpose(1, 2)
        return torch.cat([features[:, : features.shape[1] - grid.shape[1]], grid], 1)
