"""The same images shown in other ways: made worse, larger or smaller, mirrored, cut. What models answer then."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaformer.data.corrupt import corrupt
from metaformer.data.loader import Loader, default_workers
from metaformer.data.preprocess import Preprocess
from metaformer.data.splits import Encoded, Images
from metaformer.infer.predictor import Predictor

TTA = ("flip", "crops")
"""What an image may be shown as besides, by test-time augmentation."""
ENLARGED = 8, 7
"""How much larger an image is fitted before crops are cut out, as a ratio: 256 for 224."""


@dataclass(frozen=True)
class Way:
    """One way of showing images. The model's logits of all that is shown of an image are averaged."""

    corruption: str | None = None
    severity: int = 0
    size: int | None = None
    """Side in pixels instead of the model's own."""
    flip: bool = False
    """The image and its mirror image."""
    crops: bool = False
    """The middle and the four corners of the enlarged image (Krizhevsky et al. 2012, section 4.1; with flip their ten)."""

    def fitting(self, own: Preprocess) -> Preprocess:
        """How images are fitted for it."""
        size = self.size or own.size
        return replace(own, size=-(-size * ENLARGED[0] // ENLARGED[1]) if self.crops else size)

    def shown(self, pixels: Tensor, samples: list[int], size: int) -> list[Tensor]:
        """All that is shown of fitted images (B, C, H, W)."""
        if self.corruption is not None:
            pixels = corrupt(pixels, self.corruption, self.severity, samples)
        many = _five(pixels, size) if self.crops else [pixels]
        return [*many, *(part.flip(3) for part in many)] if self.flip else many


def _five(pixels: Tensor, size: int) -> list[Tensor]:
    rest = pixels.shape[-1] - size
    places = ((rest // 2, rest // 2), (0, 0), (0, rest), (rest, 0), (rest, rest))
    return [pixels[..., down : down + size, right : right + size] for down, right in places]


def read_tta(text: str) -> Way:
    """`flip`, `crops`, or both with a comma. Raises ValueError for anything else."""
    words = text.replace(" ", "").split(",")
    if not set(words) <= set(TTA):
        raise ValueError(f"tta={text!r} is not one of flip; crops; flip,crops")
    return Way(flip="flip" in words, crops="crops" in words)


@dataclass(frozen=True, eq=False)
class Answers:
    """What is kept of a model's answers (N,): whether each is right, how sure it is, and its negative log-likelihood."""

    right: Tensor
    confidence: Tensor
    loss: Tensor

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> "Answers":
        """Of logits (N, classes) and labels (N,)."""
        known = logits.double().log_softmax(1)
        return cls(known.argmax(1) == labels, known.amax(1).exp(), -known.gather(1, labels[:, None])[:, 0])


def ask(
    predictors: Sequence[Predictor],
    split: Images | Encoded,
    ways: Sequence[Way],
    *,
    among: Tensor | None = None,
    samples: Tensor | None = None,
    batch: int = 64,
) -> list[list[Answers]]:
    """For each way what each predictor answers to every image; images are read, and made worse, once for all of a fitting.

    `among` are the classes (K,) that an answer is one of, by default all, and the split's labels are then places among them.
    `samples` (N,) are the numbers that corruptions are drawn by; by default those in the split.
    """
    numbers = torch.arange(len(split)) if samples is None else samples
    kept: list[list[list[Answers]]] = [[[] for _ in predictors] for _ in ways]
    jobs: dict[Preprocess, list[tuple[int, int]]] = {}
    for v, way in enumerate(ways):
        for p, predictor in enumerate(predictors):
            jobs.setdefault(way.fitting(predictor.preprocess), []).append((v, p))
    device = torch.device("cpu")
    for fitting, pairs in jobs.items():
        loader = Loader(split, batch, fitting, device, workers=default_workers(split, None, device))
        for pixels, places in loader.pixels():
            drawn_by = numbers[places].tolist()
            shown: tuple[int, list[Tensor]] = (-1, [])
            for v, p in pairs:
                if shown[0] != v:
                    shown = v, ways[v].shown(pixels, drawn_by, ways[v].size or predictors[p].preprocess.size)
                logits = _mean_logits(predictors[p], shown[1])
                kept[v][p].append(Answers.of(logits if among is None else logits[:, among], split.labels[places]))
    return [[_joined(parts) for parts in row] for row in kept]


def _mean_logits(predictor: Predictor, shown: list[Tensor]) -> Tensor:
    return torch.stack([torch.from_numpy(predictor.logits(part.contiguous().numpy())) for part in shown]).mean(0)


def _joined(parts: list[Answers]) -> Answers:
    return Answers(*(torch.cat([getattr(part, name) for part in parts]) for name in ("right", "confidence", "loss")))
