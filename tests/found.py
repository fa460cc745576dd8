"""Objects and answers of tiny images, for tests of detection and segmentation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from metaformer.data.truth import Objects
from metaformer.tasks.found import Found

Box = Sequence[float]


def painted(boxes: Sequence[Box], size: tuple[int, int]) -> Tensor:
    """(N, H, W): masks that fill boxes of whole pixels."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    return masks


def objects(
    image_id: int | str,
    boxes: Sequence[Box],
    labels: Sequence[int],
    *,
    size: tuple[int, int] = (100, 120),
    crowd: Sequence[bool] | None = None,
    masks: bool = False,
) -> Objects:
    """What is in an image; with `masks`, boxes that are filled."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    crowds = torch.tensor(crowd if crowd is not None else [False] * len(boxes), dtype=torch.bool)
    filled = painted(boxes, size).to(torch.uint8) if masks else None
    return Objects(corners, torch.tensor(labels, dtype=torch.int64), filled, crowds, areas, image_id, *size)


def found(boxes: Sequence[Box], labels: Sequence[int], scores: Sequence[float], masks: tuple[int, int] | None = None) -> Found:
    """What was found; with `masks`, filled boxes in an image of that size."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    filled = None if masks is None else painted(boxes, masks)
    return Found(corners, torch.tensor(scores, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64), filled)


def just_so(truth: Objects, score: float = 0.9) -> Found:
    """What would be found if all were found, crowds left out."""
    kept = truth.take(~truth.crowd)
    masks = None if kept.masks is None else kept.masks.bool()
    return Found(kept.boxes, torch.full((len(kept),), score), kept.labels, masks)
