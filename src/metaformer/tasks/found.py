"""What was found in an image: boxes with scores, classes and perhaps masks, and how they move with the image. No task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metaformer.data.outlines import coco_masks

Size = tuple[int, int]
"""Height and width, in pixels."""
Rle = dict[str, Any]
"""A mask as COCO stores it: its size, and the lengths of its runs down the columns, compressed."""


@dataclass(frozen=True, eq=False)
class Found:
    """What was found in one image, in its own pixels, on the processor."""

    boxes: Tensor
    """(N, 4), float32: x1, y1, x2, y2. The last two are edges, not pixels: x2 - x1 is the width."""
    scores: Tensor
    """(N,), 0 to 1."""
    labels: Tensor
    """(N,), int64, from 0 on."""
    masks: Tensor | None = None
    """(N, H, W), bool, each of the whole image; None of boxes alone."""

    def __post_init__(self) -> None:
        shapes = (self.boxes.shape, self.scores.shape, self.labels.shape)
        N = len(self.boxes)
        assert shapes == ((N, 4), (N,), (N,)), shapes
        assert self.masks is None or (self.masks.ndim == 3 and len(self.masks) == N), self.masks.shape

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, index: Tensor) -> "Found":
        """Those of an index, by number or by True, in its order."""
        masks = None if self.masks is None else self.masks[index]
        return Found(self.boxes[index], self.scores[index], self.labels[index], masks)

    def best(self, least: float = 0.0, most: int | None = None) -> "Found":
        """Those that score at least `least`, best first, at most `most` of them."""
        order = self.scores.argsort(descending=True, stable=True)
        return self.take(order[self.scores[order] >= least][:most])

    def resized(self, size: Size, to: Size) -> "Found":
        """The same in an image of size `size` that becomes one of size `to`; boxes are cut at its edges."""
        (height, width), (high, wide) = size, to
        x, y = wide / width, high / height
        boxes = self.boxes * self.boxes.new_tensor([x, y, x, y])
        masks = self.masks
        if masks is not None and size != to:
            masks = torch.stack([_resized(mask, to) for mask in masks]) if len(masks) else masks.new_zeros(0, high, wide)
        return replace(self, boxes=clipped(boxes, to), masks=masks)

    def mirrored(self, width: int) -> "Found":
        """The same in the mirror image, left and right changed."""
        x1, y1, x2, y2 = self.boxes.unbind(1)
        boxes = torch.stack([width - x2, y1, width - x1, y2], 1)
        return replace(self, boxes=boxes, masks=None if self.masks is None else self.masks.flip(2))

    def placed(self, top: int, left: int, size: Size) -> "Found":
        """The same in a larger image of size `size`, of which this one is the part that begins at `top`, `left`."""
        boxes = self.boxes + self.boxes.new_tensor([left, top, left, top])
        masks = self.masks
        if masks is not None:
            whole = masks.new_zeros(len(masks), *size)
            whole[:, top : top + masks.shape[1], left : left + masks.shape[2]] = masks
            masks = whole
        return replace(self, boxes=boxes, masks=masks)


def joined(parts: Sequence[Found]) -> Found:
    """All that was found, of one image or more views of it. Masks only where all have them."""
    masks = [part.masks for part in parts if part.masks is not None]
    return Found(
        torch.cat([part.boxes for part in parts]), torch.cat([part.scores for part in parts]),
        torch.cat([part.labels for part in parts]), torch.cat(masks) if len(masks) == len(parts) else None,
    )  # fmt: skip


def nothing(size: Size | None = None) -> Found:
    """Nothing found, with masks of size `size` where it is given."""
    masks = None if size is None else torch.zeros(0, *size, dtype=torch.bool)
    return Found(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), masks)


def clipped(boxes: Tensor, size: Size) -> Tensor:
    """Boxes (N, 4) cut at the edges of an image."""
    height, width = size
    return torch.stack([boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)], 2).flatten(1)


def _resized(mask: Tensor, to: Size) -> Tensor:
    """One mask at a time, for the memory's sake: a place is inside where most of it is."""
    return F.interpolate(mask[None, None].float(), to, mode="bilinear", align_corners=False, antialias=True)[0, 0] > 0.5


def run_lengths(masks: Tensor) -> tuple[Rle, ...]:
    """Masks (N, H, W) as COCO stores them, some hundred bytes each."""
    if not len(masks):
        return ()
    columns = masks.to(torch.uint8).cpu().numpy().transpose(1, 2, 0)
    return tuple(coco_masks().encode(np.asfortranarray(columns)))


def rle_text(rle: Rle) -> Rle:
    """A mask as COCO stores it, JSON-ready."""
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def image_rows(
    image: int | str,
    numbers: Sequence[int],
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    masks: Sequence[Rle] | None,
) -> list[dict[str, Any]]:
    """What was found in an image as COCO's results, by the `numbers` of classes; boxes are corners and sides."""
    columns = zip(numbers, boxes, scores, strict=True)
    rows = [{"image_id": image, "category_id": number, "bbox": box, "score": score} for number, box, score in columns]
    if masks is None:
        return rows
    return [row | {"segmentation": rle_text(rle)} for row, rle in zip(rows, masks, strict=True)]


def corner_and_sides(boxes: Tensor) -> Tensor:
    """x1, y1, x2, y2 → x1, y1, width, height, as COCO stores a box; (N, 4), float64, so that nothing is rounded."""
    boxes = boxes.double()
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
