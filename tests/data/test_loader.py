"""Batches of an epoch: every sample once, in an order of its own, from any step on, by any number of workers."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metaformer.data.augment import Augment, View
from metaformer.data.batch import Batch
from metaformer.data.loader import Loader, default_workers, draw_balanced
from metaformer.data.preprocess import Preprocess
from metaformer.data.sources import open_data
from metaformer.data.splits import Encoded, Images

CPU = torch.device("cpu")
PREPROCESS = Preprocess(8, (0.5,), (0.5,))
AUGMENT = Augment(pad=0.2, flip=0.3, erase=0.3, mixup=0.2, cutmix=0.5, seed=1)
VIEW = View(PREPROCESS, 0.4, "rand-m6-mstd0.5-inc1", 1)


@pytest.fixture(scope="module")
def train() -> Images:
    data = open_data("digits")
    return Images(data.train.pixels[:70], data.train.labels[:70])


def equal(one: list[Batch], other: list[Batch]) -> bool:
    """Whether two lists of batches are equal to the bit."""
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.share == b.share
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("batch", [1, 20, 70, 1000])
def test_judging_sees_all_in_order(train: Images, batch: int) -> None:
    loader = Loader(train, batch, PREPROCESS, CPU)
    seen = list(loader.epoch())
    assert len(seen) == len(loader) == -(-70 // batch)
    assert torch.equal(torch.cat([part.labels for part in seen]), train.labels)
    assert torch.equal(torch.cat([part.images for part in seen]), PREPROCESS(train.pixels))
    assert equal(seen, list(loader.epoch(5)))


def numbers(loader: Loader, epoch: int, start: int = 0) -> list[int]:
    return [round(image[0, 0, 0].item()) for batch in loader.epoch(epoch, start) for image in batch.images]


def test_training_sees_all_once_in_an_order_per_seed_and_epoch() -> None:
    named = Images(torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1), torch.zeros(100, dtype=torch.long))
    as_is = Preprocess(1, (0.0,), (1 / 255,))
    orders = []
    for seed in (0, 1):
        augment = Augment(pad=0.0, flip=0.0, erase=0.0, mixup=0.0, cutmix=0.0, seed=seed)
        loader = Loader(named, 32, as_is, CPU, augment=augment)
        orders += [tuple(numbers(loader, epoch)) for epoch in (0, 1)]
        assert tuple(numbers(loader, 0)) == orders[-2]
        assert tuple(numbers(loader, 1, 2)) == orders[-1][64:]
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(100)) for order in orders)


@pytest.mark.parametrize("view", [None, VIEW], ids=["whole images", "views"])
@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_an_epoch_goes_on_where_it_stopped(train: Images, view: View | None, start: int) -> None:
    loader = Loader(train, 20, PREPROCESS, CPU, view=view, augment=AUGMENT)
    whole = list(loader.epoch(2))
    assert [len(batch.labels) for batch in whole] == [20, 20, 20, 10]
    assert equal(list(loader.epoch(2, start)), whole[start:])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # workers are forked from a process with threads
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")  # of one core
def test_workers_change_nothing(train: Images) -> None:
    alone = Loader(train, 20, PREPROCESS, CPU, view=VIEW, augment=AUGMENT)
    helped = Loader(train, 20, PREPROCESS, CPU, view=VIEW, augment=AUGMENT, workers=2)
    for epoch in (0, 1):
        assert equal(list(helped.epoch(epoch, 1)), list(alone.epoch(epoch, 1)))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_files_are_read_and_a_damaged_one_is_named(tmp_path: Path, train: Images, workers: int) -> None:
    files = [tmp_path / f"{i}.png" for i in range(6)]
    for file, pixels in zip(files, train.pixels, strict=False):
        Image.fromarray(pixels[0].numpy()).save(file)
    split = Encoded(files, train.labels[:6], 1)
    (batch,) = Loader(split, 6, PREPROCESS, CPU, workers=workers).epoch()
    assert torch.equal(batch.images, PREPROCESS(train.pixels[:6]))
    files[4].write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"4\.png: not an image"):
        list(Loader(split, 3, PREPROCESS, CPU, workers=workers).epoch())


@pytest.mark.parametrize("batch", [50, 1])
def test_learning_goes_on_past_what_turns_out_damaged(tmp_path: Path, batch: int) -> None:
    good, bad = BytesIO(), tmp_path / "bad.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(good, "png")
    items: list[Path | bytes] = [good.getvalue()] * 150
    items[7] = bad
    split = Encoded(items, torch.arange(150), 1)
    loader = Loader(split, batch, PREPROCESS, CPU, augment=AUGMENT)
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader)
    assert sorted(torch.cat([part.labels for part in batches]).tolist()) == [i for i in range(150) if i != 7]
    assert all(len(part.images) == len(part.labels) for part in batches)
    assert loader.damaged == {7: f"{bad}: no such file"}
    items[8] = b"no image"  # now more than 1 %
    with pytest.raises(ValueError, match="2 of 150 images cannot be read; the last: "):
        list(loader.epoch(1))


# --- every class equally often ----------------------------------------------------------------------------------------

LABELS = torch.tensor([0] * 60 + [2] * 9 + [5])  # rare and absent classes
PLAIN = Augment(pad=0.0, flip=0.0, erase=0.0, mixup=0.0, cutmix=0.0, seed=1)


def test_balanced_draws_every_class_equally_often_or_once_more() -> None:
    more: set[int] = set()
    for seed in range(20):
        drawn = draw_balanced(LABELS, torch.Generator().manual_seed(seed))
        counts = LABELS[drawn].bincount()[[0, 2, 5]]
        assert len(drawn) == 70
        assert sorted(counts.tolist()) == [23, 23, 24]
        more.add(int(counts.argmax()))
    assert more == {0, 1, 2}  # each has its turn to be the one


def test_balanced_draws_within_a_class_are_even_and_in_no_order() -> None:
    epochs = [draw_balanced(LABELS, torch.Generator().manual_seed(seed)) for seed in range(400)]
    drawn = torch.cat(epochs).bincount(minlength=70).double()
    assert drawn[60:69].div(400 * 70 / 3 / 9).sub(1).abs().max() < 0.1  # 1,037 each; sixteen sigma would be 0.5
    assert drawn[:60].min() > 0
    assert drawn[69] == pytest.approx(400 * 70 / 3, rel=0.01)
    first = torch.stack([LABELS[epoch[:23]] for epoch in epochs]).flatten()
    assert first.bincount()[[0, 2, 5]].double().div(len(first)).sub(1 / 3).abs().max() < 0.03  # not one class after the other


@pytest.mark.parametrize("view", [None, VIEW], ids=["whole images", "views"])
def test_a_balanced_epoch_has_its_own_draws_and_goes_on_where_it_stopped(train: Images, view: View | None) -> None:
    split = Images(train.pixels, LABELS)
    loader = Loader(split, 20, PREPROCESS, CPU, view=view, augment=AUGMENT, balanced=True)
    epochs = [list(loader.epoch(epoch)) for epoch in (0, 1)]
    assert len(loader) == len(epochs[0]) == 4
    for batches in epochs:
        counts = torch.cat([batch.labels for batch in batches]).bincount()[[0, 2, 5]]
        assert sorted(counts.tolist()) == [23, 23, 24]
    assert not torch.equal(*(batches[0].labels for batches in epochs))
    for start in (1, 3):
        assert equal(list(loader.epoch(1, start)), epochs[1][start:])
    other = Loader(split, 20, PREPROCESS, CPU, view=view, augment=Augment(0.2, 0.3, 0.3, 0.2, 0.5, seed=2), balanced=True)
    assert not torch.equal(next(iter(other.epoch(0))).labels, epochs[0][0].labels)


@pytest.mark.parametrize(
    ("view", "augment"),
    [(VIEW, PLAIN), (None, Augment(0.3, 0.5, 0.0, 0.0, 0.0, seed=1)), (None, Augment(0.0, 0.0, 1.0, 0.0, 0.0, seed=1))],
    ids=["views", "moves", "erasing"],
)
def test_an_image_that_is_drawn_again_looks_different(train: Images, view: View | None, augment: Augment) -> None:
    (batch,) = Loader(Images(train.pixels, LABELS), 70, PREPROCESS, CPU, view=view, augment=augment, balanced=True).epoch()
    assert batch.samples is not None
    same = batch.images[batch.samples == 69]
    assert len(same) in (23, 24)
    assert len(same.flatten(1).unique(dim=0)) > 12


def test_balanced_labels_are_those_of_the_images() -> None:
    named = Images(torch.arange(70, dtype=torch.uint8).view(-1, 1, 1, 1), LABELS)
    for batch in Loader(named, 32, Preprocess(1, (0.0,), (1 / 255,)), CPU, augment=PLAIN, balanced=True).epoch():
        assert batch.samples is not None
        assert torch.equal(batch.images.flatten().round().long(), batch.samples)
        assert torch.equal(batch.labels, LABELS[batch.samples])


def test_workers_are_for_what_costs_time(train: Images) -> None:
    assert default_workers(train, None, CPU) == 0
    assert default_workers(train, VIEW, CPU) >= 1
    assert default_workers(Encoded([], torch.zeros(0), 1), None, CPU) >= 1


def test_what_is_erased_is_not_mixed() -> None:
    black = Images(torch.zeros(64, 1, 16, 16, dtype=torch.uint8), torch.zeros(64, dtype=torch.long))
    augment = Augment(pad=0.0, flip=0.0, erase=1.0, mixup=8.0, cutmix=0.0, seed=0)
    batch = next(iter(Loader(black, 64, Preprocess(16, (0.0,), (1.0,)), CPU, augment=augment).epoch()))
    assert 0.2 < batch.share < 0.8
    assert batch.images[batch.images != 0].std().item() == pytest.approx(1, abs=0.05)
