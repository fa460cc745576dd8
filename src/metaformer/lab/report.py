"""What is drawn and told of a finished run, beside its weights."""

import json

import torch

from metaformer.data.dataset import Data
from metaformer.data.sources import open_data
from metaformer.infer.evaluate import judge
from metaformer.infer.predictor import Predictor
from metaformer.lab import plots
from metaformer.lab.page import Judged, page
from metaformer.lab.pictures import pictures
from metaformer.runs import Run, write_text
from metaformer.tasks.classification import Classification, Evaluation
from metaformer.weights.pretrained import Model

SHOWN = 32


def report(run: Run, model: Model | None = None, data: Data | None = None) -> Evaluation:
    """Judges the best weights and writes report.html, evaluation.json, curves.png, confusion.png and predictions.png.

    `model` and `data` where they are at hand already. The pictured predictions are the surest mistakes first, then right
    answers spread over the held-out images.
    """
    predictor = Predictor(run.path, model=model)
    data = data or open_data(run.recipe.data, seed=run.recipe.seed, split=run.path / "split.csv")
    judged = judge(predictor, data.val)
    summary = judged.summary()
    write_text(run.path / "evaluation.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    plots.curves(run.metrics, run.path / "curves.png")
    plots.confusion(judged.confusion(), judged.classes, run.path / "confusion.png")
    shown = _worth_seeing(judged)
    called = [top[0] for top in Classification(judged.classes).decode(judged.logits[shown], most=1)]
    truth = [judged.classes[label] for label in judged.labels[shown].tolist()]
    plots.predictions(pictures(data.val, shown.tolist()), truth, called, run.path / "predictions.png")
    write_text(run.path / "report.html", page(Judged(run, data, predictor, judged, summary)))
    return judged


def _worth_seeing(judged: Evaluation) -> torch.Tensor:
    wrong = (~judged.right).nonzero().flatten()
    wrong = wrong[judged.confidence[wrong].argsort(descending=True, stable=True)][: SHOWN // 2]
    right = judged.right.nonzero().flatten()
    wanted = min(len(right), SHOWN - len(wrong))
    spread = torch.linspace(0, max(0, len(right) - 1), wanted).long()
    return torch.cat([wrong, right[spread]])
