"""Corruptions: what is published is what is computed, the same each time, worse with each severity."""

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from metaformer.data import corruptions as made
from metaformer.data.corrupt import CORRUPTIONS, SEVERITIES, corrupt, read_corruptions

pytestmark = pytest.mark.usefixtures("thread")


def picture(side: int = 32, seed: int = 0) -> Tensor:
    """(1, 3, side, side): shapes with some grain, neither black nor white."""
    down, right = np.mgrid[:side, :side] / side
    waves = [np.sin(9 * down + 3 * c) * np.cos(7 * right * (c + 1)) for c in range(3)]
    grain = np.random.default_rng(seed).normal(0, 0.03, (3, side, side))
    values = np.clip(0.45 + 0.3 * np.stack(waves) + grain, 0.02, 0.98)
    return torch.from_numpy((values * 255).astype(np.uint8))[None]


def distance(one: Tensor, other: Tensor) -> float:
    return (one.float() - other.float()).abs().mean().item()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_is_repeatable_by_image_and_worse_by_severity(name: str) -> None:
    few = torch.cat([picture(seed=seed) for seed in range(4)])
    once = [corrupt(few, name, severity, range(4)) for severity in SEVERITIES]
    assert all(image.shape == few.shape and image.dtype == torch.uint8 for image in once)
    again = corrupt(few[2:], name, 3, [2, 3])
    assert torch.equal(again, once[2][2:])  # whatever else is in the batch
    if name not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"):
        assert not torch.equal(corrupt(few[:1], name, 3, [7]), once[2][:1])  # by its number
        assert not torch.equal(corrupt(few[:1], name, 3, [0], seed=1), once[2][:1])
    far = [distance(image, few) for image in once]
    if name not in ("elastic_transform", "frost"):  # those change what they do: less tilt, less of the image kept
        assert far[4] > far[0], far
    assert 0.1 < far[4] < 120


def test_large_images_have_the_parameters_of_imagenet_c() -> None:
    noise = CORRUPTIONS["gaussian_noise"]
    assert (noise.parameters(224, 3), noise.parameters(65, 3), noise.parameters(32, 3)) == ((0.18,), (0.18,), (0.08,))
    grey = torch.full((1, 3, 100, 100), 128, dtype=torch.uint8)
    for severity, scale in zip(SEVERITIES, (0.08, 0.12, 0.18, 0.26, 0.38), strict=True):
        x = made.gaussian_noise(np.full((100, 100, 3), 0.5), np.random.default_rng(0), scale)
        assert x.std() == pytest.approx(scale, rel=0.02)
        worse = corrupt(grey, "gaussian_noise", severity, [0]).float() / 255
        assert worse.std().item() == pytest.approx(np.clip(x, 0, 1).std(), rel=0.05)


@pytest.mark.slow  # 75 images of 224 pixels
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_large_images_can_be_made_worse(name: str) -> None:
    image = picture(224)
    assert all(corrupt(image, name, severity, [0]).shape == image.shape for severity in SEVERITIES)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_grey_images_stay_grey(name: str) -> None:
    image = picture(28)[:, :1]
    worse = corrupt(image, name, 2, [0])
    assert worse.shape == (1, 1, 28, 28)
    assert distance(worse, image) < 80


def test_shot_and_impulse_noise_are_as_strong_as_said() -> None:
    draw, grey = np.random.default_rng(0), np.full((200, 200, 3), 0.4)
    shots = made.shot_noise(grey, draw, 60)
    assert shots.mean() == pytest.approx(0.4, rel=0.01)
    assert shots.var() == pytest.approx(0.4 / 60, rel=0.03)
    struck = made.impulse_noise(grey, draw, 0.1)
    assert (struck == 0).mean() == pytest.approx(0.05, abs=0.003)
    assert (struck == 1).mean() == pytest.approx(0.05, abs=0.003)


def test_brightness_is_that_of_hsv() -> None:
    x = np.random.default_rng(0).random((6, 6, 3))
    x[0, 0] = 0
    worse = np.clip(made.brightness(x, np.random.default_rng(0), 0.3), 0, 1)
    for before, after in zip(x.reshape(-1, 3), worse.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before)
        assert after.tolist() == pytest.approx(colorsys.hsv_to_rgb(h, s, min(1, v + 0.3)))


