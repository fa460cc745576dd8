"""Blocks and feature maps: the general block computes what its config says."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.published import PUBLISHED, T6
from torch import Tensor, nn

from metaformer import (
    MLN,
    Attention,
    Identity,
    MaxPooling,
    MetaFormer,
    MetaFormerConfig,
    MLPHead,
    NoNorm,
    Pooling,
    Random,
    Scale,
    SepConv,
    SpatialFC,
    StarReLU,
    create_model,
)
from metaformer.core.model import Residual

SMALL = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}


class Halve(nn.Module):
    """A mixer of a user's own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((dim, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def build(**changes) -> MetaFormer:
    return MetaFormer(MetaFormerConfig(**{**SMALL, "mixers": Pooling(), **changes}))


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("branch", [None, 1e-5, 2.0])
@pytest.mark.parametrize("shortcut", [None, 1.0, 3.0])
def test_half_a_block_is_scaled_shortcut_plus_scaled_branch(shortcut, branch, residual):
    half = Residual(4, MLN(eps=1e-5), nn.Conv2d(4, 4, 1), Scale(shortcut, branch), 0.0, residual=residual).double()
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    expected = (1.0 if branch is None else branch) * half.branch(half.norm(x))
    if residual:
        expected = expected + (1.0 if shortcut is None else shortcut) * x
    torch.testing.assert_close(half(x), expected, rtol=1e-6, atol=1e-6)
    learned = {n for n, p in half.named_parameters() if p.requires_grad and "scale" in n}
    expected_names = {"shortcut_scale"} if residual and shortcut is not None else set()
    assert learned == expected_names | ({"scale"} if branch is not None else set())


def test_scales_are_per_channel_vectors():
    half = Residual(4, NoNorm(), nn.Identity(), Scale(shortcut=1, branch=1), 0.0, residual=True)
    half.scale.data.copy_(torch.arange(4))
    half.shortcut_scale.data.copy_(10 * torch.arange(4))
    assert half(torch.ones(1, 4, 2, 2))[0, :, 0, 1].tolist() == [0.0, 11.0, 22.0, 33.0]


@pytest.mark.parametrize("half", ["mixer", "mlp"])
def test_drop_path_drops_the_branch_and_keeps_the_scaled_shortcut(half):
    """In both halves of a block, one image at a time."""
    torch.manual_seed(0)
    model = build(depths=(1, 1, 1, 3), drop_path=0.5, scales=Scale(shortcut=3.0, branch=2.0))
    part = getattr(model.stages[3].blocks[2], half)
    x = torch.randn(64, 32, 1, 2)
    y, whole = part.train()(x), part.eval()(x)
    dropped = torch.isclose(y, 3 * x).flatten(1).all(1)
    assert 16 < dropped.sum() < 48
    torch.testing.assert_close(y[~dropped], (3 * x + 2 * (whole - 3 * x))[~dropped], rtol=1e-4, atol=1e-4)


def test_a_block_is_mixer_then_channel_mlp():
    block = build().stages[0].blocks[0]
    x = torch.randn(2, 8, 5, 5)
    mixed = x + Pooling()(8)(block.mixer.norm(x))
    torch.testing.assert_close(block(x), mixed + block.mlp.branch(block.mlp.norm(mixed)))


def test_without_channel_mlp_a_block_is_its_mixer():
    block = build(mlp_ratio=0).stages[0].blocks[0]
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(block(x), block.mixer(x))
    assert not any("mlp" in name for name, _ in build(mlp_ratio=0).named_parameters())


def test_one_block_may_drop_its_path():
    model = MetaFormer(MetaFormerConfig(depths=(1,), dims=(8,), mixers=Pooling(), scales=Scale(), drop_path=0.5))
    assert model.stages[0].blocks[0].mixer.drop_path.rate == 0.0
    assert model(torch.randn(1, 3, 16, 16)).shape == (1, 1000)


@pytest.mark.parametrize("ratio", [0.5, 2.0, 3.5])
def test_channel_mlp_ratio(ratio):
    assert build(mlp_ratio=ratio).stages[1].blocks[0].mlp.branch.fc1.out_channels == int(16 * ratio)


@pytest.mark.parametrize("changes", [{"mlp_ratio": 0.1}, {"mixers": SepConv(ratio=0)}, {"head": MLPHead(0.01)}], ids=str)
def test_a_ratio_that_leaves_no_channel_gets_a_sentence(changes):
    with pytest.raises(ValueError, match=r"ratio=0\S* leaves no hidden channel of (8|32): give at least 0\.(125|0312)"):
        build(**changes)


# --- mixers -----------------------------------------------------------------------------------------------------------


def test_mixers_per_stage_per_block_and_of_the_users_own():
    per_block = (Pooling(), Halve, lambda dim: nn.Conv2d(dim, dim, 1), Attention(), MaxPooling())
    model = build(depths=(2, 1, 1, 1), mixers=per_block)
    kinds = [type(block.mixer.branch).__name__ for stage in model.stages for block in stage.blocks]
    assert kinds == ["PoolingMixer", "Halve", "Conv2d", "AttentionMixer", "PoolingMixer"]
    model = build(depths=(2, 1, 2, 1), mixers=(Identity(), Halve, SepConv(), Pooling()))
    kinds = [type(block.mixer.branch).__name__ for stage in model.stages for block in stage.blocks]
    assert kinds == ["Identity", "Identity", "Halve", "SepConvMixer", "SepConvMixer", "PoolingMixer"]
    assert model.stages[1].blocks[0].mixer.branch.weight.shape == (16, 1, 1)


