"""Batches of scenes: every image once, in an order of its own, from any step on, by any number of workers and ranks."""

from pathlib import Path

import pytest
import torch
from tests.painted import Painted, paint, several, write_coco, write_masks

from metaformer.core.ranks import Ranks
from metaformer.data.dense import DenseData, open_dense
from metaformer.data.dense_loader import DenseBatch, DenseLoader
from metaformer.data.dense_views import Crop, DenseView, Distort, Flip, Jitter, Mosaic, ShortSide
from metaformer.data.packed import pack
from metaformer.data.truth import Objects

CPU = torch.device("cpu")
VIEW = DenseView((Mosaic(64, 0.5), ShortSide((32, 96), 120), Flip(), Distort()), seed=1)
SQUARES = DenseView((Jitter(48), Crop(40), Flip()), seed=1)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> DenseData:
    """With masks; one image is without objects, and sizes are two."""
    images: list[Painted] = [*several(12), paint(12, (80, 60), ()), *(paint(i, (60, 90)) for i in range(13, 17))]
    return open_dense(write_coco(tmp_path_factory.mktemp("objects"), images), regions=False, masks=True)


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> DenseData:
    return open_dense(write_masks(tmp_path_factory.mktemp("regions"), several(16)), regions=True)


def flat(batch: DenseBatch) -> list[torch.Tensor]:
    """All tensors of a batch."""
    images, truths = batch
    found = list(images)
    for truth in truths:
        if isinstance(truth, Objects):
            assert truth.masks is not None
            found += [truth.boxes, truth.labels, truth.masks, truth.crowd, truth.areas, torch.tensor(truth.image_id)]
        else:
            found.append(truth)
    assert batch.samples is not None
    return [*found, batch.samples]


def equal(one: list[DenseBatch], other: list[DenseBatch]) -> bool:
    """Whether two lists of batches are equal to the bit."""
    return len(one) == len(other) and all(
        len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(flat(a), flat(b), strict=True))
        for a, b in zip(one, other, strict=True)
    )


