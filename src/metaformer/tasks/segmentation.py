"""Segmentation: a class for every pixel. Cross entropy over pixels; mean intersection over union."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from metaformer.core.ranks import ALONE, Ranks
from metaformer.data.truth import VOID
from metaformer.tasks.regions import Answer, RegionEvaluation, judge

Maps = Sequence[Tensor] | Tensor


class Mapped(Protocol):
    """A batch: images (3, H, W) of bytes, the map (H, W) of each, and their numbers in their part."""

    @property
    def images(self) -> Maps: ...
    @property
    def truths(self) -> Maps: ...
    @property
    def samples(self) -> Tensor | None: ...


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Cross entropy, added up over the pixels that somebody is asked about; mIoU."""

    classes: tuple[str, ...]

    def count(self, batch: Mapped) -> int:
        """What the loss is divided by, once, over everything that a step sees: pixels that are not void."""
        truths = batch.truths
        if isinstance(truths, Tensor):
            return int((truths != VOID).sum())
        return int(torch.stack([(truth != VOID).sum() for truth in truths]).sum()) if truths else 0  # a GPU is asked once

    def loss_sum(self, model: nn.Module, batch: Mapped) -> Tensor:
        """The losses of the pixels, added up."""
        return model(batch.images, batch.truths)["region"]

    def no_loss(self, model: nn.Module, images: Tensor) -> Tensor:
        """0, with a gradient for every parameter: the loss of images (B, C, H, W) of which nobody is asked."""
        nowhere = torch.full((len(images), *images.shape[-2:]), VOID, dtype=torch.uint8, device=images.device)
        return model(images, nowhere)["region"] * 0

    def chance(self) -> str:
        """What mIoU is worth that knows nothing, as a sentence."""
        return f"{len(self.classes):,} classes: always the same one is at most {100 / len(self.classes):.3g} % mIoU"

    def evaluate(self, model: nn.Module, batches: Iterable[Mapped], ranks: Ranks = ALONE) -> RegionEvaluation:
        """What every pixel is called beside what it is, without boundaries. The model is left in the mode in which it came."""
        sums = torch.zeros(2, dtype=torch.float64)
        done = judge(mapped_in(model, batches, sums), self.classes, ranks, boundaries=False)
        loss, count = torch.stack(ranks.gathered(sums)).sum(0).tolist()
        return replace(done, loss=loss / max(1.0, count))


def mapped_in(model: nn.Module, batches: Iterable[Mapped], sums: Tensor) -> Iterator[Answer]:
    """Of every image its number, its map, and the one that the model finds; their losses and pixels are added to `sums`."""
    training = model.training
    model.eval()
    for batch in batches:
        assert batch.samples is not None
        with torch.no_grad():
            answer = model(batch.images)
        for place, (sample, truth) in enumerate(zip(batch.samples.tolist(), batch.truths, strict=True)):
            loss, called = answer.judged(place, truth)
            there, found = truth.cpu(), called.cpu()
            sums += torch.tensor([loss.item(), int((there != VOID).sum())])
            yield sample, there, found
    model.train(training)
