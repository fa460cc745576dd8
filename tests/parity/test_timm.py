"""timm's models on copied weights give the same maps and logits, where timm does what the papers' code does.

Both compute in float64, where the tolerance is so tight that another eps in any norm would show.
"""

import pytest
import timm
import torch
import torch.nn.functional as F
from tests.fill import filled_model
from tests.published import PUBLISHED
from timm.models import metaformer as theirs
from torch import Tensor, nn

from metaformer import GELU, Attention, MetaFormer, NoNorm, ReLU, Scale, SepConv, SquaredReLU
from metaformer.weights.formats import to_format

pytestmark = pytest.mark.usefixtures("thread")

POOLFORMER = [name for name in PUBLISHED if name.startswith("poolformer_")]
V2 = [name for name in PUBLISHED if name.startswith(("poolformerv2", "convformer", "caformer"))]
CCAA = [theirs.SepConv, theirs.SepConv, theirs.Attention, theirs.Attention]
FAST = ("poolformer_s12", "poolformerv2_s12", "convformer_s18", "caformer_s18")


def speed(names: list[str]) -> list:
    return [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in names]


def copied(model: MetaFormer, other: nn.Module) -> nn.Module:
    """`other` with our weights; every name and shape must fit."""
    other.load_state_dict(to_format(model.state_dict(), "timm", model.config), strict=True, assign=True)
    return other.eval()


