"""Runs on painted objects and regions, so small that a test can train them."""

from pathlib import Path
from typing import Any

from tests.painted import several, write_coco, write_masks

CHANGES = {
    "depths": "(1, 1, 1, 1)", "dims": "(8, 8, 16, 16)", "channels": "16", "head_channels": "16",
    "head_norm": "GroupNorm(groups=4)",
}  # fmt: skip
QUICK: dict[str, Any] = {
    "image_size": 64, "batch": 4, "epochs": 2, "workers": 0, "precision": "fp32", "device": "cpu", "changes": CHANGES,
}  # fmt: skip
"""Settings with which an epoch of nine images takes a second at most."""
MODELS = {"retinanet": "retinanet/poolformerv2_t6", "mask_rcnn": "mask_rcnn/poolformerv2_t6",
          "semantic_fpn": "semantic_fpn/poolformerv2_t6"}  # fmt: skip


def objects(root: Path, count: int = 12) -> str:
    """Painted rectangles as COCO has them, without parts; returns what `data=` takes."""
    return write_coco(root / "objects", several(count))


def regions(root: Path, count: int = 12) -> str:
    """The same as label PNGs, of which every fourth judges."""
    return write_masks(root / "regions", several(count))


def data_for(head: str, root: Path, count: int = 12) -> str:
    """What a head learns from."""
    return regions(root, count) if head == "semantic_fpn" else objects(root, count)
