"""Image files → pixels: what a person sees in the first frame."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor


def decode(path: str | Path, channels: int) -> Tensor:
    """(1, channels, H, W) as uint8, upright. `channels` is 1 for grey or 3 for colour; transparent parts become white.

    Raises ValueError that says why a file cannot be read.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
            if upright.mode.startswith("I;16"):  # which Pillow would clip
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            pixels = np.asarray(upright.convert("L" if channels == 1 else "RGB"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, RuntimeError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return torch.from_numpy(pixels.copy()).reshape(1, *pixels.shape[:2], channels).permute(0, 3, 1, 2)


SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


def find_images(paths: list[str]) -> list[Path]:
    """The files named, and the images in the folders named, each folder sorted. Raises ValueError where there is none."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise ValueError(f"{path} has no image in it ({', '.join(sorted(SUFFIXES))})")
            found += inside
        else:
            found.append(path)
    return found
