"""Several processes that train one model: the same data, gradients and batch norms' statistics shared."""

import warnings
from copy import deepcopy

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from metaformer.core.ranks import Ranks
from metaformer.core.shared_norm import share_statistics
from metaformer.data.dataset import Data
from metaformer.train.loop import Fit
from metaformer.train.parts import training_mode


def check_same(data: Data, ranks: Ranks) -> None:
    """Raises ValueError where the processes do not see the same data."""
    seen = ranks.gathered((len(data.train), len(data.val), data.classes))
    if len(set(seen)) > 1:
        facts = "; ".join(f"process {i}: {train:,} to learn, {val:,} to judge" for i, (train, val, _) in enumerate(seen))
        raise ValueError(f"the processes see different images or classes, {facts}: is data= the same on all machines?")


def joined(fit: Fit) -> nn.Module:
    """The model as a part of all ranks': they share gradients, and the statistics of batch norms."""
    unused = _leaves_out(fit)
    share_statistics(fit.state.model)
    gpus = [fit.train.device.index] if fit.train.device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # torch 2.11 has no other word
        return DistributedDataParallel(fit.forward, device_ids=gpus, broadcast_buffers=False, find_unused_parameters=unused)


def _leaves_out(fit: Fit) -> bool:
    """Whether a parameter that learns has no part in the model's answer, so that nobody must wait for its gradient."""
    model, side = training_mode(deepcopy(fit.state.model), fit.recipe), fit.recipe.start_size or fit.train.preprocess.size
    with torch.random.fork_rng([fit.train.device] if fit.train.device.type == "cuda" else []):
        model(torch.zeros(2, len(fit.train.preprocess.mean), side, side, device=fit.train.device)).sum().backward()
    return any(p.grad is None for p in model.parameters() if p.requires_grad)