def test_position_embedding_is_added_once_before_the_first_block():
    model = build(mixers=Identity(), pos_embed=(0, 2, 0, 0)).eval()
    plain = build(mixers=Identity()).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(model.features(x)[1], plain.features(x)[1])  # it starts at zero
    nn.init.normal_(model.stages[1].pos_embed.weight)
    before = model.stages[1].embed(model.features(x)[0])
    expected = before + model.stages[1].pos_embed.weight
    for block in model.stages[1].blocks:
        expected = block(expected)
    torch.testing.assert_close(model.features(x)[1], expected)


# --- maps and sizes ---------------------------------------------------------------------------------------------------

SIZES = st.integers(1, 70)
ALL_MIXERS = (Identity(), Pooling(), MaxPooling(5), SepConv(), Attention(), Random(grid=3), SpatialFC(grid=3))


@pytest.mark.parametrize("stem_stride", [1, 2, 4])
@settings(max_examples=10, deadline=None)
@given(height=SIZES, width=SIZES)
def test_any_size_that_leaves_a_token(stem_stride, height, width):
    least = 3 if stem_stride == 4 else 1
    height, width = max(height, least), max(width, least)
    model = build(depths=(1, 2, 2, 2), mixers=ALL_MIXERS, stem_stride=stem_stride, num_classes=7, pos_embed=3).eval()
    with torch.no_grad():
        maps, logits = model.features(torch.randn(2, 3, height, width)), model(torch.randn(2, 3, height, width))
    expected = []
    for side in (height, width):
        first = (side - 3) // 4 + 1 if stem_stride == 4 else -(-side // stem_stride)
        expected.append([first, -(-first // 2), -(-first // 4), -(-first // 8)])
    assert [tuple(m.shape) for m in maps] == [(2, dim, h, w) for dim, h, w in zip(SMALL["dims"], *expected, strict=True)]
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", [*T6, "metaformer_ppaa_s12_224", "metaformer_pppf_s12_224", "metaformer_ppff_s12_224"])
@pytest.mark.parametrize("size", [(61, 97), (33, 32), (3, 3)])
def test_every_family_takes_odd_sizes(name, size):
    model = create_model(name, depths=(1, 1, 1, 1), num_classes=5).eval()
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        maps, logits = model.features(x), model(x)
        torch.testing.assert_close(logits, model.head(maps[-1]))
    assert len(maps) == 4
    assert all(torch.isfinite(m).all() for m in [*maps, logits])


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.endswith(("s12", "s18", "_224"))])
def test_maps_have_strides_4_8_16_32(name):
    with torch.device("meta"):
        maps = create_model(name).features(torch.empty(1, 3, 224, 160))
    expected = [(1, dim, 224 // s, 160 // s) for dim, s in zip((64, 128, 320, 512), (4, 8, 16, 32), strict=True)]
    assert [tuple(m.shape) for m in maps] == expected


def test_t6_leaves_four_tokens_of_a_32_pixel_image():
    with torch.device("meta"):
        for name in T6:
            maps = create_model(name).features(torch.empty(1, 3, 32, 32))
            assert [tuple(m.shape[2:]) for m in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 4, 32, 32), (1, 3, 2, 32), (1, 3, 32, 2)], ids=str)
def test_wrong_images_get_a_sentence(shape):
    sentence = f"images {shape}: this model takes (B, 3, H, W), H and W at least 3"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        build()(torch.zeros(shape))


def test_an_empty_batch_is_a_batch():
    assert build(mixers=(Pooling(), SepConv(), Attention(), Random(grid=1)))(torch.zeros(0, 3, 32, 32)).shape == (0, 1000)


@pytest.mark.parametrize("in_chans", [1, 4, 13])
def test_any_number_of_channels(in_chans):
    assert build(in_chans=in_chans).stages[0].embed.conv.weight.shape == (8, in_chans, 7, 7)
    assert build(in_chans=in_chans)(torch.randn(2, in_chans, 32, 32)).shape == (2, 1000)


@pytest.mark.parametrize("pool_first", [True, False])
def test_no_classes_give_pooled_normalised_features(pool_first):
    """Dropout belongs to the classifier and goes with it."""
    model = build(num_classes=0, head_dropout=0.9, pool_first=pool_first).train()
    x = torch.randn(2, 3, 32, 48)
    last = model.features(x)[-1]
    expected = model.head.norm(last.mean((2, 3), keepdim=True)).flatten(1) if pool_first else model.head.norm(last).mean((2, 3))
    assert expected.shape == (2, 32)
    torch.testing.assert_close(model(x), expected)


def test_starrelu_options_reach_every_channel_mlp():
    model = build(activation=StarReLU(0.8944, -0.4472, learn_scale=False))
    for stage in model.stages:
        act = stage.blocks[0].mlp.branch.act
        assert (act.scale.requires_grad, act.bias.requires_grad) == (False, True)
        assert act.scale.item() == pytest.approx(0.8944)
