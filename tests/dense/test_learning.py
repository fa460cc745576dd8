"""Heads learn painted images by heart: boxes, labels, masks and regions come back where they were."""

from typing import Any

import pytest
import torch
from tests.dense.truths import Told, told
from torch import Tensor
from torchvision.ops import box_iou

from metaformer.dense.config import get_dense_config
from metaformer.dense.detections import locate
from metaformer.dense.make import make_dense

SIZE = (64, 96)
COLOURS = torch.tensor([[220, 40, 40], [40, 220, 40], [40, 40, 220]], dtype=torch.uint8)
OBJECTS = [([[6, 8, 38, 44], [52, 20, 92, 58]], [0, 1]), ([[30, 6, 80, 40]], [2])]


def painted() -> tuple[list[Tensor], list[Told], list[Tensor]]:
    """Images of rectangles in the colour of their label, the objects, and region maps in which 3 is the ground."""
    random = torch.Generator().manual_seed(0)
    images, truths, maps = [], [], []
    for boxes, labels in OBJECTS:
        image = torch.randint(90, 130, (3, *SIZE), generator=random, dtype=torch.uint8)
        regions = torch.full(SIZE, 3)
        for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
            image[:, y1:y2, x1:x2] = COLOURS[label][:, None, None]
            regions[y1:y2, x1:x2] = label
        images.append(image)
        truths.append(told(boxes, labels, SIZE))
        maps.append(regions)
    return images, truths, maps


def learnt(head: str, steps: int, count: int = 2, **changes: Any) -> tuple[Any, list[Tensor], list[Told], list[Tensor]]:
    torch.manual_seed(0)
    config = get_dense_config(f"{head}/poolformerv2_t6", num_classes=4, channels=32, head_channels=32, **changes)
    model = make_dense(config)
    images, truths, maps = (part[:count] for part in painted())
    given = maps if config.task == "segmentation" else truths
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.0)
    for _ in range(steps):
        loss = sum(model(images, given).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval(), images, truths, maps


@pytest.mark.slow
@pytest.mark.usefixtures("thread")
@pytest.mark.parametrize(("head", "scale", "steps", "count"), [("retinanet", 2.0, 60, 2), ("mask_rcnn", 4.0, 40, 1)])
def test_objects_are_found_where_they_are(head, scale, steps, count):
    model, images, truths, _ = learnt(head, steps, count, anchor_scale=scale, head_norm="GroupNorm(groups=8)")
    with torch.no_grad():
        answers = model(images)
    for found, truth in zip(answers, truths, strict=True):
        boxes, scores, labels, masks = locate(found, SIZE)
        sure = scores > 0.5
        assert sure.sum() == len(truth.boxes)
        overlaps, which = box_iou(boxes[sure], truth.boxes).max(1)
        assert overlaps.min() > 0.7
        assert labels[sure].tolist() == truth.labels[which].tolist()
        if masks is not None:
            painted_masks = truth.masks[which].bool()
            both, either = (masks[sure] & painted_masks).sum((1, 2)), (masks[sure] | painted_masks).sum((1, 2))
            assert (both / either).min() > 0.6


@pytest.mark.slow
@pytest.mark.usefixtures("thread")
@pytest.mark.parametrize("head", ["semantic_fpn", "upernet"])
def test_regions_are_found_where_they_are(head):
    model, images, _, maps = learnt(head, 120, head_norm="GroupNorm(groups=8)")
    with torch.no_grad():
        found = model(images).decode([SIZE] * len(images))
    for one, wanted in zip(found, maps, strict=True):
        assert (one == wanted).float().mean() > 0.93
