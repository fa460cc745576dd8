"""The learning-rate range test (arXiv 1506.01186): the rate rises at every step until the loss does not fall any more."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice, pairwise
from statistics import median

from metaformer.data.batch import Batch
from metaformer.train.loop import Fit
from metaformer.train.numerics import exactness
from metaformer.train.parts import training_mode

STEPS, LOW, HIGH = 100, 1e-6, 10.0
"""Steps, over which the rate rises from LOW to HIGH by the same factor each."""
DIVERGED = 4.0
"""How many times its lowest value the loss may reach before the test ends; it is looked at as a running mean of ten steps."""
WIDTH = 4.0
"""Standard deviation, in steps, of the bell curve by which the losses are smoothed for what follows from them."""
CLEAR = 2.0
"""How many times the losses' own variation a fall must be for rates to be read off it: without any fall, the smoothed losses
of a hundred steps spread over three quarters of it."""


@dataclass(frozen=True)
class Trace:
    """Learning rates and the losses at them."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def smooth(self) -> tuple[float, ...]:
        """The losses, each with those around it: unlike a running mean, that does not move a fall to higher rates."""
        return tuple(_around(self.losses, i) for i in range(len(self.losses)))

    @property
    def lowest(self) -> float:
        """The rate at which the loss is lowest."""
        return self.rates[_least(self.smooth)]

    @property
    def steepest(self) -> float:
        """The rate at which the loss falls fastest, by the rate's logarithm, on its way to the lowest."""
        smooth = self.smooth
        slopes = [after - before for before, after in zip(smooth, smooth[2:], strict=False)][: max(1, _least(smooth) - 1)]
        return self.rates[1 + _least(slopes)]

    @property
    def tenth(self) -> float:
        """A tenth of the rate at which the loss is lowest."""
        return self.lowest / 10

    @property
    def falls(self) -> bool:
        """Whether there is a fall to choose by."""
        return len(self.rates) > 2 and _least(self.smooth) > 1

    @property
    def fall(self) -> float:
        """From the highest smoothed loss before the lowest, to that."""
        smooth = self.smooth
        return max(smooth[: _least(smooth) + 1]) - min(smooth)

    @property
    def noise(self) -> float:
        """Standard deviation of the losses, from step to step, up to the lowest: by medians, which no trend or leap moves."""
        losses = self.losses[: max(STEPS // 4, _least(self.smooth) + 1)]
        steps = [after - before for before, after in pairwise(losses)]
        middle = median(steps)
        return 1.4826 * median(abs(step - middle) for step in steps) / math.sqrt(2)

    @property
    def clear(self) -> bool:
        """Whether the fall stands out from the losses' own variation."""
        return self.fall > CLEAR * self.noise


def range_test(fit: Fit) -> Trace:
    """Trains with a rising rate; what `fit` has learnt by then is for nothing. Ends early where the loss diverges.

    Raises ValueError where the loss falls at no rate.
    """
    rates: list[float] = []
    losses: list[float] = []
    mean, best = 0.0, math.inf
    training_mode(fit.state.model, fit.recipe)
    with exactness(fit.recipe):
        for i, batch in enumerate(islice(_batches(fit), STEPS)):
            rate = LOW * (HIGH / LOW) ** (i / (STEPS - 1))
            loss, norm, learnt = fit.step(batch, rate)
            value = loss.item() / max(1, learnt)
            if not learnt or not math.isfinite(value + norm.item()):
                break
            rates.append(rate)
            losses.append(value)
            mean = 0.9 * mean + 0.1 * value
            current = mean / (1 - 0.9 ** len(losses))
            best = min(best, current)
            if current > DIVERGED * best:
                break
    trace = Trace(tuple(rates), tuple(losses))
    if not trace.falls:
        raise ValueError(f"the loss falls at no learning rate from {LOW:g} to {rates[-1] if rates else LOW:.2g}")
    return trace


def _batches(fit: Fit) -> Iterator[Batch]:
    """Batches without end, but those that nothing can be read of."""
    for epoch in count():
        yield from (batch for batch in fit.train.epoch(epoch) if len(batch))


def _around(values: Sequence[float], i: int) -> float:
    weights = [math.exp(-(((j - i) / WIDTH) ** 2) / 2) for j in range(len(values))]
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)


def _least(values: Sequence[float]) -> int:
    return min(range(len(values)), key=values.__getitem__)
