"""What is drawn and told of a finished run, beside its weights."""

import json

import torch

from metaformer.data.dataset import Data
from metaformer.data.dense import DenseData
from metaformer.data.sources import open_data
from metaformer.infer.evaluate import evaluate_split
from metaformer.infer.predictor import Predictor
from metaformer.lab import plots, several
from metaformer.lab.dense_judge import DenseEvaluation
from metaformer.lab.dense_report import report_dense
from metaformer.lab.page import Judged, page
from metaformer.lab.pictures import pictures
from metaformer.runs import Run, write_text
from metaformer.tasks.classification import Classification, Evaluation
from metaformer.tasks.multilabel import MultilabelEvaluation
from metaformer.train.dense import is_dense_model
from metaformer.weights.pretrained import Model

SHOWN = 32


def report(
    run: Run, model: Model | None = None, data: Data | DenseData | None = None
) -> Evaluation | MultilabelEvaluation | DenseEvaluation:
    """Judges the best weights and writes report.html, evaluation.json, curves.png, confusion.png and predictions.png.

    `model` and `data` where they are at hand already. The pictured predictions are the surest mistakes first, then right
    answers spread over the held-out images. Where images may have several labels there is no confusion.png. Of objects and
    regions see `report_dense`.
    """
    if is_dense_model(run.recipe.model):
        return report_dense(run, data if isinstance(data, DenseData) else None)
    assert not isinstance(data, DenseData)
    predictor = Predictor(run.path, model=model)
    recipe = run.recipe
    data = data or open_data(recipe.data, seed=recipe.seed, split=run.path / "split.csv", labels=recipe.labels)
    judged = evaluate_split(predictor, data.val)
    summary = judged.summary()
    write_text(run.path / "evaluation.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    plots.curves(run.metrics, run.path / "curves.png")
    if isinstance(judged, Evaluation):
        plots.confusion(judged.confusion(), judged.classes, run.path / "confusion.png")
        shown = _worth_seeing(judged)
        called = [top[0] for top in Classification(judged.classes).decode(judged.logits[shown], most=1)]
        truth = [judged.classes[label] for label in judged.labels[shown].tolist()]
        text = page(Judged(run, data, predictor, judged, summary))
    else:
        shown = several.worth_seeing(judged, SHOWN)
        called, truth = several.called(judged, shown), several.truth(judged, shown)
        text = several.page(Judged(run, data, predictor, judged, summary))
    plots.predictions(pictures(data.val, shown.tolist()), truth, called, run.path / "predictions.png")
    write_text(run.path / "report.html", text)
    return judged


def _worth_seeing(judged: Evaluation) -> torch.Tensor:
    wrong = (~judged.right).nonzero().flatten()
    wrong = wrong[judged.confidence[wrong].argsort(descending=True, stable=True)][: SHOWN // 2]
    right = judged.right.nonzero().flatten()
    wanted = min(len(right), SHOWN - len(wrong))
    spread = torch.linspace(0, max(0, len(right) - 1), wanted).long()
    return torch.cat([wrong, right[spread]])
