"""What a model is fed: fitting and normalising by value, of tensors and of arrays."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from metaformer.data import preprocess as module
from metaformer.data.preprocess import Preprocess, resize
from metaformer.data.sources import open_data


def colours(*values: tuple[int, int, int], height: int = 1, width: int = 1) -> Tensor:
    """An image (1, 3, height, width · values) of upright bars."""
    bars = torch.tensor(values, dtype=torch.uint8).t().repeat_interleave(width, 1)
    return bars.view(1, 3, 1, -1).expand(-1, -1, height, -1).clone()


def test_the_training_set_has_mean_0_and_deviation_1() -> None:
    data = open_data("digits")
    seen = Preprocess(8, data.mean, data.std)(data.train.pixels)
    assert seen.shape == (1437, 1, 8, 8)
    assert seen.double().mean().item() == pytest.approx(0, abs=1e-4)
    assert seen.double().std().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("height", "width"), [(300, 200), (201, 333), (224, 224), (100, 400), (50, 51), (248, 248)])
@pytest.mark.parametrize("fraction", [1.0, 0.95, 0.9, 0.875])
def test_a_crop_fraction_is_torchvision_s_resize_and_centre_crop(height: int, width: int, fraction: float) -> None:
    image = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    short = math.floor(224 / fraction)
    theirs = F.resize(image, [short], F.InterpolationMode.BICUBIC, antialias=True)
    ours = Preprocess(224, (0.5,) * 3, (1.0,) * 3, "crop", fraction).fitted(image)
    assert torch.equal(ours, F.center_crop(theirs, [224, 224]))


def test_a_crop_fraction_is_for_crop_alone_and_travels() -> None:
    image = torch.randint(0, 256, (1, 3, 60, 80), dtype=torch.uint8)
    for fit in ("squash", "pad"):
        plain, given = Preprocess(30, (0.5,) * 3, (1.0,) * 3, fit), Preprocess(30, (0.5,) * 3, (1.0,) * 3, fit, 0.5)
        assert torch.equal(plain.fitted(image), given.fitted(image))
    assert Preprocess.from_dict(given.to_dict()) == given
    assert Preprocess.from_dict({"size": 30, "mean": [0.5], "std": [1.0], "fit": "crop"}).crop_fraction is None


def test_normalise_by_value() -> None:
    preprocess = Preprocess(1, (0.5, 0.2, 0.0), (0.25, 0.1, 1.0))
    assert preprocess.normalise(colours((0, 51, 255))).flatten().tolist() == pytest.approx([-2, 0, 1])
    assert torch.equal(preprocess(colours((0, 51, 255))), preprocess.normalise(colours((0, 51, 255))))


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.mark.parametrize(
    ("fit", "row"),
    [
        ("squash", [RED, GREEN, BLUE]),  # everything, narrower
        ("crop", [GREEN, GREEN, GREEN]),  # the square in the middle
    ],
)
def test_fit(fit: str, row: list[tuple[int, int, int]]) -> None:
    wide = colours(RED, GREEN, BLUE, height=60, width=60)
    fitted = Preprocess(30, (0.5,) * 3, (1.0,) * 3, fit).fitted(wide)
    assert (fitted.shape, fitted.dtype) == ((1, 3, 30, 30), torch.uint8)
    assert [tuple(fitted[0, :, 15, x].tolist()) for x in (5, 15, 25)] == row
    tall = Preprocess(30, (0.5,) * 3, (1.0,) * 3, fit).fitted(wide.transpose(2, 3))
    assert torch.equal(tall.transpose(2, 3), fitted)


def test_pad_adds_bars_of_the_mean_colour() -> None:
    fitted = Preprocess(30, (0.2, 0.4, 0.6), (1.0,) * 3, "pad").fitted(colours(RED, GREEN, BLUE, height=60, width=60))
    assert fitted.shape == (1, 3, 30, 30)
    rows = [tuple(fitted[0, :, y, 5].tolist()) for y in (0, 9, 10, 19, 20, 29)]
    grey = (51, 102, 153)
    assert rows == [grey, grey, RED, RED, grey, grey]
    assert [tuple(fitted[0, :, 15, x].tolist()) for x in (15, 25)] == [GREEN, BLUE]


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (7, 3), (32, 32), (33, 32)])
def test_every_shape_fits(fit: str, height: int, width: int) -> None:
    image = torch.full((2, 1, height, width), 200, dtype=torch.uint8)
    fitted = Preprocess(32, (200 / 255,), (1.0,), fit).fitted(image)
    assert torch.equal(fitted, torch.full((2, 1, 32, 32), 200, dtype=torch.uint8))


@pytest.mark.parametrize("size", [(16, 16), (13, 40), (90, 31)])
def test_resize_does_as_pillow_does(size: tuple[int, int]) -> None:
    image = np.random.RandomState(0).randint(0, 256, (48, 64, 3), np.uint8)
    ours = resize(torch.from_numpy(image).permute(2, 0, 1)[None], *size)[0].permute(1, 2, 0).numpy()
    theirs = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_preprocess_there_and_back() -> None:
    preprocess = Preprocess(2, (0.5, 0.2, 0.0), (0.25, 0.1, 1.0), "pad")
    assert Preprocess.from_dict(preprocess.to_dict()) == preprocess


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (3, 70)])
def test_of_a_band_only_the_middle_is_resized(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    resize = module.resize
    monkeypatch.setattr(module, "resize", lambda x, h, w, *more: (asked.append((h, w)), resize(x, h, w, *more))[1])
    fed = Preprocess(8, (0.5,), (0.5,), "crop", 0.9).fitted(torch.full((1, 1, *size), 7, dtype=torch.uint8))
    assert fed.shape == (1, 1, 8, 8)
    assert (fed == 7).all()
    assert max(asked[0]) <= 8 * 20


# --- without torch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (100, 37), (33, 200), (500, 500), (24, 24), (1, 9), (3, 1200)])
@pytest.mark.parametrize(("fit", "fraction"), [("squash", None), ("crop", None), ("pad", None), ("crop", 0.875), ("crop", 1.0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_are_fitted_as_tensors_are(size: tuple[int, int], fit: str, fraction: float | None, channels: int) -> None:
    """Of pictures, that is: on pure noise the two round differently by several units where one side grows and one shrinks."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    waves = [np.sin(rows / (5 + c) + columns / (9 - c)) for c in range(channels)]
    array = np.stack([127 + 100 * wave + 20 * (columns > size[1] // 2) for wave in waves], 2).astype(np.uint8)
    preprocess = Preprocess(48, (0.5, 0.2, 0.9)[:channels], (0.2,) * channels, fit, fraction)
    ours = preprocess.fitted_array(array)
    theirs = preprocess.fitted(torch.from_numpy(array).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    assert ours.shape == theirs.shape == (48, 48, channels)
    assert ours.dtype == np.uint8
    off = np.abs(ours.astype(int) - theirs.astype(int))
    assert off.max() <= 1
    assert off.mean() < 0.2


@pytest.mark.parametrize("count", [1, 3, 7])
def test_normalising_does_not_ask_how_pixels_lie(count: int) -> None:
    pixels = torch.randint(256, (count, 3, 160, 200), dtype=torch.uint8)
    preprocess = Preprocess(8, (0.2, 0.5, 0.7), (0.1, 0.3, 0.9))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    for given in (pixels, pixels.contiguous(memory_format=torch.channels_last)):
        before = given.clone()
        seen = preprocess.normalise(given)
        torch.testing.assert_close(seen, (pixels / 255 - mean) / std)
        assert seen.is_contiguous(memory_format=torch.channels_last) == given.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(given, before)
