"""Every row of the papers' ablations can be named, built and trained by a step."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer import (
    GELU,
    MLN,
    Attention,
    BatchNorm,
    DepthwiseConv,
    Fourier,
    Identity,
    LayerNorm,
    MaxPooling,
    MetaFormer,
    MetaFormerConfig,
    NoNorm,
    Pooling,
    Random,
    ReLU,
    Scale,
    SepConv,
    SiLU,
    SpatialFC,
    SquaredReLU,
    StarReLU,
    count,
    create_model,
)

ACTIVATIONS = {
    "ReLU": ReLU(), "SquaredReLU": SquaredReLU(), "GELU": GELU(), "SiLU": SiLU(), "StarReLU": StarReLU(),
    "StarReLU derived": StarReLU(0.8944, -0.4472), "StarReLU frozen s": StarReLU(learn_scale=False),
    "StarReLU frozen b": StarReLU(learn_bias=False), "StarReLU frozen": StarReLU(learn_scale=False, learn_bias=False),
}  # fmt: skip
SCALES = {
    "ResScale": Scale(shortcut=1.0), "LayerScale": Scale(branch=1e-5), "BranchScale": Scale(shortcut=1.0, branch=1e-5),
    "no scale": Scale(),
}  # fmt: skip
BIASED = (SepConv(bias=True),) * 2 + (Attention(qkv_bias=True, proj_bias=True),) * 2

V1 = {
    "identity": {"mixers": Identity()},
    "random everywhere": {"mixers": (Random(grid=16), Random(grid=8), Random(grid=4), Random(grid=2))},
    "random in stage 2": {"mixers": (Identity(), Random(grid=8), Identity(), Identity())},
    "depthwise": {"mixers": DepthwiseConv()},
    "separable": {"mixers": SepConv(activation=GELU(), bias=True)},
    "Fourier": {"mixers": Fourier()},
    "spatial FC": {"mixers": (Pooling(), Pooling(), SpatialFC(grid=4), SpatialFC(grid=2))},
    "attention": {"mixers": (Pooling(), Pooling(), Attention(proj_bias=True), Attention(proj_bias=True))},
    **{f"pooling {window}": {"mixers": Pooling(window=window)} for window in (3, 5, 7, 9)},
    **{f"max pooling {window}": {"mixers": MaxPooling(window=window)} for window in (3, 5)},
    "LayerNorm": {"norm": LayerNorm(eps=1e-5, bias=True)},
    "BatchNorm": {"norm": BatchNorm()},
    "no norm": {"norm": NoNorm()},
    "MLN without bias": {"norm": MLN(eps=1e-5)},
    **{name: {"activation": act} for name, act in ACTIVATIONS.items()},
    "no LayerScale": {"scales": Scale()},
    "no residual": {"residual": False},
    "no channel MLP": {"mlp_ratio": 0},
    "neither": {"mlp_ratio": 0, "residual": False},
    "no MLP bias": {"mlp_bias": False},
    "position embedding": {"pos_embed": (16, 0, 4, 0)},
    "per block": {"mixers": (Pooling(), Identity(), Pooling(), Attention(), SepConv())},
    "grey": {"in_chans": 1},
    "13 bands": {"in_chans": 13},
    "features": {"num_classes": 0},
    "stem stride 1": {"stem_stride": 1},
    "stem stride 4": {"stem_stride": 4},
}
V2 = {
    **{
        name: {"activation": act, "mixers": (SepConv(activation=act),) * 2 + (Attention(),) * 2}
        for name, act in ACTIVATIONS.items()
    },
    **{f"{name} everywhere": {"scales": scale} for name, scale in SCALES.items()},
    **{f"{name} in stages 3 and 4": {"scales": (Scale(), Scale(), scale, scale)} for name, scale in SCALES.items()},
    "biases": {"mixers": BIASED, "mlp_bias": True},
    "MLN": {"norm": MLN()},
    "as text": {"mixers": "(SepConv(kernel=5), SepConv, Pooling, Attention)", "norm": "MLN(bias=True)", "head": "LinearHead"},
    "dropped": {"drop_path": 0.3, "head_dropout": 0.4},
}
HYBRIDS = [f"metaformer_{letters}" for letters in ("id_s12", "pppa_s12_224", "ppaa_s12_224", "pppf_s12_224", "ppff_s12_224")]
TINY = {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 40), "num_classes": 5}


def step(model: MetaFormer, size: int = 32) -> None:
    """One step of gradient descent: what should learn has a finite gradient, what should not stays, the loss falls."""
    model.train().double()
    x = torch.randn(4, model.config.in_chans, size, size, dtype=torch.float64)

    def loss() -> Tensor:
        torch.manual_seed(1)  # for drop path
        return F.cross_entropy(model(x), torch.tensor([0, 1, 2, 3]))

    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    before = loss()
    before.backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name
        assert p.grad is None or torch.isfinite(p.grad).all(), name
    torch.optim.SGD(model.parameters(), 0.01).step()
    assert loss() < before
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)


def built(name: str, **changes) -> MetaFormer:
    torch.manual_seed(0)
    return create_model(name, **{**TINY, **changes})


@pytest.mark.parametrize("row", V1)
def test_rows_of_the_first_paper(row):
    step(built("poolformer_s12", **{"stem_stride": 2, **V1[row]}))


@pytest.mark.parametrize("row", V2)
@pytest.mark.parametrize("name", ["convformer_t6", "caformer_t6"])
def test_rows_of_the_second_paper(name, row):
    changes = dict(V2[row])
    if name == "convformer_t6" and isinstance(changes.get("mixers"), tuple):
        changes["mixers"] = changes["mixers"][0]
    step(built(name, **changes))


@pytest.mark.parametrize("name", HYBRIDS)
def test_hybrids(name):
    """With position embeddings and token matrices that do not fit the image."""
    step(built(name), size=64)


@pytest.mark.parametrize("name", ["identityformer_t6", "randformer_t6", "poolformerv2_t6", "convformer_t6", "caformer_t6"])
@pytest.mark.parametrize("stem_stride", [1, 2, 4])
def test_small_models_at_every_stem_stride(name, stem_stride):
    step(built(name, stem_stride=stem_stride))


def test_a_mixer_of_ones_own():
    class Blur(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(dim, 1, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight, padding=1, groups=x.shape[1])

    mixers = (Blur, lambda dim: nn.AvgPool2d(3, 1, 1), Pooling(), Attention())
    step(MetaFormer(MetaFormerConfig(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), mixers=mixers, num_classes=5)))


def test_random_in_all_stages_of_s12_has_21_million_frozen_parameters():
    with torch.device("meta"):
        model = create_model("poolformer_s12", mixers=(Random(56), Random(28), Random(14), Random(7)))
    frozen = [sum(p.numel() for p in stage.parameters() if not p.requires_grad) for stage in model.stages]
    assert frozen == [19_668_992, 1_229_312, 230_496, 4_802]
    assert count(model, 224).frozen == sum(frozen) == 21_133_602


def test_biases_in_every_block():
    """All convolutions of all blocks have one, and it starts at zero."""
    model = built("caformer_t6", mixers=BIASED, mlp_bias=True)
    layers = [m for stage in model.stages for m in stage.blocks.modules() if isinstance(m, nn.Conv2d)]
    assert len(layers) == 2 * (2 + 3) + 3 * (2 + 2)
    assert all(layer.bias is not None and not layer.bias.any() for layer in layers)


@pytest.mark.parametrize("changes", [{"norm": NoNorm()}, {"residual": False}, {"mlp_ratio": 0}, {"scales": Scale()}], ids=str)
def test_what_is_left_out_is_gone(changes):
    """The feature maps change, and by as much as the part did."""
    model, less = built("poolformerv2_t6"), built("poolformerv2_t6", **changes)
    less.load_state_dict(model.state_dict(), strict=False)
    for m in (model, less):
        m.eval()
    x = torch.randn(2, 3, 32, 32)
    if "scales" in changes:  # a ResScale of 1 does nothing until it has learnt
        assert torch.equal(model(x), less(x))
        model.stages[3].blocks[0].mlp.shortcut_scale.data.mul_(2)
    assert not torch.allclose(model(x), less(x))
