"""RetinaNet, arXiv 1708.02002: every anchor is classified and moved, and the loss forgives the easy ones."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, sigmoid_focal_loss

from metaformer.core.pyramid import FPN
from metaformer.dense.boxes import BACKGROUND, BETWEEN, Anchors, decode, encode, match
from metaformer.dense.config import DenseConfig
from metaformer.dense.detections import SCORE, Detections, clipped, thinned
from metaformer.dense.model import Dense, Images, Size, Truth, rounded_up
from metaformer.dense.towers import Targets, flat, shape_of, targets_of, towers

CANDIDATES = 1000
"""Boxes of a level that go on to be thinned out."""
PRIOR = 0.01
"""How probable each class is at first."""


class RetinaHead(nn.Module):
    """Four convolutions for classes and four for boxes, the same on every level."""

    def __init__(self, config: DenseConfig, anchors: int) -> None:
        super().__init__()
        dim = config.head_channels
        self.label_tower = towers(config.channels, dim, 4, config.head_norm)
        self.box_tower = towers(config.channels, dim, 4, config.head_norm)
        self.label = nn.Conv2d(dim, anchors * config.num_classes, 3, padding=1)
        self.box = nn.Conv2d(dim, anchors * 4, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        assert self.label.bias is not None
        nn.init.constant_(self.label.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        return self.label(self.label_tower(level)), self.box(self.box_tower(level))


class RetinaNet(Dense):
    """`model(images, truths)` gives losses, summed over the images; `model(images)` what is found in each.

    On the meta device, where nothing has a value, it gives the logits and codes of every anchor.
    """

    def __init__(self, config: DenseConfig) -> None:
        super().__init__(config, strides=(8, 16, 32))
        self.fpn = FPN(self.backbone.dims, config.channels, extra="conv")
        scales = tuple(config.anchor_scale * 2 ** (third / 3) for third in range(3))
        self.anchors = Anchors((8, 16, 32, 64, 128), scales)
        self.head = RetinaHead(config, self.anchors.per_place)
        self.least = SCORE
        """Score above which something is found."""

    def predict(self, x: Tensor) -> tuple[list[Tensor], list[Tensor], list[Size]]:
        """A batch → for each level logits (B, H · W · A, classes) and codes (B, H · W · A, 4), and its height and width."""
        logits: list[Tensor] = []
        codes: list[Tensor] = []
        shapes: list[Size] = []
        for level in self.fpn(self.backbone(x)):
            label, box = self.head(level)
            logits.append(flat(label, self.config.num_classes))
            codes.append(flat(box, 4))
            shapes.append(shape_of(level))
        return logits, codes, shapes

    def forward(
        self, images: Images, truths: Sequence[Truth] | None = None
    ) -> dict[str, Tensor] | list[Detections] | tuple[list[Tensor], list[Tensor]]:
        x, sizes = self.stack(images)
        logits, codes, shapes = self.predict(x)
        if x.is_meta:
            return logits, codes
        anchors = self.anchors.grid(shapes, x.device)
        if truths is not None:
            return self._losses(torch.cat(logits, 1).float(), torch.cat(codes, 1).float(), anchors, shapes, sizes, truths)
        return [
            find([level[i].float() for level in logits], [level[i].float() for level in codes], anchors, size, self.least)
            for i, size in enumerate(sizes)
        ]

    def _losses(
        self,
        logits: Tensor,
        codes: Tensor,
        anchors: list[Tensor],
        shapes: list[Size],
        sizes: list[Size],
        truths: Sequence[Truth],
    ) -> dict[str, Tensor]:
        labels, boxes = logits.sum() * 0, codes.sum() * 0
        for i, (truth, size) in enumerate(zip(truths, sizes, strict=True)):
            inside = self.anchors.in_image(shapes, (rounded_up(size[0]), rounded_up(size[1])), logits.device)
            of_image = torch.cat(inside)
            label, box = losses(
                logits[i][of_image], codes[i][of_image], torch.cat(anchors)[of_image], targets_of(truth, logits.device)
            )
            labels, boxes = labels + label, boxes + box
        return {"label": labels, "box": boxes}


def losses(logits: Tensor, codes: Tensor, anchors: Tensor, truth: Targets) -> tuple[Tensor, Tensor]:
    """Focal loss of the labels and L1 of the codes of an image's anchors (A, 4), both over the number of matched ones."""
    matched = match(box_iou(truth.boxes, anchors), high=0.5, low=0.4, least=0.0)
    positive = matched >= 0
    count = positive.sum().clamp(min=1)
    known = (positive | (matched == BACKGROUND)) & (matched != BETWEEN)
    wanted = torch.zeros_like(logits)
    wanted[positive, truth.labels[matched[positive]]] = 1
    label = sigmoid_focal_loss(logits[known], wanted[known], alpha=0.25, gamma=2.0, reduction="sum")
    box = F.l1_loss(codes[positive], encode(anchors[positive], truth.boxes[matched[positive]]), reduction="sum")
    return label / count, box / count


def find(logits: list[Tensor], codes: list[Tensor], anchors: list[Tensor], size: Size, least: float = SCORE) -> Detections:
    """What is found in one image above a score, by logits (A, classes) and codes (A, 4) of each level."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for label, code, anchor in zip(logits, codes, anchors, strict=True):
        scores = label.sigmoid().flatten()
        likely = torch.where(scores > least)[0]
        best = likely[scores[likely].argsort(descending=True, stable=True)[:CANDIDATES]]
        place = best // label.shape[1]
        parts.append((clipped(decode(anchor[place], code[place]), size), scores[best], best % label.shape[1]))
    boxes, scores, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return thinned(boxes, scores, labels, size)
