"""Pictures with the spectrum of photographs, no two alike: what near copies are planted among."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def scene(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Clouds of colour with a bright patch; (width, height)."""
    random = np.random.RandomState(seed)
    wide, high = size
    far = np.hypot(np.fft.fftfreq(high)[:, None] * high, np.fft.fftfreq(wide) * wide) + 1
    waves = np.fft.fft2(random.randn(4, high, wide)) / far**1.2
    clouds = np.fft.ifft2(waves).real
    clouds /= clouds.std((1, 2), keepdims=True)
    pixels = 128 + 45 * clouds[:1] + 20 * clouds[1:]
    top, left = random.randint(0, high // 2), random.randint(0, wide // 2)
    pixels[:, top : top + high // 3, left : left + wide // 3] += random.randint(-70, 70, (3, 1, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def saved(image: Image.Image, file: Path, quality: int = 92) -> Path:
    """Writes it in the format of the suffix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".jpg":
        image.save(file, quality=quality)
    else:
        image.save(file)
    return file


def resaved(image: Image.Image, quality: int) -> Image.Image:
    """As a JPEG of this quality gives it back."""
    held = io.BytesIO()
    image.save(held, "jpeg", quality=quality)
    return Image.open(held).convert("RGB")
