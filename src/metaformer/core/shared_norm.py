"""Batch normalisation over the images of all ranks. torch's own is for GPUs alone, and for ranks that all have images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Total(torch.autograd.Function):
    """The sum over all ranks; its gradient is the sum over all ranks of theirs."""

    @staticmethod  # torch's stubs give forward and backward any arguments; ours have names
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


@torch.compiler.disable
def _total(x: Tensor) -> Tensor:
    if not dist.is_initialized():  # a model that its owner has back
        return x
    return cast(Tensor, _Total.apply(x))


class SharedBatchNorm(nn.BatchNorm2d):
    """As torch's, (B, C, ...) → the same shape, but mean and variance are of what all ranks have; a rank may have nothing."""

    idle: bool = False
    """Whether what comes in stands for nothing and is not to be counted."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions does."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        x, shape = input.float(), (-1, *(1,) * (input.ndim - 2))
        counted = x[:0] if self.idle else x
        places = (0, *range(2, x.ndim))
        sums = _total(torch.cat([counted.sum(places), x.new_tensor([counted.numel() / self.num_features])]))
        some, count = sums[-1].detach() > 0, sums[-1].detach().clamp(min=1)
        mean = sums[:-1] / count
        var = _total((counted - mean.view(shape)).square().sum(places)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(some)
            self.running_mean.lerp_(mean, self.momentum * some)
            self.running_var.lerp_(var * count / (count - 1).clamp(min=1), self.momentum * some)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return ((x - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)).to(input.dtype)


class SharedBatchNormAct(SharedBatchNorm):
    """timm's, with its activation behind it."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


SHARED: dict[str, type[SharedBatchNorm]] = {
    "BatchNorm1d": SharedBatchNorm, "BatchNorm2d": SharedBatchNorm, "BatchNormAct2d": SharedBatchNormAct,
}  # fmt: skip


def share_statistics(model: nn.Module) -> None:
    """Makes the model's batch norms count the images of all ranks, in place; parameters, buffers and their names stay.

    Raises ValueError for a kind of batch norm that this cannot be done for.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, SharedBatchNorm):
            name = type(module).__name__
            if name not in SHARED or module.momentum is None or not (module.affine and module.track_running_stats):
                raise ValueError(f"{module!r} cannot be shared by several processes: train this model in one")
            module.__class__ = SHARED[name]


@contextmanager
def idle(model: nn.Module) -> Iterator[None]:
    """What goes through the model stands for nothing: its batch norms exchange what they must, and do not count it."""
    norms = [module for module in model.modules() if isinstance(module, SharedBatchNorm)]
    for norm in norms:
        norm.idle = True
    try:
        yield
    finally:
        for norm in norms:
            norm.idle = False
