"""Where attention looks: its weights by layer, and their rollout through a stage's layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from metaformer.core.mixers import AttentionMixer, to_tokens
from metaformer.core.model import MetaFormer
from metaformer.weights.peers import Peer


@dataclass(frozen=True)
class Attended:
    """The attention of neighbouring layers over the same places, such as those of a stage."""

    name: str
    weights: tuple[Tensor, ...]
    """Of each layer (B, heads, N, N): row q says how much place q takes of each place; rows sum to 1."""
    grid: tuple[int, int]
    first: int = 0
    """Tokens before the places, such as the class token."""

    def rolled(self) -> Tensor:
        """(B, h, w): how much the answer takes of each place by the rollout: of the class token, or the mean of all places."""
        whole = rollout(self.weights)
        taken = whole[:, 0] if self.first else whole.mean(1)
        return taken[:, self.first :].unflatten(1, self.grid)

    def seen_from(self, places: Tensor) -> Tensor:
        """(B, heads, h, w): what the last layer takes for the place (B, 2) of each image, row and column; 1 in all, with what
        it takes of the tokens before the places."""
        at = self.first + places[:, 0] * self.grid[1] + places[:, 1]
        taken = self.weights[-1][torch.arange(len(at)), :, at.cpu(), self.first :]
        return taken.unflatten(2, self.grid)


def rollout(weights: Sequence[Tensor]) -> Tensor:
    """(B, N, N): attention rollout, Abnar and Zuidema 2020, section 3: the product over layers of (A + I) / 2, the last layer
    at the left, A the mean over the heads. Rows sum to 1; what is between the layers is taken as passing each place on."""
    same = torch.eye(weights[0].shape[-1], device=weights[0].device, dtype=weights[0].dtype)
    whole = same.expand(len(weights[0]), -1, -1)
    for layer in weights:
        whole = (layer.mean(1) + same) / 2 @ whole
    return whole


@torch.no_grad()
def attention(model: nn.Module, images: Tensor) -> list[Attended]:
    """The attention over all places of a map or grid of tokens, layer by layer, joined where neighbours are of one stage or,
    in timm's models, of as many tokens. Empty where there is none; windows and reduced keys are not shown."""
    if isinstance(model, MetaFormer):
        return _of_stages(model, images)
    return _of_peer(model.model if isinstance(model, Peer) else model, images)


def _of_stages(model: MetaFormer, images: Tensor) -> list[Attended]:
    entered: dict[AttentionMixer, Tensor] = {}
    stages = [[m for m in stage.modules() if isinstance(m, AttentionMixer)] for stage in model.stages]
    hooks = [
        mixer.register_forward_pre_hook(lambda _, inputs, mixer=mixer: entered.update({mixer: inputs[0]}))
        for mixers in stages
        for mixer in mixers
    ]
    try:
        model.features(images)
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for number, mixers in enumerate(stages, 1):
        if mixers:
            height, width = entered[mixers[0]].shape[2:]
            weights = tuple(weights_of(mixer, entered[mixer]) for mixer in mixers)
            found.append(Attended(f"stage {number}", weights, (height, width)))
    return found


def weights_of(mixer: AttentionMixer, x: Tensor) -> Tensor:
    """(B, heads, N, N): the weights with which the mixer, given (B, C, H, W), takes of all places."""
    q, k, _ = to_tokens(mixer.qkv(x)).unflatten(2, (3, -1, mixer.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
    scale = mixer.head_dim**-0.5 if mixer.scale is None else mixer.scale
    return (q * scale @ k.transpose(-2, -1)).softmax(-1)


def _of_peer(model: nn.Module, images: Tensor) -> list[Attended]:
    """timm's attention has a kernel that hides its weights and a plain way, in which they go through its dropout."""
    layers: list[Any] = [
        m for m in model.modules() if hasattr(m, "fused_attn") and isinstance(getattr(m, "attn_drop", None), nn.Module)
    ]
    before = [layer.fused_attn for layer in layers]
    seen: list[Tensor] = []
    hooks = [layer.attn_drop.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        model(images)
    finally:
        for layer, fused, hook in zip(layers, before, hooks, strict=True):
            layer.fused_attn = fused
            hook.remove()
    joined: list[list[Tensor]] = []
    for weights in seen:
        if weights.ndim != 4 or weights.shape[0] != len(images) or weights.shape[2] != weights.shape[3]:
            continue
        if not joined or joined[-1][0].shape[2] != weights.shape[2]:
            joined.append([])
        joined[-1].append(weights)
    return [made for number, group in enumerate(joined, 1) if (made := _squared(model, group, number, len(joined))) is not None]


def _squared(model: nn.Module, weights: list[Tensor], number: int, of: int) -> Attended | None:
    """None where the tokens are no square of places, with or without those before."""
    for first in (int(getattr(model, "num_prefix_tokens", 0)), 0):
        side = isqrt(weights[0].shape[2] - first)
        if side > 1 and side * side == weights[0].shape[2] - first:
            name = f"{len(weights)} layers" if of == 1 else f"attention {number}"
            return Attended(name, tuple(weights), (side, side), first)
    return None
