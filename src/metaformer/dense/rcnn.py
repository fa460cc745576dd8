"""Faster R-CNN and Mask R-CNN, arXiv 1506.01497 and 1703.06870, on a pyramid: proposals, then what each is, and its mask."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, roi_align

from metaformer.core.pyramid import FPN
from metaformer.dense.boxes import decode, draw, encode, match
from metaformer.dense.config import DenseConfig
from metaformer.dense.detections import MOST, SCORE, Detections, clipped, thinned
from metaformer.dense.model import Dense, Images, Size, Truth
from metaformer.dense.rpn import RPN
from metaformer.dense.towers import Targets, targets_of, towers

STRIDES = (4, 8, 16, 32)
DRAWN, SHARE = 512, 0.25
"""Proposals of an image that are learnt from, and how many of them may hold an object."""
STDS = (0.1, 0.1, 0.2, 0.2)
"""Of the codes by which a proposal is moved."""
FINEST = 56
"""Side in pixels below twice of which a box is read from the finest level."""
SIDE, MASK_SIDE = 7, 14
HIDDEN = 1024


def pool(levels: Sequence[Tensor], regions: Tensor, side: int) -> Tensor:
    """(K, C, side, side): what is in regions (K, 5) of image, x1, y1, x2, y2, each read from the level of its size.

    RoIAlign with as many samples in a bin as it covers places of the level, a place's centre at its half.
    """
    if regions.is_meta:
        return roi_align(levels[0], regions.to(levels[0].dtype), side, 1 / STRIDES[0], 0, aligned=True)
    root = ((regions[:, 3] - regions[:, 1]) * (regions[:, 4] - regions[:, 2])).sqrt()
    which = (root / FINEST + 1e-6).log2().floor().clamp(0, len(STRIDES) - 1)
    by_level = [torch.where(which == place)[0] for place in range(len(STRIDES))]
    pooled = [
        roi_align(level.float(), regions[mine], side, 1 / stride, 0, aligned=True)
        for level, stride, mine in zip(levels, STRIDES, by_level, strict=False)  # proposals alone are from a fifth level too
    ]
    return torch.cat(pooled)[torch.cat(by_level).argsort()]


def regions_of(boxes: Sequence[Tensor]) -> Tensor:
    """(K, 5): the boxes of all images, each after its image's number."""
    return torch.cat([F.pad(box, (1, 0), value=i) for i, box in enumerate(boxes)])


