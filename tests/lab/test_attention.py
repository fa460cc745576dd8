"""Attention weights and rollout, by value."""

import timm
import torch
from torch import Tensor

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.mixers import Attention, Pooling
from metaformer.core.model import MetaFormer
from metaformer.lab.attention import Attended, attention, rollout, weights_of
from metaformer.weights.peers import Peer, PeerConfig


def test_rollout_of_made_up_attention() -> None:
    """Two layers over two places, by hand: (A₂ + I)/2 · (A₁ + I)/2, A the mean over the heads."""
    first = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]])  # mean: every row ½, ½
    second = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
    expected = torch.tensor([[0.5, 0.5], [0.5, 0.5]]) @ torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    assert torch.allclose(rollout([first, second])[0], expected)
    lopsided = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])  # the order matters: all look at the first, then they change places
    hand = torch.tensor([[0.5, 0.5], [0.5, 0.5]]) @ torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert torch.allclose(rollout([lopsided, second])[0], hand)
    assert torch.allclose(rollout([second, lopsided])[0], torch.full((2, 2), 0.5))


def test_what_is_taken_with_and_without_a_class_token() -> None:
    weights = torch.rand(1, 2, 5, 5).softmax(-1)
    with_token = Attended("x", (weights,), (2, 2), first=1)
    assert torch.allclose(with_token.rolled()[0].flatten(), rollout([weights])[0, 0, 1:])
    assert torch.allclose(with_token.seen_from(torch.tensor([[1, 0]]))[0, 1].flatten(), weights[0, 1, 3, 1:])
    plain = Attended("x", (weights[:, :, :4, :4],), (2, 2))
    assert torch.allclose(plain.rolled()[0].flatten(), rollout([weights[:, :, :4, :4]])[0].mean(0))


def hybrid() -> MetaFormer:
    torch.manual_seed(0)
    mixers = (Pooling(), Pooling(), Attention(8), Pooling(), Attention(8), Attention(8))
    return MetaFormer(MetaFormerConfig(depths=(1, 1, 3, 1), dims=(8, 8, 16, 16), mixers=mixers, num_classes=5)).eval()


def test_the_weights_are_those_with_which_a_mixer_mixes() -> None:
    """Values mixed by them and projected are what the mixer gives."""
    mixer, x = Attention(8)(16), torch.randn(2, 16, 3, 4)
    weights = weights_of(mixer, x)
    values = mixer.qkv(x)[:, 32:].flatten(2).unflatten(1, (2, 8)).transpose(2, 3)
    mixed = (weights @ values).transpose(2, 3).flatten(1, 2).unflatten(2, (3, 4))
    assert torch.allclose(mixer.proj(mixed), mixer(x), atol=1e-5)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 12))


def test_a_hybrid_has_its_attention_by_stage() -> None:
    model, images = hybrid(), torch.randn(2, 3, 64, 96)
    found = attention(model, images)
    assert [(one.name, len(one.weights), one.grid) for one in found] == [("stage 3", 2, (4, 6)), ("stage 4", 1, (2, 3))]
    assert [one.weights[0].shape for one in found] == [(2, 2, 24, 24), (2, 2, 6, 6)]
    entered: list[Tensor] = []
    block = model.stages[3].blocks[0]
    block.mixer.norm.register_forward_hook(lambda _, inputs, out: entered.append(out))
    model(images)
    assert torch.allclose(found[1].weights[0], weights_of(block.mixer.branch, entered[0]))


def test_pooling_has_none() -> None:
    config = MetaFormerConfig(depths=(1,), dims=(8,), mixers=Pooling(), scales="Scale()", num_classes=2)
    assert attention(MetaFormer(config), torch.randn(1, 3, 32, 32)) == []


def test_peers() -> None:
    """A transformer with a class token, which is left as it was; and a model without attention."""
    torch.manual_seed(0)
    model = Peer(PeerConfig(name="vit_tiny_patch16_224", num_classes=4, in_chans=3, image_size=64)).eval()
    images = torch.randn(2, 3, 64, 64)
    before = model(images)
    (found,) = attention(model, images)
    assert (len(found.weights), found.grid, found.first) == (12, (4, 4), 1)
    assert found.weights[0].shape == (2, 3, 17, 17)
    assert torch.allclose(found.rolled().sum((1, 2)) + rollout(found.weights)[:, 0, 0], torch.ones(2))
    assert all(block.attn.fused_attn for block in model.model.blocks)
    assert torch.equal(model(images), before)
    assert attention(timm.create_model("resnet18").eval(), images) == []
