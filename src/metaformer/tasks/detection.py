"""Detection: objects with boxes, and perhaps masks. Losses are the model's own; average precision as COCO has it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from metaformer.core.ranks import ALONE, Ranks
from metaformer.data.truth import Objects
from metaformer.dense.detections import Detections, locate
from metaformer.tasks.coco import Answer, DetectionEvaluation, judge
from metaformer.tasks.found import Found, Size

Images = Sequence[Tensor] | Tensor


class Scened(Protocol):
    """A batch: images (3, H, W) of bytes, and the objects of each."""

    @property
    def images(self) -> Images: ...
    @property
    def truths(self) -> Sequence[Objects]: ...


@dataclass(frozen=True, eq=False)
class Detection:
    """The losses of a detector, added up over images; box AP, and mask AP where there are masks."""

    classes: tuple[str, ...]

    def count(self, batch: Scened) -> int:
        """What the loss is divided by, once, over everything that a step sees: images."""
        return len(batch.images)

    def loss_sum(self, model: nn.Module, batch: Scened) -> Tensor:
        """The losses of the batch, added up."""
        return _added(model(batch.images, batch.truths))

    def no_loss(self, model: nn.Module, images: Tensor) -> Tensor:
        """0, with a gradient for every parameter: the losses of images (B, C, H, W) without an object."""
        return _added(model(images, [_nothing(images) for _ in images])) * 0

    def chance(self) -> str:
        """What average precision is worth that knows nothing, as a sentence."""
        return f"{len(self.classes):,} classes: chance is 0 % AP"

    def evaluate(self, model: nn.Module, batches: Iterable[Scened], ranks: Ranks = ALONE) -> DetectionEvaluation:
        """What is found in every image beside what is there. The model is left in the mode in which it came."""
        return judge(found_in(model, batches), self.classes, ranks)


def found_in(model: nn.Module, batches: Iterable[Scened]) -> Iterator[Answer]:
    """Of every image what is there, and what the model finds."""
    training = model.training
    model.eval()
    for batch in batches:
        with torch.no_grad():
            answers = model(batch.images)
        for truth, answer in zip(batch.truths, answers, strict=True):
            yield truth, decode(answer, (truth.height, truth.width))
    model.train(training)


def decode(answer: Detections, size: Size, least: float = 0.0) -> Found:
    """What was found in an image that scores at least `least`, in the pixels of the one of that size that it was made from."""
    return Found(*locate(answer, size, least))


def _added(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([loss.float() for loss in losses.values()]).sum()


def _nothing(images: Tensor) -> Objects:
    """No object in an image of this size."""
    height, width = images.shape[-2:]
    empty = torch.zeros(0, device=images.device)
    masks = torch.zeros(0, height, width, dtype=torch.uint8, device=images.device)
    return Objects(empty.view(0, 4), empty.long(), masks, empty.bool(), empty, 0, height, width)
