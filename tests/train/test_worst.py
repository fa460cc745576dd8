"""batch=auto of detectors and segmenters: what may be shown at once, and how much of it there is room for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.scened import MODELS, QUICK, data_for
from tests.tiny import same, timeless, weights

import metaformer
from metaformer.data.dense_loader import DenseBatch
from metaformer.lab.jobs import resolve
from metaformer.train import memory, worst
from metaformer.train.memory import Trial, _held
from metaformer.train.train import prepare
from metaformer.train.worst import crowded

pytestmark = pytest.mark.usefixtures("thread")
CPU = torch.device("cpu")


def sides(batch: DenseBatch) -> tuple[int, int]:
    """Of the canvas that the batch needs."""
    return max(image.shape[1] for image in batch.images), max(image.shape[2] for image in batch.images)


@pytest.mark.parametrize("augment", ["objects", "coco", "ade20k"])
@pytest.mark.parametrize("head", ["mask_rcnn", "semantic_fpn"])
def test_no_batch_is_larger(head: str, augment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worst, "LEARNT", 1)
    settings = {"data": data_for(head, tmp_path), **QUICK, "augment": augment}
    recipe, data = resolve(MODELS[head], settings, quiet=True)
    fit = prepare(recipe, data, None)
    largest = crowded(recipe, data.train, CPU, masks=head == "mask_rcnn")(4)
    assert len(largest) == 4
    assert {image.shape[1:] for image in largest.images} == {sides(largest)}
    for epoch in range(3):
        for batch in fit.train.epoch(epoch):
            assert [a <= b for a, b in zip(sides(batch), sides(largest), strict=True)] == [True, True]
            if head == "mask_rcnn":
                most = max(len(truth) for truth in batch.truths)
                assert most <= min(len(truth) for truth in largest.truths)
                assert all(truth.masks.shape == (len(truth), *sides(largest)) for truth in largest.truths)


@pytest.mark.parametrize("head", ["retinanet", "semantic_fpn", pytest.param("mask_rcnn", marks=pytest.mark.slow)])
def test_memory_is_divided_by_what_the_largest_image_holds(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, data = resolve(MODELS[head], {"data": data_for(head, tmp_path), **QUICK, "batch": "auto"}, quiet=True)
    tried: list[Trial] = []
    batch = Trial.batch
    monkeypatch.setattr(Trial, "batch", lambda self, images: tried.append(self) or batch(self, images))
    assert prepare(recipe, data, None).recipe.batch == 1
    (trial,) = tried
    each = _held(lambda: trial._step(2)) - _held(lambda: trial._step(1))
    assert each > 64 * 64 * 3 * 4
    monkeypatch.setattr(memory, "spare_memory", lambda: int(2 * 5 * each))  # half of it is left alone
    found, said = trial.largest(10**6)
    assert (found, said.endswith("as much as the memory of cpu holds")) == (4, True)
    halved = replace(trial, recipe=replace(recipe, accumulate=2))
    assert halved.largest(10**6)[0] == 8


def test_larger_images_leave_room_for_fewer(tmp_path: Path) -> None:
    def held(**settings: Any) -> int:
        recipe, data = resolve(MODELS["retinanet"], {"data": source, **QUICK, **settings}, quiet=True)
        fit = prepare(recipe, data, None)
        largest = crowded(recipe, data.train, CPU, masks=False)
        trial = Trial(fit.state.model, recipe, fit.task, torch.float32, largest, 64)
        return _held(lambda: trial._step(1))

    source = data_for("retinanet", tmp_path)
    plain = held()
    assert held(image_size=128) > 2.5 * plain
    assert held(augment="coco") > 2 * plain


def test_a_run_with_batch_auto_is_the_run_with_that_batch(tmp_path: Path) -> None:
    settings = {**QUICK, "data": data_for("retinanet", tmp_path, 24), "root": tmp_path, "quiet": True, "epochs": 1}
    auto = metaformer.train(MODELS["retinanet"], name="auto", **(settings | {"batch": "auto"}))
    assert auto.recipe.batch == 2
    assert "batch=auto is 2: more would leave an epoch fewer than 8 steps" in (auto.path / "log.txt").read_text()
    plain = metaformer.train(MODELS["retinanet"], name="plain", **(settings | {"batch": 2}))
    assert timeless(plain.metrics) == timeless(auto.metrics)
    assert same(weights(plain.last), weights(auto.last))
