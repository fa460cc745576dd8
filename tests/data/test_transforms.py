"""What a model is fed: preprocessing, augmentation and order, each by value."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metaformer.config import Recipe
from metaformer.data.sources import open_data
from metaformer.data.transforms import Augment, Batch, Preprocess, batches, generator, preprocess_for, shift, shuffled

CPU = torch.device("cpu")


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


# --- augmentation -----------------------------------------------------------------------------------------------------


def test_augment_follows_from_seed_epoch_and_sample_alone() -> None:
    images, augment = pixels(40), Augment(flip=0.5, pad=0.3, seed=7)
    whole = augment(images, torch.arange(40), 3, 40)
    order = torch.randperm(40, generator=generator(1))
    for part in order.split(7):
        assert torch.equal(augment(images[part], part, 3, 40), whole[part])
    assert torch.equal(augment(images[[5, 5]], torch.tensor([5, 5]), 3, 40), whole[[5, 5]])
    for other in (augment(images, torch.arange(40), 4, 40), Augment(0.5, 0.3, 8)(images, torch.arange(40), 3, 40)):
        differs = (other != whole).flatten(1).any(1)
        assert differs.sum() > 25


@pytest.mark.parametrize(("pad", "down", "right"), [(0.0, 0, 0), (0.2, 1, 1), (0.125, 1, 1), (0.43, 2, 3)])
def test_pad_is_the_greatest_move(pad: float, down: int, right: int) -> None:
    images = pixels(3000)
    moved = Augment(0.0, pad, 0)(images, torch.arange(3000), 0, 3000)
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
    seen = Augment(flip, 0.0, 0)(images, torch.arange(2000), 0, 2000)
    flipped = (seen == images.flip(3)).flatten(1).all(1)
    assert torch.equal(seen[~flipped], images[~flipped])
    assert flipped.double().mean().item() == pytest.approx(flip, abs=0.05 if 0 < flip < 1 else 0)


# --- preprocessing ----------------------------------------------------------------------------------------------------


def test_preprocess_normalises_the_training_set() -> None:
    data = open_data("digits")
    preprocess = preprocess_for(data, Recipe(model="x", image_size=8))
    seen = preprocess(data.train.read(torch.arange(len(data.train)))[0])
    assert seen.shape == (1437, 1, 8, 8)
    assert seen.double().mean().item() == pytest.approx(0, abs=1e-4)
    assert seen.double().std().item() == pytest.approx(1, abs=1e-4)


def test_preprocess_by_value() -> None:
    preprocess = Preprocess(2, (0.5, 0.2, 0.0), (0.25, 0.1, 1.0))
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert preprocess(image)[0, :, 0, 0].tolist() == pytest.approx([-2, 0, 1])
    assert Preprocess.from_dict(preprocess.to_dict()) == preprocess


def test_preprocess_resizes_smoothly() -> None:
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 1, 16, 8)
    seen = Preprocess(4, (0.0,), (1.0,))(stripes)
    assert seen.shape == (1, 1, 4, 4)
    assert (seen - 0.5).abs().max() < 0.1  # without antialiasing, stripes would stay


@pytest.mark.parametrize(("size", "expected"), [(None, 32), (16, 16)])
def test_size_is_the_recipe_s_or_the_data_s(size: int | None, expected: int) -> None:
    assert preprocess_for(open_data("digits"), Recipe(model="x", image_size=size)).size == expected


# --- order and batches ------------------------------------------------------------------------------------------------


def test_order_is_a_permutation_of_its_own_per_seed_and_epoch() -> None:
    orders = [shuffled(100, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order.tolist()) == list(range(100)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4
    torch.manual_seed(1234)
    assert torch.equal(shuffled(100, 0, 0), orders[0])


def test_order_does_not_depend_on_the_process() -> None:
    code = "from metaformer.data.transforms import shuffled; print(shuffled(9, 5, 2).tolist())"
    environment = {"PYTHONHASHSEED": "321", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(shuffled(9, 5, 2).tolist())


def test_generator_depends_on_every_part_of_its_key() -> None:
    keys = [(0, 1, "a"), (1, 0, "a"), (0, 1, "b"), (0, 1), (1, 1, "a"), (0, 11, "a"), (2**62, 1, "a")]
    assert len({torch.rand(1, generator=generator(*key)).item() for key in keys}) == len(keys)


@given(st.integers(1, 20), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_parts_are_the_batch_cut(size: int, count: int) -> None:
    batch = Batch(torch.arange(size).float().view(size, 1, 1, 1), torch.arange(size))
    parts = batch.parts(count)
    assert torch.cat([part.labels for part in parts]).tolist() == list(range(size))
    assert all(torch.equal(part.images.flatten(), part.labels.float()) for part in parts)
    assert len(parts) <= count
    sizes = [len(part.labels) for part in parts]
    assert min(sizes) > 0
    assert all(one == other for one, other in pairwise(sizes[:-1]))
    assert max(sizes) == -(-size // count)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_batches_go_on_where_they_stopped(start: int) -> None:
    train = open_data("digits").train
    order, augment = shuffled(70, 0, 0), Augment(0.0, 0.2, 0)
    preprocess = Preprocess(8, (0.0,), (1.0,))
    whole = list(batches(train, order, 20, preprocess, CPU, augment=augment))
    rest = list(batches(train, order, 20, preprocess, CPU, augment=augment, start=start))
    assert [len(batch.labels) for batch in whole] == [20, 20, 20, 10]
    assert len(rest) == 4 - start
    for one, other in zip(whole[start:], rest, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    raw, labels = train.read(order[20:40])
    assert torch.equal(whole[1].labels, labels)
    assert torch.equal(whole[1].images, preprocess(augment(raw, order[20:40], 0, len(train))))
