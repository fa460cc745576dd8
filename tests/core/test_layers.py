"""Activations, norms, drop path, the channel MLP and the heads: by value."""

from dataclasses import FrozenInstanceError

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer import (
    GELU,
    MLN,
    BatchNorm,
    LayerNorm,
    LinearHead,
    MLPHead,
    NoNorm,
    ReLU,
    SiLU,
    SquaredReLU,
    StarReLU,
)
from metaformer.core.layers import MLP, DropPath, Head, conv

HALVES = (torch.float16, torch.bfloat16)


def normal_grid(n: int = 1_000_000) -> Tensor:
    """The quantiles of N(0, 1): its moments without the noise of a sample."""
    return torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)


# --- activations ------------------------------------------------------------------------------------------------------


FORMULAS = {
    StarReLU(2.0, -0.5): lambda x: 2.0 * x.clamp(min=0) ** 2 - 0.5,
    SquaredReLU(): lambda x: x.clamp(min=0) ** 2,
    ReLU(): lambda x: x.clamp(min=0),
    GELU(): lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    SiLU(): lambda x: x / (1 + torch.exp(-x)),
}


@pytest.mark.parametrize("spec", FORMULAS, ids=str)
def test_activation_computes_its_formula(spec):
    x = torch.linspace(-4, 4, 101)
    torch.testing.assert_close(spec()(x), FORMULAS[spec](x))


def test_starrelu_starts_from_one_and_zero_and_learns_both():
    act = StarReLU()()
    assert [(p.tolist(), p.requires_grad) for p in (act.scale, act.bias)] == [([1.0], True), ([0.0], True)]


@pytest.mark.parametrize("learn_scale", [True, False])
@pytest.mark.parametrize("learn_bias", [True, False])
def test_starrelu_learns_what_it_is_told_to(learn_scale, learn_bias):
    act = StarReLU(0.8944, -0.4472, learn_scale, learn_bias)()
    act(torch.tensor([2.0], requires_grad=True)).sum().backward()
    assert act.scale.item() == pytest.approx(0.8944)
    assert act.bias.item() == pytest.approx(-0.4472)
    assert (act.scale.grad is not None) == learn_scale
    assert (act.bias.grad is not None) == learn_bias


@pytest.mark.parametrize(
    ("scale", "bias", "mean", "variance"), [(0.8944, -0.4472, 0.0, 1.0), (1.0, 0.0, 0.5, 1.25)], ids=["derived", "published"]
)
def test_starrelu_on_a_normal_input(scale, bias, mean, variance):
    """Section 2.4 of v2: s and b are derived so that mean 0 and variance 1 go in and come out."""
    y = StarReLU(scale, bias)().double()(normal_grid())
    assert y.mean().item() == pytest.approx(mean, abs=2e-4)
    assert y.var().item() == pytest.approx(variance, rel=2e-4)


def test_whole_numbers_are_numbers():
    act = StarReLU(1, 0)()
    assert act.scale.dtype == act.bias.dtype == torch.float32


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("spec", [StarReLU(), StarReLU(4.0, 3.0), StarReLU(-4.0, 0.0), SquaredReLU()], ids=str)
def test_squares_stay_finite_in_half_precision(spec, dtype):
    """256² is more than float16 holds."""
    x = torch.tensor([-1e4, -1.0, 0.0, 255.0, 257.0, 1e3, 6e4], dtype=dtype, requires_grad=True)
    y = spec().to(dtype)(x)
    y.sum().backward()
    assert y.dtype == dtype
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()
    assert y[5].abs() >= y[3].abs()


