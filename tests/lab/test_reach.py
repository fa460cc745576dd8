"""The effective receptive field, by value where algebra tells it."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.mixers import Attention, Identity, Pooling
from metaformer.core.model import MetaFormer
from metaformer.lab.reach import Reach, fields, fullest, reach, reach_of_blocks


def boxed(times: int) -> Tensor:
    """A box of three convolved with itself: what so many poolings of window 3 take of each place, in one direction."""
    row = torch.ones(1, dtype=torch.double)
    for _ in range(times):
        row = nn.functional.conv1d(row.view(1, 1, -1), torch.full((1, 1, 3), 1 / 3).double(), padding=2).flatten()
    return row


@pytest.mark.parametrize("times", [1, 2, 4])
def test_a_stack_of_poolings_is_what_the_algebra_says(times: int) -> None:
    stack = nn.Sequential(*[nn.AvgPool2d(3, 1, 1, count_include_pad=False) for _ in range(times)])
    (field,) = fields(lambda x: [stack(x)], torch.randn(3, 5, 15, 15))
    expected = torch.zeros(15, 15, dtype=torch.double)
    row = boxed(times)
    expected[7 - times : 8 + times, 7 - times : 8 + times] = row[:, None] * row
    assert torch.allclose(field, expected, atol=1e-6)


def bare(depth: int, mixer: Pooling | Identity) -> MetaFormer:
    """A stage of such blocks with nothing in them but the mixer and its shortcut."""
    return MetaFormer(
        MetaFormerConfig(
            depths=(depth,),
            dims=(4,),
            mixers=mixer,
            norm="NoNorm()",
            mlp_ratio=0,
            scales="Scale()",
            num_classes=0,
            stem_stride=1,
        )
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_each_pooling_block_reaches_two_places_further(depth: int) -> None:
    """x + pool(x) − x is pool(x): so many blocks alone reach as so many poolings do, of the identity nothing else."""
    images = torch.randn(2, 3, 11, 11)
    (found,) = reach_of_blocks(bare(depth, Pooling()), images)
    row, inside = boxed(depth), slice(5 - depth, 6 + depth)
    assert torch.allclose(found.field[inside, inside], row[:, None] * row, atol=1e-6)
    assert found.side(1.0) == 1 + 2 * depth
    (alone,) = reach_of_blocks(bare(depth, Identity()), images)
    assert alone.side(1.0) == 1


def test_images_are_averaged_over_though_some_at_a_time() -> None:
    """The first half of ten images pass on the centre, the others the place to its right: both are seen, as the numbers
    drawn for them have it, and nothing else."""

    def turned(x: Tensor) -> Sequence[Tensor]:
        return [torch.where(x[:, :, :1, :1] > 0, x, x.roll(-1, 3))]

    images = torch.ones(10, 1, 3, 3)
    images[5:] = -1
    (field,) = fields(turned, images)
    drawn = torch.cat([torch.randn(n, 1, generator=draw) for draw in [torch.Generator().manual_seed(0)] for n in (4, 4, 2)])
    sizes = drawn.flatten().abs().double()
    expected = torch.stack([torch.tensor(0.0).double(), sizes[:5].sum(), sizes[5:].sum()]) / sizes.sum()
    assert torch.allclose(field[1], expected)
    assert field[[0, 2]].abs().max() == 0


def test_attention_reaches_everything_and_pooling_does_not() -> None:
    torch.manual_seed(0)
    config = MetaFormerConfig(depths=(1, 1), dims=(8, 16), mixers=(Pooling(), Attention(8)), scales="Scale()", num_classes=2)
    near, far = reach_of_blocks(MetaFormer(config).eval(), torch.randn(2, 3, 64, 64))
    assert near.side(1.0) == 3
    assert (near.field.shape, far.field.shape) == ((16, 16), (8, 8))
    assert (far.field > 0).all()


def test_levels_over_pixels() -> None:
    """A convolution of kernel 7 at stride 4 and padding 2, and no mixing after it, sees seven pixels."""
    config = MetaFormerConfig(depths=(1, 1), dims=(8, 16), mixers=Identity(), scales="Scale()", num_classes=2)
    first, second = reach(MetaFormer(config).eval(), torch.randn(2, 3, 64, 64))
    seen = (first.field.sum(0) > 0).nonzero().flatten()
    assert (len(seen), int(seen[0])) == (7, 8 * 4 - 2)  # the map's place 8 of 16
    assert int((second.field.sum(0) > 0).sum()) == 7 + 2 * 4
    assert (first.name, second.name) == ("stage 1", "stage 2")
    assert torch.allclose(first.field.sum(), torch.tensor(1.0).double())


def test_channels_that_cancel_out_are_seen() -> None:
    """Of normalised channels the sum has no slope; the field has."""

    def normalised(x: Tensor) -> Sequence[Tensor]:
        return [x - x.mean(1, keepdim=True)]

    (field,) = fields(normalised, torch.randn(2, 6, 5, 5))
    assert torch.allclose(field[2, 2], torch.tensor(1.0).double())


def test_the_smallest_square_that_holds_a_part() -> None:
    """Wherever it lies: in a corner, off the centre, over the whole of what is not square."""
    field = torch.zeros(6, 9).double()
    field[0, 8] = 0.5
    field[1:3, 6:8] = 0.1
    field[5, 0] = 0.1
    assert [fullest(field, side) for side in (1, 2, 3, 5, 6, 9)] == pytest.approx([0.5, 0.6, 0.9, 0.9, 0.9, 1.0])
    assert [Reach("x", field).side(part) for part in (0.4, 0.5, 0.6, 0.9, 0.95, 1.0)] == [1, 1, 2, 3, 9, 9]
    even = torch.full((4, 6), 1 / 24).double()
    assert [Reach("x", even).side(part) for part in (1 / 24, 0.5, 0.95)] == [1, 4, 6]


def test_a_level_that_looks_off_the_centre_sees_no_further() -> None:
    """Two strides of 2 without anything between: the central place of 7 takes three pixels each way, off the middle."""
    strided = nn.Sequential(*[nn.AvgPool2d(3, 2, 1) for _ in range(2)])
    (field,) = fields(lambda x: [strided(x)], torch.randn(2, 3, 28, 28))
    assert Reach("x", field).side(1.0) == 3 + 2 * 2
