"""Every token mixer computes its formula, at any size."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from metaformer import (
    Attention,
    DepthwiseConv,
    Fourier,
    Identity,
    MaxPooling,
    Pooling,
    Random,
    ReLU,
    SepConv,
    SpatialFC,
)
from metaformer.core.mixers import PositionEmbedding, attend, resize_token_matrix, to_map, to_tokens

MIXERS = [
    Identity(), Pooling(), Pooling(window=5), MaxPooling(), DepthwiseConv(), SepConv(), Attention(), Random(grid=4),
    SpatialFC(grid=4), Fourier(),
]  # fmt: skip
SIDES = st.integers(1, 12)


# --- all mixers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", MIXERS, ids=str)
@settings(max_examples=12, deadline=None)
@given(height=SIDES, width=SIDES)
def test_mixer_keeps_any_shape(spec, height, width):
    y = spec(8)(torch.randn(2, 8, height, width))
    assert y.shape == (2, 8, height, width)
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("spec", MIXERS, ids=str)
def test_mixer_treats_the_images_of_a_batch_alone(spec):
    mixer, x = spec(8), torch.randn(3, 8, 5, 7)
    torch.testing.assert_close(mixer(x)[1:2], mixer(x[1:2]))


@pytest.mark.parametrize("spec", MIXERS, ids=str)
def test_mixer_does_not_care_for_the_memory_layout(spec):
    mixer, x = spec(8), torch.randn(2, 8, 5, 7)
    torch.testing.assert_close(mixer(x.contiguous(memory_format=torch.channels_last)), mixer(x))


@pytest.mark.parametrize("spec", MIXERS, ids=str)
def test_mixer_computes_in_float64(spec):
    """What went through float32 on the way would be wrong by 1e-8."""
    torch.manual_seed(0)
    mixer, x = spec(4).double(), torch.randn(1, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    assert mixer(x).dtype == torch.float64
    assert torch.autograd.gradcheck(mixer, (x,), fast_mode=True)


def test_tokens_and_map_are_inverse_and_free_in_channels_last():
    x = torch.randn(2, 8, 3, 5).contiguous(memory_format=torch.channels_last)
    tokens = to_tokens(x)
    assert tokens.shape == (2, 15, 8)
    assert tokens.data_ptr() == x.data_ptr() == to_map(tokens, 3, 5).data_ptr()
    assert torch.equal(tokens[:, 7], x[:, :, 1, 2])
    assert torch.equal(to_map(tokens, 3, 5), x)
    assert to_map(tokens, 3, 5).is_contiguous(memory_format=torch.channels_last)


# --- pooling and convolution ------------------------------------------------------------------------------------------


def windows(x: Tensor, window: int, fill: float) -> Tensor:
    """(B, C, H, W) → (B, C, H, W, window²): what lies around each place, `fill` beyond the border."""
    half = window // 2
    padded = F.pad(x, (half,) * 4, value=fill)
    return padded.unfold(2, window, 1).unfold(3, window, 1).flatten(-2)


@pytest.mark.parametrize("window", [1, 3, 5, 7, 9])
def test_pooling_is_the_mean_of_what_is_there_minus_the_input(window):
    x = torch.randn(2, 3, 6, 7)
    mean = windows(x, window, torch.nan).nanmean(-1)
    torch.testing.assert_close(Pooling(window)(3)(x), mean - x)


@pytest.mark.parametrize("window", [1, 3, 5, 7, 9])
def test_max_pooling_is_the_largest_minus_the_input(window):
    x = torch.randn(2, 3, 6, 7)
    torch.testing.assert_close(MaxPooling(window)(3)(x), windows(x, window, -torch.inf).amax(-1) - x)


@pytest.mark.parametrize("spec", [Pooling(), MaxPooling()], ids=str)
def test_pooling_takes_a_constant_map_to_zero(spec):
    """Pads would show at the borders."""
    torch.testing.assert_close(spec(2)(torch.full((1, 2, 4, 5), 3.0)), torch.zeros(1, 2, 4, 5))


@pytest.mark.parametrize(("spec", "option"), [(Pooling, "window"), (MaxPooling, "window"), (DepthwiseConv, "kernel")])
@pytest.mark.parametrize(("value", "near"), [(2, 3), (4, 5), (0, 1), (-3, 1), (3.0, 3), ("3", 3)])
def test_windows_are_odd(spec, option, value, near):
    with pytest.raises(ValueError, match=rf"{option} must be odd and positive, such as {option}={near}$"):
        spec(**{option: value})


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [3, 5])
def test_depthwise_convolution(kernel, bias):
    mixer = DepthwiseConv(kernel, bias)(6)
    x = torch.randn(2, 6, 7, 5)
    assert mixer.weight.shape == (6, 1, kernel, kernel)
    assert (mixer.bias is not None) == bias
    each = [F.conv2d(x[:, c : c + 1], mixer.weight[c : c + 1], padding=kernel // 2) for c in range(6)]
    torch.testing.assert_close(mixer(x), torch.cat(each, 1))


@pytest.mark.parametrize("bias", [True, False])
def test_sepconv_widens_mixes_and_narrows(bias):
    mixer = SepConv(kernel=5, ratio=3.0, activation=ReLU(), bias=bias)(4)
    shapes = {name: tuple(p.shape) for name, p in mixer.named_parameters() if name.endswith("weight")}
    assert shapes == {"pw1.weight": (12, 4, 1, 1), "dw.weight": (12, 1, 5, 5), "pw2.weight": (4, 12, 1, 1)}
    assert sum(p.numel() for n, p in mixer.named_parameters() if n.endswith("bias")) == (12 + 12 + 4 if bias else 0)
    x = torch.randn(2, 4, 6, 5)
    hidden = F.conv2d(x, mixer.pw1.weight).relu()
    expected = F.conv2d(F.conv2d(hidden, mixer.dw.weight, padding=2, groups=12), mixer.pw2.weight)
    torch.testing.assert_close(mixer(x), expected)


def test_sepconv_is_the_published_one_unless_told_otherwise():
    mixer = SepConv()(4)
    assert (mixer.dw.kernel_size, mixer.dw.padding, mixer.dw.in_channels) == ((7, 7), (3, 3), 8)
    assert (mixer.act.scale.item(), mixer.act.bias.item()) == (1.0, 0.0)
    assert not any(name.startswith(("pw", "dw")) and name.endswith("bias") for name, _ in mixer.named_parameters())


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dim", "head_dim", "heads"), [(64, 32, 2), (96, 32, 3), (16, 32, 1), (33, 32, 1), (100, 32, 3), (320, 32, 10), (24, 8, 3)]
)
def test_attention_is_softmax_attention_over_all_places(dim, head_dim, heads):
    torch.manual_seed(0)
    mixer = Attention(head_dim=head_dim, qkv_bias=True, proj_bias=True)(dim).double()
    for p in mixer.parameters():
        torch.nn.init.normal_(p, std=0.3)
    inner = heads * head_dim
    assert mixer.qkv.weight.shape == (3 * inner, dim, 1, 1)
    assert mixer.proj.weight.shape == (dim, inner, 1, 1)
    x = torch.randn(2, dim, 3, 5, dtype=torch.float64)
    tokens = x.flatten(2).transpose(1, 2)
    q, k, v = (
        part.view(2, 15, heads, head_dim).transpose(1, 2)
        for part in F.linear(tokens, mixer.qkv.weight.flatten(1), mixer.qkv.bias).split(inner, -1)
    )
    weights = (q @ k.mT / head_dim**0.5).softmax(-1)
    mixed = (weights @ v).transpose(1, 2).reshape(2, 15, inner)
    expected = F.linear(mixed, mixer.proj.weight.flatten(1), mixer.proj.bias).mT.view(2, dim, 3, 5)
    torch.testing.assert_close(mixer(x), expected)


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("proj_bias", [True, False])
def test_attention_has_the_biases_it_is_told_to(qkv_bias, proj_bias):
    mixer = Attention(qkv_bias=qkv_bias, proj_bias=proj_bias)(64)
    assert ((mixer.qkv.bias is not None), (mixer.proj.bias is not None)) == (qkv_bias, proj_bias)
    assert Attention() == Attention(head_dim=32, qkv_bias=False, proj_bias=False)


class Operators(TorchDispatchMode):
    """Names of the operators that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