def test_starrelu_keeps_one_map_for_its_gradient():
    act = StarReLU(0.7, -0.3)()
    x = torch.randn(4, 8, 5, 5, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        act(x * 1.0)
    assert sorted(kept)[-1] == x.numel()
    assert sum(count == x.numel() for count in kept) == 1


@pytest.mark.parametrize("learn", [(True, True), (True, False), (False, False)])
def test_starrelus_gradient_is_that_of_its_formula(learn):
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    act = StarReLU(0.7, -0.3, *learn)().double()
    assert torch.autograd.gradcheck(act, x)
    assert torch.autograd.gradgradcheck(act, x)
    weight = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    (act(x) * weight).sum().backward()
    ours = [x.grad.clone(), act.scale.grad, act.bias.grad]
    x.grad = act.scale.grad = act.bias.grad = None
    ((act.scale * x.relu() ** 2 + act.bias) * weight).sum().backward()
    for one, other in zip(ours, [x.grad, act.scale.grad, act.bias.grad], strict=True):
        torch.testing.assert_close(one, other)


def test_starrelu_under_vmap():
    act, x = StarReLU(0.7, -0.3)(), torch.randn(5, 2, 3, requires_grad=True)
    torch.testing.assert_close(torch.vmap(act)(x), act(x))
    slopes = torch.vmap(torch.func.grad(lambda row: act(row).sum()))(x)
    torch.testing.assert_close(slopes, 2 * 0.7 * x.relu())


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("spec", [StarReLU(0.8944, -0.4472), SquaredReLU()], ids=str)
def test_squares_in_half_precision_are_close_to_full(spec, dtype):
    x = torch.linspace(-5, 20, 1001).to(dtype)
    full = spec()(x.float())
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(spec()(x).float(), full, rtol=2 * rounding, atol=2 * rounding)


@pytest.mark.parametrize("dtype", HALVES)
def test_parts_stay_finite_under_autocast(dtype):
    """Activations around 1000 behind a convolution or a linear layer that autocast runs in half precision."""
    x = torch.full((2, 8, 2, 2), 500.0)
    mlp = MLP(8, 4.0, StarReLU(), bias=False)
    head = MLPHead()(8, 10, 0.0)
    for weight in (mlp.fc1.weight, head.fc1.weight):
        nn.init.constant_(weight, 0.25)
    with torch.autocast("cpu", dtype):
        hidden, y, logits = mlp.act(mlp.fc1(x)), mlp(x), head(x.mean((2, 3)))
    assert mlp.fc1(x).min() > 256
    assert hidden.dtype == dtype
    for out in (hidden, y, logits):
        assert torch.isfinite(out).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_mlp_head_stays_finite_in_half_precision(dtype):
    head = MLPHead()(8, 10, 0.0).to(dtype)
    nn.init.constant_(head.fc1.weight, 0.25)
    y = head(torch.full((2, 8), 500.0, dtype=dtype))
    assert y.dtype == dtype
    assert torch.isfinite(y).all()


# --- norms ------------------------------------------------------------------------------------------------------------


def standardised(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    mean = x.mean(dims, keepdim=True)
    return (x - mean) / (((x - mean) ** 2).mean(dims, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize("eps", [1e-6, 1e-5, 0.1])
@pytest.mark.parametrize(
    ("spec", "dims"), [(MLN, (1, 2, 3)), (LayerNorm, (1,)), (BatchNorm, (0, 2, 3))], ids=["MLN", "LayerNorm", "BatchNorm"]
)
def test_norm_computes_its_formula(spec, dims, eps):
    """On an input of standard deviation 0.01, which shows an eps of 1e-6."""
    x = 0.01 * torch.randn(2, 5, 3, 4, dtype=torch.float64) + 0.5
    y = spec(eps=eps)(5).double()(x)
    torch.testing.assert_close(y, standardised(x, dims, eps), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spec", [MLN, LayerNorm])
@pytest.mark.parametrize("bias", [True, False])
def test_norm_is_affine_per_channel(spec, bias):
    norm = spec(eps=1e-6, bias=bias)(5)
    assert torch.equal(norm.weight, torch.ones(5))
    assert (norm.bias is None) != bias
    x, plain = torch.randn(2, 5, 3, 4), spec()(5)
    weight, shift = torch.randn(5), torch.randn(5)
    norm.weight.data.copy_(weight)
    expected = plain(x) * weight.view(5, 1, 1)
    if bias:
        assert torch.equal(norm.bias, torch.zeros(5))
        norm.bias.data.copy_(shift)
        expected = expected + shift.view(5, 1, 1)
    torch.testing.assert_close(norm(x), expected)


def test_mln_is_group_norm_of_one_group_and_sees_one_image():
    x = torch.randn(3, 6, 4, 5)
    norm = MLN(eps=1e-5, bias=True)(6)
    torch.testing.assert_close(norm(x), nn.GroupNorm(1, 6, eps=1e-5)(x))
    torch.testing.assert_close(norm(x)[:1], norm(x[:1]))


@pytest.mark.parametrize(("spec", "eps"), [(MLN(), 1e-6), (LayerNorm(), 1e-6), (BatchNorm(), 1e-5)], ids=str)
def test_default_eps(spec, eps):
    assert spec(4).eps == eps


def test_no_norm_leaves_the_map_as_it_is():
    x = torch.randn(2, 5, 3, 4)
    assert NoNorm()(5)(x) is x


@pytest.mark.parametrize("spec", [MLN(), LayerNorm(), LayerNorm(bias=True)], ids=str)
def test_norm_keeps_channels_last_memory(spec):
    x = torch.randn(2, 8, 5, 6).contiguous(memory_format=torch.channels_last)
    assert spec(8)(x).is_contiguous(memory_format=torch.channels_last)


# --- drop path --------------------------------------------------------------------------------------------------------


def test_drop_path_drops_whole_samples_and_scales_the_rest():
    torch.manual_seed(0)
    x = torch.ones(20_000, 2, 1, 3, requires_grad=True)
    y = DropPath(0.3)(x)
    y.sum().backward()
    kept = y[:, 0, 0, 0] > 0
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.015)
    torch.testing.assert_close(y, kept.view(-1, 1, 1, 1) / 0.7 * torch.ones_like(x))
    torch.testing.assert_close(x.grad, y.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
def test_drop_path_keeps_the_dtype(dtype):
    assert DropPath(0.5)(torch.ones(4, 1, 1, 1, dtype=dtype)).dtype == dtype


def test_drop_path_does_nothing_in_evaluation_or_at_rate_zero():
    x = torch.randn(3, 2, 2, 2)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


# --- channel MLP ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_mlp_is_two_linear_layers_at_each_place(bias):
    mlp = MLP(6, 4.0, GELU(), bias=bias)
    x = torch.randn(2, 6, 3, 5)
    assert (mlp.fc1.bias is not None) == (mlp.fc2.bias is not None) == bias
    tokens = x.permute(0, 2, 3, 1)
    hidden = F.gelu(F.linear(tokens, mlp.fc1.weight.flatten(1), mlp.fc1.bias))
    expected = F.linear(hidden, mlp.fc2.weight.flatten(1), mlp.fc2.bias).permute(0, 3, 1, 2)
    torch.testing.assert_close(mlp(x), expected)
    assert hidden.shape[-1] == 24


def test_convolution_is_initialised_as_published():
    torch.manual_seed(0)
    layer = conv(256, 256, 3, bias=True)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert layer.weight.mean().item() == pytest.approx(0.0, abs=2e-4)
    assert torch.equal(layer.bias, torch.zeros(256))
    assert layer(torch.randn(1, 256, 5, 7)).shape[2:] == (5, 7)


# --- heads ------------------------------------------------------------------------------------------------------------


def test_linear_head_drops_then_maps():
    head = LinearHead()(6, 10, 0.3)
    assert [type(m) for m in head] == [nn.Dropout, nn.Linear]
    assert head.dropout.p == 0.3
    assert head.fc.bias is not None


def test_mlp_head_has_the_published_order_widths_and_eps():
    head = MLPHead()(6, 10, 0.4)
    assert list(dict(head.named_children())) == ["fc1", "act", "norm", "dropout", "fc"]
    assert (head.fc1.in_features, head.fc1.out_features, head.fc.in_features, head.fc.out_features) == (6, 24, 24, 10)
    assert head.fc1.bias is not None
    assert head.fc.bias is not None
    assert head.norm.eps == 1e-5
    assert head.dropout.p == 0.4
    x = torch.randn(3, 6)
    normed = F.layer_norm(F.linear(x, head.fc1.weight, head.fc1.bias).relu() ** 2, (24,), eps=1e-5)
    torch.testing.assert_close(head.eval()(x), F.linear(normed, head.fc.weight, head.fc.bias))


def test_mlp_head_drops_after_its_norm_and_before_the_last_linear():
    head = MLPHead()(16, 10, 0.5).train()
    seen = {}
    head.norm.register_forward_hook(lambda m, args, out: seen.update(normed=out))
    head.fc.register_forward_pre_hook(lambda m, args: seen.update(given=args[0]))
    head(torch.randn(4, 16))
    dropped = seen["given"] == 0
    assert 0.25 < dropped.float().mean() < 0.75
    torch.testing.assert_close(seen["given"], (2 * seen["normed"]).masked_fill(dropped, 0.0))


@pytest.mark.parametrize("pool_first", [True, False])
def test_head_pools_before_or_after_its_norm(pool_first):
    x = torch.randn(2, 5, 3, 4) * torch.tensor([0.1, 1.0, 2.0, 3.0])
    head = Head(5, LayerNorm(eps=1e-6), nn.Linear(5, 7), pool_first=pool_first)
    pooled, normed = F.layer_norm(x.mean((2, 3)), (5,), eps=1e-6), standardised(x, (1,), 1e-6).mean((2, 3))
    torch.testing.assert_close(head(x), head.classifier(pooled if pool_first else normed))


def test_head_without_classifier_gives_features():
    x = torch.randn(2, 5, 3, 4)
    y = Head(5, LayerNorm(eps=1e-6), None, pool_first=True)(x)
    torch.testing.assert_close(y, F.layer_norm(x.mean((2, 3)), (5,), eps=1e-6))


# --- specs ------------------------------------------------------------------------------------------------------------


def test_specs_are_values():
    assert LayerNorm(eps=1e-6) == LayerNorm() != LayerNorm(eps=1e-5)
    assert len({MLN(), MLN(), MLN(bias=True), StarReLU(), StarReLU(1.0, 0.0)}) == 3
    with pytest.raises(FrozenInstanceError):
        MLN().eps = 1.0
