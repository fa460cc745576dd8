"""The learning rate of every step, and who is decayed."""

import math
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from timm.optim._param_groups import param_groups_weight_decay
from torch import nn

from metaformer import Random, create_model
from metaformer.config import Recipe
from metaformer.core.lora import LowRank
from metaformer.train.optim import Average, clips_itself, layer_of, learning_rate, make_optimizer, set_learning_rate
from metaformer.train.parts import choose_parts
from metaformer.weights.peers import Peer, PeerConfig
from metaformer.weights.timm_models import TimmMetaFormer
from metaformer.zoo import ZOO

RECIPE = Recipe(model="x", epochs=10, warmup_epochs=2, lr=1.0, warmup_lr=0.1, min_lr=0.01)


@pytest.mark.parametrize(
    ("step", "lr"),
    [
        (0, 0.1),  # the warm-up's first
        (5, 0.55),
        (9, 0.91),
        (10, 1.0),  # the first after it
        (23, 0.01 + 0.99 * (1 + math.cos(math.pi / 3)) / 2),  # a third of the 39 steps that are left
        (36, 0.01 + 0.99 * (1 + math.cos(math.pi * 2 / 3)) / 2),
        (49, 0.01),  # the very last
    ],
)
def test_learning_rate_by_value(step: int, lr: float) -> None:
    assert learning_rate(RECIPE, step, 5) == pytest.approx(lr, rel=1e-12)


def test_learning_rate_rises_then_falls() -> None:
    rates = [learning_rate(RECIPE, step, 5) for step in range(50)]
    assert rates[:11] == sorted(set(rates[:11]))
    assert rates[10:] == sorted(set(rates[10:]), reverse=True)


@pytest.mark.parametrize(
    ("warmup_epochs", "epochs", "steps", "step", "lr"),
    [
        (0, 10, 5, 0, 1.0),  # no warm-up
        (0.5, 10, 4, 2, 1.0),  # half an epoch
        (20, 10, 5, 49, 0.1 + 0.9 * 49 / 100),  # a warm-up longer than the run is cut off
        (0, 1, 1, 0, 1.0),  # one step in all
        (1, 1, 3, 2, 0.1 + 0.9 * 2 / 3),  # nothing but warm-up
    ],
)
def test_learning_rate_at_the_edges(warmup_epochs: float, epochs: int, steps: int, step: int, lr: float) -> None:
    recipe = Recipe(model="x", epochs=epochs, warmup_epochs=warmup_epochs, lr=1.0, warmup_lr=0.1, min_lr=0.01)
    assert learning_rate(recipe, step, steps) == pytest.approx(lr, rel=1e-12)


@pytest.mark.parametrize(("step", "lr"), [(0, 0.1), (9, 0.91), (10, 1.0), (49, 1.0)])
def test_a_constant_rate_stays_after_its_warm_up(step: int, lr: float) -> None:
    assert learning_rate(replace(RECIPE, schedule="constant"), step, 5) == pytest.approx(lr, rel=1e-12)


@pytest.mark.parametrize(
    ("planned", "rates"),
    [
        (0.33, [1.0]),
        (1.0, [1.0]),
        (2.0, [1.0, 0.505]),
        (3.0, [1.0, 0.7525, 0.2575]),
        (4.0, [0.1, 0.01 + 0.99 * (1 + math.cos(math.pi / 4)) / 2, 0.505]),
        (6.0, [0.1, 0.01 + 0.99 * (1 + math.cos(math.pi / 6)) / 2, 0.7525]),
    ],
)
def test_an_epochwise_warm_up_is_of_whole_epochs(planned: float, rates: list[float]) -> None:
    """A part of one would take the whole epoch at warmup_lr."""
    recipe = replace(RECIPE, schedule="epochwise", epochs=300, warmup_epochs=20.0)
    assert [learning_rate(recipe, 5 * epoch + 3, 5, planned) for epoch in range(len(rates))] == pytest.approx(rates, rel=1e-12)
    if planned >= 1:
        recipe = replace(recipe, epochs=int(planned), warmup_epochs=planned / 4)  # as a row is cut to epochs=
        assert [learning_rate(recipe, 5 * epoch, 5) for epoch in range(len(rates))] == pytest.approx(rates, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "lr"),
    [
        (0, 0.1),
        (4, 0.1),
        (5, 0.55),
        (10, 0.01 + 0.99 * (1 + math.cos(math.pi * 0.2)) / 2),
        (29, 0.505),
        (49, 0.01 + 0.99 * (1 + math.cos(math.pi * 0.9)) / 2),
    ],
)
def test_an_epochwise_rate_changes_once_an_epoch(step: int, lr: float) -> None:
    recipe = replace(RECIPE, schedule="epochwise")
    assert learning_rate(recipe, step, 5) == pytest.approx(lr, rel=1e-12)


