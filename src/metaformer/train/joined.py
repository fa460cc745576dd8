"""Several processes that train one model: the same data, gradients and batch norms' statistics shared."""

import warnings
from copy import deepcopy

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from metaformer.core.ranks import Ranks
from metaformer.core.shared_norm import idle, share_statistics
from metaformer.data.dataset import Data
from metaformer.data.dense import DenseData
from metaformer.train.loop import Fit
from metaformer.train.parts import training_mode


def check_same(data: Data | DenseData, ranks: Ranks) -> None:
    """Raises ValueError where the processes do not see the same data."""
    seen = ranks.gathered((len(data.train), len(data.val), data.classes))
    if len(set(seen)) > 1:
        facts = "; ".join(f"process {i}: {train:,} to learn, {val:,} to judge" for i, (train, val, _) in enumerate(seen))
        raise ValueError(f"the processes see different images or classes, {facts}: is data= the same on all machines?")


def joined(fit: Fit) -> nn.Module:
    """The model as a part of all ranks': they share gradients, and the statistics of batch norms."""
    with torch.random.fork_rng([fit.train.device] if fit.train.device.type == "cuda" else []):
        unused = _leaves_out(fit)
        share_statistics(fit.state.model)
        gpus = [fit.train.device.index] if fit.train.device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # torch 2.11 has no other
            model = DistributedDataParallel(
                fit.forward, device_ids=gpus, broadcast_buffers=False, find_unused_parameters=unused
            )
        if not (unused or fit.recipe.compile):  # a compiler would be asked for a size that never comes again
            _group_gradients(model, fit)
    return model


def _leaves_out(fit: Fit) -> bool:
    """Whether a parameter that learns has no part in the model's answer, so that nobody must wait for its gradient."""
    model = training_mode(deepcopy(fit.state.model), fit.recipe)
    fit.task.no_loss(model, _images(fit, 2)).backward()
    return any(p.grad is None for p in model.parameters() if p.requires_grad)


def _group_gradients(model: nn.Module, fit: Fit) -> None:
    """Has the gradients grouped for their exchange, which torch does anew when it has seen in what order they come.

    Else a run that goes on would sum its first gradients in another order than it did before: three processes show it.
    """
    with idle(model):
        fit.task.no_loss(model, _images(fit, 1)).backward()
    model.zero_grad()


def _images(fit: Fit, count: int) -> torch.Tensor:
    """Black ones (count, C, H, W)."""
    return torch.zeros(count, *fit.probe, device=fit.train.device)
