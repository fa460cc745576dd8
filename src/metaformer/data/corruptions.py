"""The fifteen corruptions of Hendrycks and Dietterich (2019, arXiv 1903.12261), one function each, in numpy and scipy.

Every one takes an image (H, W, 3) of 0 to 1, a generator and the parameters of a severity, and returns such an image, which may
leave 0 to 1. They follow the published program's arithmetic, its oddities too; `corrupt` has its parameters.
"""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.signal import fftconvolve

from metaformer.data.dataset import LUMA

Picture = NDArray[np.float64]
Draw = np.random.Generator

# --- noise ------------------------------------------------------------------------------------------------------------


def gaussian_noise(x: Picture, draw: Draw, scale: float) -> Picture:
    """Normal noise of a standard deviation."""
    return x + draw.normal(0, scale, x.shape)


def shot_noise(x: Picture, draw: Draw, photons: float) -> Picture:
    """Poisson noise of light that has so many photons where it is white."""
    return draw.poisson(x * photons) / photons


def impulse_noise(x: Picture, draw: Draw, part: float) -> Picture:
    """A part of all values becomes black or white, either as often."""
    struck, white = draw.random(x.shape) <= part, draw.random(x.shape) <= 0.5
    return np.where(struck, white, x)


# --- blur -------------------------------------------------------------------------------------------------------------


def defocus_blur(x: Picture, draw: Draw, radius: float, soft: float) -> Picture:
    """The mean over a disk whose rim is softened by a Gaussian."""
    kernel = disk(radius, soft)
    margin = len(kernel) // 2
    padded = np.pad(x, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    return fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))


