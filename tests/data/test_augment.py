"""Augmentation: what happens to a sample follows from (seed, epoch, sample) alone, and is what the papers say."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from metaformer.config import Recipe
from metaformer.data.augment import Augment, View, shift
from metaformer.data.batch import Batch, generator
from metaformer.data.preprocess import Preprocess

OFF = Augment(pad=0.0, flip=0.0, erase=0.0, mixup=0.0, cutmix=0.0, seed=7)
PREPROCESS = Preprocess(12, (0.5,), (0.5,))


def pixels(count: int = 6, channels: int = 1, height: int = 5, width: int = 7) -> Tensor:
    """Random bytes, none of them 0."""
    return torch.randint(1, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator(0))


def slow_shift(image: Tensor, down: int, right: int) -> Tensor:
    """One image (C, H, W), pixel by pixel."""
    moved = torch.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y + down < height and 0 <= x + right < width:
                moved[:, y + down, x + right] = image[:, y, x]
    return moved


@pytest.mark.parametrize("channels", [1, 3])
def test_shift_equals_a_slow_loop(channels: int) -> None:
    images = pixels(8, channels)
    down, right = torch.tensor([0, 1, -1, 4, 5, -9, 2, 0]), torch.tensor([0, 0, 3, -6, 1, 0, -7, -2])
    expected = [slow_shift(image, d, r) for image, d, r in zip(images, down.tolist(), right.tolist(), strict=True)]
    moved = shift(images, down, right)
    assert moved.dtype == torch.uint8
    assert torch.equal(moved, torch.stack(expected))


# --- a sample, its epoch and the seed decide, not its batch -----------------------------------------------------------

VIEWS = {
    "crop": View(PREPROCESS, 0.3, None, 7),
    "randaugment": View(PREPROCESS, None, "rand-m9-mstd0.5-inc1", 7),
    "both": View(PREPROCESS, 0.3, "rand-m9-mstd0.5-inc1", 7),
}


@pytest.mark.parametrize("kind", VIEWS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_follows_from_seed_epoch_and_sample(kind: str, channels: int) -> None:
    view, image = VIEWS[kind], pixels(1, channels, 20, 30)[0]
    first = [view(image, 3, sample) for sample in range(12)]
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    state = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    again = [view(image, 3, sample) for sample in reversed(range(12))][::-1]
    assert state == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert {(seen.shape, seen.dtype) for seen in first} == {((channels, 12, 12), torch.uint8)}
    for other in ([view(image, 4, n) for n in range(12)], [replace(view, seed=8)(image, 3, n) for n in range(12)]):
        assert sum(not torch.equal(one, two) for one, two in zip(first, other, strict=True)) > 8
    assert len({tuple(seen.flatten().tolist()) for seen in first}) > 5


def test_moves_follow_from_seed_epoch_and_sample() -> None:
    images, augment = pixels(40), replace(OFF, flip=0.5, pad=0.3)
    whole = augment.move(images, torch.arange(40), 3, 40)
    for part in torch.randperm(40, generator=generator(1)).split(7):
        assert torch.equal(augment.move(images[part], part, 3, 40), whole[part])
    assert torch.equal(augment.move(images[[5, 5]], torch.tensor([5, 5]), 3, 40), whole[[5, 5]])
    for other in (
        augment.move(images, torch.arange(40), 4, 40),
        replace(augment, seed=8).move(images, torch.arange(40), 3, 40),
    ):
        assert (other != whole).flatten(1).any(1).sum() > 25


def test_erasing_follows_from_seed_epoch_and_sample() -> None:
    images, augment = torch.zeros(40, 1, 9, 9), replace(OFF, erase=0.8)
    whole = augment.erased(images.clone(), torch.arange(40), 3)
    for part in torch.randperm(40, generator=generator(1)).split(7):
        assert torch.equal(augment.erased(images[part], part, 3), whole[part])
    for epoch, seed in ((4, 7), (3, 8)):
        other = replace(augment, seed=seed).erased(images.clone(), torch.arange(40), epoch)
        assert (other != whole).flatten(1).any(1).sum() > 25


# --- how much, how often ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pad", "down", "right"), [(0.0, 0, 0), (0.2, 1, 1), (0.125, 1, 1), (0.43, 2, 3)])
def test_pad_is_the_greatest_move(pad: float, down: int, right: int) -> None:
    images = pixels(3000)
    moved = replace(OFF, pad=pad).move(images, torch.arange(3000), 0, 3000)
    counts: dict[tuple[int, int], int] = {}
    for image, result in zip(images, moved, strict=True):
        rows, columns = (result[0] > 0).any(1).nonzero(), (result[0] > 0).any(0).nonzero()
        d = int(rows[0]) if int(rows[0]) else int(rows[-1]) - 4
        r = int(columns[0]) if int(columns[0]) else int(columns[-1]) - 6
        assert torch.equal(result, slow_shift(image, d, r))
        counts[d, r] = counts.get((d, r), 0) + 1
    places = [(d, r) for d in range(-down, down + 1) for r in range(-right, right + 1)]
    assert sorted(counts) == places
    expected = 3000 / len(places)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())  # uniform


@pytest.mark.parametrize("flip", [0.0, 0.25, 1.0])
def test_flip_is_a_probability(flip: float) -> None:
    images = pixels(2000)
    seen = replace(OFF, flip=flip).move(images, torch.arange(2000), 0, 2000)
    flipped = (seen == images.flip(3)).flatten(1).all(1)
    assert torch.equal(seen[~flipped], images[~flipped])
    assert flipped.double().mean().item() == pytest.approx(flip, abs=0.05 if 0 < flip < 1 else 0)


@pytest.mark.parametrize(
    ("flip", "mirrors", "found"), [(None, True, 0.5), (None, False, 0.0), (0.3, False, 0.3), (0.0, True, 0.0)]
)
def test_images_are_mirrored_where_they_keep_their_meaning(flip: float | None, mirrors: bool, found: float) -> None:
    assert Augment.of(Recipe(model="x", flip=flip), mirrors=mirrors).flip == found


@pytest.mark.parametrize("crop", [0.1, 0.8])
def test_crop_is_the_smallest_area(crop: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    image, view = torch.stack([rows, columns]).to(torch.uint8), View(Preprocess(200, (0.5,), (0.5,)), crop, None, 0)
    areas, ratios = [], []
    for sample in range(300):
        seen = view(image, 0, sample).float()
        height, width = (seen[axis].max() - seen[axis].min() + 1 for axis in (0, 1))
        areas.append(float(height * width / 200**2))
        ratios.append(float(width / height))
    assert crop - 0.03 < min(areas) < crop + 0.1
    assert 0.9 < max(areas) <= 1.02
    assert 0.7 < min(ratios) < 0.85
    assert 1.2 < max(ratios) < 1.4


def test_crop_of_a_stripe_is_its_middle() -> None:
    stripe = torch.arange(200, dtype=torch.uint8).expand(1, 5, 200)  # no crop of an allowed ratio has a tenth of its area
    seen = View(Preprocess(10, (0.5,), (0.5,)), 0.9, None, 0)(stripe, 0, 0)
    assert (seen.min(), seen.max()) == (pytest.approx(97, abs=1), pytest.approx(103, abs=1))


@pytest.mark.parametrize("text", ["rand-m6-mstd0.5-inc1", "rand-m10-n3-inc1"])
def test_randaugment_never_fails_and_keeps_the_shape(text: str) -> None:
    view, image = View(PREPROCESS, None, text, 0), pixels(1, 3, 20, 20)[0]
    seen = [view(image, 0, sample) for sample in range(120)]
    assert {one.shape for one in seen} == {(3, 12, 12)}
    plain = PREPROCESS.fitted(image[None])[0]
    assert sum(not torch.equal(one, plain) for one in seen) > 60


@pytest.mark.parametrize("text", ["rand-x9", "nonsense", ""])
def test_randaugment_refuses_other_strings(text: str) -> None:
    with pytest.raises(ValueError, match=f"randaugment={text} is not a RandAugment string such as rand-m9"):
        View(PREPROCESS, None, text, 0)


@pytest.mark.parametrize("erase", [0.0, 0.25, 1.0])
def test_erasing_is_noise_in_a_rectangle(erase: float) -> None:
    images = torch.full((500, 1, 16, 16), 9.0)
    seen = replace(OFF, erase=erase).erased(images, torch.arange(500), 0)
    changed = (seen != 9.0).flatten(1).any(1)
    assert changed.double().mean().item() == pytest.approx(erase, abs=0.06 if 0 < erase < 1 else 0.02)
    areas = []
    for image in seen[changed]:
        rows, columns = (image[0] != 9.0).any(1).nonzero(), (image[0] != 9.0).any(0).nonzero()
        box = image[0, int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
        assert (box != 9.0).all()
        areas.append(box.numel() / 256)
    if erase:
        noise = seen[seen != 9.0]
        assert (noise.mean().item(), noise.std().item()) == (pytest.approx(0, abs=0.05), pytest.approx(1, abs=0.05))
        assert 0.01 < min(areas) < 0.05
        assert 0.28 < max(areas) < 0.37


# --- mixing -----------------------------------------------------------------------------------------------------------


def labelled(count: int = 4, side: int = 10) -> Batch:
    """Image n is full of 50 n."""
    labels = torch.arange(count)
    return Batch((50 * labels).byte().view(-1, 1, 1, 1).expand(-1, 1, side, side).clone(), labels)


def test_mixup_adds_the_reversed_batch() -> None:
    batch = labelled()
    mixed = replace(OFF, mixup=0.8).mixed(batch, 0, 0)
    assert 0 < mixed.share < 1
    assert mixed.partners is not None
    assert (mixed.labels.tolist(), mixed.partners.tolist()) == ([0, 1, 2, 3], [3, 2, 1, 0])
    expected = 50 * (mixed.share * mixed.labels + (1 - mixed.share) * mixed.partners)
    assert torch.equal(mixed.images, expected.round().byte().view(-1, 1, 1, 1).expand_as(mixed.images))
    assert torch.equal(batch.images, labelled().images)


def test_cutmix_pastes_the_reversed_batch() -> None:
    for step in range(30):
        mixed = replace(OFF, cutmix=1.0).mixed(labelled(), 0, step)
        assert mixed.partners is not None
        pasted = mixed.images[0, 0] == 150
        assert mixed.share == pytest.approx(1 - pasted.double().mean().item())
        rows, columns = pasted.any(1).nonzero(), pasted.any(0).nonzero()
        assert int(pasted.sum()) == len(rows) * len(columns)
        for image, own, other in zip(mixed.images[:, 0], mixed.labels, mixed.partners, strict=True):
            assert torch.equal(image, (50 * torch.where(pasted, other, own)).byte())


def test_mixing_is_drawn_per_step_and_takes_turns() -> None:
    augment = replace(OFF, mixup=0.8, cutmix=1.0)
    shares = [augment.mixed(labelled(), epoch, step).share for epoch in range(2) for step in range(100)]
    assert shares == [augment.mixed(labelled(), epoch, step).share for epoch in range(2) for step in range(100)]
    assert len(set(shares)) > 100
    cut = [len(augment.mixed(labelled(), 0, step).images[0].unique()) > 1 for step in range(200)]
    assert 0.3 < np.mean(cut) < 0.6  # a cut of nothing cannot be told
    assert OFF.mixed(batch := labelled(), 0, 0) is batch


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_draws_from_beta(alpha: float) -> None:
    shares = np.array([replace(OFF, mixup=alpha).mixed(labelled(2, 1), 0, step).share for step in range(2000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.04)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)


def test_cutmix_cuts_boxes_of_timms_sizes() -> None:
    from timm.data.mixup import rand_bbox

    ours, theirs = [], []
    for step in range(3000):
        mixed = replace(OFF, cutmix=1.0).mixed(labelled(2, side=7), 0, step)
        ours.append(1 - mixed.share)
        top, bottom, left, right = rand_bbox((7, 7), np.random.default_rng(step).beta(1, 1))
        theirs.append((bottom - top) * (right - left) / 49)
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.02)
    assert np.mean(np.array(ours) == 0) == pytest.approx(np.mean(np.array(theirs) == 0), abs=0.015)
