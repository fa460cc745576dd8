"""Augmentation of scenes. What happens to a sample follows from (seed, epoch, sample) and the step, whoever computes it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Protocol

import torch
from torch import Tensor

from metaformer.data.batch import number
from metaformer.data.moves import Colour, cropped, fitted, flipped, on_canvas, padded, resized
from metaformer.data.scenes import Scenes
from metaformer.data.truth import VOID, Scene

Other = Callable[[int], Scene]
"""Another scene of the same part that can be read, by any number."""
TRIES = 10


class Step(Protocol):
    """A part of an augmentation."""

    def __call__(self, scene: Scene, draw: Random, other: Other, colour: Colour) -> Scene: ...


@dataclass(frozen=True)
class ShortSide:
    """The short side becomes one of `short`, a size or a range of it in steps of 32; the long one at most `long`."""

    short: tuple[int, int] = (800, 800)
    long: int = 1333

    def __call__(self, scene: Scene, draw: Random, other: Other, colour: Colour) -> Scene:
        low, high = self.short
        side = low + 32 * draw.randint(0, (high - low) // 32)
        return _within(scene, side, self.long)


@dataclass(frozen=True)
class Ratio:
    """As large as fits into (`long`, `short`) times a ratio, as published for ADE20K: 0.5 to 2 times (2048, 512)."""

    long: int = 2048
    short: int = 512
    low: float = 0.5
    high: float = 2.0

    def __call__(self, scene: Scene, draw: Random, other: Other, colour: Colour) -> Scene:
        ratio = draw.uniform(self.low, self.high)
        return _within(scene, int(self.short * ratio), int(self.long * ratio))


@dataclass(frozen=True)
class Jitter:
    """Large-scale jitter (arXiv 2012.07177): 0.1 to 2 times as large as fits the square, of which a crop is shown."""

    side: int = 1024
    low: float = 0.1
    high: float = 2.0

    def __call__(self, scene: Scene, draw: Random, other: Other, colour: Colour) -> Scene:
        scale = draw.uniform(self.low, self.high) * self.side / max(scene.height, scene.width)
        scene = resized(scene, max(1, round(scene.height * scale)), max(1, round(scene.width * scale)))
        return padded(_crop(scene, self.side, draw), self.side, self.side, colour)


@dataclass(frozen=True)
class Crop:
    """A square of the scene, on the square where the scene is smaller. Of a map at most `most` is of one class.

    As published for ADE20K: of ten tries the first that is so, else the last; void does not count.
    """

    side: int = 512
    most: float = 0.75

    def __call__(self, scene: Scene, draw: Random, other: Other, colour: Colour) -> Scene:
        shown = _crop(scene, self.side, draw)
        for _ in range(TRIES - 1):
            if not isinstance(shown.truth, Tensor) or _largest_share(shown.truth) < self.most:
                break
            shown = _crop(scene, self.side, draw)
        return padded(shown, self.side, self.side, colour)


@dataclass(frozen=True)
class Flip:
    """A mirror, with a probability."""

    probability: float = 0.5

    def __call__(self, scene: Scene, draw: Random, other: Other, colour: Colour) -> Scene:
        return flipped(scene) if draw.random() < self.probability else scene


@dataclass(frozen=True)
class Mosaic:
    """Four scenes around a point on a square, as YOLOv4 shows them (arXiv 2004.10934), with a probability.

    Each is 0.5 to 1.5 times as large as fits a quarter; the point lies in the middle half.
    """

    side: int = 1024
    probability: float = 1.0

    def __call__(self, scene: Scene, draw: Random, other: Other, colour: Colour) -> Scene:
        if draw.random() >= self.probability:
            return scene
        y, x = (round(self.side * draw.uniform(0.25, 0.75)) for _ in range(2))
        placed = []
        for i, one in enumerate([scene, *(other(draw.getrandbits(48)) for _ in range(3))]):
            below, beside = divmod(i, 2)
            tall, wide = self.side - y if below else y, self.side - x if beside else x
            scale = draw.uniform(0.5, 1.5) * self.side / 2 / max(one.height, one.width)
            one = resized(one, max(1, round(one.height * scale)), max(1, round(one.width * scale)))
            h, w = min(tall, one.height), min(wide, one.width)
            part = cropped(one, 0 if below else one.height - h, 0 if beside else one.width - w, h, w)  # the corner at the point
            placed.append((part, y if below else y - h, x if beside else x - w))
        return on_canvas(placed, self.side, self.side, colour)


@dataclass(frozen=True)
class Distort:
    """Photometric distortion in the order and amounts published for ADE20K (SSD's, arXiv 1512.02325), each with probability
    0.5: brightness by up to 32 of 255, contrast before or after the rest, saturation, hue by up to a tenth of the circle.

    Contrast and saturation are torchvision's, which blends with grey; as published pixels and HSV's saturation are multiplied.
    """

    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 0.1

    def __call__(self, scene: Scene, draw: Random, other: Other, colour: Colour) -> Scene:
        from torchvision.transforms.v2 import functional

        image = scene.image
        light, early, contrast, saturation, hue = (draw.random() < 0.5 for _ in range(5))
        amounts = draw.uniform(-1, 1), draw.uniform(*self.contrast), draw.uniform(*self.saturation), draw.uniform(-1, 1)
        if light:
            image = (image.float() + amounts[0] * self.brightness).round().clamp(0, 255).to(torch.uint8)
        if contrast and early:
            image = functional.adjust_contrast(image, amounts[1])
        if saturation:
            image = functional.adjust_saturation(image, amounts[2])
        if hue:
            image = functional.adjust_hue(image, amounts[3] * self.hue)
        if contrast and not early:
            image = functional.adjust_contrast(image, amounts[1])
        return replace(scene, image=image)


def steps_of(name: str, side: int) -> tuple[Step, ...]:
    """The steps of a training: `coco` and `ade20k` as published, with a short side of 800 and a crop of 512; `objects` and
    `regions` for a few hundred images, on squares. Of regions the sizes differ less: a small network that learns from nothing
    needs four times the steps where they differ as published.

    Raises ValueError for another name.
    """
    rows: dict[str, tuple[Step, ...]] = {
        "coco": (ShortSide((side, side), side * 5 // 3), Flip()),
        "ade20k": (Ratio(4 * side, side), Crop(side), Flip(), Distort()),
        "regions": (Ratio(4 * side, side, 0.75, 1.5), Crop(side), Flip(), Distort()),
        "objects": (Mosaic(side, 0.5), Jitter(side, 0.5, 1.5), Flip(), Distort()),
    }
    if name not in rows:
        raise ValueError(f"no augmentation {name!r}; allowed: {', '.join(rows)}")
    return rows[name]


@dataclass(frozen=True)
class DenseView:
    """How the scenes of a part are shown: steps one after another. Without any a scene is shown as it is."""

    steps: tuple[Step, ...] = ()
    seed: int = 0
    colour: Colour = (124, 116, 104)
    """Where there is no image: a model's mean, which is 0 when its pixels are normalised; ImageNet's unless told."""
    judging: bool = False
    """Whether only images are moved, and truth stays as the source says it."""

    def __call__(self, scenes: Scenes, epoch: int, sample: int, draw: int) -> Scene:
        """A sample as it is shown in an epoch, its augmentation following from the number of the `draw`.

        Raises ValueError that says why an image cannot be read.
        """
        before = scene = scenes.scene(sample)
        for place, step in enumerate(self.steps):
            random = Random(number(self.seed, epoch, draw, type(step).__name__, place))
            scene = step(scene, random, partial(_readable, scenes), self.colour)
        return replace(scene, truth=before.truth) if self.judging else scene


def _readable(scenes: Scenes, n: int) -> Scene:
    """The scene of any number, or the next one that can be read: what is damaged is told when its own turn comes."""
    for place in range(len(scenes) - 1):
        with suppress(ValueError):
            return scenes.scene((n + place) % len(scenes))
    return scenes.scene((n - 1) % len(scenes))


def _within(scene: Scene, short: int, long: int) -> Scene:
    """As large as the short side allows, and the long one."""
    return resized(scene, *fitted((scene.height, scene.width), short, long))


def _crop(scene: Scene, side: int, draw: Random) -> Scene:
    """A part of at most `side` a side, anywhere."""
    height, width = min(side, scene.height), min(side, scene.width)
    return cropped(scene, draw.randint(0, scene.height - height), draw.randint(0, scene.width - width), height, width)


def _largest_share(regions: Tensor) -> float:
    """Part of the pixels that are of the commonest class; 1 where one class is all there is."""
    counts = regions.flatten().bincount(minlength=VOID + 1)[:VOID]
    return float(counts.max() / counts.sum()) if int((counts > 0).sum()) > 1 else 1.0