class BoxHead(nn.Module):
    """What is in a region → logits (K, classes + 1), the background last, and for each class codes (K, classes, 4)."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        dim = config.channels * SIDE**2
        self.num_classes = config.num_classes
        self.fc1, self.fc2 = nn.Linear(dim, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.label = nn.Linear(HIDDEN, config.num_classes + 1)
        self.box = nn.Linear(HIDDEN, config.num_classes * 4)
        for fc in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(fc.weight)
        nn.init.normal_(self.label.weight, std=0.01)
        nn.init.normal_(self.box.weight, std=0.001)
        for fc in (self.fc1, self.fc2, self.label, self.box):
            nn.init.zeros_(fc.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.fc2(F.relu(self.fc1(pooled.flatten(1)))))
        return self.label(x), self.box(x).view(-1, self.num_classes, 4)


class MaskHead(nn.Sequential):
    """What is in a region → logits (K, classes, 28, 28)."""

    def __init__(self, config: DenseConfig) -> None:
        dim = config.head_channels
        up, logits = nn.ConvTranspose2d(dim, dim, 2, 2), nn.Conv2d(dim, config.num_classes, 1)
        for conv in (up, logits):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        tower = towers(config.channels, dim, 4, config.head_norm)
        parts: OrderedDict[str, nn.Module] = OrderedDict(tower=tower, up=up, act=nn.ReLU(inplace=True), mask=logits)
        super().__init__(parts)


class RCNN(Dense):
    """`model(images, truths)` gives losses, summed over the images; `model(images)` what is found in each.

    Mask R-CNN has masks beside the boxes. On the meta device, where nothing has a value, as many proposals go through the
    head, and as many boxes through that of masks, as there may be of one image: so published costs are counted.
    """

    def __init__(self, config: DenseConfig) -> None:
        super().__init__(config, STRIDES)
        self.fpn = FPN(self.backbone.dims, config.channels, extra="pool")
        self.rpn = RPN(config.channels, (*STRIDES, 64), config.anchor_scale, config.head_norm)
        self.box_head = BoxHead(config)
        self.mask_head = MaskHead(config) if config.head == "mask_rcnn" else None
        self.least = SCORE
        """Score above which something is found."""

    def forward(
        self, images: Images, truths: Sequence[Truth] | None = None
    ) -> dict[str, Tensor] | list[Detections] | tuple[Tensor, ...]:
        x, sizes = self.stack(images)
        levels = self.fpn(self.backbone(x))
        known = None if truths is None else [targets_of(truth, x.device) for truth in truths]
        proposals, of_proposals = self.rpn(levels, sizes, known)
        if x.is_meta:
            regions = regions_of(proposals)
            masks = () if self.mask_head is None else (self.mask_head(pool(levels, regions[:MOST], MASK_SIDE)),)
            return *self.box_head(pool(levels, regions, SIDE)), *masks
        if known is None:
            return self._find(levels, proposals, sizes)
        return of_proposals | self._losses(levels, proposals, known)

    # --- learning -----------------------------------------------------------------------------------------------------

    def _losses(self, levels: list[Tensor], proposals: list[Tensor], truths: list[Targets]) -> dict[str, Tensor]:
        least = 0.5 if self.mask_head is not None else None
        drawn = [draw_matched(boxes, truth, least) for boxes, truth in zip(proposals, truths, strict=True)]
        logits, codes = self.box_head(pool(levels, regions_of([boxes for boxes, _ in drawn]), SIDE))
        counts = [len(boxes) for boxes, _ in drawn]
        label, box = logits.sum().float() * 0, codes.sum().float() * 0
        for (boxes, matched), truth, logit, code in zip(
            drawn, truths, logits.float().split(counts), codes.float().split(counts), strict=True
        ):
            one, other = losses(logit, code, boxes, matched, truth)
            label, box = label + one, box + other
        found = {"label": label, "box": box}
        return found if self.mask_head is None else found | {"mask": self._mask_loss(levels, drawn, truths)}

    def _mask_loss(self, levels: list[Tensor], drawn: list[tuple[Tensor, Tensor]], truths: list[Targets]) -> Tensor:
        assert self.mask_head is not None
        positive = [(boxes[matched >= 0], matched[matched >= 0]) for boxes, matched in drawn]
        logits = self.mask_head(pool(levels, regions_of([boxes for boxes, _ in positive]), MASK_SIDE)).float()
        total = logits.sum() * 0
        parts = logits.split([len(boxes) for boxes, _ in positive])
        for (boxes, matched), truth, logit in zip(positive, truths, parts, strict=True):
            if truth.masks is None:
                raise ValueError("mask_rcnn learns from masks, and these objects have none: choose faster_rcnn or retinanet")
            wanted = crop(truth.masks, boxes, matched, logit.shape[-1])
            picked = logit[torch.arange(len(boxes), device=logit.device), truth.labels[matched]]
            loss = F.binary_cross_entropy_with_logits(picked, wanted, reduction="sum")
            total = total + loss / max(1, wanted.numel())
        return total

    # --- answers ------------------------------------------------------------------------------------------------------

    def _find(self, levels: list[Tensor], proposals: list[Tensor], sizes: list[Size]) -> list[Detections]:
        logits, codes = self.box_head(pool(levels, regions_of(proposals), SIDE))
        counts = [len(boxes) for boxes in proposals]
        scores, codes = logits.float().softmax(1)[:, :-1].split(counts), codes.float().split(counts)
        found = [find(*one, self.least) for one in zip(proposals, scores, codes, sizes, strict=True)]
        if self.mask_head is None:
            return found
        logits = self.mask_head(pool(levels, regions_of([one.boxes for one in found]), MASK_SIDE)).float()
        masks = logits.sigmoid().split([len(one.boxes) for one in found])
        return [
            replace(one, masks=mask[torch.arange(len(mask), device=mask.device), one.labels])
            for one, mask in zip(found, masks, strict=True)
        ]


def draw_matched(proposals: Tensor, truth: Targets, least: float | None) -> tuple[Tensor, Tensor]:
    """Boxes of an image to learn from, the objects' own among those to draw from, and what they are matched with."""
    boxes = torch.cat([truth.boxes, proposals])
    themselves = torch.arange(len(truth.boxes), device=boxes.device)
    matched = torch.cat([themselves, match(box_iou(truth.boxes, proposals), high=0.5, low=0.5, least=least)])
    drawn = torch.cat(draw(matched, DRAWN, SHARE))
    return boxes[drawn], matched[drawn]


def losses(logits: Tensor, codes: Tensor, boxes: Tensor, matched: Tensor, truth: Targets) -> tuple[Tensor, Tensor]:
    """Cross entropy of an image's boxes (K, 4), and L1 of their objects' class's codes, both divided by K."""
    positive = matched >= 0
    object_of, count = matched[positive], max(1, len(boxes))
    wanted = torch.full_like(matched, codes.shape[1])  # the background
    wanted[positive] = truth.labels[object_of]
    target = encode(boxes[positive], truth.boxes[object_of], STDS)
    label = F.cross_entropy(logits, wanted, reduction="sum")
    return label / count, F.l1_loss(codes[positive, truth.labels[object_of]], target, reduction="sum") / count


def crop(masks: Tensor, boxes: Tensor, which: Tensor, side: int) -> Tensor:
    """(K, side, side) of 0 and 1: what boxes (K, 4) show of masks (N, H, W), each of the mask that `which` says."""
    shown, place = which.unique(return_inverse=True)
    regions = torch.cat([place[:, None].to(boxes.dtype), boxes], 1)
    return (roi_align(masks[shown, None].to(boxes.dtype), regions, side, 1.0, 0, aligned=True)[:, 0] >= 0.5).to(boxes.dtype)


def find(proposals: Tensor, scores: Tensor, codes: Tensor, size: Size, least: float = SCORE) -> Detections:
    """What is found in one image above a score: proposals (K, 4) moved by codes (K, classes, 4), with scores (K, classes)."""
    which, labels = torch.where(scores > least)
    boxes = clipped(decode(proposals[which], codes[which, labels], STDS), size)
    return thinned(boxes, scores[which, labels], labels, size)