def test_judging_sees_all_in_order_as_they_are(objects: DenseData) -> None:
    loader = DenseLoader(objects.train, 4, DenseView(), CPU)
    seen = list(loader.epoch())
    count = len(objects.train)
    assert len(loader) == len(seen) == -(-count // 4)
    assert torch.cat([batch.samples for batch in seen]).tolist() == list(range(count))
    images = [image for batch in seen for image in batch.images]
    truths = [truth for batch in seen for truth in batch.truths]
    for i in range(count):
        scene = objects.train.scene(i)
        assert isinstance(scene.truth, Objects)
        assert torch.equal(images[i], scene.image)
        assert torch.equal(truths[i].boxes, scene.truth.boxes)
        assert truths[i].image_id == scene.truth.image_id
    assert equal(seen, list(loader.epoch(3)))


def test_equal_sizes_make_one_tensor_and_others_a_list(objects: DenseData, regions: DenseData) -> None:
    sizes = [tuple(batch.images.shape) if isinstance(batch.images, torch.Tensor) else None
             for batch in DenseLoader(objects.train, 2, DenseView(), CPU).epoch()]  # fmt: skip
    assert None in sizes
    assert (2, 3, 72, 96) in sizes
    batch = next(DenseLoader(regions.train, 5, SQUARES, CPU, shuffled=True).epoch())
    assert isinstance(batch.images, torch.Tensor)
    assert isinstance(batch.truths, torch.Tensor)
    assert (batch.images.shape, batch.truths.shape) == ((5, 3, 40, 40), (5, 40, 40))
    assert batch.images.dtype == batch.truths.dtype == torch.uint8


@pytest.mark.parametrize("kind", ["objects", "regions"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # workers are forked from a process with threads
def test_an_epoch_follows_from_its_number_and_goes_on_where_it_stopped(kind: str, request: pytest.FixtureRequest) -> None:
    scenes = request.getfixturevalue(kind).train
    view = VIEW if kind == "objects" else SQUARES
    loader = DenseLoader(scenes, 4, view, CPU, shuffled=True)
    epochs = [list(loader.epoch(epoch)) for epoch in (0, 1)]
    for epoch in epochs:
        assert sorted(torch.cat([batch.samples for batch in epoch]).tolist()) == list(range(len(scenes)))
    assert not equal(*epochs)
    assert equal(list(loader.epoch(1, 2)), epochs[1][2:])
    helped = DenseLoader(scenes, 4, view, CPU, shuffled=True, workers=1)
    assert equal(list(helped.epoch(1, 1)), epochs[1][1:])
    assert equal(list(helped.epoch(0)), epochs[0])
    other = DenseLoader(scenes, 4, DenseView(view.steps, seed=2), CPU, shuffled=True)
    assert not equal(list(other.epoch(0)), epochs[0])


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("batch", [4, 5, 1])
def test_ranks_share_every_batch(objects: DenseData, count: int, batch: int) -> None:
    alone = list(DenseLoader(objects.train, batch, VIEW, CPU, shuffled=True).epoch(2))
    shared = [
        list(DenseLoader(objects.train, batch, VIEW, CPU, shuffled=True, ranks=Ranks(rank, count), accumulate=2).epoch(2))
        for rank in range(count)
    ]
    for whole, *parts in zip(alone, *shared, strict=True):
        one = {int(sample): image for sample, image in zip(whole.samples, whole.images, strict=True)}
        own = [{int(s): image for s, image in zip(part.samples, part.images, strict=True)} for part in parts]
        assert sorted(sample for some in own for sample in some) == sorted(one)
        assert all(torch.equal(image, one[sample]) for some in own for sample, image in some.items())
        micro = [part.parts(2) for part in parts]
        assert len({len(cut) for cut in micro}) == 1
        for i, pieces in enumerate(zip(*micro, strict=True)):
            assert sum(map(len, pieces)) == len(whole.parts(2)[i])
    judged = [
        list(DenseLoader(objects.train, batch, DenseView(), CPU, ranks=Ranks(rank, count)).epoch()) for rank in range(count)
    ]
    plain = list(DenseLoader(objects.train, batch, DenseView(), CPU).epoch())
    assert all(equal(part, plain[rank::count]) for rank, part in enumerate(judged))


def test_micro_batches_are_the_batch(objects: DenseData) -> None:
    (batch,) = DenseLoader(objects.train, 100, VIEW, CPU, shuffled=True).epoch()
    for count in (1, 2, 3, 5, 100):
        parts = batch.parts(count)
        assert len(parts) <= count
        assert [int(s) for part in parts for s in part.samples] == batch.samples.tolist()
        assert [truth.image_id for part in parts for truth in part.truths] == [truth.image_id for truth in batch.truths]
    assert DenseBatch([], []).parts(2) == []


def test_learning_goes_on_past_what_turns_out_damaged(tmp_path: Path) -> None:
    data = open_dense(write_coco(tmp_path, several(130, (40, 32))), regions=False)
    loader = DenseLoader(data.train, 8, DenseView(), CPU, shuffled=True)
    Path(data.train.name(5)).write_bytes(b"no image")
    seen = torch.cat([batch.samples for batch in loader.epoch()]).tolist()
    assert sorted(seen) == [i for i in range(len(data.train)) if i != 5]
    assert list(loader.damaged) == [5]
    Path(data.train.name(6)).unlink()
    with pytest.raises(ValueError, match=r"2 of 104 images cannot be read; the last: .*png: no such file"):
        list(loader.epoch(1))
    with pytest.raises(ValueError, match=r"2 of 104 images cannot be read; the last: .*a\d+\.png: not an image"):
        list(DenseLoader(data.train, 8, DenseView(), CPU).epoch())


def test_what_a_mosaic_cannot_read_is_told_by_its_own_name(tmp_path: Path) -> None:
    data = open_dense(write_coco(tmp_path, several(130, (40, 32))), regions=False)
    loader = DenseLoader(data.train, 8, DenseView((Mosaic(32),)), CPU, shuffled=True)
    Path(data.train.name(5)).write_bytes(b"no image")
    for epoch in range(2):
        seen = [int(sample) for batch in loader.epoch(epoch) if batch.samples is not None for sample in batch.samples]
        assert sorted(seen) == [i for i in range(len(data.train)) if i != 5]
    assert list(loader.damaged) == [5]


def test_a_gpu_reads_batches_from_pinned_memory(objects: DenseData, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pixels of a batch are one tensor, and what they are taken apart into lies in it."""
    asked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: asked.append(tensor) or tensor.clone())
    sent = pack([objects.train.scene(0), objects.train.scene(1)])
    pinned = sent.pin_memory()
    assert [tensor is sent.pixels for tensor in asked] == [True]
    start, length = pinned.pixels.data_ptr(), pinned.pixels.numel()
    for one, same in zip(pinned.scenes(), sent.scenes(), strict=True):
        assert torch.equal(one.image, same.image)
        assert 0 <= one.image.data_ptr() - start < length
    kinds = [DenseLoader(objects.train, 4, DenseView(), torch.device(kind)).loader.pin_memory for kind in ("cpu", "cuda")]
    assert kinds == [False, True]
