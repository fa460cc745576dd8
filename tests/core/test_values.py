"""What logits cannot show, by value and for every model: eps, biases, initialisation, drop path, scales, order.

The expectations are typed from the papers' tables, not read from the zoo.
"""

from functools import cache

import pytest
import torch
from tests.published import PUBLISHED, T6
from torch import Tensor, nn

from metaformer import MetaFormer, create_model
from metaformer.core.layers import ChannelNorm, DropPath, MapNorm, SquaredReLUAct, StarReLUAct
from metaformer.core.mixers import AttentionMixer, PoolingMixer, SepConvMixer, TokenMatrixMixer

V1, SIMPLE, STRONG = "v1", "v2 simple", "v2 strong"
STAGES = {
    "identityformer": "iiii", "randformer": "iirr", "poolformerv2": "pppp", "convformer": "cccc", "caformer": "ccaa",
    "poolformer": "pppp", "id": "iiii", "pppa": "pppa", "ppaa": "ppaa", "pppf": "pppf", "ppff": "ppff",
}  # fmt: skip
MIXERS = {
    "i": nn.Identity, "p": PoolingMixer, "r": TokenMatrixMixer, "f": TokenMatrixMixer, "c": SepConvMixer, "a": AttentionMixer,
}  # fmt: skip
NAMES = [*PUBLISHED, *T6]


def family(name: str) -> str:
    parts = name.split("_")
    return parts[1] if parts[0] == "metaformer" else parts[0]


def frame(name: str) -> str:
    if family(name) in ("convformer", "caformer"):
        return STRONG
    return V1 if name.startswith(("poolformer_", "metaformer_")) else SIMPLE


@cache
def on_meta(name: str, **changes) -> MetaFormer:
    with torch.device("meta"):
        return create_model(name, **changes)


def role(name: str) -> str:
    """Where in the model a module is: `block`, `patch`, `head` (its first norm) or `classifier`."""
    if ".blocks." in name:
        return "block"
    return "patch" if ".embed" in name else "classifier" if "classifier" in name else "head"


# --- norms and biases -------------------------------------------------------------------------------------------------

BLOCK_NORMS = {V1: (MapNorm, 1e-5, True), SIMPLE: (MapNorm, 1e-6, False), STRONG: (ChannelNorm, 1e-6, False)}
ATTENTIVE_V1 = (ChannelNorm, 1e-5, True)


@pytest.mark.parametrize("name", NAMES)
def test_every_norm_has_its_kind_eps_and_bias(name):
    model = on_meta(name)
    block = ATTENTIVE_V1 if family(name) in ("pppa", "ppaa") else BLOCK_NORMS[frame(name)]
    expected = {
        "block": block,
        "patch": (ChannelNorm, 1e-6, False),
        "head": block if frame(name) == V1 else (ChannelNorm, 1e-6, True),
        "classifier": (nn.LayerNorm, 1e-5, True),
    }
    norms = {n: m for n, m in model.named_modules() if hasattr(m, "eps")}
    for n, norm in norms.items():
        assert (type(norm), norm.eps, norm.bias is not None) == expected[role(n)], n
    count = {where: sum(role(n) == where for n in norms) for where in expected}
    blocks = sum(model.config.depths)
    assert count["block"] == 2 * blocks
    assert count["patch"] == (0 if frame(name) == V1 else 4)
    assert count["head"] == 1
    assert count["classifier"] == (1 if frame(name) == STRONG else 0)


@pytest.mark.parametrize("name", NAMES)
def test_every_convolution_and_linear_has_its_bias_or_none(name):
    for n, layer in on_meta(name).named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            v1_block = frame(name) == V1 and ".mixer.branch.qkv" not in n
            assert (layer.bias is not None) == (v1_block if role(n) == "block" else True), n


# --- the frame --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_stages_mix_as_published(name):
    for stage, letter in zip(on_meta(name).stages, STAGES[family(name)], strict=True):
        for block in stage.blocks:
            mixer = block.mixer.branch
            assert type(mixer) is MIXERS[letter]
            if letter == "p":
                pool = mixer.pool
                assert isinstance(pool, nn.AvgPool2d)
                assert (pool.kernel_size, pool.stride, pool.padding, pool.count_include_pad) == (3, 1, 1, False)
            if letter == "c":
                assert (mixer.dw.kernel_size, mixer.dw.groups) == ((7, 7), 2 * mixer.pw1.in_channels)
            if letter == "a":
                assert mixer.head_dim == 32
                assert mixer.qkv.out_channels == 3 * mixer.qkv.in_channels


@pytest.mark.parametrize("name", NAMES)
def test_channel_mlps_activations_and_patches(name):
    model = on_meta(name)
    activation = nn.GELU if frame(name) == V1 else StarReLUAct
    for stage, dim in zip(model.stages, model.config.dims, strict=True):
        for block in stage.blocks:
            mlp = block.mlp.branch
            assert type(mlp.act) is activation
            assert getattr(mlp.act, "approximate", "none") == "none"
            assert mlp.fc1.weight.shape == (4 * dim, dim, 1, 1)
            assert mlp.fc2.weight.shape == (dim, 4 * dim, 1, 1)
    stem, *downs = [stage.embed.conv for stage in model.stages]
    stride, padding = (2, 3) if name in T6 else (4, 2)
    assert (stem.kernel_size, stem.stride, stem.padding) == ((7, 7), (stride, stride), (padding, padding))
    assert [(c.kernel_size, c.stride, c.padding) for c in downs] == [((3, 3), (2, 2), (1, 1))] * 3
    after_stem = ["conv", "norm"]
    assert [list(dict(stage.embed.named_children())) for stage in model.stages] == [after_stem, *[after_stem[::-1]] * 3]


