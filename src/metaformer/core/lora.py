"""Low-rank updates of weights: W + s·B·A, of which only A and B learn (LoRA, arXiv 2106.09685, section 4.1).

Modules stay what they are: torch computes an updated weight each time that it is asked for. Saved, it is a plain weight.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

ALPHA = 16.0
"""The update is scaled by ALPHA / rank, so that another rank asks for no other learning rate."""


class LowRank(nn.Module):
    """W → W + s·B·A, W being (O, ...), taken as a matrix (O, I), A (rank, I), B (O, rank). B starts at 0, W as it was."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        rank = min(rank, rows, columns)
        self.scale = ALPHA / rank
        self.down = nn.Parameter(weight.new_empty(rank, columns).uniform_(-1, 1) / columns**0.5)
        self.up = nn.Parameter(weight.new_zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # in full precision, as it is when it is saved
            return weight + self.scale * (self.up @ self.down).view_as(weight)


def takes_update(module: nn.Module) -> bool:
    """Whether it maps several channels with a weight of its own: a linear layer, or a convolution that is not depthwise."""
    mixing = isinstance(module, nn.Conv2d) and module.in_channels > module.groups
    return (mixing or isinstance(module, nn.Linear)) and not parametrize.is_parametrized(module)


def add_update(module: nn.Module, rank: int) -> None:
    """Gives a module of `takes_update` an update; A draws from torch's global generator. The weight itself learns no more."""
    weight = cast(nn.Parameter, module.weight)
    weight.requires_grad_(False)
    parametrize.register_parametrization(module, "weight", LowRank(weight.detach(), rank))


def is_updated(model: nn.Module) -> bool:
    """Whether any of its weights has an update."""
    return any(isinstance(module, LowRank) for module in model.modules())


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the same model without updates, in which they are part of the weights."""
    state = model.state_dict()
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module) and is_updated(module):
            for key in [key for key in state if key.startswith(f"{name}.parametrizations.")]:
                del state[key]
            state[f"{name}.weight"] = cast(Tensor, module.weight).detach()
    return state