def test_contrast_jpeg_and_pixelate_are_what_they_say() -> None:
    image = picture()
    x = image[0].permute(1, 2, 0).numpy()
    means = x.mean((0, 1))
    lower = corrupt(image, "contrast", 5, [0])[0].permute(1, 2, 0).numpy()
    assert np.abs(lower - ((x - means) * 0.15 + means)).max() <= 1
    written = io.BytesIO()
    Image.fromarray(x).save(written, "JPEG", quality=58)
    assert np.array_equal(corrupt(image, "jpeg_compression", 3, [0])[0].permute(1, 2, 0), np.asarray(Image.open(written)))
    coarse = Image.fromarray(x).resize((24, 24), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
    assert np.array_equal(corrupt(image, "pixelate", 4, [0])[0].permute(1, 2, 0), np.asarray(coarse))


@pytest.mark.parametrize("degrees", [0, -90, 37, -135])
def test_motion_blur_pixel_by_pixel(degrees: float) -> None:
    """ImageMagick's definition written out: output = Σ k_i · input at i steps along the line, to the nearest pixel."""
    x = np.random.default_rng(0).random((12, 12, 3))
    radius, sigma = 4, 1.5
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    expected = np.zeros_like(x)
    for row in range(12):
        for column in range(12):
            for i, weight in enumerate(weights):
                down = math.ceil(i * math.sin(math.radians(degrees)) - 0.5)
                right = math.ceil(i * math.cos(math.radians(degrees)) - 0.5)
                at = min(11, max(0, row + down)), min(11, max(0, column + right))
                expected[row, column] += weight / sum(weights) * x[at]
    assert np.allclose(made.smear(x, radius, sigma, degrees), expected)


def test_defocus_is_a_mean_over_a_disk() -> None:
    kernel = made.disk(3, 0.1)
    assert kernel.sum() == pytest.approx(1)
    down, right = np.mgrid[: len(kernel), : len(kernel)] - len(kernel) // 2
    assert np.allclose(kernel, (down**2 + right**2 <= 9) / 29)  # 0.1 pixels soften nothing
    soft = made.disk(4, 0.5)
    assert 0 < soft[len(soft) // 2, -1] < soft[len(soft) // 2, len(soft) // 2]
    x = np.random.default_rng(0).random((20, 20, 3))
    whole = made.defocus_blur(x, np.random.default_rng(0), 3, 0.1)
    assert np.allclose(whole, ndimage.correlate(x, kernel[..., None], mode="mirror"))
    assert np.allclose(made.disk(0.3, 0.4).shape, 3)  # hardly more than a point


def test_glass_takes_pixels_from_near_by() -> None:
    """Without blur, every pixel is one of those up to `reach` a turn away, and the rim stays."""
    side = 16
    x = np.zeros((side, side, 3))
    x[..., 0], x[..., 1] = np.mgrid[:side, :side] / 255
    worse = np.round(made.glass_blur(x, np.random.default_rng(0), 1e-3, 1, 1) * 255)
    moved = np.abs(worse[..., :2] - np.stack(np.mgrid[:side, :side], 2))
    assert moved.max() >= 1
    assert moved[0].max() == moved[:, 0].max() == 0
    assert (worse[..., :2] >= 0).all()


def test_zoom_keeps_the_middle_and_fog_its_fractal() -> None:
    x = np.zeros((33, 33, 3))
    x[16, 16] = 1
    assert made.enlarged(x, 1.0)[16, 16, 0] == 1
    assert made.enlarged(x, 1.3)[14:19, 14:19].sum() == pytest.approx(made.enlarged(x, 1.3).sum())
    field = made.plasma(np.random.default_rng(0), (30, 20), 2.0)
    assert field.shape == (30, 20)
    assert 0 <= field.min() < field.max() <= 1
    rough, smooth = (made.plasma(np.random.default_rng(0), (64, 64), decay) for decay in (1.4, 3.0))
    assert np.abs(np.diff(rough)).mean() > 2 * np.abs(np.diff(smooth)).mean()
    assert np.array_equal(made.fog(np.ones((8, 8, 3)), np.random.default_rng(0), 0.0, 2.0), np.ones((8, 8, 3)))


def test_elastic_without_strength_or_tilt_changes_nothing() -> None:
    x = np.random.default_rng(0).random((16, 16, 3))
    assert np.allclose(made.elastic_transform(x, np.random.default_rng(0), 0, 0, 0), x)
    assert not np.allclose(made.elastic_transform(x, np.random.default_rng(0), 0, 0, 2), x, atol=0.05)
    assert not np.allclose(made.elastic_transform(x, np.random.default_rng(0), 5, 2, 0), x, atol=0.02)


def test_names_kinds_and_slips() -> None:
    assert read_corruptions("all") == tuple(CORRUPTIONS)
    assert read_corruptions("fog, noise") == ("fog", "gaussian_noise", "shot_noise", "impulse_noise")
    assert len(CORRUPTIONS) == 15
    with pytest.raises(ValueError, match=r"no corruption 'snwo', did you mean snow\?"):
        read_corruptions("snwo")
    with pytest.raises(ValueError, match="no corruption 'x'; allowed: all, blur"):
        read_corruptions("x")
