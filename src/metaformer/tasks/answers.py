"""What a model answers to every image: shared by the tasks that judge logits. No task itself."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn


class Labelled(Protocol):
    """A batch: images (B, C, H, W) as the model wants them, and labels; of mixed images also the partners' labels.

    Labels are (B,), or (B, classes) of 0 and 1 where an image may have several.
    """

    @property
    def images(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def partners(self) -> Tensor | None: ...
    @property
    def share(self) -> float:
        """What each image keeps of its own, 0 to 1."""
        ...


def answers(model: nn.Module, batches: Iterable[Labelled]) -> tuple[Tensor, Tensor]:
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
    return torch.cat(logits), torch.cat(labels)
