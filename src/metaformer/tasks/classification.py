"""Classification: one label per image."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer.core.ranks import ALONE, Ranks
from metaformer.tasks import metrics
from metaformer.tasks.answers import Labelled, answers, no_loss
from metaformer.tasks.labels import decode_labels


@dataclass(frozen=True, eq=False)
class Classification:
    """Cross entropy with label smoothing; top-1."""

    classes: tuple[str, ...]
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None
    """(classes,): what an image of each class counts in the loss; None for 1. The loss is divided by images all the same."""

    def count(self, batch: Labelled) -> int:
        """What the loss is divided by, once, over everything that a step sees."""
        return len(batch.labels)

    def loss_sum(self, model: nn.Module, batch: Labelled) -> Tensor:
        """The losses of the batch, added up."""
        return self._loss(model(batch.images).float(), batch)

    def _loss(self, logits: Tensor, batch: Labelled) -> Tensor:
        loss = self._cross_entropy(logits, batch.labels)
        if batch.partners is None:
            return loss
        return batch.share * loss + (1 - batch.share) * self._cross_entropy(logits, batch.partners)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.class_weights is None:
            return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=self.label_smoothing)
        each = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        return (each * self.class_weights[labels]).sum()  # not a product of vectors, which autocast makes half precision

    def no_loss(self, model: nn.Module, images: Tensor) -> Tensor:
        """0, with a gradient for every parameter."""
        return no_loss(model, images)

    def chance(self, labels: Tensor) -> str:
        """What top-1 on images (N,) is worth that knows nothing of them, as a sentence."""
        often = 100 * labels.bincount().max().item() / len(labels)
        guessed = 100 / len(self.classes)
        return f"{len(self.classes):,} classes: chance is {guessed:.3g} % top-1, always the most frequent one {often:.3g} %"

    def decode(self, logits: Tensor, most: int = 5) -> list[list[tuple[str, float]]]:
        """For each image the most probable classes with their probabilities, best first."""
        return decode_labels(logits.detach().float().cpu().numpy(), self.classes, most)

    def evaluate(self, model: nn.Module, batches: Iterable[Labelled], ranks: Ranks = ALONE) -> "Evaluation":
        """The model's answers to every image beside the right ones. It is left in the mode in which it came."""
        return Evaluation(*answers(model, batches, ranks), self.classes)


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """(classes,): weights as 1 / (images of the class), 1 on average over the images (N,): scikit-learn's "balanced".

    0 for a class without an image.
    """
    counts = labels.bincount(minlength=classes)
    present = counts > 0
    return torch.where(present, len(labels) / (present.sum() * counts.clamp(min=1)), 0.0).float()


@dataclass(frozen=True, eq=False, kw_only=True)
class Distillation(Classification):
    """Classification in which a teacher has its part of the loss: for what it says of the very same images.

    Soft: T² · KL(teacher ‖ student), both softmaxes of logits / T (Hinton et al. 2015, arXiv 1503.02531, section 2). Hard:
    cross entropy with the class that the teacher calls, not smoothed (Touvron et al. 2021, arXiv 2012.12877, section 4).
    Class weights are of the labels' part alone.
    """

    teacher: Callable[[Tensor], Tensor]
    """From images as the student is fed them, (B, C, H, W), to logits (B, classes), without a gradient."""
    weight: float
    """The teacher's part of the loss, 0 to 1."""
    temperature: float | None
    """T; None for hard."""

    def loss_sum(self, model: nn.Module, batch: Labelled) -> Tensor:
        """The losses of the batch, added up."""
        told = self.teacher(batch.images).float()
        logits = model(batch.images).float()
        return (1 - self.weight) * self._loss(logits, batch) + self.weight * self._distance(logits, told)

    def _distance(self, logits: Tensor, told: Tensor) -> Tensor:
        if self.temperature is None:
            return F.cross_entropy(logits, told.argmax(1), reduction="sum")
        own, wanted = ((values / self.temperature).log_softmax(1) for values in (logits, told))
        return self.temperature**2 * F.kl_div(own, wanted, reduction="sum", log_target=True)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Logits (N, classes) and labels (N,), and what follows from them."""

    logits: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Evaluation(top-1 {self.top1:.2f} % of {len(self.labels):,} images, loss {self.loss:.4f})"

    @property
    def predicted(self) -> Tensor:
        return self.logits.argmax(1)

    @property
    def top1(self) -> float:
        """Percent of the images whose most probable class is the right one."""
        return 100 * self.right.double().mean().item()

    @property
    def scores(self) -> dict[str, float]:
        """What an epoch is judged by, the first of them deciding which is the best."""
        return {"top1": self.top1}

    @property
    def loss(self) -> float:
        """Mean cross entropy, not smoothed."""
        return metrics.nll(self.logits, self.labels)

    @cached_property
    def probabilities(self) -> Tensor:
        """(N, classes), float64."""
        return self.logits.double().softmax(1)

    @property
    def confidence(self) -> Tensor:
        """(N,): the probability of what each image was called."""
        return self.probabilities.amax(1)

    @property
    def right(self) -> Tensor:
        """(N,): whether each image was called what it is."""
        return self.predicted == self.labels

    def confusion(self) -> Tensor:
        """(classes, classes): how many images of the row's class were called the column's."""
        return metrics.confusion(self.predicted, self.labels, len(self.classes))

    def summary(self) -> dict[str, Any]:
        """The figures, JSON-ready. Top-1, its 95 % interval and top-5 in percent; the others as `tasks.metrics` defines them.

        What is undefined is None: top-5 of no more than five classes, the recall of a class without an image.
        """
        table = metrics.per_class(self.probabilities, self.predicted, self.labels)
        temperature = metrics.check_temperature(self.logits, self.labels)
        return {
            "top1": self.top1,
            "top1_interval": [100 * bound for bound in metrics.wilson(self.top1 / 100, len(self.labels))],
            "top5": 100 * metrics.top_k(self.logits, self.labels, 5) if len(self.classes) > 5 else None,
            "loss": self.loss,
            "brier": metrics.brier(self.probabilities, self.labels),
            "ece": metrics.ece(self.confidence, self.right),
            "macro_f1": metrics.mean([figures.f1 for figures in table]),
            "macro_auc": metrics.mean([figures.auc for figures in table]),
            "images": len(self.labels),
            "temperature": None if temperature is None else asdict(temperature),
            "per_class": {name: asdict(figures) for name, figures in zip(self.classes, table, strict=True)},
        }
