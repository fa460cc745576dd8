"""Several labels per image, or none: each label is a yes or no of its own."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from metaformer.core.ranks import ALONE, Ranks
from metaformer.tasks import metrics
from metaformer.tasks.answers import Labelled, answers, no_loss
from metaformer.tasks.labels import THRESHOLD, decode_several
from metaformer.tasks.metrics import LabelFigures


@dataclass(frozen=True, eq=False)
class Multilabel:
    """Binary cross entropy, the mean over the classes; mean average precision. Labels are (B, classes) of 0 and 1."""

    classes: tuple[str, ...]
    label_smoothing: float = 0.0
    """ε: targets are ε / 2 and 1 − ε / 2."""

    def count(self, batch: Labelled) -> int:
        """What the loss is divided by, once, over everything that a step sees: images."""
        return len(batch.labels)

    def loss_sum(self, model: nn.Module, batch: Labelled) -> Tensor:
        """The losses of the batch, added up over the images. Targets of mixed images are mixed as the images are."""
        logits = model(batch.images).float()
        targets = batch.labels.float()
        if batch.partners is not None:
            targets = batch.share * targets + (1 - batch.share) * batch.partners.float()
        targets = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(self.classes)

    def no_loss(self, model: nn.Module, images: Tensor) -> Tensor:
        """0, with a gradient for every parameter."""
        return no_loss(model, images)

    def chance(self, labels: Tensor) -> str:
        """What mean average precision on images (N, classes) is worth that knows nothing of them, as a sentence.

        Images in any order have an average precision of about the part of them that has the label.
        """
        shares = labels.double().mean(0)
        guessed = 100 * shares.sum().item() / max(1, int((shares > 0).sum()))
        return f"{len(self.classes):,} labels: chance is {guessed:.3g} % mAP"

    def decode(self, logits: Tensor) -> list[list[tuple[str, float]]]:
        """For each image all labels over 0.5 with their probabilities, best first; the most probable one if none is."""
        return decode_several(logits.detach().float().cpu().numpy(), self.classes)

    def evaluate(self, model: nn.Module, batches: Iterable[Labelled], ranks: Ranks = ALONE) -> "MultilabelEvaluation":
        """The model's answers to every image beside the right ones. It is left in the mode in which it came."""
        return MultilabelEvaluation(*answers(model, batches, ranks), self.classes)


@dataclass(frozen=True, eq=False)
class MultilabelEvaluation:
    """Logits (N, classes), labels (N, classes) of 0 and 1, and what follows from them."""

    logits: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"MultilabelEvaluation(mAP {self.map:.2f} % on {len(self.labels):,} images, loss {self.loss:.4f})"

    @cached_property
    def probabilities(self) -> Tensor:
        """(N, classes), float64."""
        return self.logits.double().sigmoid()

    @property
    def called(self) -> Tensor:
        """(N, classes): whether the label's probability is over 0.5."""
        return self.probabilities > THRESHOLD

    @property
    def truth(self) -> Tensor:
        """(N, classes): whether the image has the label."""
        return self.labels.bool()

    @property
    def right(self) -> Tensor:
        """(N,): whether all labels that are given are right, and none is missing."""
        return (self.called == self.truth).all(1)

    @cached_property
    def per_class(self) -> list[LabelFigures]:
        """The figures of each class."""
        return metrics.several(self.probabilities, self.called, self.truth)

    @property
    def map(self) -> float:
        """Mean average precision in percent, over the classes that an image has."""
        return 100 * (metrics.mean([figures.ap for figures in self.per_class]) or 0.0)

    @property
    def scores(self) -> dict[str, float]:
        """What an epoch is judged by, the first of them deciding which is the best."""
        return {"map": self.map}

    @property
    def loss(self) -> float:
        """Mean binary cross entropy over images and classes, not smoothed."""
        return F.binary_cross_entropy_with_logits(self.logits.double(), self.labels.double()).item()

    def summary(self) -> dict[str, Any]:
        """The figures, JSON-ready. mAP in percent; F1 at a threshold of 0.5; `exact`: part of the images with all labels right.

        What is undefined is None: the recall and average precision of a class that no image has.
        """
        return {
            "map": self.map,
            "micro_f1": metrics.micro_f1(self.called, self.truth),
            "macro_f1": metrics.mean([figures.f1 for figures in self.per_class]),
            "macro_auc": metrics.mean([figures.auc for figures in self.per_class]),
            "exact": self.right.double().mean().item(),
            "loss": self.loss,
            "labels_per_image": self.labels.double().sum(1).mean().item(),
            "images": len(self.labels),
            "per_class": {name: asdict(figures) for name, figures in zip(self.classes, self.per_class, strict=True)},
        }
