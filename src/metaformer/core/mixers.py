"""Every token mixer and its spec: THE place to add one. A mixer maps (B, C, H, W) to (B, C, H, W) and nothing else.

Memory is channels-last, so that going to tokens (B, N, C) and back costs nothing.
v1 is arXiv 2111.11418, v2 is arXiv 2210.13452.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer.core.layers import Activation, StarReLU, conv, widened

Mixer = Callable[[int], nn.Module]
"""Given the channel count, makes a module that maps (B, C, H, W) to (B, C, H, W). A module class will do, or a lambda."""


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, H·W, C), channels adjacent in memory, as fused attention needs; a view when they already are."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).contiguous()


def to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, H·W, C) → (B, C, H, W), channels-last."""
    return tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Identity:
    """Mixes nothing: the floor of both papers."""

    def __call__(self, dim: int) -> nn.Module:
        return nn.Identity()


# --- pooling ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pooling:
    """Average pooling minus its input, section 3.2 of v1: the block's shortcut already carries the input."""

    window: int = 3

    def __post_init__(self) -> None:
        _check_odd("Pooling", "window", self.window)

    def __call__(self, dim: int) -> nn.Module:
        pool = nn.AvgPool2d(self.window, stride=1, padding=self.window // 2, count_include_pad=False)
        return PoolingMixer(pool)


@dataclass(frozen=True)
class MaxPooling:
    """Max pooling minus its input."""

    window: int = 3

    def __post_init__(self) -> None:
        _check_odd("MaxPooling", "window", self.window)

    def __call__(self, dim: int) -> nn.Module:
        return PoolingMixer(nn.MaxPool2d(self.window, stride=1, padding=self.window // 2))


class PoolingMixer(nn.Module):
    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


# --- convolution ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DepthwiseConv:
    """Depthwise convolution, v1's ablation (table 5)."""

    kernel: int = 3
    bias: bool = False

    def __post_init__(self) -> None:
        _check_odd("DepthwiseConv", "kernel", self.kernel)

    def __call__(self, dim: int) -> nn.Module:
        return conv(dim, dim, self.kernel, groups=dim, bias=self.bias)


@dataclass(frozen=True)
class SepConv:
    """C → ratio·C, activation, depthwise convolution, ratio·C → C: section 2.3 of v2, after MobileNetV2."""

    kernel: int = 7
    ratio: float = 2.0
    activation: Activation = StarReLU()
    bias: bool = False

    def __post_init__(self) -> None:
        _check_odd("SepConv", "kernel", self.kernel)

    def __call__(self, dim: int) -> nn.Module:
        return SepConvMixer(dim, self)


class SepConvMixer(nn.Module):
    def __init__(self, dim: int, spec: SepConv) -> None:
        super().__init__()
        hidden = widened(dim, spec.ratio)
        self.pw1 = conv(dim, hidden, bias=spec.bias)
        self.act = spec.activation()
        self.dw = conv(hidden, hidden, spec.kernel, groups=hidden, bias=spec.bias)
        self.pw2 = conv(hidden, dim, bias=spec.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.pw2(self.dw(self.act(self.pw1(x))))


# --- attention --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attention:
    """Softmax self-attention over all H·W tokens, section 2.3 of v2. Heads: max(1, C // head_dim)."""

    head_dim: int = 32
    qkv_bias: bool = False
    proj_bias: bool = False

    def __post_init__(self) -> None:
        _check_side("Attention", "head_dim", self.head_dim)

    def __call__(self, dim: int) -> nn.Module:
        return AttentionMixer(dim, self)


class AttentionMixer(nn.Module):
    def __init__(self, dim: int, spec: Attention) -> None:
        super().__init__()
        self.head_dim = spec.head_dim
        self.scale: float | None = None  # 1/√head_dim
        width = max(1, dim // spec.head_dim) * spec.head_dim
        self.qkv = conv(dim, 3 * width, bias=spec.qkv_bias)
        self.proj = conv(width, dim, bias=spec.proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        qkv = to_tokens(self.qkv(x)).unflatten(2, (3, -1, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, head_dim)
        mixed = attend(q, k, v, self.head_dim**-0.5 if self.scale is None else self.scale).transpose(1, 2).flatten(2)
        return self.proj(to_map(mixed, *x.shape[2:]))


FEW = 1024
"""Tokens up to which their products with each other are kept for the backward pass."""


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale · q kᵀ) v, each (B, heads, N, head_dim), by the library's fused kernel, whose memory is linear in N.

    Its backward pass in bfloat16 on a processor takes three to seven times as long as the plain products: these are
    taken there, for few tokens.
    """
    slow = q.dtype == torch.bfloat16 and q.device.type == "cpu" and q.requires_grad and torch.is_grad_enabled()
    if slow and q.shape[2] <= FEW:
        return (q * scale @ k.transpose(-2, -1)).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


# --- matrices over tokens, and what follows the resolution ------------------------------------------------------------


def resize_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) → (B, C, *size) by bilinear interpolation, corners not aligned; the same tensor if it has that size."""
    return x if _is_size(size, *x.shape[2:]) else F.interpolate(x, size, mode="bilinear", align_corners=False)


def _is_size(size: tuple[int, int], height: int, width: int) -> bool:
    """False for sides that `torch.export` leaves free: interpolation is right for all sizes, a branch would exclude one."""
    return all(isinstance(side, int) for side in size) and size == (height, width)


def resize_token_matrix(matrix: Tensor, grid: int, size: tuple[int, int]) -> Tensor:
    """(g², g²) → (H·W, H·W): a matrix from places to places, interpolated over its input places and its output places.

    Each new row interpolates the rows of the nearest old places; what it gives to a constant map stays: the entries are
    scaled by the ratio of the areas, and the remainder is shared out in proportion to their size. So a row that sums to 1
    still does, and one without negative entries gets none.
    """
    if _is_size(size, grid, grid):
        return matrix
    wide = resize_map(matrix.unflatten(1, (grid, grid)).unsqueeze(0), size).flatten(2).squeeze(0)  # (g², H·W)
    tall = resize_map(wide.t().unflatten(1, (grid, grid)).unsqueeze(0), size).flatten(2).squeeze(0).t()  # (H·W, H·W)
    tall = tall * (grid * grid) / tall.shape[1]
    kept = resize_map(matrix.sum(1).view(1, 1, grid, grid), size).flatten().unsqueeze(1)
    share = tall.abs() + torch.finfo(tall.dtype).tiny  # even where a row is empty
    return tall + (kept - tall.sum(1, keepdim=True)) * share / share.sum(1, keepdim=True)


@dataclass(frozen=True)
class Random:
    """X' = W X over tokens, W = softmax(uniform[0, 1)) by rows, frozen: section 2.2 of v2.

    `grid` is the side of the square grid of tokens for which W is drawn; on other grids W is interpolated.
    """

    grid: int

    def __post_init__(self) -> None:
        _check_side("Random", "grid", self.grid)

    def __call__(self, dim: int) -> nn.Module:
        tokens = self.grid**2
        weight = nn.Parameter(torch.softmax(torch.rand(tokens, tokens), dim=-1), requires_grad=False)
        return TokenMatrixMixer(self.grid, weight)


@dataclass(frozen=True)
class SpatialFC:
    """Linear N → N over tokens without bias, v1's hybrids, after ResMLP. On grids other than `grid` it is interpolated."""

    grid: int

    def __post_init__(self) -> None:
        _check_side("SpatialFC", "grid", self.grid)

    def __call__(self, dim: int) -> nn.Module:
        tokens = self.grid**2
        return TokenMatrixMixer(self.grid, nn.Parameter(nn.init.trunc_normal_(torch.empty(tokens, tokens), std=0.02)))


class TokenMatrixMixer(nn.Module):
    def __init__(self, grid: int, weight: nn.Parameter) -> None:
        super().__init__()
        self.grid = grid
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        return to_map(resize_token_matrix(self.weight, self.grid, (height, width)) @ to_tokens(x), height, width)


class PositionEmbedding(nn.Module):
    """Adds one learned value per channel and place, zero at the start; interpolated on grids other than (grid, grid)."""

    def __init__(self, dim: int, grid: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dim, grid, grid))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        return x + resize_map(self.weight, (height, width))


@dataclass(frozen=True)
class Fourier:
    """Real part of the orthonormal discrete Fourier transform over H, W: FNet's mixing (arXiv 2105.03824), of tokens only."""

    def __call__(self, dim: int) -> nn.Module:
        return FourierMixer()


class FourierMixer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        return torch.fft.fft2(wide, norm="ortho").real.to(x.dtype).contiguous(memory_format=torch.channels_last)


def _check_odd(spec: str, option: str, value: int) -> None:
    if not isinstance(value, int) or value < 1 or value % 2 == 0:
        near = max(1, int(value) | 1) if isinstance(value, (int, float)) else 3
        raise ValueError(f"{spec}({option}={value!r}): {option} must be odd and positive, such as {option}={near}")


def _check_side(spec: str, option: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{spec}({option}={value!r}): {option} must be a whole number of at least 1")
