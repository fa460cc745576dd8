"""Classification: one label per image."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Labelled(Protocol):
    """A batch: images (B, C, H, W) as the model wants them, labels (B,)."""

    @property
    def images(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...


@dataclass(frozen=True)
class Classification:
    """Cross entropy with label smoothing; top-1."""

    classes: tuple[str, ...]
    label_smoothing: float = 0.0

    def count(self, batch: Labelled) -> int:
        """What the loss is divided by, once, over everything that a step sees."""
        return len(batch.labels)

    def loss_sum(self, model: nn.Module, batch: Labelled) -> Tensor:
        """The losses of the batch, added up."""
        logits = model(batch.images).float()
        return F.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=self.label_smoothing)

    def decode(self, logits: Tensor, most: int = 5) -> list[list[tuple[str, float]]]:
        """For each image the most probable classes with their probabilities, best first."""
        values, places = logits.float().softmax(1).topk(min(most, len(self.classes)), dim=1)
        return [
            [(self.classes[place], value) for value, place in zip(row, names, strict=True)]
            for row, names in zip(values.tolist(), places.tolist(), strict=True)
        ]

    def evaluate(self, model: nn.Module, batches: Iterable[Labelled]) -> "Evaluation":
        """Logits and labels of every image, in order. The model is left in the mode in which it came."""
        training = model.training
        model.eval()
        logits: list[Tensor] = []
        labels: list[Tensor] = []
        with torch.inference_mode():
            for batch in batches:
                logits.append(model(batch.images).float().cpu())
                labels.append(batch.labels.cpu())
        model.train(training)
        return Evaluation(torch.cat(logits), torch.cat(labels), self.classes)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Logits (N, classes) and labels (N,), and what follows from them."""

    logits: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    @property
    def predicted(self) -> Tensor:
        return self.logits.argmax(1)

    @property
    def top1(self) -> float:
        """Part of the images whose most probable class is the right one."""
        return (self.predicted == self.labels).double().mean().item()

    @property
    def loss(self) -> float:
        """Mean cross entropy, not smoothed."""
        return F.cross_entropy(self.logits, self.labels).item()

    def confusion(self) -> Tensor:
        """(classes, classes): how many images of the row's class were called the column's."""
        n = len(self.classes)
        return torch.bincount(self.labels * n + self.predicted, minlength=n * n).view(n, n)

    def summary(self) -> dict[str, Any]:
        """The figures, JSON-ready; top-1 in percent."""
        return {"top1": 100 * self.top1, "loss": self.loss, "images": len(self.labels)}
