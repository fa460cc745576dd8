"""What is drawn and told of a finished run that found objects or regions."""

import json

from metaformer.data.dense import DenseData, open_dense
from metaformer.infer.dense import DensePredictor
from metaformer.lab import plots
from metaformer.lab.dense_judge import DenseEvaluation, DenseJudged, evaluate_scenes, write_results
from metaformer.lab.dense_page import page, worst_of
from metaformer.lab.dense_pictures import sheet
from metaformer.runs import Run, write_text
from metaformer.tasks.coco import DetectionEvaluation


def report_dense(run: Run, data: DenseData | None = None) -> DenseEvaluation:
    """Judges the best weights and writes report.html, evaluation.json, curves.png, predictions.png; of objects results.json.

    `data` where it is at hand already.
    """
    predictor = DensePredictor(run.path, device=run.recipe.device)
    recipe = run.recipe
    masks = predictor.model.config.task == "instances"
    split = run.path / "split.csv"
    data = data or open_dense(recipe.data, regions=predictor.regions, masks=masks, seed=recipe.seed, split=split)
    judged = DenseJudged(recipe.data, predictor, data, evaluate_scenes(predictor, data.val))
    write_text(run.path / "evaluation.json", json.dumps(judged.summary, indent=2, allow_nan=False) + "\n")
    if isinstance(judged.evaluation, DetectionEvaluation):
        write_results(judged, run.path)
    plots.curves(run.metrics, run.path / "curves.png")
    worst = worst_of(judged)
    sheet([one.picture for one in worst], run.path / "predictions.png")
    write_text(run.path / "report.html", page(run, judged, worst, len(data.train)))
    return judged.evaluation
