"""What a detector found: thinned out, and brought to an image's own coordinates with whole masks."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms

from metaformer.dense.boxes import real
from metaformer.dense.model import Size

SCORE = 0.05
"""Least score of what is found."""
SAME = 0.5
"""Overlap above which two boxes of a class are one."""
MOST = 100
"""Boxes in an image."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one image, best first, in the pixels of the image as it was fed."""

    boxes: Tensor
    """(N, 4)."""
    scores: Tensor
    """(N,)."""
    labels: Tensor
    """(N,)."""
    masks: Tensor | None
    """(N, M, M): how probable each place within the box is the object's."""
    size: Size
    """Of that image."""


def clipped(boxes: Tensor, size: Size) -> Tensor:
    """(..., 4): the boxes within an image."""
    limits = boxes.new_tensor([size[1], size[0], size[1], size[0]])
    return torch.minimum(boxes.clamp(min=0), limits)


def thinned(boxes: Tensor, scores: Tensor, labels: Tensor, size: Size) -> Detections:
    """The best of boxes (N, 4) in the image, one for each object of a class."""
    keep = real(boxes)
    boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
    keep = batched_nms(boxes, scores, labels, SAME)[:MOST]
    return Detections(boxes[keep], scores[keep], labels[keep], None, size)


def locate(found: Detections, size: Size, least: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Boxes (N, 4), scores, labels and masks (N, H, W) in an image of height and width `size`, on the processor.

    Of those that score at least `least`: a mask takes as much memory as the image has pixels.
    """
    height, width = size
    scale = found.boxes.new_tensor([width / found.size[1], height / found.size[0]]).repeat(2)
    scores = found.scores.cpu()
    keep = scores >= least
    boxes = clipped(found.boxes * scale, size).cpu()[keep]
    masks = None if found.masks is None else paste(found.masks.cpu()[keep], boxes, size)
    return boxes, scores[keep], found.labels.cpu()[keep], masks


def paste(masks: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """(N, H, W) bool: probabilities (N, M, M) within boxes (N, 4), where they are at least 0.5 in an image of that size.

    A pixel's centre reads the mask between its places' centres, and what is beyond it as 0.
    """
    whole = torch.zeros(len(masks), *size, dtype=torch.bool)
    for mask, box, out in zip(masks.float(), boxes.tolist(), whole, strict=True):
        x1, y1, x2, y2 = box
        left, top = max(int(x1) - 1, 0), max(int(y1) - 1, 0)
        right, bottom = min(int(x2) + 2, size[1]), min(int(y2) + 2, size[0])
        if x2 <= x1 or y2 <= y1:
            continue
        x = (torch.arange(left, right) + 0.5 - x1) / (x2 - x1) * 2 - 1
        y = (torch.arange(top, bottom) + 0.5 - y1) / (y2 - y1) * 2 - 1
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
        part = F.grid_sample(mask[None, None], places, align_corners=False)[0, 0]
        out[top:bottom, left:right] = part >= 0.5
    return whole
