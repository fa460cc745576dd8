"""What is drawn and told of a finished run that found objects or regions."""

import json

from metaformer.data.dense import DenseData, open_dense
from metaformer.infer.dense import DensePredictor
from metaformer.lab import plots
from metaformer.lab.dense_judge import DenseEvaluation, DenseJudged, evaluate_scenes, write_results
from metaformer.lab.dense_page import page, worst_of
from metaformer.lab.dense_pictures import background_confusion, sheet
from metaformer.runs import Run, write_text
from metaformer.tasks.coco import DetectionEvaluation
from metaformer.tasks.mistakes import threshold


def report_dense(run: Run, data: DenseData | None = None) -> DenseEvaluation:
    """Judges the best weights and writes report.html, evaluation.json, curves.png, confusion.png and predictions.png, the worst
    answers; of objects results.json too.

    `data` where it is at hand already.
    """
    predictor = DensePredictor(run.path, device=run.recipe.device, precision="fp32")  # as epochs are judged
    recipe = run.recipe
    split, regions, masks = run.path / "split.csv", predictor.regions, predictor.masks
    data = data or open_dense(recipe.data, regions=regions, masks=masks, seed=recipe.seed, split=split)
    judged = DenseJudged(recipe.data, predictor, data, *evaluate_scenes(predictor, data.val))
    write_text(run.path / "evaluation.json", json.dumps(judged.summary, indent=2, allow_nan=False) + "\n")
    done = judged.evaluation
    if isinstance(done, DetectionEvaluation):
        write_results(judged, run.path / "results.json")
        background_confusion(done, threshold(done, done.kind).score, run.path / "confusion.png", done.kind)
    else:
        plots.confusion(done.counts, done.classes, run.path / "confusion.png")
    plots.curves(run.metrics, run.path / "curves.png")
    worst = worst_of(judged)
    sheet([one.picture for one in worst], run.path / "predictions.png")
    write_text(run.path / "report.html", page(run, judged, worst, len(data.train)))
    return judged.evaluation
