"""The learning rate of every step, and who is decayed."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from metaformer import Random, create_model
from metaformer.config import Recipe
from metaformer.train.optim import Average, clips_itself, learning_rate, make_optimizer, set_learning_rate

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
