"""A detector or segmenter judged on held-out images, with what it found as a results file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaformer.data.dense import DenseData, open_dense_judged
from metaformer.data.dense_loader import DenseLoader
from metaformer.data.dense_views import DenseView
from metaformer.data.loader import default_workers
from metaformer.data.scenes import Scenes
from metaformer.infer.dense import DensePredictor
from metaformer.infer.evaluate import own_data
from metaformer.lab.tables import Rows, columns
from metaformer.runs import is_run, write_text
from metaformer.tasks.coco import DetectionEvaluation
from metaformer.tasks.regions import RegionEvaluation

# fmt: off
OBJECT_FIGURES = {
    "ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "AP small", "ap_medium": "AP medium", "ap_large": "AP large",
    "ar1": "AR1", "ar10": "AR10", "ar100": "AR100",
}
# fmt: on
REGION_FIGURES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "boundary_f": "boundary F",
}  # fmt: skip
DenseEvaluation = DetectionEvaluation | RegionEvaluation


@dataclass(frozen=True, eq=False)
class DenseJudged:
    """A model, what judged it, and how it did."""

    named: str
    """What `data=` calls what judged it."""
    predictor: DensePredictor
    data: DenseData
    evaluation: DenseEvaluation

    @property
    def summary(self) -> dict[str, Any]:
        """The figures, JSON-ready, 0 to 1; the scores by which epochs are judged are in percent."""
        return self.evaluation.summary() | {key: value for key, value in self.evaluation.scores.items() if key != "miou"}


def judge_dense(
    source: str | Path,
    data: str | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    threads: int | None = None,
) -> DenseJudged:
    """Judges a run's best weights on the held-out part of its own data, or any model or exported file on that of `data`.

    `engine` and `threads` are for exported files, as in DensePredictor. Raises ValueError or OSError with a sentence.
    """
    predictor = DensePredictor(source, engine, device=device, precision=precision, threads=threads)
    named, split, _ = own_data(source, data)
    masks = predictor.model.config.task == "instances"
    opened = open_dense_judged(named, predictor.classes, regions=predictor.regions, masks=masks, split=split)
    return DenseJudged(named, predictor, opened, evaluate_scenes(predictor, opened.val))


def told_dense(
    source: str | Path,
    data: str | None,
    *,
    out: str | Path | None,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    threads: int | None = None,
) -> dict[str, Any]:
    """The figures of `judge_dense`. Of objects what was found is written too, into the folder `out`, or into the run where its
    own data judges; with `out` the figures are written beside it."""
    judged = judge_dense(source, data, device=device, precision=precision, engine=engine, threads=threads)
    told: dict[str, Any] = {"data": judged.named, **judged.summary}
    place = Path(out) if out is not None else Path(source) if is_run(source) and data is None else None
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
        if isinstance(judged.evaluation, DetectionEvaluation):
            told["results"] = str(write_results(judged, place))
    if out is not None:
        write_text(Path(out) / "eval.json", json.dumps(told, indent=1, allow_nan=False) + "\n")
    return told


def evaluate_scenes(predictor: DensePredictor, scenes: Scenes) -> DenseEvaluation:
    """The answers to every image beside what is there, as an epoch is judged."""
    view = DenseView((predictor.step,), judging=True)
    loader = DenseLoader(scenes, 1, view, predictor.device, workers=default_workers(scenes, None, predictor.device))
    batches: Any = loader.epoch()
    if predictor.regions:
        from metaformer.tasks.segmentation import Segmentation

        return Segmentation(predictor.classes).evaluate(predictor.model, batches)
    from metaformer.tasks.detection import Detection

    return Detection(predictor.classes).evaluate(predictor.model, batches)


def result_rows(evaluation: DetectionEvaluation, numbers: tuple[int, ...] | None) -> list[dict[str, Any]]:
    """What was found, as COCO's results: classes by the data's own numbers, where it has some, else from 1 on."""
    rows: list[dict[str, Any]] = []
    for one in evaluation.pairs:
        found = one.found
        for place, label in enumerate(found.labels.tolist()):
            row: dict[str, Any] = {
                "image_id": one.image_id,
                "category_id": label + 1 if numbers is None else numbers[label],
                "bbox": found.boxes[place].tolist(),
                "score": float(found.scores[place]),
            }
            if found.masks is not None:
                rle = found.masks[place]
                row["segmentation"] = {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}
            rows.append(row)
    return rows


def write_results(judged: DenseJudged, folder: Path) -> Path:
    """Writes results.json into a folder, for pycocotools' loadRes; its path."""
    assert isinstance(judged.evaluation, DetectionEvaluation)
    file = folder / "results.json"
    write_text(file, json.dumps(result_rows(judged.evaluation, judged.predictor.numbers)) + "\n")
    return file


def dense_text(told: Mapping[str, Any]) -> str:
    """The figures as tables for a screen."""
    if "miou" in told:
        head: Rows = [("figure", "%")]
        head += [(called, _percent(told[key])) for key, called in REGION_FIGURES.items()]
        rows: Rows = [("class", "IoU %", "accuracy %", "boundary F %", "pixels")]
        for name, one in told["per_class"].items():
            rows.append((name, *(_percent(one[key]) for key in ("iou", "accuracy", "boundary")), f"{one['pixels']:,}"))
    else:
        kinds = [kind for kind in ("mask", "box") if kind in told]
        head = [("figure", *(f"{kind} %" for kind in kinds))]
        head += [(called, *(_percent(told[kind][key]) for kind in kinds)) for key, called in OBJECT_FIGURES.items()]
        rows = [("class", *(f"{kind} {figure} %" for kind in kinds for figure in ("AP", "AP50")), "objects")]
        for name, one in told["per_class"].items():
            cells = (_percent(one[kind][key]) for kind in kinds for key in ("ap", "ap50"))
            rows.append((name, *cells, f"{one['box']['objects']:,}"))
    tables = (columns(table, right=tuple(range(1, len(table[0])))) for table in (head, rows))
    files = [f"what was found: {told['results']}"] if "results" in told else []
    return "\n\n".join([f"{told['images']:,} images of {told['data']}", *tables, *files])


def _percent(part: float | None) -> str:
    return "–" if part is None else f"{100 * part:.2f}"
