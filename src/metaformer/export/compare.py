"""What runs an exported file beside the model in torch: on a photograph, noise, hard borders, other batches and sides."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from metaformer.data.decode import decode_array
from metaformer.data.preprocess import Pixels, Preprocess
from metaformer.infer.engines import Logits
from metaformer.weights.pretrained import Model


def compare(
    model: Model, preprocess: Preprocess, run: Callable[[Pixels], Logits], *, free: bool, output: str = "logits"
) -> dict[str, float]:
    """For each case the greatest difference from the model as it is, in fp32: of logits over their mean absolute value, of
    probabilities over the greatest, for among a thousand classes all may be small.

    `free`: whether the file takes images of other sides than the model's. `output`: what the file gives of the logits.
    """
    found: dict[str, float] = {}
    for name, pixels in cases(preprocess, free=free).items():
        wanted = reference(model, preprocess, pixels)
        if output == "logits":
            found[name] = difference(wanted, run(pixels))
        else:
            logits = torch.from_numpy(wanted)
            right = (logits.sigmoid() if output == "sigmoid" else logits.softmax(1)).numpy()
            found[name] = difference(right, run(pixels), scale=float(right.max()))
    return found


def cases(preprocess: Preprocess, *, free: bool) -> dict[str, Pixels]:
    """Images (B, C, H, W) of bytes by what they are."""
    channels, size = len(preprocess.mean), preprocess.size
    made = {
        "noise": noise(1, channels, size, size),
        "noise, batch of 3": noise(3, channels, size, size),
        "hard borders, batch of 3": drawn(3, channels, size, size),
        "black and white": np.stack([np.full((channels, size, size), value, np.uint8) for value in (0, 255)]),
    }
    if PHOTOGRAPH.is_file() and channels in (1, 3):
        made["photograph, batch of 3"] = photographs(preprocess)
    if free:
        for height, width in ((size + 1 | 1, max(3, size - 3) | 1), (max(3, size // 2) | 1, size + 7 | 1)):
            made[f"hard borders, {height} × {width}"] = drawn(2, channels, height, width)
    return made


PHOTOGRAPH = Path(str(files("matplotlib"))) / "mpl-data" / "sample_data" / "grace_hopper.jpg"
"""It comes with matplotlib, but not with every distribution's."""


def photographs(preprocess: Preprocess) -> Pixels:
    """All of the photograph, its upper half and its lower half, as the model is shown images."""
    whole = decode_array(PHOTOGRAPH, len(preprocess.mean))
    half = len(whole) // 2
    fitted = np.stack([preprocess.fitted_array(part) for part in (whole, whole[:half], whole[half:])])
    return np.ascontiguousarray(fitted.transpose(0, 3, 1, 2))


def noise(batch: int, channels: int, height: int, width: int) -> Pixels:
    """Every byte by chance."""
    return np.random.default_rng(0).integers(0, 256, (batch, channels, height, width), dtype=np.uint8)


def drawn(batch: int, channels: int, height: int, width: int) -> Pixels:
    """Slopes of light with a bright frame on two sides, a dark one on two, and a rectangle of the opposite: as photographs,
    smooth in most places, with edges that are hard, also where the image ends."""
    down, right = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    images = np.empty((batch, channels, height, width), np.uint8)
    for b, c in np.ndindex(batch, channels):
        light = 255 * np.abs(np.sin((1 + b + c) * (0.3 + down + 0.7 * right)))
        inner = light[height // 3 : height // 2, width // 4 : 2 * width // 3]
        inner[:] = 255 - inner
        light[:2], light[:, :1], light[-1:], light[:, -2:] = 255, 255, 0, 0
        images[b, c] = light
    return images


def reference(model: Model, preprocess: Preprocess, pixels: Pixels) -> Logits:
    """What the model itself says, normalised apart and not fused."""
    with torch.inference_mode():
        return model(preprocess.normalise(torch.from_numpy(pixels))).numpy()


def difference(wanted: Logits, found: Logits, scale: float | None = None) -> float:
    """Greatest difference over the mean absolute value, or over `scale`; infinite where anything is not a number or of another
    shape."""
    if wanted.shape != found.shape or not np.isfinite([wanted, found]).all():
        return float("inf")
    over = np.abs(wanted).mean() if scale is None else scale
    return float(np.abs(wanted - found).max() / max(over, np.finfo(np.float32).tiny))
