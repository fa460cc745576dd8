"""Every image of a batch is somebody's, and nobody has much more than others."""

from io import BytesIO
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from metaformer.core.ranks import Ranks
from metaformer.data.augment import Augment
from metaformer.data.batch import Batch
from metaformer.data.loader import Loader
from metaformer.data.preprocess import Preprocess
from metaformer.data.share import cuts, places
from metaformer.data.splits import Encoded, Images


@given(st.integers(1, 70), st.integers(1, 9), st.booleans(), st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_places_are_shared_out(batch: int, count: int, pairs: bool, parts: int) -> None:
    shares = [places(batch, Ranks(rank, count), pairs=pairs) for rank in range(count)]
    assert sorted(place for share in shares for place in share) == list(range(batch))
    assert all(share == sorted(share) for share in shares)
    assert max(map(len, shares)) - min(map(len, shares)) <= (2 if pairs else 1)
    if pairs:
        assert all(batch - 1 - place in share for share in shares for place in share)
    whole = [len(part.labels) for part in Batch(torch.empty(batch), torch.empty(batch)).parts(parts)]
    each = [cuts(batch, share, parts) for share in shares]
    assert [sum(sizes) for sizes in zip(*each, strict=True)] == whole
    if not pairs:
        assert all(max(sizes) - min(sizes) <= 1 for sizes in zip(*each, strict=True))


@pytest.mark.parametrize("mixup", [0.0, 0.8])
@pytest.mark.parametrize(("count", "parts"), [(2, 1), (3, 1), (2, 2), (3, 2), (5, 3)])
def test_ranks_together_are_fed_what_one_is(mixup: float, count: int, parts: int) -> None:
    split = Images(torch.randint(0, 256, (45, 1, 6, 6), dtype=torch.uint8), torch.arange(45))
    augment = Augment(pad=0.2, flip=0.3, erase=0.3, mixup=mixup, cutmix=mixup, seed=1)

    def fed(ranks: Ranks) -> list[list[Batch]]:
        loader = Loader(
            split, 11, Preprocess(6, (0.5,), (0.5,)), torch.device("cpu"), augment=augment, ranks=ranks, accumulate=parts
        )
        assert len(loader) == 5
        return [batch.parts(parts) for batch in loader.epoch(2, 1)]  # of 11 images, and at last of one

    alone, shared = fed(Ranks()), [fed(Ranks(rank, count)) for rank in range(count)]
    for step, whole in enumerate(alone):
        for part, expected in enumerate(whole):
            found = [steps[step][part] for steps in shared]
            labels = torch.cat([batch.labels for batch in found])
            order = labels.argsort(stable=True)
            own = expected.labels.argsort(stable=True)
            assert torch.equal(labels[order], expected.labels[own])
            assert torch.equal(torch.cat([batch.images for batch in found])[order], expected.images[own])
            if expected.partners is not None:
                partners = torch.cat([batch.partners for batch in found if batch.partners is not None])
                assert torch.equal(partners[order], expected.partners[own])
                assert {batch.share for batch in found if len(batch.labels)} == {expected.share}
        assert {len(steps[step]) for steps in shared} == {len(whole)}


def test_what_is_damaged_is_missing_from_its_own_part() -> None:
    file = BytesIO()
    Image.new("L", (4, 4)).save(file, "png")
    items: list[Path | bytes] = [file.getvalue()] * 400
    augment = Augment(pad=0.0, flip=0.0, erase=0.0, mixup=0.0, cutmix=0.0, seed=0)
    loader = Loader(
        Encoded(items, torch.zeros(400, dtype=torch.long), 1), 8, Preprocess(4, (0.5,), (0.5,)), torch.device("cpu"),
        augment=augment, ranks=Ranks(0, 2), accumulate=2,
    )  # fmt: skip
    first = next(iter(loader.epoch()))
    assert first.samples is not None
    items[int(first.samples[1])] = b"no image"
    again = next(iter(loader.epoch()))
    assert (first.cuts, again.cuts) == ((2, 2), (1, 2))
