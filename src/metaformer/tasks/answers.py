"""What a model answers to every image: shared by the tasks that judge logits. No task itself."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from metaformer.core.ranks import ALONE, Ranks


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


def answers(model: nn.Module, batches: Iterable[Labelled], ranks: Ranks = ALONE) -> tuple[Tensor, Tensor]:
    """Logits and labels of every image, in order. The model is left in the mode in which it came.

    Of several ranks the first asks about the first batch, the second about the second, and so on; each learns all answers.
    """
    training = model.training
    model.eval()
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    with torch.inference_mode():
        for batch in batches:
            logits.append(model(batch.images).float().cpu())
            labels.append(batch.labels.cpu())
    model.train(training)
    return torch.cat(in_turn(logits, ranks)), torch.cat(in_turn(labels, ranks))


def no_loss(model: nn.Module, images: Tensor) -> Tensor:
    """0, of images of zeros, with a gradient for every parameter: of ranks that learn together one may have no images."""
    return model(images).float().sum() * 0


def in_turn(own: list[Tensor], ranks: Ranks) -> list[Tensor]:
    """What all ranks have, in order, where they took turns."""
    everyone = ranks.gathered(own)
    return [everyone[i % ranks.count][i // ranks.count] for i in range(sum(map(len, everyone)))]
