"""Pictures for the tests of data sources: small noise that is different for each seed."""

from pathlib import Path

import numpy as np
from PIL import Image


def photo(path: Path, seed: int = 0, *, size: tuple[int, int] = (70, 66), mode: str = "RGB") -> Path:
    """Writes a picture of noise, (width, height), in the format that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def photos(folder: Path, count: int, start: int = 0, *, size: tuple[int, int] = (70, 66), mode: str = "RGB") -> None:
    """Writes 0.png, 1.png ... into a folder, none of them like another one of another `start`."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        photo(folder / f"{i}.png", start + i, size=size, mode=mode)
