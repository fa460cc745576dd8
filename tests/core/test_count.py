"""What a model costs: the published figures exactly, and small models by hand."""

import pytest
import torch
from tests.published import PUBLISHED, T6
from torch import Tensor, nn

from metaformer import (
    GELU,
    Attention,
    BatchNorm,
    Identity,
    LinearHead,
    MetaFormer,
    MetaFormerConfig,
    MLPHead,
    NoNorm,
    Pooling,
    ReLU,
    Scale,
    SepConv,
    SiLU,
    SquaredReLU,
    StarReLU,
    count,
    create_model,
)


def on_meta(name: str, **changes) -> MetaFormer:
    with torch.device("meta"):
        return create_model(name, **changes)


def one_block(**changes) -> MetaFormer:
    """4 channels, 2×2 tokens of an 8×8 image, nothing but a channel MLP of 16."""
    plain = {"depths": 1, "dims": (4,), "mixers": Identity(), "scales": Scale(), "num_classes": 3}
    bare = {"norm": NoNorm(), "patch_norm": NoNorm(), "head_norm": NoNorm(), "activation": ReLU()}
    return MetaFormer(MetaFormerConfig(**{**plain, **bare, "depths": (1,), **changes}))


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name):
    row, model = PUBLISHED[name], on_meta(name)
    cost = count(model, 224)
    assert (cost.parameters, cost.frozen, cost.macs, cost.flops) == (row.parameters, row.frozen, row.macs, 2 * row.macs)
    if row.macs_384:
        assert count(model, 384).macs == row.macs_384


@pytest.mark.parametrize("name", T6)
def test_small_models_are_small(name):
    cost = count(on_meta(name), 32)
    assert cost.parameters < 2_500_000
    assert cost.macs < 25_000_000


def test_a_real_model_counts_like_one_on_the_meta_device():
    assert count(create_model("caformer_t6"), 32) == count(on_meta("caformer_t6"), 32)


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_macs_by_hand_and_by_name():
    cost = count(one_block(), 8)
    stem, fc, head = 4 * 3 * 49 * 4, 4 * 16 * 4, 4 * 3
    assert cost.macs == stem + 2 * fc + head
    assert cost.macs_by_name[""] == cost.macs
    assert cost.macs_by_name["stages.0.embed.conv"] == stem
    assert cost.macs_by_name["stages.0.blocks.0.mlp.branch.fc1"] == fc
    assert cost.macs_by_name["stages.0.blocks.0.mlp.branch"] == cost.macs_by_name["stages.0.blocks.0"] == 2 * fc
    assert cost.macs_by_name["head"] == head
    assert cost.parameters == (4 * 3 * 49 + 4) + 2 * 4 * 16 + (4 * 3 + 3)


@pytest.mark.parametrize("name", ["caformer_t6", "poolformer_s12"])
def test_children_sum_to_their_parents(name):
    """A list of stages or blocks is no part of its own: what is in it counts."""
    macs, modules = count(on_meta(name), 64).macs_by_name, dict(on_meta(name).named_modules())

    def children(parent: str) -> int:
        names = [f"{parent}.{child}".lstrip(".") for child, _ in modules[parent].named_children()]
        return sum(macs.get(child, children(child)) for child in names)

    inner = [parent for parent in macs if children(parent) and "mixer.branch" not in parent]
    assert len(inner) > 20
    for parent in inner:
        assert children(parent) == macs[parent], parent


def test_both_products_of_attention_are_counted():
    """N = 16 tokens, two heads of 32: qkv, proj, N² per channel twice."""
    model = one_block(dims=(64,), mixers=Attention(), mlp_ratio=0)
    cost = count(model, 16)
    assert cost.macs_by_name["stages.0.blocks.0"] == 16 * 64 * (3 * 64 + 64) + 2 * 16 * 16 * 64


