"""What is drawn of a finished run, beside its weights."""

import torch

from metaformer.data.sources import open_data
from metaformer.infer.predictor import evaluate
from metaformer.lab import plots
from metaformer.runs import Run
from metaformer.tasks.classification import Classification, Evaluation
from metaformer.weights.pretrained import Model

SHOWN = 32


def report(run: Run, model: Model | None = None) -> Evaluation:
    """Judges the best weights and draws curves.png, confusion.png and predictions.png into the run directory.

    The predictions are the surest mistakes first, then right answers spread over the held-out images.
    """
    judged = evaluate(run.path, model=model)
    plots.curves(run.metrics, run.path / "curves.png")
    plots.confusion(judged.confusion(), judged.classes, run.path / "confusion.png")
    shown = _worth_seeing(judged)
    val = open_data(run.recipe.data).val
    pixels, labels = torch.stack([val.image(i) for i in shown.tolist()]), val.labels[shown]
    called = [top[0] for top in Classification(judged.classes).decode(judged.logits[shown], most=1)]
    truth = [judged.classes[label] for label in labels.tolist()]
    plots.predictions(pixels, truth, called, run.path / "predictions.png")
    return judged


def _worth_seeing(judged: Evaluation) -> torch.Tensor:
    sure = judged.logits.softmax(1).amax(1)
    wrong = (judged.predicted != judged.labels).nonzero().flatten()
    wrong = wrong[sure[wrong].argsort(descending=True)][: SHOWN // 2]
    right = (judged.predicted == judged.labels).nonzero().flatten()
    wanted = min(len(right), SHOWN - len(wrong))
    spread = torch.linspace(0, max(0, len(right) - 1), wanted).long()
    return torch.cat([wrong, right[spread]])
