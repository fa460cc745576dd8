"""What `fuse` works with: what can be put into a linear map, and the modules that take the place of folded ones."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer.core.layers import MLP, ChannelNorm, Head, MapNorm, SquaredReLUAct, squared_relu
from metaformer.core.mixers import AttentionMixer, SepConvMixer
from metaformer.core.model import Residual

Linear = nn.Conv2d | nn.Linear


# --- linear maps: what can be put into them ---------------------------------------------------------------------------


def residuals(model: nn.Module) -> Iterator[Residual]:
    """All half blocks."""
    return (module for module in model.modules() if type(module) is Residual)


def first_linear(branch: nn.Module) -> nn.Conv2d | None:
    """The convolution that a branch begins with, if that is known."""
    return _linear(branch, 0)


def last_linear(branch: nn.Module) -> nn.Conv2d | None:
    """The convolution that a branch ends with, if that is known."""
    return _linear(branch, 1)


ENDS: dict[type, tuple[str, str]] = {MLP: ("fc1", "fc2"), SepConvMixer: ("pw1", "pw2"), AttentionMixer: ("qkv", "proj")}
"""What the branches of our own begin and end with; a convolution is both."""


def _linear(branch: nn.Module, end: int) -> nn.Conv2d | None:
    """Of all channels, or of each by itself: what lies between has weights of another layout."""
    found = getattr(branch, ENDS[type(branch)][end]) if type(branch) in ENDS else branch
    return found if type(found) is nn.Conv2d and found.groups in (1, found.in_channels) else None


def is_pointwise(layer: Linear) -> bool:
    """Whether the map sees one place at a time, so that a constant passes through it as a constant."""
    if type(layer) is nn.Linear:
        return True
    return type(layer) is nn.Conv2d and layer.kernel_size == (1, 1) and layer.padding == (0, 0) and layer.groups == 1


def scale_in(layer: Linear, scale: Tensor) -> None:
    """L(scale ⊙ x) as L'(x): W' = W diag(scale). Zero padding stays zero when scaled, so any convolution will do."""
    depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
    shape = (-1, 1) if depthwise else (1, -1)
    layer.weight.mul_(scale.view(*shape, *(1,) * (layer.weight.ndim - 2)))


def shift_in(layer: Linear, shift: Tensor) -> None:
    """L(x + shift) as L'(x) for a pointwise L: bias' = bias + W shift."""
    add_bias(layer, layer.weight.flatten(1) @ shift)


def scale_out(layer: Linear, scale: Tensor) -> None:
    """scale ⊙ L(x) as L'(x): W' = diag(scale) W, bias' = scale ⊙ bias."""
    layer.weight.mul_(scale.view(-1, *(1,) * (layer.weight.ndim - 1)))
    if layer.bias is not None:
        layer.bias.mul_(scale)


def add_bias(layer: Linear, bias: Tensor) -> None:
    """L(x) + bias as L'(x)."""
    layer.bias = nn.Parameter(bias if layer.bias is None else layer.bias + bias, requires_grad=False)


# --- what takes the place of folded modules ---------------------------------------------------------------------------


