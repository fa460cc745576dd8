"""batch=auto: what fits by real steps, what is left for an epoch, and that nothing else changes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import QUICK, command, pairs, same, timeless, weights
from torch import nn

from metaformer import create_model
from metaformer.config import Recipe
from metaformer.data.batch import Batch
from metaformer.data.sources import open_data
from metaformer.runs import Run
from metaformer.tasks.classification import Classification
from metaformer.train import memory
from metaformer.train.memory import MOST, Trial, _held, spare_memory
from metaformer.train.train import prepare, start
from metaformer.train.worst import black

pytestmark = pytest.mark.usefixtures("thread")


def trial(device: str = "cpu", **settings: Any) -> Trial:
    """A step of a tiny model on images of 16 pixels."""
    model = create_model("identityformer_t6", num_classes=10, in_chans=1, dims=(8, 8, 16, 16), depths=(1, 1, 1, 1))
    task = Classification(tuple("0123456789"))
    return Trial(model.to(device), Recipe(model="x", **settings), task, torch.float32, squares(16, device), 16)


def squares(side: int, device: str = "cpu") -> Callable[[int], Batch]:
    return black((1, side, side), torch.zeros(1, dtype=torch.int64), torch.device(device))


@pytest.mark.parametrize(
    ("images", "accumulate", "batch", "why"),
    [
        (10**6, 1, MOST, "the most that it takes"),
        (96, 1, 8, "more would leave an epoch fewer than 8 steps"),
        (96, 3, 6, "more would leave an epoch fewer than 8 steps"),
        (3, 1, 1, "more would leave an epoch fewer than 8 steps"),
    ],
)
def test_with_memory_enough_something_else_decides(
    monkeypatch: pytest.MonkeyPatch, images: int, accumulate: int, batch: int, why: str
) -> None:
    monkeypatch.setattr(memory, "spare_memory", lambda: 10**15)
    found, said = trial(accumulate=accumulate).largest(images)
    assert found == batch
    assert said.startswith(f"batch=auto is {batch}")
    assert said.endswith(why)


@pytest.mark.parametrize(("images", "batch"), [(0.5, 1), (1.1, 1), (31, 16), (33, 32)])
def test_a_system_s_memory_is_divided_by_what_an_image_holds(
    monkeypatch: pytest.MonkeyPatch, images: float, batch: int
) -> None:
    probe = trial()
    each = (_held(lambda: probe._step(8)) - _held(lambda: probe._step(4))) // 4
    assert each > 16 * 16 * 4 * 8 // 4  # at least the first stage's map
    monkeypatch.setattr(memory, "spare_memory", lambda: int(2 * images * each))  # half of it is left alone
    found, said = probe.largest(10**6)
    assert (found, said.endswith("as much as the memory of cpu holds")) == (batch, True)


def test_what_is_held_by_value() -> None:
    layer, x = nn.Linear(10, 7), torch.zeros(5, 10)
    held = _held(lambda: layer(x).exp().sum().backward())
    assert held in (4 * (50 + 35), 4 * (50 + 35 + 70))  # the input, what exp gives, the weight where it is kept too


class Gpu:
    """Memory that is full after so many images."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, holds: int, total: int) -> None:
        self.tried: list[int] = []
        self.holds = holds
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (total, total))
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: self.tried[-1])
        monkeypatch.setattr(Trial, "_step", lambda _, count: self.step(count))

    def step(self, count: int) -> None:
        self.tried.append(count)
        if count > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("holds", "total", "most", "tried"),
    [
        (100, 1000, 512, [512, 256, 128, 64]),
        (64, 1000, 512, [512, 256, 128, 64]),
        (1000, 1000, 512, [512]),
        (1000, 512, 512, [512, 256]),  # it does fit, but nearly fills the memory
        (1, 1000, 4, [4, 2, 1]),
    ],
)
def test_a_gpu_s_batch_is_halved_until_it_fits(
    monkeypatch: pytest.MonkeyPatch, holds: int, total: int, most: int, tried: list[int]
) -> None:
    gpu = Gpu(monkeypatch, holds, total)
    assert trial()._on_gpu(most) == tried[-1]
    assert gpu.tried == tried


def test_not_even_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    Gpu(monkeypatch, 0, 1000)
    monkeypatch.setattr(Trial, "_by_arithmetic", Trial._on_gpu)
    with pytest.raises(ValueError, match=r"^cpu has too little memory for a single image of 16 pixels$"):
        trial().largest(10**6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu_holds_what_it_says() -> None:
    probe = replace(trial("cuda"), worst=squares(512, "cuda"))
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(2**30 / total)
    try:
        count, said = probe.largest(10**6)
        assert 1 < count < MOST
        assert "as much as the memory of cuda" in said
        probe._step(count)
        with pytest.raises(torch.OutOfMemoryError):
            probe._step(2 * count)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_container_may_use_less_than_the_system_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used, facts = tmp_path / "max", tmp_path / "current", tmp_path / "stat"
    monkeypatch.setattr(memory, "CONTAINER", ((limit, used, facts),))
    free = spare_memory()
    assert free > 2**20
    limit.write_text("max\n")
    used.write_text("5\n")
    assert spare_memory() > 2**20
    limit.write_text("1005\n")
    assert spare_memory() == 1000
    used.write_text("2000\n")
    assert spare_memory() == 0
    facts.write_text("anon 900\nactive_file 50\ninactive_file 1095\n")  # files that were read are no reason for a small batch
    assert spare_memory() == 100
    facts.write_text("inactive_file 5\ntotal_inactive_file 1195\n")  # the older way: with what is in it
    assert spare_memory() == 200


def test_frozen_norms_take_a_single_image() -> None:
    """Of one place, whose variance would be none: as in training, they use what they have."""
    probe = replace(trial(learn="head"), worst=squares(2))
    model = create_model("identityformer_t6", num_classes=10, in_chans=1, dims=(8, 8, 16, 16), norm="BatchNorm()")
    replace(probe, model=model)._step(1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        replace(probe, model=model, recipe=Recipe(model="x"))._step(1)


def test_a_run_with_batch_auto_is_the_run_with_that_batch(fashion: str, tmp_path: Path) -> None:
    settings = {key: value for key, value in QUICK.items() if key != "batch"} | {"drop_path": 0.3}
    code, out, err = command(
        "train", "caformer_t6", f"data={fashion}", "batch=auto", "name=auto", f"root={tmp_path}", *pairs(settings)
    )
    assert (code, err) == (0, "")
    said = "batch=auto is 8: more would leave an epoch fewer than 8 steps; lr=0.005 is not rescaled"
    assert said in out
    auto = Run(tmp_path / "auto")
    assert auto.recipe.batch == 8
    plain = start(auto.recipe, open_data(fashion), None, name="plain", root=tmp_path, quiet=True)
    assert plain.recipe == auto.recipe
    assert timeless(plain.metrics) == timeless(auto.metrics)
    assert same(weights(plain.last), weights(auto.last))


def test_a_model_that_cannot_take_the_images_is_a_sentence(fashion: str) -> None:
    recipe = Recipe(**{"model": "caformer_t6", "data": fashion, **QUICK, "batch": "auto", "image_size": 2})
    recipe = replace(recipe, changes={**QUICK["changes"], "stem_stride": "4"})
    with pytest.raises(ValueError, match=r"this model takes \(B, 1, H, W\), H and W at least 3"):
        prepare(recipe, open_data(fashion), None)
