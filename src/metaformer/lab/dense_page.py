"""`report.html` of a run that found objects or regions. What it shows is gathered here; how it looks is in dense_page.html."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from metaformer.data.annotations import Annotations
from metaformer.data.scenes import Scenes
from metaformer.infer.dense import DensePredictor
from metaformer.lab.cost import Cost
from metaformer.lab.dense_charts import class_bars, detection_rows, precision_recall, region_rows
from metaformer.lab.dense_judge import DenseJudged
from metaformer.lab.dense_pictures import objects_beside, regions_beside
from metaformer.lab.dense_text import OBJECT_FIGURES, REGION_FIGURES, megabytes
from metaformer.lab.doctor import examine
from metaformer.lab.frame import template
from metaformer.lab.page import (
    best_epoch,
    day_of,
    duration,
    epoch_curves,
    large,
    number,
    percent,
    repeat_command,
    settings_of,
    unreadable_in,
)  # fmt: skip
from metaformer.lab.pictures import as_image, embedded
from metaformer.runs import SCORES, Run, score_of
from metaformer.tasks.coco import DetectionEvaluation
from metaformer.tasks.mistakes import Mistakes, confusion, mistakes, threshold
from metaformer.tasks.regions import RegionEvaluation

WORST = 8
"""Images on the page, those with the worst answers."""
CELLS = 30
"""Up to so many classes the confusion matrix is a table with numbers."""


Card = tuple[str, str, str]
"""A figure by name, and what is to be said of it."""


@dataclass(frozen=True, eq=False)
class Shown:
    """An image with its truth beside the answer, and what is wrong with that."""

    picture: Image.Image
    name: str
    said: str

    @property
    def source(self) -> str:
        """The picture's address, in the page itself."""
        return embedded(self.picture)


def page(run: Run, judged: DenseJudged, worst: Sequence[Shown], trained: int) -> str:
    """The HTML text; `trained` is how many images were learnt from."""
    recipe, evaluation = run.recipe, judged.evaluation
    told = _objects(evaluation) if isinstance(evaluation, DetectionEvaluation) else _regions(evaluation)
    told["cards"] += _cost(judged.cost)
    return template("dense_page.html", {"number": number}).render(
        title=f"{recipe.model} on {Path(recipe.data).name or recipe.data}",
        place=str(run.path),
        shell=shlex.quote(str(run.path)),
        trained_on=day_of(run),
        best=best_epoch(run),
        epochs=run.epochs,
        chosen_by=SCORES[score_of(run.metrics[-1])],
        images=len(judged.data.val),
        facts=_facts(run, judged, trained),
        curves=epoch_curves(run),
        worst=worst,
        settings=settings_of(recipe),
        versions={name: value for name, value in examine().items() if not name.startswith("[")},
        repeat=repeat_command(run, recipe),
        **told,
    )


def _facts(run: Run, judged: DenseJudged, trained: int) -> dict[str, list[tuple[str, str]]]:
    """What was trained, on what, how."""
    recipe, model = run.recipe, judged.predictor.model
    seconds = sum(line["seconds"] for line in run.metrics)
    speed = sum(line["images_per_second"] * line["seconds"] for line in run.metrics) / seconds if seconds else 0.0
    changes = ", ".join(f"{key}={value}" for key, value in recipe.changes.items())
    about = [
        ("Model", recipe.model + (f" with {changes}" if changes else "")),
        ("Parameters", large(sum(p.numel() for p in model.parameters()))),
        ("Trained", f"{len(run.metrics)} epochs of {run.epochs}, {recipe.batch} images a step"),
        ("Time", f"{duration(seconds)}, {speed:,.3g} images/s"),
    ]
    predictor = judged.predictor
    shown = [
        ("Data", recipe.data),
        ("Images", f"{trained:,} to learn from, {len(judged.data.val):,} held out"),
        ("Classes", f"{len(predictor.classes)}"),
        ("Unreadable", unreadable_in(run)),
        ("Judged as", f"short side {predictor.short} pixels, long side at most {predictor.long}"),
    ]
    return {"Model": about, "Data": shown}