def test_attention_uses_the_fused_kernel(layout):
    """In either memory layout: a mixer of the user's own may return the other one."""
    mixer, x = Attention()(64), torch.randn(2, 64, 4, 4).contiguous(memory_format=layout)
    with Operators() as seen:
        mixer(x)
    assert any("scaled_dot_product" in name for name in seen.names)
    assert not any("softmax" in name for name in seen.names)


def test_attention_needs_a_head():
    with pytest.raises(ValueError, match=r"Attention\(head_dim=0\): head_dim must be a whole number of at least 1"):
        Attention(head_dim=0)


# --- matrices over tokens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [Random(grid=4), SpatialFC(grid=4)], ids=str)
def test_matrix_is_applied_over_tokens(spec):
    mixer, x = spec(6), torch.randn(2, 6, 4, 4)
    expected = torch.einsum("mn,bcn->bcm", mixer.weight, x.flatten(2)).view_as(x)
    torch.testing.assert_close(mixer(x), expected)


def test_random_matrix_is_frozen_softmax_of_uniform_numbers():
    torch.manual_seed(0)
    mixers = [Random(grid=14)(8), Random(grid=14)(8)]
    torch.manual_seed(0)
    again = Random(grid=14)(8)
    weight = mixers[0].weight
    assert weight.shape == (196, 196)
    assert not weight.requires_grad
    torch.testing.assert_close(weight.sum(1), torch.ones(196))
    exponents = (weight / weight.amin(1, keepdim=True)).log()  # the uniform numbers, less each row's smallest
    assert 0.9 < exponents.max() <= 1.0
    assert exponents.mean().item() == pytest.approx(0.5 - 1 / 197, abs=0.01)
    assert exponents.std().item() == pytest.approx(12**-0.5, rel=0.02)
    assert torch.equal(weight, again.weight)
    assert not torch.equal(weight, mixers[1].weight)