# --- layer by layer ---------------------------------------------------------------------------------------------------


def scales(groups: list[dict[str, Any]]) -> dict[int, float]:
    """By parameter."""
    return {id(p): group["lr_scale"] for group in groups for p in group["params"]}


@pytest.mark.parametrize("name", ["caformer_t6", "metaformer_ppaa_s12_224", "poolformer_s12"])
def test_layers_learn_at_timms_rates(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = create_model(name, num_classes=3), TimmMetaFormer(replace(ZOO[name], num_classes=3))
    made = make_optimizer(ours, replace(RECIPE, layer_decay=0.7, weight_decay=0.3)).param_groups
    own, timms = scales(made), scales(param_groups_layer_decay(theirs, layer_decay=0.7))
    expected = {key: timms[id(p)] for key, p in theirs.named_parameters()}
    assert {key: own[id(p)] for key, p in ours.named_parameters()} == pytest.approx(expected, rel=1e-12)
    assert made[0]["lr_scale"] == 1  # whose rate is logged
    decay = {id(p): group["weight_decay"] for group in made for p in group["params"]}
    assert all(decay[id(p)] == (0.3 if p.ndim > 1 else 0.0) for p in ours.parameters())


def test_layers_learn_at_convnexts_rates() -> None:
    theirs = timm.create_model("convnext_atto", depths=(1, 1, 3, 1), dims=(8, 8, 16, 16))
    timms = scales(param_groups_layer_decay(theirs, layer_decay=0.7))
    ours = create_model("convformer_t6")  # of the same depths
    own = scales(make_optimizer(ours, replace(RECIPE, layer_decay=0.7)).param_groups)
    for stage, depth in enumerate((1, 1, 3, 1)):
        for block in range(depth):
            other = theirs.stages[stage].blocks[block].mlp.fc1.weight
            assert own[id(ours.stages[stage].blocks[block].mlp.branch.fc1.weight)] == pytest.approx(timms[id(other)])
    assert own[id(ours.stages[0].embed.conv.weight)] == pytest.approx(timms[id(theirs.stem[0].weight)]) == pytest.approx(0.7**7)
    assert own[id(ours.stages[2].embed.conv.weight)] == pytest.approx(timms[id(theirs.stages[2].downsample[1].weight)])
    assert own[id(ours.head.classifier.fc.weight)] == timms[id(theirs.head.fc.weight)] == 1


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("stages.0.embed.conv.weight", 0),
        ("stages.0.pos_embed.weight", 0),
        ("stages.0.blocks.0.mixer.norm.weight", 1),
        ("stages.2.embed.norm.weight", 5),
        ("stages.2.pos_embed.weight", 5),
        ("stages.2.blocks.0.mlp.branch.fc1.parametrizations.weight.0.up", 5),
        ("stages.2.blocks.10.mlp.scale", 15),
        ("head.norm.weight", 17),
        ("head.classifier.fc.bias", 17),
    ],
)
def test_the_layer_of_a_name(name: str, layer: int) -> None:
    assert layer_of(name, (2, 2, 11, 1)) == layer


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "sgd"])
def test_a_step_is_as_long_as_its_layer_says(optimizer: str) -> None:
    """Of the norms' weights, which no decay or trust ratio reaches."""
    recipe = replace(RECIPE, optimizer=optimizer, clip=None)
    moved: list[dict[str, torch.Tensor]] = []
    for decay in (1.0, 0.5):
        torch.manual_seed(0)
        model = create_model("poolformerv2_t6", num_classes=3, dims=(8, 8, 8, 8), depths=(1, 1, 1, 1))
        made = make_optimizer(model, replace(recipe, layer_decay=decay))
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model(torch.ones(2, 3, 16, 16)).square().sum().backward()
        set_learning_rate(made, 0.25)
        made.step()
        moved.append({name: p.detach() - before[name] for name, p in model.named_parameters() if p.ndim == 1})
    for name, change in moved[0].items():
        torch.testing.assert_close(moved[1][name], change * 0.5 ** (5 - layer_of(name, (1, 1, 1, 1))), rtol=1e-3, atol=1e-6)


