"""Batches, and random numbers that follow from a key."""

import subprocess
import sys
from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaformer.data.batch import Batch, generator, number

# --- what is random follows from a key --------------------------------------------------------------------------------


def test_numbers_depend_on_every_part_of_their_key() -> None:
    keys = [(0, 1, "a"), (1, 0, "a"), (0, 1, "b"), (0, 1), (1, 1, "a"), (0, 11, "a"), (2**62, 1, "a")]
    assert len({number(*key) for key in keys}) == len(keys)
    assert all(0 <= number(*key) < 2**63 for key in keys)
    assert len({torch.rand(1, generator=generator(*key)).item() for key in keys}) == len(keys)


def test_numbers_do_not_depend_on_the_process() -> None:
    code = "from metaformer.data.batch import generator, number; import torch; "
    code += "print(number(5, 'view'), torch.randperm(9, generator=generator(5, 2, 'order')).tolist())"
    environment = {"PYTHONHASHSEED": "321", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    torch.manual_seed(1234)
    assert done.stdout.strip() == f"{number(5, 'view')} {torch.randperm(9, generator=generator(5, 2, 'order')).tolist()}"


# --- batches ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(1, 30), st.booleans())
@settings(max_examples=60, deadline=None)
def test_parts_are_the_batch_cut(size: int, count: int, mixed: bool) -> None:
    labels = torch.arange(size)
    batch = Batch(labels.float().view(-1, 1, 1, 1), labels, labels.flip(0) if mixed else None, 0.25 if mixed else 1.0)
    parts = batch.parts(count)
    assert torch.equal(torch.cat([part.labels for part in parts]), labels)
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    assert {part.share for part in parts} == {batch.share}
    partners = [part.partners for part in parts]
    assert torch.equal(torch.cat(partners), labels.flip(0)) if mixed else partners == [None] * len(parts)
    sizes = [len(part.labels) for part in parts]
    assert len(parts) <= count
    assert min(sizes) > 0
    assert all(one == other for one, other in pairwise(sizes[:-1]))
    assert max(sizes) == -(-size // count)
