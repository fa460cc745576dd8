"""The page and pictures of a run whose images may have several labels: what is other than where they have one."""

import torch
from torch import Tensor

from metaformer.lab.page import MISTAKES, Judged, Tile, render
from metaformer.lab.pictures import pictures, thumbnail
from metaformer.tasks.multilabel import MultilabelEvaluation


def page(judged: Judged[MultilabelEvaluation]) -> str:
    """The HTML text; the same run gives the same text on the same machine."""
    right = int(judged.evaluation.right.sum())
    return render(judged, {"several": True, "right": right, "mistakes": _mistakes(judged)})


def called(evaluation: MultilabelEvaluation, index: Tensor) -> list[tuple[str, float]]:
    """For each image whose number is in `index` (n,) the labels that it is given, and the least sure yes or no of all."""
    given, sure = evaluation.called[index], _sureness(evaluation)[index].amin(1)
    return [(_joined(evaluation, row), value) for row, value in zip(given, sure.tolist(), strict=True)]


def truth(evaluation: MultilabelEvaluation, index: Tensor) -> list[str]:
    """For each image whose number is in `index` (n,) the labels that it has."""
    return [_joined(evaluation, row) for row in evaluation.truth[index]]


def worth_seeing(evaluation: MultilabelEvaluation, most: int) -> Tensor:
    """The numbers of `most` images: the surest mistakes for at most half of them, then images with every label right."""
    wrong = _surest(evaluation)[0][: most // 2]
    right = evaluation.right.nonzero().flatten()
    spread = torch.linspace(0, max(0, len(right) - 1), min(len(right), most - len(wrong))).long()
    return torch.cat([wrong, right[spread]])


def _sureness(evaluation: MultilabelEvaluation) -> Tensor:
    """(N, classes): the probability of the yes or no that was said."""
    yes = evaluation.probabilities
    return torch.maximum(yes, 1 - yes)


def _surest(evaluation: MultilabelEvaluation) -> tuple[Tensor, Tensor]:
    """The images with a mistake, those of the surest first, and of each the class that it is sure and wrong of."""
    wrong = evaluation.called != evaluation.truth
    sure, place = torch.where(wrong, _sureness(evaluation), 0.0).max(1)
    order = sure.argsort(descending=True, stable=True)[: int(wrong.any(1).sum())]
    return order, place[order]


def _mistakes(judged: Judged[MultilabelEvaluation]) -> list[Tile]:
    evaluation, split = judged.evaluation, judged.data.val
    index, places = (found[:MISTAKES].tolist() for found in _surest(evaluation))
    sureness = _sureness(evaluation)
    tiles: list[Tile] = []
    for i, place, pixels in zip(index, places, pictures(split, index), strict=True):
        said = "" if evaluation.called[i, place] else "not "
        tile = Tile(
            source=thumbnail(pixels),
            title=split.name(i),
            called=said + evaluation.classes[place],
            sure=sureness[i, place].item(),
            truth=_joined(evaluation, evaluation.truth[i]),
            right=False,
            tiny=max(pixels.shape[1:]) < 96,
        )
        tiles.append(tile)
    return tiles


def _joined(evaluation: MultilabelEvaluation, labels: Tensor) -> str:
    """The names of labels (classes,), or that there is none."""
    return ", ".join(evaluation.classes[place] for place in labels.nonzero().flatten().tolist()) or "nothing"