@pytest.mark.parametrize("name", NAMES)
def test_head_has_its_order_and_dropout_its_place(name):
    model = on_meta(name, head_dropout=0.4)
    parts = list(dict(model.head.classifier.named_children()))
    assert model.head.pool_first == (frame(name) != V1)
    assert parts == (["fc1", "act", "norm", "dropout", "fc"] if frame(name) == STRONG else ["dropout", "fc"])
    assert model.head.classifier.dropout.p == 0.4
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.4]
    if frame(name) == STRONG:
        assert type(model.head.classifier.act) is SquaredReLUAct
        assert model.head.classifier.fc1.out_features == 4 * model.config.dims[-1]


@pytest.mark.parametrize("name", NAMES)
def test_drop_path_rises_linearly_over_all_blocks_on_both_branches(name):
    model = on_meta(name, drop_path=0.3)
    last = sum(model.config.depths) - 1
    rates = [(block.mixer.drop_path.rate, block.mlp.drop_path.rate) for stage in model.stages for block in stage.blocks]
    expected = [pytest.approx(0.3 * i / last, abs=1e-12) for i in range(last + 1)]
    assert [rate for rate, _ in rates] == expected
    assert [rate for _, rate in rates] == expected
    assert sum(isinstance(m, DropPath) for m in model.modules()) == 2 * len(rates)


@pytest.mark.parametrize("name", NAMES)
def test_scales_are_where_they_were_published(name):
    for index, stage in enumerate(on_meta(name).stages):
        for block in stage.blocks:
            for half in (block.mixer, block.mlp):
                assert half.residual
                assert (half.scale is not None) == (frame(name) == V1)
                assert (half.shortcut_scale is not None) == (frame(name) != V1 and index >= 2)


@pytest.mark.parametrize("name", NAMES)
def test_position_embeddings_and_frozen_matrices(name):
    model = on_meta(name)
    embeddings = {n: tuple(p.shape) for n, p in model.named_parameters() if "pos_embed" in n}
    assert embeddings == {
        "pppa": {"stages.3.pos_embed.weight": (1, 512, 7, 7)},
        "ppaa": {"stages.2.pos_embed.weight": (1, 320, 14, 14)},
    }.get(family(name), {})
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if family(name) == "randformer" and ".mixer.branch.weight" in n}


# --- initialisation ---------------------------------------------------------------------------------------------------


def assert_std(tensor: Tensor, std: float, name: str) -> None:
    """Within five standard errors, which are 1 % for 5000 numbers."""
    assert tensor.std().item() == pytest.approx(std, rel=5 / (2 * tensor.numel()) ** 0.5), name
    assert abs(tensor.mean().item()) < 5 * std / tensor.numel() ** 0.5, name


def assert_truncated_normal(tensor: Tensor, name: str) -> None:
    assert_std(tensor, 0.02, name)
    assert tensor.abs().max() > 0.05, name  # and not uniform


def assert_torch_default(layer: nn.Conv2d, name: str) -> None:
    bound = layer.weight[0].numel() ** -0.5
    assert_std(layer.weight, bound / 3**0.5, name)
    assert 0.99 * bound < layer.weight.abs().max() <= bound, name
    assert 0.5 * bound < layer.bias.abs().max() <= bound, name


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n.endswith(("m36", "m48", "b36")) else ()) for n in NAMES]
)
def test_initialisation(name):
    """On one block per stage, which has all that more blocks have."""
    torch.manual_seed(0)
    model = create_model(name, depths=(1, 1, 1, 1))
    seen = set()
    for n, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            if frame(name) == V1 and role(n) == "patch":
                assert_torch_default(layer, n)
            else:
                assert_truncated_normal(layer.weight, n)
                assert layer.bias is None or not layer.bias.any(), n
        elif hasattr(layer, "eps"):
            assert (layer.weight == 1).all(), n
            assert layer.bias is None or not layer.bias.any(), n
        elif isinstance(layer, StarReLUAct):
            assert (layer.scale.tolist(), layer.bias.tolist()) == ([1.0], [0.0]), n
            assert layer.scale.requires_grad
            assert layer.bias.requires_grad
        else:
            continue
        seen.update(f"{n}.{p}" for p, _ in layer.named_parameters())
    layer_scale = 1e-6 if name in ("poolformer_s36", "poolformer_m36", "poolformer_m48") else 1e-5
    for n, p in model.named_parameters():
        last = n.rpartition(".")[2]
        if n in seen:
            continue
        if last == "scale":
            assert torch.equal(p, torch.full_like(p, layer_scale)), n
        elif last == "shortcut_scale":
            assert torch.equal(p, torch.ones_like(p)), n
        elif "pos_embed" in n:
            assert not p.any(), n
        elif family(name) == "randformer":
            torch.testing.assert_close(p.sum(1), torch.ones(len(p)))
        else:
            assert family(name) in ("pppf", "ppff"), n
            assert_truncated_normal(p, n)
