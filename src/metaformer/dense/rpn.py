"""The region proposal network, arXiv 1506.01497, on every level of a pyramid: boxes that may hold an object of any class."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_iou

from metaformer.core.layers import Norm
from metaformer.core.pyramid import conv_norm_act
from metaformer.dense.boxes import Anchors, decode, draw, encode, match, real
from metaformer.dense.detections import clipped
from metaformer.dense.model import Size, rounded_up
from metaformer.dense.towers import Targets, flat, shape_of

DRAWN, SHARE = 256, 0.5
"""Anchors of an image that are learnt from, and how many of them may hold an object."""
SAME = 0.7
BEFORE = {True: 2000, False: 1000}
"""Boxes of a level that go on to be thinned out, in training and otherwise."""
PROPOSALS = 1000


class RPN(nn.Module):
    """Levels of `dim` channels → proposals (N, 4) of each image, and losses summed over the images where there are truths."""

    def __init__(self, dim: int, strides: tuple[int, ...], scale: float, norm: Norm) -> None:
        super().__init__()
        self.anchors = Anchors(strides, (scale,))
        self.tower = conv_norm_act(dim, dim, 3, norm)
        self.object = nn.Conv2d(dim, self.anchors.per_place, 1)
        self.box = nn.Conv2d(dim, self.anchors.per_place * 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def predict(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """For each level logits (B, H · W · A) of holding an object, and codes (B, H · W · A, 4)."""
        hidden = [self.tower(level) for level in levels]
        return [flat(self.object(x), 1)[..., 0] for x in hidden], [flat(self.box(x), 4) for x in hidden]

    def forward(
        self, levels: Sequence[Tensor], sizes: list[Size], truths: Sequence[Targets] | None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        logits, codes = self.predict(levels)
        if levels[0].is_meta:
            return [levels[0].new_empty(PROPOSALS, 4) for _ in sizes], {}
        logits, codes = [x.float() for x in logits], [x.float() for x in codes]
        shapes = [shape_of(level) for level in levels]
        anchors = self.anchors.grid(shapes, levels[0].device)
        most = BEFORE[self.training]
        proposals = [
            propose([x[i].detach() for x in logits], [x[i].detach() for x in codes], anchors, size, most)
            for i, size in enumerate(sizes)
        ]
        if truths is None:
            return proposals, {}
        scores, moves, places = torch.cat(logits, 1), torch.cat(codes, 1), torch.cat(anchors)
        found, box = scores.sum() * 0, moves.sum() * 0
        for i, (truth, size) in enumerate(zip(truths, sizes, strict=True)):
            of_image = torch.cat(self.anchors.in_image(shapes, (rounded_up(size[0]), rounded_up(size[1])), scores.device))
            one, other = losses(scores[i][of_image], moves[i][of_image], places[of_image], truth)
            found, box = found + one, box + other
        return proposals, {"proposal": found, "proposal_box": box}


def propose(logits: list[Tensor], codes: list[Tensor], anchors: list[Tensor], size: Size, most: int) -> Tensor:
    """(N, 4): the best boxes of an image, thinned out within each level."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for i, (logit, code, anchor) in enumerate(zip(logits, codes, anchors, strict=True)):
        best = logit.argsort(descending=True, stable=True)[:most]
        parts.append((clipped(decode(anchor[best], code[best]), size), logit[best].sigmoid(), torch.full_like(best, i)))
    box, score, level = (torch.cat(part) for part in zip(*parts, strict=True))
    keep = real(box)
    box, score, level = box[keep], score[keep], level[keep]
    return box[batched_nms(box, score, level, SAME)[:PROPOSALS]]


def losses(logits: Tensor, codes: Tensor, anchors: Tensor, truth: Targets) -> tuple[Tensor, Tensor]:
    """Cross entropy and L1 of the codes over the anchors drawn from an image's (A, 4), divided by their number."""
    matched = match(box_iou(truth.boxes, anchors), high=0.7, low=0.3, least=0.3)
    positive, negative = draw(matched, DRAWN, SHARE)
    count = max(1, len(positive) + len(negative))
    wanted = torch.cat([torch.ones_like(logits[positive]), torch.zeros_like(logits[negative])])
    found = F.binary_cross_entropy_with_logits(logits[torch.cat([positive, negative])], wanted, reduction="sum")
    box = F.l1_loss(codes[positive], encode(anchors[positive], truth.boxes[matched[positive]]), reduction="sum")
    return found / count, box / count
