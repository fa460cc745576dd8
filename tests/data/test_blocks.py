"""The order of images in shards: every one once, near each other, mixed as well as is said."""

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaformer.data.blocks import Shards, blocks_of, first_blocks, in_window
from metaformer.data.dataset import Taken


class Numbers:
    """A shard that says what is asked of it."""

    def __init__(self, first: int, count: int, *, near: bool) -> None:
        self.first, self.count, self.near = first, count, near

    def __len__(self) -> int:
        return self.count

    def read(self, i: int) -> bytes:
        assert 0 <= i < self.count
        return str(self.first + i).encode()


def shards(*counts: int, near: bool = False) -> Shards:
    return Shards([Numbers(sum(counts[:i]), count, near=near) for i, count in enumerate(counts)])


def test_images_are_found_in_their_shards() -> None:
    items = shards(3, 0, 4, 1)
    assert [items[i] for i in range(8)] == [str(i).encode() for i in range(8)]
    assert list(items) == [items[i] for i in range(8)]
    assert list(items[2:8:3]) == [b"2", b"5"]
    assert pickle.loads(pickle.dumps(items))[7] == b"7"
    found = blocks_of(Taken(items, [7, 0, 3]))
    assert found is not None
    assert found[0].tolist() == [3, 0, 2]
    assert blocks_of([Path("a.png")]) is None


def order(blocks: torch.Tensor, window: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return in_window(torch.randperm(len(blocks), generator=draw), blocks, window, draw)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 40), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_every_image_comes_once_and_at_most_a_window_late(counts: list[int], window: int, seed: int) -> None:
    blocks = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    found = order(blocks, window, seed)
    assert sorted(found.tolist()) == list(range(sum(counts)))
    came = blocks[found].tolist()
    spans = [len(came) - came[::-1].index(block) - came.index(block) for block in range(len(counts))]
    assert all(span <= count + 2 * window for span, count in zip(spans, counts, strict=True))


def test_a_window_of_one_reads_block_after_block_and_a_large_one_mixes_all() -> None:
    blocks = torch.arange(50).repeat_interleave(40)
    assert len(blocks[order(blocks, 1)].unique_consecutive()) == 50
    assert order(blocks, 1).tolist() != sorted(order(blocks, 1).tolist())  # blocks and the images in them are shuffled
    assert same_block(blocks, order(blocks, 100_000)) == pytest.approx(1 / 50, abs=0.01)


def same_block(blocks: torch.Tensor, found: torch.Tensor) -> float:
    """How often two neighbours come from one block; the edges, where it is more often, are left out."""
    came = blocks[found]
    return (came[1:] == came[:-1])[len(came) // 4 : -len(came) // 4].double().mean().item()


def test_the_quality_that_docs_state() -> None:
    blocks = torch.arange(100).repeat_interleave(1000)
    for window, least, most in ((2_000, 0.40, 0.44), (20_000, 0.045, 0.053)):
        found = order(blocks, window)
        assert least < same_block(blocks, found) < most  # 1/W × (1,000 − 1,000²/3W), where the window W holds the block
        batches = blocks[found].view(-1, 100)[200:800]
        kinds = sum(len(batch.unique()) for batch in batches) / len(batches)
        assert kinds == pytest.approx({2_000: 3.0, 20_000: 21.0}[window], rel=0.1)


def test_some_blocks_are_chosen_until_there_are_enough() -> None:
    blocks = torch.arange(10).repeat_interleave(10)
    counts = torch.arange(100) % 2 == 0
    taken = first_blocks(blocks, counts, 12)
    assert taken.sum() == 30
    assert len(blocks[taken].unique()) == 3
    assert first_blocks(blocks, counts, 1000).all()
