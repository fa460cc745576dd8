"""How long a run is and how large its images are: hours=, start_size=. Arithmetic on what was measured and is saved."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from metaformer.config import Recipe
from metaformer.train.checkpoint import Progress

WARM, FIRST = 5, 20
"""Steps that are slow because they are the first ones, and step after which a run with hours= is planned."""
SPARE = 0.02
"""Part of hours= that a plan leaves alone."""
RISE = 2 / 3
"""Part of the epochs over which images grow."""


def image_side(recipe: Recipe, epoch: int, epochs: float, stride: int) -> int:
    """Side in pixels of the images in an epoch, counted from 0, of `epochs`.

    From start_size it rises linearly, in multiples of the model's `stride`, to image_size at two thirds of the epochs; the
    last one is always of image_size.
    """
    assert recipe.image_size is not None
    start, end = recipe.start_size, recipe.image_size
    rise = min(RISE * epochs, math.ceil(epochs) - 1)
    if start is None or epoch >= rise:
        return end
    return max(start, int(start + (end - start) * epoch / rise) // stride * stride)


def least_part(images: int, batch: int, accumulate: int) -> int:
    """Images in the smallest part that a batch is cut into in one process: the last one, or that of what is left over."""
    sizes = {min(batch, images), images % batch or batch}
    chunks = {size: -(-size // accumulate) for size in sizes}
    return min(size % chunk or chunk for size, chunk in chunks.items())


def last_step(seconds: float, done: int, closed: int, steps: int, step: float, judging: float) -> int:
    """The step with which a run ends that has so many seconds left, `done` steps and `closed` epochs behind it.

    An epoch of `steps` takes `step` seconds for each of them and `judging` at its end. The last epoch may be a part, but is
    left out where it would take longer to judge than to train.
    """
    most = max(0.0, seconds) / (step + judging / steps)
    ends = math.ceil((done + most) / steps) - closed
    reached = [min(done + math.floor((seconds - k * judging) / step), (closed + k) * steps) for k in (ends - 1, ends)]
    last = max(done, *reached)
    part = last % steps
    return last - part if part * step < judging and last - part >= max(done, steps) else last


@dataclass
class Budget:
    """hours= of a run: counts the time into its progress, and plans the run anew by it."""

    recipe: Recipe
    progress: Progress
    steps: int
    """Optimizer steps in an epoch."""
    judged: int
    """Batches of held-out images."""
    stride: int
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self.before = self.clock()
        self.latest = (0.0, 0.0)

    @property
    def seconds(self) -> float:
        """All that the run may take."""
        assert self.recipe.hours is not None
        return 3600 * self.recipe.hours

    @property
    def used_up(self) -> bool:
        """Whether another step would leave too little time to judge: one like the quicker of the latest two, as some stall."""
        return self.progress.spent + min(self.latest) + self._judging() > self.seconds

    def stepped(self, done: int) -> None:
        """Counts the time of a step, when `done` of them are done."""
        passed = self._passed()
        self.latest = (self.latest[1], passed)
        if done > WARM:
            self.progress.stepping += passed
            self.progress.work += self._work(self.progress.epoch, self.progress.planned or self.recipe.epochs)

    def waited(self, done: int) -> None:
        """Counts the time that the device took to catch up with steps that were counted before they were done."""
        passed = self._passed()
        if done > WARM:
            self.progress.stepping += passed

    def closed(self) -> None:
        """Counts the time since the last step: of judging, keeping and saving."""
        self.progress.judging += self._passed()

    def plan(self, done: int) -> None:
        """Sets how many epochs there are, so that the run ends within its time."""
        progress = self.progress
        left = self.seconds * (1 - SPARE) - progress.spent
        for _ in range(3):  # what is left to do depends on the plan, where images grow
            epochs = progress.planned or self.recipe.epochs
            ahead = range(progress.epoch, max(progress.epoch + 1, math.ceil(epochs)))
            step = self._step() * sum(self._work(epoch, epochs) for epoch in ahead) / len(ahead)
            progress.planned = last_step(left, done, progress.epoch, self.steps, step, self._judging()) / self.steps
            if self.recipe.start_size is None:
                break

    def _passed(self) -> float:
        """Seconds since it was asked last."""
        now = self.clock()
        passed, self.before = now - self.before, now
        self.progress.spent += passed
        return passed

    def _work(self, epoch: int, epochs: float) -> float:
        """A step's part of the pixels of image_size; an epoch that has begun stays at the size with which it did."""
        assert self.recipe.image_size is not None
        begun = self.progress.side if epoch == self.progress.epoch else 0
        return ((begun or image_side(self.recipe, epoch, epochs, self.stride)) / self.recipe.image_size) ** 2

    def _step(self) -> float:
        """Seconds of a step at image_size."""
        if self.progress.work:
            return self.progress.stepping / self.progress.work
        done = self.progress.epoch * self.steps + self.progress.step
        return (self.progress.spent - self.progress.judging) / max(1, done)

    def _judging(self) -> float:
        """Seconds of an epoch's end; before the first one, a forward pass is taken for a third of a step."""
        if self.progress.epoch:
            return self.progress.judging / self.progress.epoch
        return self._step() / 3 * self.judged if self.progress.work else 0.0
