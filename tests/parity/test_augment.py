"""The input pipeline draws from the distribution of timm's: the same boxes and operations of the same random numbers, and
views of one picture whose values and sharpness are spread alike. The papers' ImageNet recipe, on small images."""

import io
import random
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from timm.data import auto_augment, create_loader
from timm.data.mixup import FastCollateMixup
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torch.utils.data import Dataset

from metaformer.config import Recipe
from metaformer.data.augment import Augment, View, posterize
from metaformer.data.batch import Batch, generator, number
from metaformer.data.loader import Loader
from metaformer.data.preprocess import Preprocess
from metaformer.data.splits import Encoded
from metaformer.recipes import ROWS

RECIPE = replace(ROWS["caformer_s18.in1k"].recipe, pad=0.0)
FIT = Preprocess(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TEXT = RECIPE.randaugment or ""
COUNT = 1200
"""Views on either side."""
FAR = 0.07
"""Kolmogorov-Smirnov distance that two samples of one distribution, so many each, exceed once in 200 times."""


def picture() -> bytes:
    """A JPEG that is another thing when mirrored: waves that grow finer and redder to the right, and noise."""
    y, x = np.mgrid[:96, :128] / 128
    draw = np.random.default_rng(0)
    channels = [(0.5 + 0.4 * np.sin(20 * (x + k / 9) ** 2 + 9 * y)) * (0.4 + (0.2 * k + x) / 2) for k in range(3)]
    pixels = 255 * np.stack(channels, 2) + draw.normal(0, 12, (96, 128, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=92)
    return file.getvalue()


# --- of the same random numbers, the same --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (40, 900), (900, 40), (9, 9)])
def test_crops_are_timms_boxes(size: tuple[int, int]) -> None:
    view, image = View(FIT, 0.08, None, 0), Image.new("RGB", size[::-1])
    for seed in range(300):
        random.seed(seed)
        theirs = RandomResizedCropAndInterpolation.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
        assert view._box(random.Random(seed), *size) == theirs


def test_operations_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for one level in a few values, which an operation after it may make more."""
    monkeypatch.setitem(auto_augment.NAME_TO_OP, "PosterizeIncreasing", posterize)
    colour = tuple(round(255 * value) for value in FIT.mean)
    randaugment = auto_augment.rand_augment_transform(TEXT, {"translate_const": int(32 * 0.45), "img_mean": colour})
    view, image = View(FIT, None, TEXT, 0), Image.open(io.BytesIO(picture())).resize((32, 32))
    pixels, gaps = torch.from_numpy(np.array(image)).permute(2, 0, 1), []
    for seed in range(300):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  timm draws from this generator
        theirs = torch.from_numpy(np.array(randaugment(image))).permute(2, 0, 1)
        ours = view._randaugment(pixels, SimpleNamespace(getrandbits=lambda _, seed=seed: seed))
        gaps.append((ours.int() - theirs.int()).abs())
    assert (torch.stack(gaps) > 0).double().mean() < 0.005
    assert max(gap.double().mean().item() for gap in gaps) < 1


def test_rectangles_are_timms() -> None:
    images, augment = torch.full((200, 3, 32, 32), 9.0), Augment.of(replace(RECIPE, erase=0.7), mirrors=True)
    ours, erasing = augment.erased(images.clone(), torch.arange(200), 4), RandomErasing(0.7, mode="pixel", device="cpu")
    for place, image in enumerate(images):
        random.seed(number(augment.seed, 4, place, "erase"))
        assert torch.equal(erasing(image.clone()) != 9.0, ours[place] != 9.0), place


def test_batches_are_mixed_as_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draws of a step come from one generator in timm's order; timm is lent ours."""
    batch = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator(0))
    augment, both = Augment.of(RECIPE, mirrors=True), []
    collate = FastCollateMixup(RECIPE.mixup, RECIPE.cutmix, label_smoothing=0.0, num_classes=8)
    for step in range(60):
        own = np.random.default_rng(number(augment.seed, 2, step, "mix"))
        monkeypatch.setattr("timm.data.mixup.np.random.beta", own.beta)
        monkeypatch.setattr("timm.data.mixup.np.random.randint", lambda low, high, size, own=own: int(own.integers(low, high)))
        turn = iter([0.0, own.random()])  # the first asks whether to mix at all, which timm always draws
        monkeypatch.setattr("timm.data.mixup.np.random.rand", lambda turn=turn: next(turn))
        theirs, target = collate([(image, label) for label, image in enumerate(batch)])
        mixed = augment.mixed(Batch(batch, torch.arange(8)), 2, step)
        assert (mixed.images.int() - theirs.int()).abs().max() <= 1
        both.append((mixed.images != theirs).double().mean().item())
        assert mixed.share == pytest.approx(target[0, 0].item(), abs=1e-6)
    assert np.mean(both) < 1e-3


# --- all of it, of one picture -------------------------------------------------------------------------------------------


class Same(Dataset):
    """One picture as often as is wanted, as timm's loader reads it."""

    transform: Callable[[Image.Image], np.ndarray]

    def __init__(self, file: bytes) -> None:
        self.file = file

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, _: int) -> tuple[np.ndarray, int]:
        return self.transform(Image.open(io.BytesIO(self.file)).convert("RGB")), 0


