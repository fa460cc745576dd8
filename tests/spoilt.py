"""Mixers that break one line of the contract each, and one that breaks none; beside each what follows from it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer.core.mixers import Mixer

SPOILT: dict[Mixer, tuple[str, ...]] = {}
"""Each with the lines that it fails: the first is what is wrong with it, the others follow."""


def fails(*lines: str) -> Callable[[Any], Any]:
    """Notes what a mixer fails."""

    def note(mixer: Any) -> Any:
        SPOILT[mixer] = lines
        return mixer

    return note


class Fine(nn.Module):
    """Nothing is wrong with it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.mean((2, 3), keepdim=True) - x


@fails("builds")
def no_module(dim: int) -> object:
    return lambda x: x


SHARED = nn.Conv2d(64, 64, 1)


@fails("builds")
def shared(dim: int) -> nn.Module:
    return SHARED


@fails("builds")
class Choosy(Fine):
    def __init__(self, dim: int) -> None:
        assert dim % 64 == 0
        super().__init__(dim)


@fails("shape")
class Cropped(Fine):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 1:, 1:]


@dataclass
class Loose:
    """Not frozen."""

    scale: float = 1.0

    def __call__(self, dim: int) -> nn.Module:
        return Fine(dim)


class Nameless:
    """An object whose text names its class."""

    def __call__(self, dim: int) -> nn.Module:
        return Fine(dim)


fails("spec")(Nameless())
fails("spec")(lambda dim: Fine(dim))


@fails("dtype", "bf16", "fp16")
class Widened(Fine):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


@fails("odd sizes", "one pixel", "several sizes", "export", "onnx")
class Halved(Fine):
    def forward(self, x: Tensor) -> Tensor:
        return self.weight * F.interpolate(F.avg_pool2d(x, 2), scale_factor=2) - x


@fails("odd sizes", "one pixel", "several sizes", "channels-last", "bf16", "fp16", "export", "onnx")
class Rigid(Fine):
    """Made for one grid, and does not say so."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm((8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x))


@fails("one pixel")
class Mirrored(Fine):
    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, stride=1) - self.weight * x
        return y.contiguous(memory_format=torch.channels_last)


@fails("several sizes", "export", "onnx")
class Remembering(Fine):
    largest = 1

    def forward(self, x: Tensor) -> Tensor:
        self.largest = max(self.largest, x.shape[2])
        return super().forward(x) / self.largest


@fails("finite")
class Unguarded(Fine):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / x.norm(dim=1, keepdim=True))


@fails("input")
class InPlace(Fine):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.relu(x, inplace=not x.requires_grad))


@fails("gradient")
class Detached(Fine):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


@fails("parameters")
class Unused(Fine):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.spare = nn.Parameter(torch.ones(dim))


@fails("parameters")
class Untaught(Unused):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0 * self.spare.view(-1, 1, 1)


@fails("batch")
class Centred(Fine):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0, keepdim=True))


@fails("deterministic")
class Trembling(Fine):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1e-6 * torch.randn_like(x)


@fails("modes")
class Louder(Fine):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2.0 if self.training else 1.0)


@fails("modes")
class Counting(Fine):
    calls: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(0.0 if self.calls.is_meta else 1.0)
        return super().forward(x)


@fails("state")
class Secretive(Fine):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.gain = 1 + torch.rand(()).item()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gain


@fails("copy")
class Hoarding(Fine):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.training:
            self.last = y
        return y


@fails("channels-last")
class Flattened(Fine):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).contiguous()


@fails("bf16")
class Refusing(Fine):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'")
        return super().forward(x)


@fails("fp16")
class Overflowing(Fine):
    def forward(self, x: Tensor) -> Tensor:
        total = (100 * x.abs()).sum((2, 3), keepdim=True)
        return super().forward(x) + total / (100 * x.shape[2] * x.shape[3])


@fails("autocast")
class Particular(Fine):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.conv = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if y.dtype != x.dtype:
            raise RuntimeError("expected the same dtype")
        return super().forward(y)


@fails("device")
class Rooted(Fine):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + torch.arange(x.shape[3])).to(x.dtype)


@fails("compile")
class Broken(Fine):
    def forward(self, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return super().forward(x)


@fails("export", "onnx")
class Fixed(Fine):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / int(x.shape[2])


@fails("onnx")
class Exotic(Fine):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.erfinv(0.5 * x.float().tanh()).to(x.dtype))


@fails("deterministic")
class Foreign(Fine):
    """Draws in training, and not with torch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + random.random() if self.training else 1.0)


LOOSE = Loose()