def disk(radius: float, soft: float) -> Picture:
    """The kernel of a disk, as large as it has to be."""
    reach = 8 if radius <= 8 else int(radius)
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    line = np.arange(-reach, reach + 1)
    inside = (line[:, None] ** 2 + line**2 <= radius**2).astype(float)
    weights = np.exp(-(taps**2) / (2 * soft**2))
    made = inside / inside.sum()
    for axis in (0, 1):
        made = ndimage.correlate1d(made, weights / weights.sum(), axis, mode="mirror")
    cut = reach - min(reach, math.floor(radius) + len(taps) // 2)
    return made[cut : len(line) - cut, cut : len(line) - cut]


def glass_blur(x: Picture, draw: Draw, sigma: float, reach: int, times: int) -> Picture:
    """Blurred; then pixels take the place of near ones, from below to above; then blurred.

    The program means to exchange two pixels, but what it exchanges are views, so that one is copied over the other.
    """
    height, width, channels = x.shape
    blurred = np.floor(_blurred(x, sigma) * 255).reshape(-1, channels)
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    places = (rows[:, None] * width + columns).ravel().tolist()
    for _ in range(times):
        right, down = draw.integers(-reach, reach, (2, len(places)))
        taken = list(range(height * width))
        for place, way in zip(places, (down * width + right).tolist(), strict=True):
            taken[place] = taken[place + way]
        blurred = blurred[taken]
    return _blurred(blurred.reshape(x.shape) / 255, sigma)


def _blurred(x: Picture, sigma: float) -> Picture:
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def motion_blur(x: Picture, draw: Draw, radius: int, sigma: float) -> Picture:
    """Smeared along a line up to 45° from level."""
    return smear(x, radius, sigma, draw.uniform(-45, 45))


def smear(x: Picture, radius: int, sigma: float, degrees: float) -> Picture:
    """ImageMagick's motion blur: half a Gaussian of 2 · radius + 1 whole pixels along a line; edges go on."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    angle = math.radians(degrees)
    right, down = (np.ceil(steps * way - 0.5).astype(int) for way in (math.cos(angle), math.sin(angle)))
    margin, (height, width) = len(steps), x.shape[:2]
    padded = np.pad(x, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    made = np.zeros_like(x)
    for weight, i, j in zip(weights / weights.sum(), down + margin, right + margin, strict=True):
        made += weight * padded[i : i + height, j : j + width]
    return made


def zoom_blur(x: Picture, draw: Draw, most: float, step: float) -> Picture:
    """The mean of the image and of its enlargements."""
    factors = np.arange(1, most, step)
    return (x + sum(enlarged(x, factor) for factor in factors)) / (len(factors) + 1)


def enlarged(x: Picture, factor: float) -> Picture:
    """The middle, enlarged to the size of the whole."""
    side = len(x)
    part = math.ceil(side / factor)
    first = (side - part) // 2
    made = ndimage.zoom(x[first : first + part, first : first + part], (factor, factor, 1), order=1)
    trim = (len(made) - side) // 2
    return made[trim : trim + side, trim : trim + side]


# --- weather ----------------------------------------------------------------------------------------------------------


def snow(
    x: Picture, draw: Draw, mean: float, scale: float, zoom: float, least: float, radius: int, sigma: float, keep: float
) -> Picture:
    """Flakes, smeared as they fall, over an image that is paler."""
    flakes = enlarged(draw.normal(mean, scale, x.shape[:2])[..., None], zoom)
    flakes = np.floor(np.clip(np.where(flakes < least, 0, flakes), 0, 1) * 255) / 255
    flakes = smear(flakes, radius, sigma, draw.uniform(-135, -45))
    pale = np.maximum(x, (x @ LUMA)[..., None] * 1.5 + 0.5)
    return keep * x + (1 - keep) * pale + flakes + np.rot90(flakes, 2)


def frost(x: Picture, draw: Draw, keep: float, strength: float) -> Picture:
    """Ice over the image. The published one is a part of a photograph of frost; ours is drawn, so its figures are our own.

    Crystals are the ridges of two fractals, bluish, brighter where both have one.
    """
    one, other = (1 - np.abs(2 * plasma(draw, x.shape, 1.7) - 1) for _ in range(2))
    ice = np.clip(0.25 + 0.45 * one**4 + 0.45 * other**4, 0, 1)
    return keep * x + strength * ice[..., None] * (0.86, 0.94, 1.0)


def fog(x: Picture, draw: Draw, strength: float, decay: float) -> Picture:
    """A fractal added, everything made darker in turn."""
    most = x.max()
    return (x + strength * plasma(draw, x.shape, decay)[..., None]) * most / (most + strength)


def plasma(draw: Draw, shape: tuple[int, ...], decay: float) -> Picture:
    """(H, W) of 0 to 1: the diamond-square algorithm on a torus whose side is a power of two, of which the corner is taken."""
    height, width = shape[:2]
    side = 1 << (max(height, width) - 1).bit_length()
    grid, step, rough = np.zeros((side, side)), side, 100.0
    while step >= 2:
        half = step // 2
        corners = grid[::step, ::step]
        level = corners + np.roll(corners, -1, 1)

        def near(total: Picture, rough: float = rough) -> Picture:
            return total / 4 + rough * draw.uniform(-rough, rough, total.shape)

        middles = near(level + np.roll(level, -1, 0))
        grid[half::step, half::step] = middles
        grid[::step, half::step] = near(middles + np.roll(middles, 1, 0) + level)
        grid[half::step, ::step] = near(middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0))
        step, rough = half, rough / decay
    grid -= grid.min()
    return grid[:height, :width] / grid.max()


def brightness(x: Picture, draw: Draw, more: float) -> Picture:
    """The value of HSV raised, hue and saturation kept."""
    value = x.max(2, keepdims=True)
    raised = np.clip(value + more, 0, 1)
    return np.where(value > 0, x * raised / np.maximum(value, 1e-12), raised)


# --- digital ----------------------------------------------------------------------------------------------------------


def contrast(x: Picture, draw: Draw, part: float) -> Picture:
    """What is left of the distance from each channel's mean."""
    mean = x.mean((0, 1), keepdims=True)
    return (x - mean) * part + mean


def elastic_transform(x: Picture, draw: Draw, strength: float, sigma: float, tilt: float) -> Picture:
    """Three points moved by up to `tilt` pixels and the plane with them; then each pixel by a smooth random field."""
    height, width = x.shape[:2]
    middle, reach = np.array((height, width)) // 2, min(height, width) // 3
    corners = middle + reach * np.array(((1, 1), (1, -1), (-1, -1)))  # as (x, y)
    moved = corners + draw.uniform(-tilt, tilt, corners.shape)
    back = np.linalg.solve(np.c_[moved, np.ones(3)], corners.astype(float))  # (x, y, 1) of the result → (x, y) before
    down, right = np.mgrid[:height, :width].astype(float)
    before = np.stack([right, down, np.ones_like(down)], 2) @ back
    x = _sampled(x, before[..., 1], before[..., 0], "mirror")
    across, along = (draw.uniform(-1, 1, (height, width)) for _ in range(2))
    if sigma:
        across, along = (ndimage.gaussian_filter(field, sigma, mode="reflect", truncate=3) for field in (across, along))
    return _sampled(x, down + strength * along, right + strength * across, "reflect")


def _sampled(x: Picture, down: Picture, right: Picture, edge: str) -> Picture:
    """The values at places between pixels, bilinear."""
    channels = [ndimage.map_coordinates(x[..., c], (down, right), order=1, mode=edge) for c in range(x.shape[2])]
    return np.stack(channels, 2)


def pixelate(x: Picture, draw: Draw, part: float) -> Picture:
    """Shrunk to a part of its sides by means over boxes, and back."""
    whole = _image(x)
    small = whole.resize((int(whole.width * part), int(whole.height * part)), Image.Resampling.BOX)
    return np.asarray(small.resize(whole.size, Image.Resampling.BOX)) / 255


def jpeg_compression(x: Picture, draw: Draw, quality: int) -> Picture:
    """Written as JPEG and read."""
    written = io.BytesIO()
    _image(x).save(written, "JPEG", quality=quality)
    return np.asarray(Image.open(written)) / 255


def _image(x: Picture) -> Image.Image:
    return Image.fromarray(np.round(x * 255).astype(np.uint8))