def test_spatial_fc_is_learned_and_has_no_bias():
    torch.manual_seed(0)
    mixer = SpatialFC(grid=14)(8)
    assert [(n, tuple(p.shape), p.requires_grad) for n, p in mixer.named_parameters()] == [("weight", (196, 196), True)]
    assert mixer.weight.std().item() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("spec", [Random, SpatialFC])
@pytest.mark.parametrize("grid", [0, -1, 2.0])
def test_grid_is_a_side(spec, grid):
    with pytest.raises(ValueError, match=rf"{spec.__name__}\(grid={grid}\): grid must be a whole number of at least 1"):
        spec(grid=grid)


@settings(max_examples=60, deadline=None)
@given(grid=st.integers(1, 7), height=SIDES, width=SIDES, sharp=st.sampled_from([1.0, 4.0]))
def test_resized_random_matrix_still_averages(grid, height, width, sharp):
    matrix = torch.softmax(sharp * torch.rand(grid**2, grid**2), -1)
    resized = resize_token_matrix(matrix, grid, (height, width))
    assert resized.shape == (height * width, height * width)
    torch.testing.assert_close(resized.sum(1), torch.ones(height * width))
    assert resized.min() > 0


@settings(max_examples=40, deadline=None)
@given(height=SIDES, width=SIDES, seed=st.integers(0, 2**32 - 1))
def test_resized_matrix_keeps_its_answer_to_a_constant_map(height, width, seed):
    """The answer, a map on the old grid, is interpolated like any map."""
    torch.manual_seed(seed)
    mixer = SpatialFC(grid=4)(3)
    native = mixer(torch.ones(1, 3, 4, 4))
    expected = F.interpolate(native, (height, width), mode="bilinear", align_corners=False)
    torch.testing.assert_close(mixer(torch.ones(1, 3, height, width)), expected, rtol=1e-3, atol=1e-5)


