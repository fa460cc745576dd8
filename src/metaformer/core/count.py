"""What a model costs: parameters, multiply-accumulates, activation FLOPs, activation memory. One counter for all."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from metaformer.core.layers import SquaredReLUAct, StarReLUAct

FLOPS_PER_UNIT: dict[type, int] = {nn.ReLU: 1, SquaredReLUAct: 2, StarReLUAct: 4, nn.GELU: 14}
"""The papers' count for activations, section 2.4 of arXiv 2210.13452. They give none for others."""


@dataclass(frozen=True)
class Count:
    """The cost of one image."""

    parameters: int
    """All parameters, the frozen ones included."""
    frozen: int
    """Parameters that do not learn: RandFormer's random matrices, say."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products, attention's two products included."""
    flops: int
    """2 · macs."""
    activation_flops: int | None
    """FLOPs of activation functions by the papers' count; None where one is used that they do not count."""
    activation_bytes: int
    """What autograd keeps for the backward pass, each storage once, without parameters, input and the masks of dropout."""
    macs_by_name: dict[str, int] = field(repr=False)
    """Multiply-accumulates of each module that has any, its children's included; "" is the model."""


@torch.inference_mode(False)
@torch.enable_grad()
def count(model: nn.Module, image_size: int | tuple[int, int]) -> Count:
    """Counts `model` on one image of `image_size` (side, or height and width). Nothing is computed, only shapes.

    The image has the channels and the precision of the model's first convolution. The model is counted as in evaluation,
    whatever its mode, and is left as it was.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    state = {name: tensor.detach().to("meta").requires_grad_(tensor.requires_grad) for name, tensor in _tensors(model)}
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    image = torch.empty(1, first.in_channels, height, width, device="meta", dtype=first.weight.dtype)
    image = image.contiguous(memory_format=torch.channels_last)  # else the model keeps a copy of its own

    acts: list[int | None] = []
    hooks = [
        module.register_forward_hook(lambda module, _, out: acts.append(_activation_flops(module, out)))
        for name, module in model.named_modules()
        if _is_activation(name, module)
    ]
    saved: dict[int, int] = {}
    ours = {tensor.untyped_storage()._cdata for tensor in [*state.values(), image]}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in ours:
            saved[storage._cdata] = storage.nbytes()
        alive.append(tensor)  # so that no storage's identity is used twice
        return tensor

    alive: list[Tensor] = []
    counter = FlopCounterMode(display=False)
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), counter:
            functional_call(model, state, (image,))
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    macs = counter.get_total_flops() // 2
    return Count(
        parameters=sum(p.numel() for p in model.parameters()),
        frozen=sum(p.numel() for p in model.parameters() if not p.requires_grad),
        macs=macs,
        flops=2 * macs,
        activation_flops=None if None in acts else sum(a for a in acts if a is not None),
        activation_bytes=sum(saved.values()),
        macs_by_name=_by_name(counter.get_flop_counts()),
    )


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _is_activation(name: str, module: nn.Module) -> bool:
    torchs = type(module).__module__.startswith("torch.nn.modules.activation")
    return torchs or type(module) in FLOPS_PER_UNIT or name.rpartition(".")[2] == "act"


def _activation_flops(module: nn.Module, out: Tensor) -> int | None:
    per_unit = FLOPS_PER_UNIT.get(type(module))
    return None if per_unit is None else per_unit * out.numel()


def _by_name(counts: dict[str, dict[Any, int]]) -> dict[str, int]:
    """FlopCounterMode's names begin with the model's class, or with "Global" for the whole."""
    totals = {name: sum(by_op.values()) // 2 for name, by_op in counts.items()}
    return {name.partition(".")[2]: total for name, total in totals.items() if name != "Global"}
