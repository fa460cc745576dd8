"""What is true of an image for those that find objects or regions in it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaformer.dense.config import VOID as VOID


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one image, in pixels of the image as it is shown upright."""

    boxes: Tensor
    """(N, 4) float32: left, top, right, bottom. The last two are edges, not pixels: the whole image is 0, 0, width, height."""
    labels: Tensor
    """(N,) int64: classes from 0 on; the background has no number."""
    masks: Tensor | None
    """(N, H, W) uint8 of 0 and 1; None where nobody wants them."""
    crowd: Tensor
    """(N,) bool: many objects in one, or one too hard to ask for. Not learnt, and neither right nor wrong to find."""
    areas: Tensor
    """(N,) float32: pixels, as the source says, else those of the mask or the box."""
    image_id: int | str = 0
    """What the source calls the image."""
    height: int = 0
    width: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, keep: Tensor) -> "Objects":
        """The objects at these places, or those that a mask (N,) says."""
        masks = None if self.masks is None else self.masks[keep]
        return replace(
            self, boxes=self.boxes[keep], labels=self.labels[keep], masks=masks, crowd=self.crowd[keep], areas=self.areas[keep]
        )

    def to(self, device: torch.device) -> "Objects":
        """The same on a device."""
        masks = None if self.masks is None else self.masks.to(device, non_blocking=True)
        boxes, labels, crowd, areas = (
            tensor.to(device, non_blocking=True) for tensor in (self.boxes, self.labels, self.crowd, self.areas)
        )
        return replace(self, boxes=boxes, labels=labels, masks=masks, crowd=crowd, areas=areas)


@dataclass(frozen=True, eq=False)
class Scene:
    """An image, (3, H, W) of bytes, and what is true of it: its objects, or a map of its regions, (H, W) of bytes."""

    image: Tensor
    truth: Objects | Tensor

    @property
    def height(self) -> int:
        return self.image.shape[1]

    @property
    def width(self) -> int:
        return self.image.shape[2]
