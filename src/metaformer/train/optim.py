"""The optimizer with its parameter groups, the learning rate of every step, the moving average of weights."""

import copy
import math
import re
from fnmatch import fnmatch
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from metaformer.config import Recipe
from metaformer.core.lora import LowRank
from metaformer.core.model import MetaFormer
from metaformer.dense.model import Dense
from metaformer.weights.peers import Peer

DROPS = (8 / 12, 11 / 12)
"""Parts of a run after which schedule=steps divides by ten."""
POWER = 0.9
"""Of schedule=poly."""


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, LAMB or SGD; weight decay is for parameters of two or more dimensions, so not for biases, norms and scales.

    Nor is it for low-rank updates, and for what timm exempts of its models.
    """
    groups = _groups(model, recipe)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)
    if recipe.optimizer == "lamb":
        from timm.optim.lamb import Lamb

        # It clips the global gradient norm itself, and has no trust ratio where weight decay is 0.
        return Lamb(groups, lr=recipe.lr, eps=1e-6, max_grad_norm=recipe.clip)
    return torch.optim.AdamW(groups, lr=recipe.lr, eps=1e-8, foreach=True)


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """What learns, by weight decay; with layer_decay also by layer, the last one first: its rate is the recipe's own."""
    whole = model.model if isinstance(model, Peer) else model
    free = _free(whole)
    if recipe.layer_decay == 1.0:
        learning = [(p, p.ndim > 1 and name not in free) for name, p in whole.named_parameters() if p.requires_grad]
        return [
            {"params": [p for p, decays in learning if decays], "weight_decay": recipe.weight_decay},
            {"params": [p for p, decays in learning if not decays], "weight_decay": 0.0},
        ]
    if isinstance(model, Peer):
        from timm.optim import param_groups_layer_decay

        decay, scale = recipe.weight_decay, recipe.layer_decay
        groups = param_groups_layer_decay(whole, weight_decay=decay, layer_decay=scale, no_weight_decay_list=free)
    else:
        groups = _layer_groups(model, recipe, free)
    return sorted(groups, key=lambda group: group["lr_scale"], reverse=True)


def _free(model: nn.Module) -> set[str]:
    """Names of parameters without weight decay, whatever their dimensions.

    Low-rank updates: they start at 0, where LAMB's trust ratio, which comes with weight decay, would keep them. Of timm's
    models those that timm names, such as position embeddings and class tokens.
    """
    updates = {name for name, module in model.named_modules() if isinstance(module, LowRank)}
    told = getattr(model, "no_weight_decay", set)()
    return {
        name
        for name, _ in model.named_parameters()
        if name.rpartition(".")[0] in updates or any(fnmatch(name, pattern) for pattern in told)
    }


def _layer_groups(model: nn.Module, recipe: Recipe, free: set[str]) -> list[dict[str, Any]]:
    """timm's param_groups_layer_decay, after BEiT's (arXiv 2106.08254), for our models: layer i learns at decay^(last − i).

    Of a detector or segmenter the backbone has the layers; one of timm's is a single layer.
    """
    body = model.backbone.body if isinstance(model, Dense) else model
    depths = body.config.depths if isinstance(body, MetaFormer) else ()
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer = layer_of(name.removeprefix("backbone.body."), depths)
            if not depths and name.startswith("backbone.body."):
                layer = 0
            scale = recipe.layer_decay ** (sum(depths) + 1 - layer)
            decay = recipe.weight_decay if parameter.ndim > 1 and name not in free else 0.0
            group = groups.setdefault((scale, decay), {"params": [], "weight_decay": decay, "lr_scale": scale})
            group["params"].append(parameter)
    return list(groups.values())


def layer_of(name: str, depths: tuple[int, ...]) -> int:
    """The layer that a parameter of our models is in, by its name: 0 is the stem, then each block is one, last is the head.

    A downsampling or a position embedding belongs to the block after it. All that a detector has above its backbone is head.
    """
    found = re.match(r"stages\.(\d+)\.(?:blocks\.(\d+)\.)?", name)
    if found is None:
        return sum(depths) + 1
    stage, block = int(found[1]), found[2]
    return 0 if stage == 0 and block is None else 1 + sum(depths[:stage]) + int(block or 0)


def clips_itself(recipe: Recipe) -> bool:
    """Whether the optimizer does the clipping."""
    return recipe.optimizer == "lamb"


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int, planned: float = 0.0) -> float:
    """Linear from warmup_lr to lr over the warm-up, then what the recipe's schedule says.

    `cosine` falls from lr to min_lr over the steps that are left and ends with the last one. `epochwise` changes once an
    epoch and its cosine counts from epoch 0, so that after 20 epochs of 300 it goes on at 0.989 of the way: timm's, and
    both papers'; of its warm-up only whole epochs count. `constant` stays. `steps` is a tenth after 8 of 12 epochs and a
    hundredth after 11, `poly` falls as (1 − t)^0.9: detectors' and segmenters'. Where other epochs than the
    recipe's are `planned`, the schedule is as long as they are, and the warm-up a quarter of them at most.
    """
    epochs = planned or recipe.epochs
    warm = min(recipe.warmup_epochs, planned / 4) if planned else recipe.warmup_epochs
    if recipe.schedule == "epochwise":
        warmup, now, end = math.floor(warm), step // steps_per_epoch, epochs
        done = now / end
    else:
        warmup, now, end = round(warm * steps_per_epoch), step, round(epochs * steps_per_epoch) - 1
        done = (now - warmup) / max(1, end - warmup)
    if now < warmup:
        return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * now / warmup
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "steps":
        return recipe.lr * 0.1 ** sum(step >= round(part * epochs * steps_per_epoch) for part in DROPS)
    if recipe.schedule == "poly":
        return recipe.min_lr + (recipe.lr - recipe.min_lr) * max(0.0, 1 - done) ** POWER
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * done)) / 2


def gradient_norm(model: nn.Module) -> torch.Tensor:
    """The global norm of the gradient, on its device."""
    return nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets it for every parameter group, times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


Model = TypeVar("Model", bound=nn.Module)


class Average(Generic[Model]):
    """Exponential moving average of weights and buffers; with `warmup` the decay rises to its value as (1 + n) / (10 + n)."""

    def __init__(self, model: Model, decay: float, *, warmup: bool = True) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.warmup = warmup

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """After optimizer step number `step`, from 1."""
        weight = 1 - (min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay)
        for mean, value in zip(_tensors(self.model), _tensors(model), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, weight)
            else:
                mean.copy_(value)


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    """Parameters and buffers, a shared one once."""
    return [*model.parameters(), *model.buffers()]