def image(height: int = 96, width: int = 64) -> Tensor:
    return torch.randn(1, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def assert_same_maps(model: MetaFormer, other: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        ours, timms = model.features(x), other.forward_intermediates(x, intermediates_only=True)
    assert len(ours) == len(timms) == 4
    for a, b in zip(ours, timms, strict=True):
        assert_close(a, b)


def assert_close(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1e-9 * b.abs().mean()


def timm_model(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name)


def test_timm_has_these_and_no_more():
    assert set(timm.list_models(module="metaformer")) == {*POOLFORMER, *V2}


@pytest.mark.parametrize("name", speed(V2))
def test_maps_and_logits(name):
    model = filled_model(name, torch.float64)
    other = copied(model, timm_model(name))
    assert_same_maps(model, other, image())
    if hasattr(other.head.fc, "norm"):
        other.head.fc.norm.eps = 1e-5  # as published
    with torch.no_grad():
        assert_close(model(image()), other(image()))


@pytest.mark.parametrize("name", speed(POOLFORMER))
def test_maps_of_poolformer(name):
    model = filled_model(name, torch.float64)
    assert_same_maps(model, copied(model, timm_model(name)), image())


def test_timms_poolformer_pools_before_its_norm_and_ours_after():
    model = filled_model("poolformer_s12", torch.float64)
    other = copied(model, timm_model("poolformer_s12"))
    with torch.no_grad():
        ours, timms, last = model(image()), other(image()), model.features(image())[-1]
    weight, bias = model.head.norm.weight, model.head.norm.bias
    linear = model.head.classifier.fc
    mean, variance = last.mean((1, 2, 3), keepdim=True), last.var((1, 2, 3), unbiased=False, keepdim=True)
    normed = (last - mean) / (variance + 1e-5).sqrt() * weight.view(-1, 1, 1) + bias.view(-1, 1, 1)
    assert_close(ours, linear(normed.mean((2, 3))))
    assert_close(timms, linear(F.layer_norm(last.mean((2, 3)), weight.shape, weight, bias, 1e-6)))
    assert (ours - timms).abs().max() > 0.02 * ours.abs().mean()


def test_timms_head_norm_has_another_eps():
    """A difference that logits of ordinary size do not show: the head is fed with activations of about √eps."""
    model = filled_model("caformer_s18", torch.float64, depths=(1, 1, 1, 1))
    other = copied(model, theirs.MetaFormer(depths=(1, 1, 1, 1), token_mixers=CCAA))
    x = torch.randn(2, 512, dtype=torch.float64)
    with torch.no_grad():
        for head in (model.head.classifier, other.head.fc):
            head.fc1.weight *= 0.03
            head.fc1.bias.zero_()
        ours, timms = model.head.classifier(x), other.head.fc(x)
        other.head.fc.norm.eps = 1e-5
        assert_close(ours, other.head.fc(x))
    assert (ours - timms).abs().max() > 0.01 * timms.abs().mean()


# --- what timm has no name for, but its class can be --------------------------------------------------------------------

T6 = {"depths": [1, 1, 3, 1], "dims": [32, 64, 128, 192]}
SIMPLE = {**T6, "norm_layers": theirs.GroupNorm1NoBias, "use_mlp_head": False}
POOLING = {**SIMPLE, "token_mixers": theirs.Pooling}
BIASED = (*[SepConv(bias=True)] * 2, *[Attention(qkv_bias=True, proj_bias=True)] * 2)


def random(tokens: int) -> type[nn.Module]:
    """A mixer class of timm's kind: it holds a matrix over `tokens` tokens."""

    class TimmRandom(nn.Module):
        def __init__(self, **_: object) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(tokens, tokens))

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("mn,bcn->bcm", self.weight, x.flatten(2)).view_as(x)

    return TimmRandom


class BiasedSepConv(theirs.SepConv):
    def __init__(self, dim: int, **_: object) -> None:
        super().__init__(dim, bias=True)


class BiasedAttention(theirs.Attention):
    def __init__(self, dim: int, **_: object) -> None:
        super().__init__(dim, qkv_bias=True, proj_bias=True)


LAYER, RES = {"layer_scale_init_values": 1e-5}, {"res_scale_init_values": [1.0] * 4}
NO_RES = {"res_scale_init_values": None}
NORMS = [*[theirs.LayerNorm2dNoBias] * 2, *[theirs.LayerNormNoBias] * 2]
BIASED_CCAA = [*[BiasedSepConv] * 2, *[BiasedAttention] * 2]
ALL_BIASED = {**T6, "mlp_bias": True, "norm_layers": NORMS, "token_mixers": BIASED_CCAA}
# fmt: off
ROWS = {
    "identity":    ("identityformer_t6", {}, {**SIMPLE, "token_mixers": nn.Identity}),
    "random":      ("randformer_t6", {}, {**SIMPLE, "token_mixers": [nn.Identity, nn.Identity, random(16), random(4)]}),
    "ReLU":        ("poolformerv2_t6", {"activation": ReLU()}, {**POOLING, "mlp_act": nn.ReLU}),
    "GELU":        ("poolformerv2_t6", {"activation": GELU()}, {**POOLING, "mlp_act": nn.GELU}),
    "SquaredReLU": ("poolformerv2_t6", {"activation": SquaredReLU()}, {**POOLING, "mlp_act": theirs.SquaredReLU}),
    "bare stem":   ("poolformerv2_t6", {"patch_norm": NoNorm()}, {**POOLING, "downsample_norm": None}),
    "ResScale":    ("poolformerv2_t6", {"scales": Scale(shortcut=1.0)}, {**POOLING, **RES}),
    "LayerScale":  ("poolformerv2_t6", {"scales": Scale(branch=1e-5)}, {**POOLING, **LAYER, **NO_RES}),
    "BranchScale": ("poolformerv2_t6", {"scales": Scale(shortcut=1.0, branch=1e-5)}, {**POOLING, **LAYER, **RES}),
    "no scale":    ("poolformerv2_t6", {"scales": Scale()}, {**POOLING, **NO_RES}),
    "biases":      ("caformer_t6", {"mixers": BIASED, "mlp_bias": True}, ALL_BIASED),
}
# fmt: on


@pytest.mark.parametrize("row", ROWS)
def test_rows_of_the_ablations(row):
    name, changes, timms = ROWS[row]
    model = filled_model(name, torch.float64, stem_stride=4, **changes)
    other = copied(model, theirs.MetaFormer(**timms))
    x = image(64, 64)
    assert_same_maps(model, other, x)
    if hasattr(other.head.fc, "norm"):
        other.head.fc.norm.eps = 1e-5
    with torch.no_grad():
        assert_close(model(x), other(x))
