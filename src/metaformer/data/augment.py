"""Augmentation. What happens to a sample follows from (seed, epoch, sample) alone, whoever computes it.

Where a sample may be drawn several times in an epoch, the number of the draw stands for the sample's.
"""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from metaformer.config import Recipe
from metaformer.data.batch import Batch, generator, number
from metaformer.data.part import Box, Choose, cut
from metaformer.data.preprocess import Preprocess, few, resize
from metaformer.data.slide import SLIDES


@dataclass(frozen=True)
class View:
    """One sample's own view, on bytes: random resized crop, then RandAugment, each if wanted."""

    preprocess: Preprocess
    crop: float | None
    """Smallest part of the area that a crop shows; the aspect ratio lies between 3/4 and 4/3. None: all is shown."""
    randaugment: str | None
    """timm's string, such as `rand-m9-mstd0.5-inc1`."""
    seed: int

    def __post_init__(self) -> None:
        if self.randaugment is not None:
            _rand_augment(self.randaugment, self.preprocess.size, self.preprocess.mean)

    def __call__(self, pixels: Tensor, epoch: int, sample: int) -> Tensor:
        """(C, H, W) → (C, size, size)."""
        return self.read(partial(cut, pixels), epoch, sample)

    def read(self, part: Callable[[Choose], Tensor], epoch: int, sample: int) -> Tensor:
        """(C, size, size) of an image of which `part` gives what is asked for, so that no more of it need be decoded."""
        draw = random.Random(number(self.seed, epoch, sample, "view"))
        if self.crop is None:
            view = self.preprocess.fitted(part(_whole)[None])[0]
        else:
            size, mode = self.preprocess.size, draw.choice(("bilinear", "bicubic"))
            pixels = part(partial(self._box, draw))[None].contiguous(memory_format=torch.channels_last)
            view = resize(pixels, size, size, mode)[0]
        return view if self.randaugment is None else self._randaugment(view, draw)

    def _box(self, draw: random.Random, height: int, width: int) -> Box:
        """GoogLeNet's crop: ten tries for one that fits, else the greatest one of an allowed ratio at the centre."""
        assert self.crop is not None
        for _ in range(10):
            area = height * width * draw.uniform(self.crop, 1.0)
            ratio = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return draw.randint(0, height - h), draw.randint(0, width - w), h, w
        h, w = min(height, round(width / (3 / 4))), min(width, round(height * (4 / 3)))
        return (height - h) // 2, (width - w) // 2, h, w

    def _randaugment(self, pixels: Tensor, draw: random.Random) -> Tensor:
        assert self.randaugment is not None
        transform = _rand_augment(self.randaugment, self.preprocess.size, self.preprocess.mean)
        channels, seed = len(pixels), draw.getrandbits(32)
        image = Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())
        own = _numbers()
        own.seed(seed)
        weights = transform.choice_weights
        chosen = own.choice(len(transform.ops), transform.num_layers, replace=weights is None, p=weights)
        with _seeded(seed):
            for i in chosen:
                image = transform.ops[i](image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[:channels]


@lru_cache(maxsize=1)
def _numbers() -> np.random.RandomState:
    """What timm draws operations from. Made once: its making reads the system's random numbers, which is slow."""
    return np.random.RandomState(0)


def _whole(height: int, width: int) -> Box:
    return 0, 0, height, width


@lru_cache(maxsize=4)
def _rand_augment(text: str, size: int, mean: tuple[float, ...]) -> Any:
    """timm's RandAugment, set up as timm's training does. Raises ValueError for a string that it does not know."""
    from timm.data.auto_augment import rand_augment_transform

    colour = tuple(min(255, round(255 * value)) for value in (mean if len(mean) == 3 else mean[:1] * 3))
    try:
        transform = rand_augment_transform(text, {"translate_const": int(size * 0.45), "img_mean": colour})
    except (AssertionError, ValueError, KeyError) as error:
        raise ValueError(f"randaugment={text} is not a RandAugment string such as rand-m9-mstd0.5-inc1") from error
    for operation in transform.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = posterize
        operation.aug_fn = SLIDES.get(operation.name, operation.aug_fn)
    return transform


def posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """Magnitude 10 keeps no bits at all: black in the published runs, an error in Pillow 13."""
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """timm's operations draw from the global generator: lend it a seed, and give back what was there."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


@dataclass(frozen=True)
class Augment:
    """What is done to whole batches, on the model's device: flips, shifts and mixing on bytes, erasing after normalising.

    In timm's order, which is that of the published runs: what is erased is not mixed.
    """

    pad: float
    flip: float
    erase: float
    mixup: float
    cutmix: float
    seed: int

    @classmethod
    def of(cls, recipe: Recipe, *, mirrors: bool) -> "Augment":
        """What a recipe asks for."""
        flip = recipe.flip if recipe.flip is not None else 0.5 if mirrors else 0.0
        return cls(recipe.pad, flip, recipe.erase, recipe.mixup, recipe.cutmix, recipe.seed)

    def move(self, pixels: Tensor, index: Tensor, epoch: int, total: int) -> Tensor:
        """(B, C, H, W) of bytes → the same shape; `index` (B,) says which of the `total` samples these are."""
        draw = _draws(self.seed, epoch, total)[index]
        height, width = pixels.shape[2:]
        mirrored = pixels.clone()
        turned = (draw[:, 0] < self.flip).nonzero()[:, 0].to(pixels.device)
        mirrored[turned] = pixels[turned].flip(3)
        if not self.pad:
            return mirrored
        draw = draw.to(pixels.device)
        return shift(mirrored, _moves(draw[:, 1], self.pad * height), _moves(draw[:, 2], self.pad * width))

    def erased(self, images: Tensor, index: Tensor, epoch: int) -> Tensor:
        """Random erasing, arXiv 1708.04896: a rectangle of 2 % to a third of the area becomes normal noise, per pixel.

        Writes into `images`, (B, C, H, W), and gives them back.
        """
        if not self.erase:
            return images
        _, _, height, width = images.shape
        for image, sample in zip(images, index.tolist(), strict=True):
            draw = random.Random(number(self.seed, epoch, sample, "erase"))
            if draw.random() >= self.erase:
                continue
            for _ in range(10):
                area = draw.uniform(0.02, 1 / 3) * height * width
                ratio = math.exp(draw.uniform(math.log(0.3), math.log(1 / 0.3)))
                h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
                if 0 < h < height and 0 < w < width:
                    top, left = draw.randint(0, height - h), draw.randint(0, width - w)
                    noise = torch.randn(len(image), h, w, generator=generator(self.seed, epoch, sample, "noise"))
                    image[:, top : top + h, left : left + w] = noise.to(image.device)
                    break
        return images

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed."""
        return bool(self.mixup or self.cutmix)

    def mixed(self, batch: Batch, epoch: int, step: int) -> Batch:
        """Mixup (arXiv 1710.09412) or CutMix (1905.04899) of bytes with the reversed batch, one draw for all, as timm does.

        Where both are wanted each has its turn with probability 0.5. Mixed bytes are rounded.
        """
        if not self.mixes:
            return batch
        draw = np.random.default_rng(number(self.seed, epoch, step, "mix"))
        pasted = self.cutmix > 0 and (self.mixup == 0 or draw.random() < 0.5)
        alpha = self.cutmix if pasted else self.mixup
        share = float(draw.beta(alpha, alpha))
        if not pasted:
            images = torch.empty_like(batch.images)
            for own, partner, both in zip(*map(few, (batch.images, batch.images.flip(0), images)), strict=True):
                both.copy_(partner.float().lerp_(own.float(), share).round_())
            return replace(batch, images=images, partners=batch.labels.flip(0), share=share)
        height, width = batch.images.shape[2:]
        side = math.sqrt(1 - share)
        y, x = int(draw.integers(height)), int(draw.integers(width))
        tall, wide = int(height * side), int(width * side)
        top, bottom = max(y - tall // 2, 0), min(y + (tall + 1) // 2, height)
        left, right = max(x - wide // 2, 0), min(x + (wide + 1) // 2, width)
        images = batch.images.clone()
        images[:, :, top:bottom, left:right] = batch.images[:, :, top:bottom, left:right].flip(0)
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return replace(batch, images=images, partners=batch.labels.flip(0), share=share)


@lru_cache(maxsize=1)
def _draws(seed: int, epoch: int, total: int) -> Tensor:
    return torch.rand(total, 3, generator=generator(seed, epoch, "move"))


def _moves(draw: Tensor, most: float) -> Tensor:
    """Whole moves, uniform over -n … n, n the greatest move rounded to the nearest."""
    n = round(most)
    return (draw * (2 * n + 1)).long() - n


def shift(pixels: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each image (B, C, H, W) moved by its own whole pixels (B,), black where nothing moves in."""
    height, width = pixels.shape[2:]
    rows = torch.arange(height, device=pixels.device) - down.unsqueeze(1)  # (B, H): where each new row comes from
    columns = torch.arange(width, device=pixels.device) - right.unsqueeze(1)
    inside = ((rows >= 0) & (rows < height)).unsqueeze(2) & ((columns >= 0) & (columns < width)).unsqueeze(1)
    batch = torch.arange(len(pixels), device=pixels.device).view(-1, 1, 1)
    moved = pixels.permute(0, 2, 3, 1)[batch, rows.clamp(0, height - 1).unsqueeze(2), columns.clamp(0, width - 1).unsqueeze(1)]
    return (moved * inside.unsqueeze(3)).permute(0, 3, 1, 2)
