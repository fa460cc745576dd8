"""The parts around a token mixer: activations, norms, branch scaling, drop path, the channel MLP, the heads.

A spec (frozen dataclass) has the paper's name; the module that it makes has a longer one: `StarReLU()` makes a
`StarReLUAct`. v1 is arXiv 2111.11418, v2 is arXiv 2210.13452.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[[], nn.Module]
"""Makes an element-wise module."""
Norm = Callable[[int], nn.Module]
"""Given the channel count, makes a module that normalises (B, C, H, W)."""
HeadSpec = Callable[[int, int, float], nn.Module]
"""Given channels, classes and dropout rate, makes a module that maps (B, C) to (B, classes)."""

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


# --- activations ------------------------------------------------------------------------------------------------------


def squared_relu(x: Tensor) -> Tensor:
    """relu(x)², safe in half precision: computed in float32 there and held at the largest half, where x² > 65504."""
    if x.dtype != torch.float16:
        return F.relu(x).square()
    return F.relu(x).float().square().clamp(max=torch.finfo(torch.float16).max).half()


@dataclass(frozen=True)
class StarReLU:
    """s · relu(x)² + b, one scalar pair per layer, section 2.4 of v2. 0.8944 and -0.4472 give mean 0, variance 1."""

    scale: float = 1.0
    bias: float = 0.0
    learn_scale: bool = True
    learn_bias: bool = True

    def __call__(self) -> nn.Module:
        return StarReLUAct(self.scale, self.bias, learn_scale=self.learn_scale, learn_bias=self.learn_bias)


class StarReLUAct(nn.Module):
    def __init__(self, scale: float, bias: float, *, learn_scale: bool, learn_bias: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([float(scale)]), requires_grad=learn_scale)
        self.bias = nn.Parameter(torch.tensor([float(bias)]), requires_grad=learn_bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling() and x.dtype != torch.float16:
            return cast(Tensor, LeanStarReLU.apply(x, self.scale.to(x.dtype), self.bias.to(x.dtype)))
        if x.dtype != torch.float16:
            return self.scale.to(x.dtype) * squared_relu(x) + self.bias.to(x.dtype)
        # s · relu² can leave half's range although relu² did not, so scale and bias stay on the safe side too.
        limit = torch.finfo(torch.float16).max
        return (self.scale.float() * F.relu(x).float().square() + self.bias.float()).clamp(-limit, limit).half()


class LeanStarReLU(torch.autograd.Function):
    """The same for an eager training step: keeps x alone for the backward pass where autograd would keep three maps."""

    generate_vmap_rule = True

    @staticmethod  # torch's stubs give forward and backward any arguments; ours have names
    def forward(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        relu = F.relu(x)
        return relu.mul_(relu).mul_(scale).add_(bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        x, scale, _ = inputs
        ctx.save_for_backward(x, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyrefly: ignore[bad-override]
        x, scale = ctx.saved_tensors
        relu = F.relu(x)
        slope = grad * relu
        dx = slope * (2 * scale) if ctx.needs_input_grad[0] else None
        dscale = (slope * relu).sum().reshape(1) if ctx.needs_input_grad[1] else None
        return dx, dscale, grad.sum().reshape(1) if ctx.needs_input_grad[2] else None


@dataclass(frozen=True)
class SquaredReLU:
    """relu(x)², arXiv 2109.08668; the MLP head's activation in v2."""

    def __call__(self) -> nn.Module:
        return SquaredReLUAct()


