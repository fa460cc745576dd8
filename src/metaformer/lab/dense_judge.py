"""Detectors and segmenters judged on held-out images, with what they found as a results file."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metaformer.data.dense import DenseData, open_dense_judged
from metaformer.data.dense_loader import DenseLoader
from metaformer.data.dense_views import DenseView
from metaformer.data.loader import default_workers
from metaformer.data.scenes import Scenes
from metaformer.infer.dense import Asking, DensePredictor
from metaformer.infer.evaluate import drawn, own_data
from metaformer.infer.exported import is_exported
from metaformer.lab.cost import Cost, measured
from metaformer.runs import is_run, write_text
from metaformer.tasks import coco, regions
from metaformer.tasks.coco import DetectionEvaluation
from metaformer.tasks.found import image_rows
from metaformer.tasks.regions import RegionEvaluation

DenseEvaluation = DetectionEvaluation | RegionEvaluation
WHOLE = Asking(threshold=0.0)
"""How images are looked at that judge: all that is found counts, whatever its score."""


@dataclass(frozen=True, eq=False)
class DenseJudged:
    """A model, what judged it, how it did, and what that took."""

    named: str
    """What `data=` calls what judged it."""
    predictor: DensePredictor
    data: DenseData
    evaluation: DenseEvaluation
    cost: Cost

    @property
    def summary(self) -> dict[str, Any]:
        """The figures, JSON-ready, 0 to 1; the scores by which epochs are judged are in percent."""
        scores = {key: value for key, value in self.evaluation.scores.items() if key != "miou"}
        return self.evaluation.summary() | scores | self.cost.to_dict()


def judge_dense(
    source: str | Path,
    data: str | None = None,
    *,
    tta: str = "",
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    threads: int | None = None,
) -> DenseJudged:
    """Judges a run's best weights on the held-out part of its own data, or any model or exported file on that of `data`.

    `tta` and the rest as in DensePredictor, but that precision=auto is fp32, in which epochs are judged. Raises ValueError
    or OSError with a sentence.
    """
    asking = replace(WHOLE, tta=tta)
    predictor = DensePredictor(source, engine, device=device, precision=_judging(source, precision), threads=threads)
    named, opened = _opened(predictor, source, data)
    return DenseJudged(named, predictor, opened, *evaluate_scenes(predictor, opened.val, asking))


def told_dense(
    sources: Sequence[str | Path],
    data: str | None = None,
    *,
    tta: str = "",
    out: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    threads: int | None = None,
) -> dict[str, Any]:
    """The figures of models on the same images, with `tta` also those of images that are shown several times.

    Of objects what was found is written too, into the folder `out`, or into a run where its own data judges; with `out` the
    figures are written beside it. Raises ValueError with a sentence where the models do not know the same classes, or where
    one learnt from images that judge.
    """
    ways = [WHOLE, *([replace(WHOLE, tta=tta)] if tta else [])]
    predictors = [
        DensePredictor(one, engine, device=device, precision=_judging(one, precision), threads=threads) for one in sources
    ]
    named = own_data(sources[0], data)[0]
    _check_same(sources, predictors, named)
    opened: dict[bool, DenseData] = {}
    models: list[dict[str, Any]] = []
    for place, (source, predictor) in enumerate(zip(sources, predictors, strict=True)):
        masks = predictor.masks
        truth = opened[masks] = opened.get(masks) or _opened(predictor, source, named)[1]
        judged = [DenseJudged(named, predictor, truth, *evaluate_scenes(predictor, truth.val, way)) for way in ways]
        plain = judged[0]
        told: dict[str, Any] = {"name": str(source), **plain.summary}
        if tta:
            told["tta"] = {"ways": tta, **judged[1].summary}
        folder = Path(out) if out is not None else Path(source) if is_run(source) and data is None else None
        if folder is not None and isinstance(plain.evaluation, DetectionEvaluation):
            folder.mkdir(parents=True, exist_ok=True)
            number = f"-{place + 1}" if out is not None and len(sources) > 1 else ""
            told["results"] = str(write_results(plain, folder / f"results{number}.json"))
        models.append(told)
    found = {"data": named, "images": models[0]["images"], "models": models}
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_text(Path(out) / "eval.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found


def _judging(source: str | Path, precision: str) -> str:
    """What is computed in to judge: auto is fp32, as in an epoch, of a model in torch; a file has its own."""
    return "fp32" if precision == "auto" and not is_exported(source) else precision


def _opened(predictor: DensePredictor, source: str | Path, data: str | None) -> tuple[str, DenseData]:
    """What judges it, and what that is called: `data`, or what its run learnt from."""
    named, split, _ = own_data(source, data)
    wanted = {"regions": predictor.regions, "masks": predictor.masks}
    return named, open_dense_judged(named, predictor.classes, **wanted, split=split)


def _check_same(sources: Sequence[str | Path], predictors: Sequence[DensePredictor], named: str) -> None:
    """Raises ValueError with a sentence where `named` cannot judge all models as it can the first one."""
    if len({str(source) for source in sources}) < len(sources):
        raise ValueError(f"models are judged once each; given: {', '.join(map(str, sources))}")
    first, split = predictors[0], drawn(own_data(sources[0], named)[1])
    for source, predictor in zip(sources, predictors, strict=True):
        if predictor.regions != first.regions:
            kinds = ("objects", "regions") if predictor.regions else ("regions", "objects")
            raise ValueError(f"{sources[0]} finds {kinds[0]} and {source} {kinds[1]}: judge each alone")
        if predictor.classes != first.classes:
            raise ValueError(f"{source} and {sources[0]} do not know the same classes in the same order: judge each alone")
        if drawn(own_data(source, named)[1]) != split:
            raise ValueError(f"{source} and {sources[0]} learnt from different parts of {named}: give other images, --data")


def evaluate_scenes(predictor: DensePredictor, scenes: Scenes, asking: Asking = WHOLE) -> tuple[DenseEvaluation, Cost]:
    """The answers to every image beside what is there, as an epoch is judged where the predictor is one of fp32 and `asking`
    says nothing else; what they took."""
    predictor.ask(scenes.image(0), asking=asking)  # what a first image takes is not counted
    return measured(lambda: _judged(predictor, scenes, asking), len(scenes), predictor.model, predictor.device)


def _judged(predictor: DensePredictor, scenes: Scenes, asking: Asking) -> DenseEvaluation:
    answers = _answers(predictor, scenes, asking)
    if predictor.regions:
        return regions.judge(answers, predictor.classes)
    return coco.judge(((truth, found) for _, truth, found in answers), predictor.classes)


def _answers(predictor: DensePredictor, scenes: Scenes, asking: Asking) -> Iterator[tuple[int, Any, Any]]:
    """Of every image its number, what is there, and what was found."""
    here = torch.device("cpu")
    loader = DenseLoader(scenes, 1, DenseView(judging=True), here, workers=default_workers(scenes, None, predictor.device))
    for batch in loader.epoch():
        assert batch.samples is not None
        for sample, image, truth in zip(batch.samples.tolist(), batch.images, batch.truths, strict=True):
            answer = predictor.ask(image, asking=asking)
            yield sample, truth, answer.regions if predictor.regions else answer.found


def result_rows(evaluation: DetectionEvaluation, numbers: tuple[int, ...] | None) -> list[dict[str, Any]]:
    """What was found, as COCO's results: classes by the data's own numbers, where it has some, else from 1 on.

    What is called a class that the data has not, -1 in `numbers`, is left out: it counts in no figure.
    """
    rows: list[dict[str, Any]] = []
    for one in evaluation.pairs:
        found = one.found
        own = [numbers[label] if numbers else label + 1 for label in found.labels.tolist()]
        told = image_rows(one.image_id, own, found.boxes.tolist(), found.scores.tolist(), found.masks)
        rows += [row for row in told if row["category_id"] >= 0]
    return rows


def write_results(judged: DenseJudged, file: Path) -> Path:
    """Writes what was found, for pycocotools' loadRes; the file."""
    assert isinstance(judged.evaluation, DetectionEvaluation)
    rows = result_rows(judged.evaluation, judged.data.numbers or judged.predictor.numbers)
    write_text(file, json.dumps(rows) + "\n")
    return file
