"""Small things that the detectors share: stacked convolutions, flat answers, the objects that they learn from."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metaformer.core.layers import Norm
from metaformer.core.pyramid import conv_norm_act
from metaformer.dense.boxes import real
from metaformer.dense.model import Size, Truth


def towers(dim: int, out: int, depth: int, norm: Norm) -> nn.Sequential:
    """So many 3×3 convolutions, each with a norm and ReLU."""
    return nn.Sequential(*(conv_norm_act(out if i else dim, out, 3, norm) for i in range(depth)))


def flat(x: Tensor, width: int) -> Tensor:
    """(B, A · width, H, W) → (B, H · W · A, width)."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, width)


def shape_of(x: Tensor) -> Size:
    """Height and width of a map."""
    return x.shape[-2], x.shape[-1]


@dataclass(frozen=True, eq=False)
class Targets:
    """What a detector learns of one image."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None


def targets_of(truth: Truth, device: torch.device) -> Targets:
    """The objects with an area that are no crowd, which the published detectors do not learn from."""
    keep = real(truth.boxes) & ~truth.crowd
    masks = None if truth.masks is None else truth.masks[keep].to(device)
    return Targets(truth.boxes[keep].to(device).float(), truth.labels[keep].to(device), masks)
