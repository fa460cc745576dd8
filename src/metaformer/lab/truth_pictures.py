"""Pictures of images with what is said to be true of them drawn on: boxes, masks, regions."""

import colorsys
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from metaformer.data.truth import VOID, Objects, Scene

Colour = tuple[int, int, int]
SIDE = 320
"""Longest side of a picture, in pixels."""
SEEN = 0.45
"""How much of a mask's colour there is, and of a region's."""


def class_colour(c: int) -> Colour:
    """A class's colour: neighbours in number are far apart in hue, and every third is lighter."""
    red, green, blue = colorsys.hsv_to_rgb(c * 0.618034 % 1, 0.85 - 0.25 * (c % 3 == 2), 0.95 - 0.25 * (c % 3 == 1))
    return round(255 * red), round(255 * green), round(255 * blue)


def picture_of(scene: Scene, classes: tuple[str, ...]) -> bytes:
    """A JPEG of an image with its objects or regions."""
    scale = min(1.0, SIDE / max(scene.height, scene.width))
    size = max(1, round(scene.width * scale)), max(1, round(scene.height * scale))
    image = Image.fromarray(scene.image.permute(1, 2, 0).numpy()).resize(size, Image.Resampling.BILINEAR)
    if isinstance(scene.truth, Tensor):
        image = _regions(image, scene.truth.numpy())
    else:
        image = _objects(image, scene.truth, scale, classes)
    file = BytesIO()
    image.save(file, "jpeg", quality=85)
    return file.getvalue()


def _regions(image: Image.Image, regions: NDArray[np.uint8]) -> Image.Image:
    """What nobody is asked about stays as it is."""
    small = np.asarray(Image.fromarray(regions).resize(image.size, Image.Resampling.NEAREST))
    table = np.array([class_colour(c) for c in range(VOID + 1)], np.float32)
    return _blended(image, table[small], small != VOID)


def _objects(image: Image.Image, objects: Objects, scale: float, classes: tuple[str, ...]) -> Image.Image:
    labels = objects.labels.tolist()
    if objects.masks is not None:
        for label, mask in zip(labels, objects.masks.numpy(), strict=True):
            small = np.asarray(Image.fromarray(mask * np.uint8(255)).resize(image.size, Image.Resampling.BILINEAR)) > 127
            image = _blended(image, np.array(class_colour(label), np.float32), small)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(10)
    for box, label, crowd in zip(objects.boxes.tolist(), labels, objects.crowd.tolist(), strict=True):
        left, top, right, bottom = (side * scale for side in box)
        colour = class_colour(label)
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=1 if crowd else 2)
        said = classes[label] + (" (crowd)" if crowd else "")
        around = draw.textbbox((left + 2, max(0.0, top - 12)), said, font=font)
        draw.rectangle((around[0] - 2, around[1] - 1, around[2] + 2, around[3] + 1), fill=colour)
        draw.text((left + 2, max(0.0, top - 12)), said, fill=_ink(colour), font=font)
    return image


def _ink(colour: Colour) -> str:
    """What can be read on a colour."""
    return "black" if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140 else "white"


def _blended(image: Image.Image, colour: NDArray[np.float32], where: NDArray[np.bool_]) -> Image.Image:
    """With a colour laid over a part of it."""
    pixels = np.asarray(image).astype(np.float32)
    mixed = np.where(where[..., None], (1 - SEEN) * pixels + SEEN * colour, pixels)
    return Image.fromarray(mixed.round().astype(np.uint8))
