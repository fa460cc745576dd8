"""Scenes as workers send them: all their pixels in one tensor, because each tensor that is sent takes a file descriptor."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from metaformer.data.truth import Objects, Scene

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Packed:
    """Some scenes."""

    pixels: Tensor
    """(bytes,): of each scene the image, then its masks or map."""
    shapes: list[tuple[Shape, Shape | None]]
    """Of both; None for no masks."""
    objects: list["Small | None"]
    """What else is known of its objects; None for a map."""

    def pin_memory(self) -> "Packed":
        """The same in memory that a GPU reads by itself, as a DataLoader asks for it."""
        return replace(self, pixels=self.pixels.pin_memory())

    def scenes(self) -> list[Scene]:
        """The scenes again."""
        sizes = [torch.Size(shape).numel() for both in self.shapes for shape in both if shape is not None]
        parts = iter(self.pixels.split(sizes))
        found: list[Scene] = []
        for (shape, inner), small in zip(self.shapes, self.objects, strict=True):
            image = next(parts).view(shape)
            drawn = None if inner is None else next(parts).view(inner)
            if small is not None:
                found.append(Scene(image, small.objects(drawn)))
            else:
                assert drawn is not None
                found.append(Scene(image, drawn))
        return found


@dataclass(frozen=True, eq=False)
class Small:
    """Objects without their masks."""

    boxes: NDArray[Any]
    labels: NDArray[Any]
    crowd: NDArray[Any]
    areas: NDArray[Any]
    image_id: int | str
    height: int
    width: int

    def objects(self, masks: Tensor | None) -> Objects:
        """With their masks."""
        boxes, labels, crowd, areas = map(torch.from_numpy, (self.boxes, self.labels, self.crowd, self.areas))
        return Objects(boxes, labels, masks, crowd, areas, self.image_id, self.height, self.width)


def pack(scenes: Sequence[Scene]) -> Packed:
    """Ready to be sent."""
    pixels: list[Tensor] = []
    shapes: list[tuple[Shape, Shape | None]] = []
    objects: list[Small | None] = []
    for scene in scenes:
        truth = scene.truth
        drawn = truth if isinstance(truth, Tensor) else truth.masks
        pixels += [scene.image.flatten()] if drawn is None else [scene.image.flatten(), drawn.flatten()]
        shapes.append((tuple(scene.image.shape), None if drawn is None else tuple(drawn.shape)))
        objects.append(None if isinstance(truth, Tensor) else _small(truth))
    return Packed(torch.cat(pixels) if pixels else torch.empty(0, dtype=torch.uint8), shapes, objects)


def _small(truth: Objects) -> Small:
    boxes, labels, crowd, areas = (part.numpy() for part in (truth.boxes, truth.labels, truth.crowd, truth.areas))
    return Small(boxes, labels, crowd, areas, truth.image_id, truth.height, truth.width)