class Plain(nn.Module):
    """Attention with matrix products and softmax written out."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.flatten(2).mT).chunk(3, -1)
        return self.proj((q @ k.mT).softmax(-1) @ v).mT.view_as(x)


def test_a_users_mixer_is_counted_by_its_products():
    ours, theirs = (count(one_block(dims=(32,), mixers=mixer), 16).macs for mixer in (Attention(), Plain))
    assert ours == theirs


UNITS = {ReLU(): 1, SquaredReLU(): 2, StarReLU(): 4, GELU(): 14}


@pytest.mark.parametrize("activation", UNITS, ids=lambda spec: type(spec).__name__)
def test_activation_flops_by_hand(activation):
    """MLP: 4C·N units; separable convolution: 2C·N; MLP head: 4C Squared ReLU of 2 FLOPs. C = 4, N = 4."""
    per_unit = UNITS[activation]
    assert count(one_block(activation=activation), 8).activation_flops == per_unit * 16 * 4
    model = one_block(activation=activation, mixers=SepConv(activation=activation), head=MLPHead())
    assert count(model, 8).activation_flops == per_unit * (16 * 4 + 8 * 4) + 2 * 16


def test_starrelu_takes_71_percent_fewer_flops_than_gelu():
    star, gelu = (count(on_meta("poolformerv2_s12", activation=act), 224).activation_flops for act in (StarReLU(), GELU()))
    assert 1 - star / gelu == pytest.approx(0.71, abs=0.005)


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


@pytest.mark.parametrize("activation", [SiLU(), Own, lambda: nn.Sequential(nn.ReLU(), Own())], ids=["SiLU", "Own", "lambda"])
def test_activations_without_a_count_give_none(activation):
    assert count(one_block(activation=activation), 8).activation_flops is None
    assert count(one_block(mixers=SepConv(activation=activation)), 8).activation_flops is None


def test_activation_bytes_by_hand():
    """Kept, in float32: the input of fc1 (4·4), ReLU's result (16·4), which is also fc2's input, the head's input (4)."""
    assert count(one_block(), 8).activation_bytes == 4 * (16 + 64 + 4)


def test_activation_bytes_of_parts():
    plain = count(one_block(), 8).activation_bytes
    assert count(one_block(activation=GELU()), 8).activation_bytes == plain + 4 * 64  # its input beside its result
    assert count(one_block(scales=Scale(branch=1.0)), 8).activation_bytes > plain
    assert count(one_block().half(), 8).activation_bytes == plain // 2
    assert count(one_block().double(), 8).activation_bytes == plain * 2


def test_activation_bytes_grow_with_depth_and_area():
    shallow, deep = (count(on_meta("poolformer_s12", depths=(1, 1, d, 1)), 64).activation_bytes for d in (1, 11))
    step = count(on_meta("poolformer_s12", depths=(1, 1, 2, 1)), 64).activation_bytes - shallow
    assert deep - shallow == 10 * step
    assert count(on_meta("convformer_t6"), 64).activation_bytes == pytest.approx(
        4 * count(on_meta("convformer_t6"), 32).activation_bytes, rel=0.02
    )


# --- images and models of all kinds -----------------------------------------------------------------------------------


def test_images_that_are_not_square():
    model = on_meta("poolformerv2_s12")
    wide, high, square = count(model, (128, 256)), count(model, (256, 128)), count(model, 128)
    assert wide == high
    assert square.macs < wide.macs < 2 * square.macs
    assert wide.macs_by_name["stages.0.embed"] == 2 * square.macs_by_name["stages.0.embed"]


@pytest.mark.parametrize("in_chans", [1, 13])
def test_images_of_other_channels(in_chans):
    cost = count(on_meta("poolformer_s12", in_chans=in_chans), 224)
    assert cost.macs == PUBLISHED["poolformer_s12"].macs + (in_chans - 3) * 49 * 64 * 56 * 56


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_model_as_it_was(training):
    model = create_model("caformer_t6", norm=BatchNorm(), drop_path=0.5).train(training)
    model.stages[1].eval()
    flags = [m.training for m in model.modules()]
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    count(model, 32)
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())


def test_a_failed_count_leaves_the_model_as_it_was():
    model = create_model("caformer_t6").train()
    with pytest.raises(ValueError, match="H and W at least 1"):
        count(model, 0)
    assert all(m.training and not m._forward_hooks for m in model.modules())


def test_the_count_does_not_depend_on_mode_or_context():
    model = create_model("caformer_t6", drop_path=0.5, head_dropout=0.5)
    expected = count(model.train(), 32)
    assert count(model.eval(), 32) == expected
    with torch.no_grad():
        assert count(model, 32) == expected
    with torch.inference_mode():
        assert count(model, 32) == expected


def test_batch_norm_counts_on_one_place():
    """A fresh model is in training mode, where BatchNorm refuses one value per channel."""
    assert count(create_model("poolformer_s12", norm=BatchNorm(), depths=(1, 1, 1, 1)), 32).macs > 0


def test_frozen_parameters_are_among_the_parameters():
    model = one_block(mixers=Pooling(), head=LinearHead())
    model.head.classifier.fc.weight.requires_grad_(False)
    assert (count(model, 8).frozen, count(model, 8).parameters) == (12, count(one_block(), 8).parameters)
