"""How long a run is and how large its images are; whatever stops it, it goes on to the same end."""

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.tiny import QUICK, after_steps, command, same, timeless, weights

from metaformer.config import Recipe
from metaformer.data.batch import Batch
from metaformer.data.loader import Loader
from metaformer.data.sources import open_data
from metaformer.lab.tables import run_table
from metaformer.runs import Run, open_run
from metaformer.tasks.classification import Classification
from metaformer.train import train as train_module
from metaformer.train.checkpoint import Progress
from metaformer.train.length import image_side, last_step, least_part
from metaformer.train.loop import Fit
from metaformer.train.optim import learning_rate
from metaformer.train.train import go_on, start

pytestmark = pytest.mark.usefixtures("thread")

STILL = {"lr": 0.0, "warmup_lr": 0.0, "min_lr": 0.0}
"""Nothing is learnt, so that no epoch is better than the first one."""


def quick(fashion: str, **settings: Any) -> Recipe:
    return Recipe(**{"model": "caformer_t6", "data": fashion, **QUICK, **settings})


def begin(recipe: Recipe, root: Path, name: str = "run") -> Run:
    return start(recipe, open_data(recipe.data), None, name=name, root=root, quiet=True)


def stopped(recipe: Recipe, root: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> Run:
    """The run after Ctrl-C at a step, gone on with to its end."""
    with monkeypatch.context() as patch:
        after_steps(patch, steps, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            begin(recipe, root, "part")
    torch.manual_seed(999)
    run = open_run(root / "part")
    assert not run.finished
    return go_on(run, open_data(recipe.data), None, quiet=True)


def assert_equal(run: Run, whole: Run) -> None:
    assert run.finished
    assert timeless(run.metrics) == timeless(whole.metrics)
    for one, other in ((run.last, whole.last), (run.best, whole.best)):
        assert same(weights(one), weights(other))
        assert (one / "model.json").read_text() == (other / "model.json").read_text()


def progress(run: Run) -> dict[str, Any]:
    return torch.load(run.last / "training.pt", weights_only=True)["progress"]


# --- patience ---------------------------------------------------------------------------------------------------------


def test_a_run_ends_when_it_gets_no_better(fashion: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = begin(quick(fashion, epochs=9, patience=3, **STILL), tmp_path)
    assert [line["epoch"] for line in run.metrics] == [1, 2, 3, 4]
    assert run.finished
    assert "ends here: no better top-1 in 3 epochs (patience=3)" in (run.path / "log.txt").read_text()
    kept = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    code, out, err = command("train", run.path)
    assert (code, err) == (0, "")
    assert out.startswith(f"{run.path} is finished: 4 of 9 epochs, as patience=3 asked\n")
    assert (run.path / "report.html").exists()
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_better_epoch_gives_new_patience(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([10.0, 9.0, 11.0, 11.0, 10.0, 50.0])
    monkeypatch.setattr(Classification, "evaluate", lambda *_: SimpleNamespace(scores={"top1": next(answers)}, loss=1.0))
    run = begin(quick(fashion, epochs=9, patience=2), tmp_path)
    assert [line["top1"] for line in run.metrics] == [10.0, 9.0, 11.0, 11.0, 10.0]  # as good is no better


def test_patience_that_ends_with_the_last_epoch_says_nothing(fashion: str, tmp_path: Path) -> None:
    run = begin(quick(fashion, epochs=3, patience=2, **STILL), tmp_path)
    assert (run.finished, len(run.metrics)) == (True, 3)
    assert "ends here" not in (run.path / "log.txt").read_text()


@pytest.mark.parametrize("steps", [3, 5, 8])
def test_patience_outlives_a_stop(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    recipe = quick(fashion, epochs=9, patience=2, **STILL)
    run = stopped(recipe, tmp_path, monkeypatch, steps)
    assert len(run.metrics) == 3
    assert_equal(run, begin(recipe, tmp_path))


def test_patience_waits_until_images_have_grown(fashion: str, tmp_path: Path) -> None:
    run = begin(quick(fashion, epochs=12, patience=2, image_size=32, start_size=8, **STILL), tmp_path)
    assert [line["image_size"] for line in run.metrics] == [8] * 3 + [16] * 5 + [32] * 2
    assert progress(run)["stale"] == 2


# --- growing images ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "epochs", "stride", "sides"),
    [
        (128, 224, 9, 32, [128, 128, 160, 160, 192, 192, 224, 224, 224]),
        (128, 224, 3, 32, [128, 160, 224]),
        (100, 150, 6, 16, [100, 112, 112, 128, 150, 150]),  # between the two, multiples of the stride alone
        (8, 28, 2, 16, [8, 28]),
        (8, 28, 1, 16, [28]),  # the last epoch is of image_size
        (64, 64, 3, 16, [64, 64, 64]),
        (64, 128, 2.4, 32, [64, 96, 128]),  # of the last epoch a part
    ],
)
def test_sides_by_value(start: int, end: int, epochs: float, stride: int, sides: list[int]) -> None:
    recipe = Recipe(model="x", image_size=end, start_size=start)
    assert [image_side(recipe, epoch, epochs, stride) for epoch in range(len(sides))] == sides
    assert {image_side(replace(recipe, start_size=None), epoch, epochs, stride) for epoch in range(len(sides))} == {end}


def test_images_grow_and_are_judged_at_their_full_size(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[int] = []
    judged: list[int] = []
    loss_sum, epoch = Classification.loss_sum, Loader.epoch

    def seen(self: Classification, model: Any, batch: Batch) -> Any:
        learnt.append(batch.images.shape[2])
        return loss_sum(self, model, batch)

    def fed(self: Loader, *arguments: Any) -> Any:
        for batch in epoch(self, *arguments):
            if self.augment is None:
                judged.append(batch.images.shape[3])
            yield batch

    monkeypatch.setattr(Classification, "loss_sum", seen)
    monkeypatch.setattr(Loader, "epoch", fed)
    run = begin(quick(fashion, epochs=4, image_size=48, start_size=8), tmp_path)
    assert learnt == [8] * 3 + [16] * 3 + [32] * 3 + [48] * 3
    assert set(judged) == {48}
    assert [line["image_size"] for line in run.metrics] == [8, 16, 32, 48]
    assert json.loads((run.best / "model.json").read_text())["preprocess"]["size"] == 48
    assert "images grow from 8 to 48 pixels" in (run.path / "log.txt").read_text()


def test_at_the_end_images_are_what_they_are_without_growth(fashion: str) -> None:
    data = open_data(fashion)
    fit = train_module.prepare(quick(fashion, image_size=16, start_size=8, erase=0.5, cutmix=1.0), data, None)
    plain = train_module.prepare(quick(fashion, image_size=16, erase=0.5, cutmix=1.0), data, None)
    assert (fit.side(Progress()), fit.side(Progress(epoch=1))) == (8, 16)
    for grown, whole in zip(fit.train.epoch(1, 0, 16), plain.train.epoch(1), strict=True):
        assert torch.equal(grown.images, whole.images)
    small = next(fit.train.epoch(0, 0, 8))
    assert small.images.shape == (32, 1, 8, 8)
    assert small.images.mean().item() == pytest.approx(next(plain.train.epoch(0)).images.mean().item(), abs=0.2)


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_growth_outlives_a_stop(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    recipe = quick(fashion, epochs=3, image_size=32, start_size=8, drop_path=0.2, erase=0.3)
    assert_equal(stopped(recipe, tmp_path, monkeypatch, steps), begin(recipe, tmp_path))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"start_size": 4, "epochs": 1}, "start_size= takes two epochs or more, .*: with epochs=1 leave it out"),
        ({"start_size": 9}, "start_size=9 is larger than image_size=8, to which images grow"),
        ({"start_size": 4, "model": "randformer_t6"}, r"any size: randformer_t6 has Random\(grid=4\), made for one size"),
        ({"start_size": 4, "changes": {**QUICK["changes"], "mixers": "SpatialFC(grid=2)"}}, r"has SpatialFC\(grid=2\), made"),
        ({"start_size": 4, "changes": {**QUICK["changes"], "pos_embed": "(4, 2, 1, 1)"}}, "has position embeddings, made for"),
        ({"start_size": 16, "image_size": 32, "model": "timm:test_vit", "changes": {}}, "timm:test_vit is made for one size"),
    ],
)  # fmt: skip
def test_models_of_one_size_are_refused(fashion: str, tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        begin(quick(fashion, **settings), tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- hours ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "done", "closed", "step", "judging", "last"),
    [
        (100.0, 0, 0, 1.0, 0.0, 100),
        (100.0, 0, 0, 1.0, 10.0, 50),
        (118.0, 0, 0, 1.0, 5.0, 78),  # eight ends
        (9.0, 90, 9, 1.0, 5.0, 90),  # four steps more are not worth their judging
        (19.0, 90, 9, 1.0, 5.0, 100),  # not a step and an end more
        (4.0, 5, 0, 1.0, 1.0, 8),
        (-3.0, 25, 2, 1.0, 1.0, 25),
    ],
)
def test_the_last_step_by_value(seconds: float, done: int, closed: int, step: float, judging: float, last: int) -> None:
    found = last_step(seconds, done, closed, 10, step, judging)
    ends = -(-found // 10) - closed
    assert found == done or (found - done) * step + ends * judging <= seconds
    assert found == last


@dataclass
class Clock:
    """A second for each step, or as `pace` says of the steps so far; `judging` for each look at the held-out images."""

    pace: Callable[[int], float] = lambda step: 1.0
    judging: float = 6.0
    now: float = 1000.0
    steps: int = 0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What runs then take for the time."""
    made, step, evaluate, prepare = Clock(), Fit.step, Classification.evaluate, train_module.prepare

    def stepped(self: Fit, *arguments: Any) -> Any:
        made.steps += 1
        made.now += made.pace(made.steps)
        return step(self, *arguments)

    def judged(self: Classification, *arguments: Any) -> Any:
        made.now += made.judging
        return evaluate(self, *arguments)

    monkeypatch.setattr(Fit, "step", stepped)
    monkeypatch.setattr(Classification, "evaluate", judged)
    monkeypatch.setattr(train_module, "prepare", lambda *given, ranks: replace(prepare(*given, ranks=ranks), clock=made))
    return made


def timed(fashion: str, seconds: float, **settings: Any) -> Recipe:
    """Epochs of 24 steps and 10 batches to judge."""
    return quick(fashion, **{"batch": 4, "hours": seconds / 3600, "warmup_epochs": 1.0} | settings)


def test_the_epochs_follow_from_the_hours(clock: Clock, fashion: str, tmp_path: Path) -> None:
    run = begin(timed(fashion, 150.0), tmp_path)
    log = (run.path / "log.txt").read_text()
    assert "hours=0.0416667 leave time for 5.3 epochs, as far as can be told" in log  # a look is taken for 10 / 3 steps
    steps = 24 * 4 + 21  # of 147 seconds 30 go into judging
    assert [line["planned"] for line in run.metrics] == pytest.approx([127 / 24, *[steps / 24] * 4])
    assert (run.finished, run.epochs, len(run.metrics)) == (True, 5, 5)
    assert clock.now - 1000 == progress(run)["spent"] == steps + 5 * 6
    assert run.metrics[-1]["lr"] == pytest.approx(run.recipe.min_lr)
    assert "epoch   5/5 " in log
    assert run_table(tmp_path)[1][3] == "5/5"
    code, out, err = command("train", run.path)
    assert (code, err) == (0, "")
    assert out.startswith(f"{run.path} is finished: 5 of 5 epochs\n")
    assert (run.path / "report.html").read_text().count("5 epochs of 5, 4 images a step") == 1


def test_the_schedule_is_as_long_as_the_plan() -> None:
    recipe = Recipe(model="x", warmup_epochs=2.0)
    assert learning_rate(recipe, 10 * 50 - 1, 10, 50.0) == pytest.approx(recipe.min_lr)
    assert learning_rate(recipe, 74, 10, 7.5) == pytest.approx(recipe.min_lr)
    assert learning_rate(recipe, 10, 10, 4.0) == recipe.lr  # a warm-up of a quarter
    assert learning_rate(recipe, 20, 10, 50.0) == recipe.lr
    epochwise = replace(recipe, schedule="epochwise", warmup_epochs=0.0)
    assert learning_rate(epochwise, 25, 10, 4.0) == pytest.approx((recipe.lr + recipe.min_lr) / 2)
    for step in (0, 5, 19, 20, 100, 199):
        assert learning_rate(recipe, step, 10) == learning_rate(recipe, step, 10, 20.0)


@pytest.mark.parametrize(
    ("pace", "judging"),
    [
        (lambda step: 1.0 if step < 40 else 3.0, 6.0),
        (lambda step: 9.0 if step < 4 else 0.5, 2.0),
        (lambda step: 0.1 * step, 1.0),
        (lambda step: 80.0 if step == 1 else 0.5, 2.0),
    ],
    ids=["slower", "slow at first", "ever slower", "compiled first"],
)  # fmt: skip
def test_a_run_ends_in_time(clock: Clock, fashion: str, tmp_path: Path, pace: Any, judging: float) -> None:
    clock.pace, clock.judging = pace, judging
    run = begin(timed(fashion, 150.0), tmp_path)
    assert run.finished
    assert 0.85 * 150 < clock.now - 1000 <= 150 + judging


@pytest.mark.parametrize("seconds", [3.0, 10.0])
def test_less_than_an_epoch(clock: Clock, fashion: str, tmp_path: Path, seconds: float) -> None:
    run = begin(timed(fashion, seconds), tmp_path)
    assert (run.finished, len(run.metrics)) == (True, 1)
    assert clock.now - 1000 <= seconds + clock.judging
    assert "are over after 0." in (run.path / "log.txt").read_text()
    assert run.best.is_dir()


def test_where_an_epoch_is_a_few_steps_it_is_planned_at_its_end(clock: Clock, fashion: str, tmp_path: Path) -> None:
    run = begin(timed(fashion, 100.0, batch=32, epochs=1), tmp_path)
    assert [line["epoch"] for line in run.metrics] == list(range(1, 11))
    assert clock.now - 1000 == 10 * (3 + 6)
    assert run.metrics[-1]["lr"] == pytest.approx(run.recipe.min_lr)


@pytest.mark.parametrize("steps", [2, 15, 30, 100])
def test_the_time_before_a_stop_counts(
    clock: Clock, fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    recipe = timed(fashion, 150.0, drop_path=0.2)
    whole = begin(recipe, tmp_path)
    clock.now, clock.steps = 77_000.0, 0
    part = stopped(recipe, tmp_path, monkeypatch, steps)
    assert_equal(part, whole)
    assert progress(part)["spent"] == progress(whole)["spent"] == 147.0


def test_growing_images_are_planned_for(clock: Clock, fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side, epoch = [0], Loader.epoch

    def noted(self: Loader, *arguments: Any) -> Any:
        for batch in epoch(self, *arguments):
            side[0] = batch.images.shape[2]
            yield batch

    monkeypatch.setattr(Loader, "epoch", noted)
    clock.pace = lambda step: (side[0] / 32) ** 2
    run = begin(timed(fashion, 150.0, image_size=32, start_size=16), tmp_path)
    plans = [line["planned"] for line in run.metrics]
    assert plans[1:] == pytest.approx([plans[-1]] * len(plans[1:]), rel=0.12)
    assert 0.85 * 150 < clock.now - 1000 <= 150
    assert run.metrics[-1]["image_size"] == 32


def test_time_lost_in_what_is_gone_back_from_counts(
    clock: Clock, fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt, loss_sum = [30], Classification.loss_sum

    def once(self: Classification, model: Any, batch: Batch) -> Any:
        spoilt[0] -= 1
        loss = loss_sum(self, model, batch)
        return loss * float("nan") if spoilt[0] == 0 else loss

    monkeypatch.setattr(Classification, "loss_sum", once)
    run = begin(timed(fashion, 150.0, nonfinite="rewind"), tmp_path)
    assert run.finished
    assert progress(run)["rewinds"] == 1
    assert clock.now - 1000 == pytest.approx(progress(run)["spent"], abs=1.0)
    assert clock.now - 1000 <= 150 + clock.judging


def test_a_device_s_queue_is_no_judging(clock: Clock, fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: a step returns at once, and what it takes is taken where the device is waited for."""
    queued, step, look = [0], Fit.step, Fit._look

    def stepped(self: Fit, *arguments: Any) -> Any:
        queued[0] += 1
        return step(self, *arguments)

    def looked(self: Fit, *arguments: Any) -> None:
        clock.now += queued[0]
        queued[0] = 0
        look(self, *arguments)

    clock.pace = lambda step: 0.0
    monkeypatch.setattr(train_module, "notice_after", lambda device: 50)
    monkeypatch.setattr(Fit, "step", stepped)
    monkeypatch.setattr(Fit, "_look", looked)
    run = begin(timed(fashion, 150.0), tmp_path)
    found = progress(run)
    assert found["judging"] == 6 * len(run.metrics)
    assert found["stepping"] == found["work"] == found["spent"] - found["judging"] - 5
    assert run.metrics[1]["planned"] == pytest.approx((24 * 4 + 21) / 24)


@pytest.mark.parametrize("steps", [30, 75])
def test_patience_ends_a_run_with_hours(
    clock: Clock, fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    recipe = timed(fashion, 150.0, patience=3, **STILL)
    whole = begin(recipe, tmp_path)
    assert (whole.finished, len(whole.metrics), whole.epochs) == (True, 4, 5)
    assert "ends here: no better top-1 in 3 epochs (patience=3)" in (whole.path / "log.txt").read_text()
    clock.now, clock.steps = 77_000.0, 0
    assert_equal(stopped(recipe, tmp_path, monkeypatch, steps), whole)
    assert command("train", whole.path)[1].startswith(f"{whole.path} is finished: 4 of 5 epochs, as patience=3 asked\n")


@pytest.mark.parametrize(("seconds", "epochs", "slow"), [(32.0, 1, 20), (150.0, 5, 24)])
def test_an_epochwise_schedule_learns_in_the_hours_there_are(
    clock: Clock, fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, epochs: int, slow: int
) -> None:
    """A paper's row: 20 epochs of warm-up of 300. Before there is a plan, the first steps are at warmup_lr."""
    rates: list[float] = []
    step = Fit.step

    def noted(self: Fit, batch: Any, lr: float) -> Any:
        rates.append(lr)
        return step(self, batch, lr)

    monkeypatch.setattr(Fit, "step", noted)
    recipe = timed(fashion, seconds, schedule="epochwise", epochs=300, warmup_epochs=20.0, warmup_lr=1e-6)
    run = begin(recipe, tmp_path)
    assert (run.finished, len(run.metrics)) == (True, epochs)
    assert rates[:slow] == [1e-6] * slow
    assert len(rates) > slow
    assert min(rates[slow:]) >= recipe.min_lr
    assert rates[slow] > 0.85 * recipe.lr


GREW = "images were to grow to 32 pixels, but hours="


@pytest.mark.parametrize(("seconds", "epochs", "steps"), [(9.0, 20, 10), (9.0, 1, 10), (9.0, 20, 20), (60.0, 20, 30)])
def test_an_epoch_stays_at_its_size_whatever_is_planned_in_it(
    clock: Clock, fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, epochs: int, steps: int
) -> None:
    fed: list[tuple[int, int]] = []
    epoch = Loader.epoch

    def noted(self: Loader, number: int = 0, *arguments: Any) -> Any:
        for batch in epoch(self, number, *arguments):
            if self.augment is not None:
                fed.append((number, batch.images.shape[2]))
            yield batch

    monkeypatch.setattr(Loader, "epoch", noted)
    clock.pace = lambda step: (fed[-1][1] / 32) ** 2
    recipe = timed(fashion, seconds, image_size=32, start_size=16, epochs=epochs)
    whole = begin(recipe, tmp_path)
    sides = dict(fed)
    assert set(fed) == set(sides.items())  # one in each epoch
    assert sides[0] == 16
    assert [line["image_size"] for line in whole.metrics] == list(sides.values())
    assert (GREW in (whole.path / "log.txt").read_text()) is (sides[max(sides)] == 16)
    assert (sides[max(sides)] == 16) is (len(sides) == 1) is (seconds < 10)
    fed.clear()
    assert_equal(stopped(recipe, tmp_path, monkeypatch, steps), whole)
    assert set(fed) == set(sides.items())


@pytest.mark.parametrize("images", [1, 7, 19, 32, 100])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_the_smallest_part_is_that_of_the_batches(images: int, accumulate: int) -> None:
    batches = [min(8, images - first) for first in range(0, images, 8)]
    parts = [part for size in batches for part in Batch(torch.empty(size), torch.empty(size)).parts(accumulate)]
    assert least_part(images, 8, accumulate) == min(len(part) for part in parts)