def _objects(done: DetectionEvaluation) -> dict[str, Any]:
    """What is shown of boxes and masks."""
    kinds, kind = done.kinds, done.kind
    best, at = kinds[kind], threshold(done, kind)
    counts = confusion(done, at.score, kind)
    curve, lines = precision_recall(best, done.classes)
    cards = [
        (f"{name} {called}", percent(found.overall[key]), "IoU 0.50 to 0.95" if key == "ap" else "")
        for key, called in OBJECT_FIGURES.items()
        for name, found in kinds.items()
        if key in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100")
    ]
    return {
        "cards": cards,
        "curve": curve,
        "lines": lines,
        "at": at,
        "bars": class_bars(detection_rows(best, done.classes), f"{kind} AP of each class"),
        "measure": f"{kind} AP",
        "cells": _cells(counts, (*done.classes, "background")),
        "unit": "objects",
    }


def _regions(done: RegionEvaluation) -> dict[str, Any]:
    """What is shown of regions."""
    summary = done.summary()
    return {
        "cards": [(called, percent(summary[key]), "") for key, called in REGION_FIGURES.items()],
        "curve": None,
        "lines": [],
        "at": None,
        "bars": class_bars(region_rows(done), "IoU of each class"),
        "measure": "IoU",
        "cells": _cells(done.counts.numpy(), done.classes),
        "unit": "pixels",
    }


def _cost(cost: Cost) -> list[Card]:
    """Speed and memory, as they were when these figures were made."""
    told = cost.to_dict()
    alone = f"the model alone {told['model_images_per_second']:,.3g}; one at a time, on {cost.device}"
    return [
        ("Speed", f"{told['images_per_second']:,.3g}\u00a0images/s", alone),
        ("Memory", f"{megabytes(cost.peak)}\u00a0MB", "at most, beside the model's own"),
    ]


def _cells(counts: Any, names: Sequence[str]) -> list[tuple[str, list[tuple[int, float]]]] | None:
    """Rows of counts, each with its part of the row; None where there are too many."""
    if len(names) > CELLS:
        return None
    parts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    pairs = (list(zip(row.tolist(), part.tolist(), strict=True)) for row, part in zip(counts, parts, strict=True))
    return list(zip(names, pairs, strict=True))


# --- pictures ---------------------------------------------------------------------------------------------------------


def worst_of(judged: DenseJudged) -> list[Shown]:
    """The images with the worst answers, the worst first."""
    done, scenes = judged.evaluation, judged.data.val
    if isinstance(done, RegionEvaluation):
        return [_worst_regions(judged.predictor, done, scenes, place) for place in done.worst()[:WORST]]
    least = threshold(done, done.kind).score
    rows = [row for row in mistakes(done, least, done.kind)[:WORST] if row.error > 0]
    assert isinstance(scenes.truths, Annotations)
    numbers = {image_id: sample for sample, image_id in enumerate(scenes.truths.ids)}
    return [_worst_objects(done, scenes, numbers[done.pairs[row.place].image_id], row, least) for row in rows]


def _worst_objects(done: DetectionEvaluation, scenes: Scenes, sample: int, row: Mistakes, least: float) -> Shown:
    picture = objects_beside(as_image(scenes.image(sample)), done.pairs[row.place], done.classes, least)
    return Shown(picture, scenes.names[sample], f"{row.missed} missed, {row.wrong} wrong, error {row.error:.2f}")


def _worst_regions(predictor: DensePredictor, done: RegionEvaluation, scenes: Scenes, place: int) -> Shown:
    one = done.images[place]
    assert isinstance(one.image_id, int)
    scene = scenes.scene(one.image_id)
    found = predictor.ask(scene.image).regions
    assert found is not None
    assert isinstance(scene.truth, torch.Tensor)
    picture = regions_beside(as_image(scene.image), scene.truth.numpy(), found.numpy(), done.classes)
    return Shown(picture, scenes.names[one.image_id], f"mean IoU {one.iou:.2f}")