class SquaredReLUAct(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return squared_relu(x)


@dataclass(frozen=True)
class ReLU:
    """max(x, 0)."""

    def __call__(self) -> nn.Module:
        return nn.ReLU()


@dataclass(frozen=True)
class GELU:
    """x · Φ(x), the erf form."""

    def __call__(self) -> nn.Module:
        return nn.GELU()


@dataclass(frozen=True)
class SiLU:
    """x · sigmoid(x)."""

    def __call__(self) -> nn.Module:
        return nn.SiLU()


# --- norms ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MLN:
    """Modified layer norm, v1: mean and variance over C, H, W together, affine per channel. GroupNorm of one group."""

    eps: float = 1e-6
    bias: bool = False

    def __call__(self, dim: int) -> nn.Module:
        return MapNorm(dim, self.eps, bias=self.bias)


class MapNorm(nn.Module):
    def __init__(self, dim: int, eps: float, *, bias: bool) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, 1, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class LayerNorm:
    """Mean and variance over C at each place."""

    eps: float = 1e-6
    bias: bool = False

    def __call__(self, dim: int) -> nn.Module:
        return ChannelNorm(dim, self.eps, bias=self.bias)


class ChannelNorm(MapNorm):
    def forward(self, x: Tensor) -> Tensor:
        tokens = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return tokens.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class BatchNorm:
    """Mean and variance over the batch and all places, per channel; v1's ablation."""

    eps: float = 1e-5

    def __call__(self, dim: int) -> nn.Module:
        return nn.BatchNorm2d(dim, eps=self.eps)


@dataclass(frozen=True)
class GroupNorm:
    """Mean and variance over groups of channels and all places, affine per channel, arXiv 1803.08494."""

    groups: int = 32
    eps: float = 1e-5

    def __call__(self, dim: int) -> nn.Module:
        if self.groups < 1 or dim % self.groups:
            raise ValueError(f"GroupNorm(groups={self.groups}): {dim} channels do not divide into as many groups")
        return nn.GroupNorm(self.groups, dim, eps=self.eps)


@dataclass(frozen=True)
class NoNorm:
    """Leaves the map as it is."""

    def __call__(self, dim: int) -> nn.Module:
        return nn.Identity()


# --- branches ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """shortcut · x + branch · F(norm(x)), each a learnable vector of C values that starts at the number given, or absent.

    ResScale (v2) is `Scale(shortcut=1.0)`, LayerScale (v1) `Scale(branch=1e-5)`, BranchScale (v2) both, none `Scale()`.
    """

    shortcut: float | None = None
    branch: float | None = None


class DropPath(nn.Module):
    """Stochastic depth, arXiv 1603.09382: a sample's branch is dropped with probability `rate`, else scaled by 1/(1−rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep).div_(keep)


def conv(dim: int, out: int, kernel: int = 1, *, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps H and W, initialised as the papers do: truncated normal of std 0.02, biases 0."""
    return init_weights(nn.Conv2d(dim, out, kernel, padding=kernel // 2, groups=groups, bias=bias))


def init_weights(layer: Layer, std: float = 0.02) -> Layer:
    """Truncated normal weights and zero biases, in place; the layer is returned."""
    nn.init.trunc_normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def widened(dim: int, ratio: float) -> int:
    """Hidden channels: ratio · dim, rounded down. Raises ValueError where none is left."""
    if dim * ratio < 1:
        raise ValueError(f"ratio={ratio} leaves no hidden channel of {dim}: give at least {1 / dim:.3g}")
    return int(dim * ratio)


class MLP(nn.Module):
    """The channel MLP: C → ratio·C → C at each place, as 1×1 convolutions."""

    def __init__(self, dim: int, ratio: float, activation: Activation, *, bias: bool) -> None:
        super().__init__()
        hidden = widened(dim, ratio)
        self.fc1 = conv(dim, hidden, bias=bias)
        self.act = activation()
        self.fc2 = conv(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


# --- heads ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinearHead:
    """Dropout, then Linear C → classes."""

    def __call__(self, dim: int, num_classes: int, dropout: float) -> nn.Module:
        fc = init_weights(nn.Linear(dim, num_classes))
        parts: OrderedDict[str, nn.Module] = OrderedDict(dropout=nn.Dropout(dropout), fc=fc)
        return nn.Sequential(parts)


@dataclass(frozen=True)
class MLPHead:
    """Linear C → ratio·C, Squared ReLU, LayerNorm, dropout, Linear → classes: the head of ConvFormer and CAFormer, v2."""

    ratio: float = 4.0

    def __call__(self, dim: int, num_classes: int, dropout: float) -> nn.Module:
        hidden = widened(dim, self.ratio)
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            fc1=init_weights(nn.Linear(dim, hidden)),
            act=SquaredReLUAct(),
            norm=nn.LayerNorm(hidden, eps=1e-5),
            dropout=nn.Dropout(dropout),
            fc=init_weights(nn.Linear(hidden, num_classes)),
        )
        return nn.Sequential(parts)


class Head(nn.Module):
    """(B, C, H, W) → logits (B, classes), or the pooled, normalised features (B, C) when there are no classes.

    v1 normalises the map and then takes the mean over H, W; v2 takes the mean first (`pool_first`).
    """

    def __init__(self, dim: int, norm: Norm, classifier: nn.Module | None, *, pool_first: bool) -> None:
        super().__init__()
        self.pool_first = pool_first
        self.norm = norm(dim)
        self.classifier = classifier or nn.Identity()

    def pooled(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C), normalised: what the classifier is given."""
        return self.norm(x.mean((2, 3), keepdim=True)).flatten(1) if self.pool_first else self.norm(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pooled(x))