def test_a_peers_layers_are_timms() -> None:
    peer = Peer(PeerConfig(name="test_vit", num_classes=3, in_chans=3, image_size=160))
    own = scales(make_optimizer(peer, replace(RECIPE, layer_decay=0.5)).param_groups)
    assert own == scales(param_groups_layer_decay(peer.model, layer_decay=0.5))
    assert own[id(peer.model.head.weight)] == 1 > own[id(peer.model.patch_embed.proj.weight)]


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_what_timm_exempts_of_a_peer_is_not_decayed(layer_decay: float) -> None:
    peer = Peer(PeerConfig(name="test_vit", num_classes=3, in_chans=3, image_size=160))
    groups = make_optimizer(peer, replace(RECIPE, weight_decay=0.3, layer_decay=layer_decay)).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    model = peer.model
    expected = param_groups_weight_decay(model, 0.3, no_weight_decay_list=model.no_weight_decay())
    assert decay == {id(p): group["weight_decay"] for group in expected for p in group["params"]}
    assert decay[id(model.pos_embed)] == decay[id(model.cls_token)] == 0 < decay[id(model.head.weight)]


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "sgd"])
def test_low_rank_updates_grow(optimizer: str, layer_decay: float) -> None:
    """B starts at 0, and a trust ratio would make each step as long as B is."""
    models = [
        create_model("caformer_t6", num_classes=3, dims=(8, 8, 16, 16), depths=(1, 1, 1, 1)),
        Peer(PeerConfig(name="test_vit", num_classes=3, in_chans=3, image_size=32)),
    ]
    for model in models:
        recipe = replace(RECIPE, optimizer=optimizer, learn="lora:2", layer_decay=layer_decay, weight_decay=0.3)
        choose_parts(model, recipe)
        made = make_optimizer(model, recipe)
        updates = [module for module in model.modules() if isinstance(module, LowRank)]
        decay = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
        assert {decay[id(p)] for update in updates for p in (update.up, update.down)} == {0.0}
        assert {decay[id(p)] for p in model.parameters() if p.requires_grad and p.ndim > 1} == {0.0, 0.3}
        set_learning_rate(made, 1e-5)
        sizes: list[float] = []
        for _ in range(5):
            made.zero_grad()
            model(torch.ones(2, 3, 32, 32)).sum().backward()
            made.step()
            sizes.append(sum(update.up.norm().item() for update in updates))
        assert sizes[-1] > 3 * sizes[0] > 0


def test_set_learning_rate_reaches_every_group() -> None:
    optimizer = make_optimizer(create_model("identityformer_t6", num_classes=3), RECIPE)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_matrices_are_decayed_and_nothing_else() -> None:
    model = create_model("caformer_t6", num_classes=3, mixers=("Identity()", Random(4), "SepConv(bias=True)", "Attention()"))
    optimizer = make_optimizer(model, Recipe(model="x", weight_decay=0.5, lr=0.1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    kept, decayed = set(), set()
    for name, parameter in model.named_parameters():
        if torch.equal(parameter, before[name] * (1 - 0.1 * 0.5)) and parameter.any():
            decayed.add(name)
        elif torch.equal(parameter, before[name]):
            kept.add(name)
    assert kept | decayed == before.keys()
    assert decayed == {name for name, p in model.named_parameters() if p.ndim > 1 and p.requires_grad}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert len(frozen) == 1  # RandFormer's matrix, which is one but does not learn
    assert frozen < kept


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("adamw", "AdamW", {"lr": 0.3, "eps": 1e-8, "betas": (0.9, 0.999)}),
        ("lamb", "Lamb", {"lr": 0.3, "eps": 1e-6, "betas": (0.9, 0.999), "max_grad_norm": 2.0}),
        ("sgd", "SGD", {"lr": 0.3, "momentum": 0.9, "nesterov": True}),
    ],
)
def test_optimizers_and_their_figures(name: str, kind: str, options: dict[str, object]) -> None:
    recipe = Recipe(model="x", optimizer=name, lr=0.3, clip=2.0, weight_decay=0.25)
    optimizer = make_optimizer(create_model("identityformer_t6", num_classes=3), recipe)
    assert type(optimizer).__name__ == kind
    assert [{key: group[key] for key in options} for group in optimizer.param_groups] == [options, options]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0.0]
    assert clips_itself(recipe) is (name == "lamb")


@pytest.mark.parametrize(
    ("decay", "warmup", "expected"),
    [(0.9, True, [2 / 11, 3 / 12, 4 / 13]), (0.2, True, [2 / 11, 0.2, 0.2]), (0.9, False, [0.9, 0.9, 0.9])],
)
def test_average_by_value(decay: float, warmup: bool, expected: list[float]) -> None:
    learning = nn.BatchNorm1d(1)
    average = Average(learning, decay, warmup=warmup)
    mean = 1.0
    for step, keep in enumerate(expected, 1):
        with torch.no_grad():
            learning.weight.fill_(step * 10.0)
        learning.num_batches_tracked.fill_(step)
        average.update(learning, step)
        mean = keep * mean + (1 - keep) * step * 10
        assert average.model.weight.item() == pytest.approx(mean, rel=1e-6)
        assert average.model.num_batches_tracked == step
    assert not average.model.weight.requires_grad
    assert learning.weight.requires_grad
