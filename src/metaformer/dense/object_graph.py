"""Detectors as graphs: what is found, in tensors whose shapes no image changes.

Where the model keeps what scores high enough, a graph keeps the best so many: what is not to be found has the score 0.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms, roi_align

from metaformer.dense import rpn
from metaformer.dense.boxes import ONES, decode
from metaformer.dense.detections import MOST, SAME
from metaformer.dense.graph import Graph
from metaformer.dense.model import Size
from metaformer.dense.rcnn import FINEST, MASK_SIDE, RCNN, SIDE, STDS, STRIDES
from metaformer.dense.retinanet import CANDIDATES, RetinaNet
from metaformer.dense.towers import shape_of

OBJECTS = ("boxes", "scores", "labels")
PAIRS = 5000
"""Pairs of a proposal and a class that go on to be thinned out; the model lets all go on that score high enough."""


class ObjectGraph(Graph):
    """One image (1, C, H, W) → the 100 best: boxes (100, 4), scores (100,), labels (100,), the surest first.

    Rows of low score are there too: whoever asks leaves out what is not sure enough for him.
    """

    names = OBJECTS

    def keep(self, anchors: Sequence[Tensor]) -> None:
        """Keeps the anchors of all levels."""
        for place, level in enumerate(anchors):
            self.register_buffer(f"anchors{place}", level)

    def anchors(self, place: int) -> Tensor:
        """(A, 4): those of a level."""
        return self.get_buffer(f"anchors{place}")

    def moved(self, boxes: Tensor, codes: Tensor, stds: Sequence[float] = ONES) -> Tensor:
        """The boxes of which codes say how they differ from others, within the image."""
        moved = decode(boxes, codes, stds)
        x, y = moved[:, 0::2].clamp(0, self.size[1]), moved[:, 1::2].clamp(0, self.size[0])
        return torch.stack([x, y], 2).flatten(1)


class RetinaGraph(ObjectGraph):
    """Of a RetinaNet."""

    def __init__(self, model: RetinaNet, size: Size) -> None:
        super().__init__(model, size)
        with torch.no_grad():
            shapes = model.predict(self.black())[2]
        self.keep(model.anchors.grid(shapes, model.mean.device))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        assert isinstance(self.model, RetinaNet)
        logits, codes, _ = self.model.predict(self.normal(x))
        parts: list[tuple[Tensor, ...]] = []
        for place, (label, code) in enumerate(zip(logits, codes, strict=True)):
            classes = label.shape[2]
            score, best = label[0].flatten().topk(min(CANDIDATES, label[0].numel()))
            which = best // classes
            parts.append((self.anchors(place)[which], code[0][which], score, best % classes))
        anchors, moves, scores, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        return thinned(self.moved(anchors, moves), scores.sigmoid(), labels, self.size)


class RCNNGraph(ObjectGraph):
    """Of a Faster R-CNN, or a Mask R-CNN, which gives masks (100, 28, 28) too: how probable each place in the box is inside."""

    def __init__(self, model: RCNN, size: Size) -> None:
        super().__init__(model, size)
        with torch.no_grad():
            shapes = [shape_of(level) for level in model.fpn(model.backbone(self.black()))]
        self.keep(model.rpn.anchors.grid(shapes, model.mean.device))
        if model.mask_head is not None:
            self.names = (*OBJECTS, "masks")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        assert isinstance(self.model, RCNN)
        levels = self.model.fpn(self.model.backbone(self.normal(x)))
        proposals, there = self._proposals(levels)
        logits, codes = self.model.box_head(pooled(levels, proposals, SIDE))
        classes = codes.shape[1]
        scores, best = (logits.softmax(1)[:, :-1] * there[:, None]).flatten().topk(min(PAIRS, len(proposals) * classes))
        which, labels = best // classes, best % classes
        boxes = self.moved(proposals[which], codes.flatten(0, 1)[best], STDS)
        boxes, scores, labels = thinned(boxes, scores, labels, self.size)
        if self.model.mask_head is None:
            return boxes, scores, labels
        masks = self.model.mask_head(pooled(levels, boxes, MASK_SIDE)).sigmoid()
        places = torch.arange(len(boxes), device=boxes.device) * classes + labels
        return boxes, scores, labels, masks.flatten(0, 1)[places]

    def _proposals(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(N, 4), the surest first, and whether (N,) each is one: as many as there may be, whatever the image."""
        assert isinstance(self.model, RCNN)
        parts: list[tuple[Tensor, ...]] = []
        for place, (logits, codes) in enumerate(zip(*self.model.rpn.predict(levels), strict=True)):
            score, best = logits[0].topk(min(rpn.BEFORE[False], logits.shape[1]))
            parts.append((self.anchors(place)[best], codes[0][best], score, torch.full_like(best, place)))
        anchors, moves, scores, level = (torch.cat(part) for part in zip(*parts, strict=True))
        boxes = self.moved(anchors, moves)
        scores, best = kept(boxes, scores.sigmoid(), level, rpn.SAME, self.size).topk(min(rpn.PROPOSALS, len(scores)))
        return boxes[best], scores > 0


def kept(boxes: Tensor, scores: Tensor, groups: Tensor, same: float, size: Size) -> Tensor:
    """The scores (N,) of boxes (N, 4) with an area that no better one of their group overlaps by more than `same`; else 0.

    The boxes of each group are laid where those of no other lie, so that all groups are thinned out at once.
    """
    scores = torch.where((boxes[:, 2:] - boxes[:, :2]).amin(1) > 0, scores, 0.0)
    chosen = nms(boxes + (groups * (max(size) + 1)).to(boxes.dtype)[:, None], scores, same)
    return torch.zeros_like(scores).index_put((chosen,), scores[chosen])


def thinned(boxes: Tensor, scores: Tensor, labels: Tensor, size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """The best of boxes (N, 4) in the image, one for each object of a class."""
    scores, best = kept(boxes, scores, labels, SAME, size).topk(min(MOST, len(scores)))
    return boxes[best], scores, labels[best]


def pooled(levels: Sequence[Tensor], boxes: Tensor, side: int) -> Tensor:
    """(K, C, side, side): what is in boxes (K, 4) of one image, each read from the level of its size.

    From each level all are read, and those of other sizes as boxes without an area, which cost nothing.
    """
    root = ((boxes[:, 3] - boxes[:, 1]) * (boxes[:, 2] - boxes[:, 0])).sqrt()
    which = (root / FINEST + 1e-6).log2().floor().clamp(0, len(STRIDES) - 1)
    total: Tensor | None = None
    for place, (level, stride) in enumerate(zip(levels, STRIDES, strict=False)):
        mine = which == place
        regions = F.pad(torch.where(mine[:, None], boxes, 0.0), (1, 0))
        part = roi_align(level, regions, side, 1 / stride, 0, aligned=True)
        part = torch.where(mine[:, None, None, None], part, 0.0)
        total = part if total is None else total + part
    assert total is not None
    return total