class Standardise(nn.Module):
    """n(x), of a map as a whole or at each place: a norm whose weight and bias have gone elsewhere."""

    def __init__(self, norm: MapNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        self.dim = len(norm.weight)
        self.places = isinstance(norm, ChannelNorm)

    def forward(self, x: Tensor) -> Tensor:
        if not self.places:
            return F.group_norm(x, 1, eps=self.eps)
        return F.layer_norm(x.permute(0, 2, 3, 1), (self.dim,), eps=self.eps).permute(0, 3, 1, 2)


class ShiftedSquaredReLU(nn.Module):
    """relu(x)² + shift."""

    shift: Tensor

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        return squared_relu(x) + self.shift


class MixedResidual(nn.Module):
    """(t − a) ⊙ x + a ⊙ pool(x) where a = gain / σ: a pooling block of one norm over the whole map, σ its deviation."""

    gain: Tensor
    shortcut: Tensor | None

    def __init__(self, residual: Residual, norm: MapNorm, pool: nn.Module) -> None:
        super().__init__()
        self.eps = norm.eps
        self.pool = pool
        self.residual = residual.residual
        self.register_buffer("gain", _column(norm.weight if residual.scale is None else norm.weight * residual.scale))
        self.register_buffer("shortcut", None if residual.shortcut_scale is None else _column(residual.shortcut_scale))

    def forward(self, x: Tensor) -> Tensor:
        a = self.gain * _steepness(x, self.eps)
        kept = -a if not self.residual else 1 - a if self.shortcut is None else self.shortcut - a
        return x * kept + self.pool(x) * a


class AffineResidual(nn.Module):
    """(t + a) ⊙ x − a μ + shift where a = gain / σ: an identity block of one norm over the whole map."""

    gain: Tensor
    shift: Tensor | None
    shortcut: Tensor | None

    def __init__(self, residual: Residual, norm: MapNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        self.residual = residual.residual
        scale = torch.ones_like(norm.weight) if residual.scale is None else residual.scale
        self.register_buffer("gain", _column(norm.weight * scale))
        self.register_buffer("shift", None if norm.bias is None else _column(norm.bias * scale))
        self.register_buffer("shortcut", None if residual.shortcut_scale is None else _column(residual.shortcut_scale))

    def forward(self, x: Tensor) -> Tensor:
        a = self.gain * _steepness(x, self.eps)
        kept = a if not self.residual else 1 + a if self.shortcut is None else self.shortcut + a
        moved = -a * x.mean((1, 2, 3), keepdim=True)
        return x * kept + (moved if self.shift is None else moved + self.shift)


def _steepness(x: Tensor, eps: float) -> Tensor:
    """1 / σ of each map: of halves through float32, for σ² leaves their range long before σ does."""
    if x.dtype == torch.float16:
        return _steepness(x.float(), eps).half()
    return torch.rsqrt(x.var((1, 2, 3), correction=0, keepdim=True) + eps)


class Pixels(nn.Module):
    """Bytes → numbers with the mean colour at 0, so that zero padding is what it was.

    The mean stays in float32 where the model is cast to less: 123.675 in bfloat16 is 123.5, an error in every place alike.
    """

    mean: Tensor

    def __init__(self, mean: tuple[float, ...], like: Tensor) -> None:
        super().__init__()
        self.dtype = like.dtype
        wide = torch.promote_types(like.dtype, torch.float32)
        self.register_buffer("mean", _column(255 * torch.tensor(mean, dtype=torch.float64)).to(wide).to(like.device))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Pixels":
        cast = fn(self.mean)
        self.dtype, self.mean = cast.dtype, self.mean.to(cast.device)
        return self

    def forward(self, x: Tensor) -> Tensor:
        centred = x.to(self.mean.dtype) - self.mean
        return centred if centred.dtype == self.dtype else centred.to(self.dtype)


def _column(vector: Tensor) -> Tensor:
    return vector.detach().clone().view(1, -1, 1, 1)


# --- where things are -------------------------------------------------------------------------------------------------


def affine(norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """What a batch norm multiplies by and adds in inference; None where it is none, or has not all of its figures."""
    if type(norm) is not nn.BatchNorm2d or norm.running_mean is None or norm.running_var is None or not norm.affine:
        return None
    a = torch.rsqrt(norm.running_var + norm.eps) * norm.weight
    return a, norm.bias - a * norm.running_mean


def keeps_constants(pool: nn.Module) -> bool:
    """Whether pooling a constant map gives that map, at the border too, and scales with its input whatever the sign."""
    return type(pool) is nn.AvgPool2d and not pool.count_include_pad


def scale_branch(residual: Residual, scale: Tensor) -> None:
    """Multiplies the branch's scale."""
    value = scale if residual.scale is None else residual.scale * scale
    residual.scale = nn.Parameter(value.detach().clone(), requires_grad=False)


MLP_HEAD: dict[str, type] = {
    "fc1": nn.Linear, "act": SquaredReLUAct, "norm": nn.LayerNorm, "dropout": nn.Dropout, "fc": nn.Linear,
}  # fmt: skip
LINEAR_HEAD: dict[str, type] = {"dropout": nn.Dropout, "fc": nn.Linear}
"""The parts of our own heads, in order. A user's may have the same names in another order, with something between."""


def is_made_of(parts: nn.Module, kinds: dict[str, type]) -> bool:
    """Whether this is a sequence of exactly these."""
    return type(parts) is nn.Sequential and [(name, type(part)) for name, part in parts.named_children()] == [*kinds.items()]


def head_linear(head: Head) -> nn.Linear | None:
    """The linear map that the pooled features enter, if that is known."""
    parts: Any = head.classifier
    return parts.fc1 if is_made_of(parts, MLP_HEAD) else parts.fc if is_made_of(parts, LINEAR_HEAD) else None


def placed(model: nn.Module) -> list[tuple[nn.Module, str, Residual]]:
    """Every half block, with the module and the name under which it is there."""
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is Residual
    ]
