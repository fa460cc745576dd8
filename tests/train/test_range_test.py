"""The range test: what it chooses from curves that are known, and when it ends."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tiny import QUICK

from metaformer.config import Recipe
from metaformer.data.batch import Batch
from metaformer.data.sources import open_data
from metaformer.train.loop import Fit
from metaformer.train.range_test import HIGH, LOW, STEPS, Trace, range_test
from metaformer.train.train import prepare

pytestmark = pytest.mark.usefixtures("thread")


def traced(loss: Callable[[float], float], noise: float = 0.0) -> Trace:
    """Losses by the rate's logarithm to base 10, over as many decades as the test has, at its rates."""
    rates = [LOW * (HIGH / LOW) ** (i / (STEPS - 1)) for i in range(STEPS)]
    return Trace(tuple(rates), tuple(loss(math.log10(rate)) + noise * math.sin(7 * i) for i, rate in enumerate(rates)))


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize(("middle", "rise"), [(-3.0, -1.0), (-2.0, 0.0), (-4.0, -2.5)])
def test_the_steepest_and_the_lowest_by_value(middle: float, rise: float, noise: float) -> None:
    trace = traced(lambda x: 2 - math.tanh(2 * (x - middle)) + math.exp(4 * (x - rise)), noise)
    lowest = min((2 - math.tanh(2 * (x - middle)) + math.exp(4 * (x - rise)), x) for x in [i / 100 for i in range(-600, 100)])[
        1
    ]
    assert trace.falls
    assert math.log10(trace.steepest) == pytest.approx(middle, abs=0.2)
    assert math.log10(trace.lowest) == pytest.approx(lowest, abs=0.3)
    assert trace.tenth == pytest.approx(trace.lowest / 10)
    assert trace.steepest < trace.lowest


def test_what_comes_after_the_lowest_is_not_looked_at() -> None:
    trace = traced(lambda x: 3 - 0.3 * (x + 6) if x < -2 else (9.0 if x < -1 else 5.0))
    assert trace.steepest < 1e-2


@pytest.mark.parametrize("losses", [(), (1.0,), (1.0, 2.0, 3.0, 4.0, 5.0)])
def test_no_fall_is_none(losses: tuple[float, ...]) -> None:
    assert not Trace(tuple(10.0**i for i in range(len(losses))), losses).falls


@pytest.mark.parametrize("seed", range(20))
def test_a_fall_stands_out_from_noise_or_does_not(seed: int) -> None:
    draw = random.Random(seed)

    def noisy(x: float, fall: float) -> float:
        return 2.3 - fall * (1 + math.tanh(2 * (x + 3))) / 2 + math.exp(4 * x) + draw.gauss(0, 0.1)

    flat, steep = (traced(lambda x, fall=fall: noisy(x, fall)) for fall in (0.0, 1.0))
    assert not flat.clear
    assert steep.clear
    assert steep.fall == pytest.approx(1.0, abs=0.2)
    assert steep.noise == pytest.approx(0.1, rel=0.5)


def test_what_no_noise_is_in_is_clear() -> None:
    assert traced(lambda x: 2 - 0.01 * math.tanh(2 * (x + 3)) + math.exp(4 * x)).clear


def fit(fashion: str, **settings: Any) -> Fit:
    recipe = Recipe(**{"model": "caformer_t6", "data": fashion, **QUICK, **settings})
    return prepare(recipe, open_data(fashion), None)


def test_it_finds_what_trains(fashion: str) -> None:
    trace = range_test(fit(fashion))
    assert trace.rates[0] == LOW
    assert [b / a for a, b in zip(trace.rates, trace.rates[1:], strict=False)] == pytest.approx(
        [(HIGH / LOW) ** (1 / (STEPS - 1))] * (len(trace.rates) - 1)
    )
    assert 1e-4 < trace.steepest < trace.lowest < 1
    assert min(trace.smooth) < trace.smooth[0] - 0.3
    again = range_test(fit(fashion))
    assert again == trace


@pytest.mark.parametrize(("spoilt", "steps"), [(math.nan, 30), (math.inf, 30), (1e4, 31)])
def test_it_ends_where_the_loss_diverges(fashion: str, monkeypatch: pytest.MonkeyPatch, spoilt: float, steps: int) -> None:
    taken: list[float] = []

    def step(self: Fit, batch: Any, lr: float) -> tuple[torch.Tensor, torch.Tensor, int]:
        taken.append(lr)
        loss = 2.0 - 0.03 * len(taken) if len(taken) <= 30 else spoilt
        return torch.tensor(4 * loss), torch.tensor(1.0), 4

    monkeypatch.setattr(Fit, "step", step)
    trace = range_test(fit(fashion))
    assert (len(trace.rates), len(taken)) == (steps, 31)
    assert trace.losses[0] == pytest.approx(1.97)


def test_a_loss_that_never_falls_is_a_sentence(fashion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter(range(1, 1000))
    monkeypatch.setattr(Fit, "step", lambda *_: (torch.tensor(1.0 + next(losses)), torch.tensor(1.0), 1))
    with pytest.raises(ValueError, match=r"^the loss falls at no learning rate from 1e-06 to "):
        range_test(fit(fashion))


def test_epochs_go_round_and_empty_batches_are_left_out(fashion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked = fit(fashion), []
    empty, whole = (Batch(torch.zeros(count, 1, 8, 8), torch.zeros(count)) for count in (0, 2))

    def epoch(number: int) -> list[Any]:
        asked.append(number)
        return [empty, whole, whole, empty]

    monkeypatch.setattr(made.train, "epoch", epoch)
    losses = iter(range(1000, 1, -1))
    monkeypatch.setattr(Fit, "step", lambda self, batch, lr: (batch.labels.sum() + next(losses), torch.tensor(0.0), 2))
    assert len(range_test(replace(made)).rates) == STEPS
    assert asked == list(range(STEPS // 2))


@pytest.mark.parametrize("settings", [{"learn": "head"}, {"freeze_norms": True}], ids=str)
def test_frozen_norms_stay_as_they_are(fashion: str, settings: dict[str, Any]) -> None:
    made = fit(fashion, lr=0.0, changes={**QUICK["changes"], "norm": "BatchNorm()"}, **settings)
    before = {name: value.clone() for name, value in made.state.model.named_buffers()}
    range_test(made)
    assert len(before) > 3
    assert {name for name, value in made.state.model.named_buffers() if not torch.equal(value, before[name])} == set()