def ours(recipe: Recipe, epoch: int = 0) -> Tensor:
    """(N, 3, 32, 32) as a model is fed them, before mixing."""
    split, view = Encoded([picture()] * COUNT, torch.zeros(COUNT).long(), 3), View(FIT, recipe.crop, recipe.randaugment, 0)
    augment = replace(Augment.of(recipe, mirrors=True), mixup=0.0, cutmix=0.0)
    loader = Loader(split, 100, FIT, torch.device("cpu"), view=view, augment=augment)
    return torch.cat([batch.images for batch in loader.epoch(epoch)])


def timms() -> Tensor:
    """The same of timm's loader, set up as timm's training does."""
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002  timm draws from this generator
    torch.manual_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(auto_augment.NAME_TO_OP, "PosterizeIncreasing", posterize)  # Pillow 13 refuses what timm asks of it
        loader = create_loader(
            Same(picture()), (3, 32, 32), 100, is_training=True, re_prob=RECIPE.erase, re_mode="pixel",
            scale=(RECIPE.crop, 1.0), hflip=0.5, color_jitter=0.0, auto_augment=TEXT, interpolation="random",
            mean=FIT.mean, std=FIT.std, num_workers=0, device=torch.device("cpu"), persistent_workers=False,
        )  # fmt: skip
        return torch.cat([images for images, _ in loader])


@pytest.fixture(scope="module")
def theirs() -> Tensor:
    """Once for all tests."""
    return timms()


def figures(images: Tensor) -> dict[str, Tensor]:
    """What is compared of each image (N,)."""
    halves = images[..., :16].mean((1, 2, 3)) - images[..., 16:].mean((1, 2, 3))
    return {
        "brightness": images.mean((1, 2, 3)),
        "contrast": images.flatten(1).std(1),
        "step": images.diff(dim=3).abs().mean((1, 2, 3)),
        "step down": images.diff(dim=2).abs().mean((1, 2, 3)),
        "left over right": halves,
        "red over blue": images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2)),
        "middle": images[:, 1, 16, 16],
        "corner": images[:, 1, 0, 0],
    }


def distances(one: Tensor, other: Tensor) -> dict[str, float]:
    """Kolmogorov-Smirnov's distance of each figure."""
    first, second = figures(one), figures(other)
    return {name: float(ks_2samp(first[name].numpy(), second[name].numpy()).statistic) for name in first}


def off(one: Tensor, other: Tensor) -> tuple[float, float]:
    """By how many standard errors the mean and the deviation of a value (C, H, W) differ, root mean square over all values."""
    error = ((one.var(0) + other.var(0)) / COUNT).sqrt()
    fourth = [((x - x.mean(0)) ** 4).mean(0) - x.var(0) ** 2 for x in (one, other)]
    mean = (one.mean(0) - other.mean(0)) / error
    spread = (one.var(0) - other.var(0)) / ((fourth[0] + fourth[1]) / COUNT).sqrt()
    return mean.square().mean().sqrt().item(), spread.square().mean().sqrt().item()


def test_views_are_spread_as_timms(theirs: Tensor) -> None:
    mine = ours(RECIPE)
    assert max(distances(mine, theirs).values()) < FAR
    assert max(off(mine, theirs)) < 2


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"flip": 0.0}, {"crop": 0.3}, {"randaugment": None}, {"erase": 0.0}, {"erase": 0.5}])
def test_another_recipe_is_told_apart(theirs: Tensor, changes: dict[str, float | None]) -> None:
    mine = ours(replace(RECIPE, **changes))
    assert max(distances(mine, theirs).values()) > FAR or max(off(mine, theirs)) > 2