def test_resized_matrix_does_at_twice_the_side_what_it_did():
    """A smooth map enlarged, mixed and reduced again is about the mixed map: the matrix keeps its places."""
    smooth = F.interpolate(torch.randn(8, 1, 3, 3), (8, 8), mode="bicubic", align_corners=True)
    shift = torch.roll(torch.eye(64), 8, 0)  # moves every row of the map one down
    x = F.interpolate(smooth, (16, 16), mode="bilinear")
    y = (resize_token_matrix(shift, 8, (16, 16)) @ x.flatten(2).mT).mT.view_as(x)
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    assert (y[inner] - x.roll(2, 2)[inner]).abs().mean() < 0.1 * x.std()


def test_matrix_at_its_own_size_is_itself():
    matrix = torch.randn(9, 9)
    assert resize_token_matrix(matrix, 3, (3, 3)) is matrix
    assert not torch.equal(resize_token_matrix(torch.randn(36, 36), 6, (4, 9)), torch.randn(36, 36))


# --- position embedding -----------------------------------------------------------------------------------------------


def test_position_embedding_starts_at_zero_and_is_added():
    embedding, x = PositionEmbedding(3, 4), torch.randn(2, 3, 4, 4)
    assert torch.equal(embedding.weight, torch.zeros(1, 3, 4, 4))
    assert torch.equal(embedding(x), x)
    torch.nn.init.normal_(embedding.weight)
    torch.testing.assert_close(embedding(x), x + embedding.weight)


@pytest.mark.parametrize("size", [(8, 8), (3, 5), (1, 1), (4, 7)])
def test_position_embedding_interpolates(size):
    """Bilinearly, corners not aligned: a linear ramp over the unit square stays that ramp away from the borders."""
    embedding = PositionEmbedding(1, 4)
    embedding.weight.data.copy_(((torch.arange(4) + 0.5) / 4).view(1, 1, 1, 4))
    y = embedding(torch.zeros(1, 1, *size))
    ramp = (torch.arange(size[1]) + 0.5) / size[1]
    torch.testing.assert_close(y, ramp.clamp(1 / 8, 7 / 8).expand(1, 1, *size))


# --- Fourier ----------------------------------------------------------------------------------------------------------


def test_fourier_is_the_real_part_of_the_orthonormal_transform():
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    rows, columns = (
        torch.exp(-2j * torch.pi / n * torch.arange(n).outer(torch.arange(n)).to(torch.complex128)) / n**0.5 for n in (4, 6)
    )
    torch.testing.assert_close(Fourier()(3)(x), (rows @ x.to(torch.complex128) @ columns.mT).real)
    assert not list(Fourier()(3).parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fourier_takes_half_precision(dtype):
    x = torch.randn(1, 2, 4, 6).to(dtype)
    y = Fourier()(2)(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y, Fourier()(2)(x.float()).to(dtype))


@pytest.mark.parametrize("tokens", [49, 196, 1100])
def test_attention_in_bfloat16_is_the_same_with_and_without_a_gradient(tokens):
    q, k, v = torch.randn(3, 2, 4, tokens, 32, generator=torch.Generator().manual_seed(0)).unbind(0)
    right = F.scaled_dot_product_attention(q, k, v, scale=0.2)
    half = [x.bfloat16().requires_grad_() for x in (q, k, v)]
    learnt = attend(*half, 0.2)
    with torch.inference_mode():
        plain = attend(*half, 0.2)
    for one in (learnt, plain):
        torch.testing.assert_close(one.float(), right, rtol=0.05, atol=0.02)
    weight = torch.randn(right.shape, generator=torch.Generator().manual_seed(1))
    (learnt * weight).sum().backward()
    full = [x.clone().requires_grad_() for x in (q, k, v)]
    (attend(*full, 0.2) * weight).sum().backward()
    for one, other in zip(half, full, strict=True):
        torch.testing.assert_close(one.grad.float(), other.grad, rtol=0.1, atol=0.02)
