"""One image shown to a model in other ways, and what it says put back: at another size, mirrored, or in several ways at once.

Each function takes what finds or scores and gives what does the same, so that they go into one another and into tiles.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from metaformer.tasks.found import Found, Size, joined

Find = Callable[[Sequence[Tensor]], list[Found]]
"""Images (3, H, W) of uint8, each of its own size → what is in each, in its pixels."""
Score = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) of uint8 → logits (B, classes, H, W) for each of their pixels."""

SAME = 0.5
"""Intersection over union from which on two of one class, found in different ways, are the same object."""


def fitted_within(size: Size, room: Size) -> Size:
    """The size at which an image is as large as fits into a height and a width."""
    scale = min(room[0] / size[0], room[1] / size[1])
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def shown_at(image: Tensor, size: Size) -> Tensor:
    """Images (..., 3, H, W) of uint8 at another size, to the bit as images are resized that are learnt from."""
    from torchvision.transforms.v2 import functional

    return image if size_of(image) == size else functional.resize(image, list(size), antialias=True)


def size_of(image: Tensor) -> Size:
    """Height and width."""
    return image.shape[-2], image.shape[-1]


def find_at(find: Find, to: Callable[[Size], Size]) -> Find:
    """Finds in images of the size that `to` makes of theirs; boxes and masks are those of the images as they came."""

    def resized(images: Sequence[Tensor]) -> list[Found]:
        sizes = [to(size_of(image)) for image in images]
        answers = find([shown_at(image, size) for image, size in zip(images, sizes, strict=True)])
        return [answer.resized(size, size_of(image)) for answer, size, image in zip(answers, sizes, images, strict=True)]

    return resized


def score_at(score: Score, to: Callable[[Size], Size]) -> Score:
    """Scores images at the size that `to` makes of theirs; the logits are those of the images' own pixels."""

    def resized(images: Tensor) -> Tensor:
        size = size_of(images)
        logits = score(shown_at(images, to(size)))
        if size_of(logits) == size:
            return logits
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)

    return resized


def scaled(by: float) -> Callable[[Size], Size]:
    """A size `by` times as large."""
    return lambda size: (max(1, round(size[0] * by)), max(1, round(size[1] * by)))


def find_mirrored(find: Find) -> Find:
    """Finds in the images' mirror images."""

    def mirrored(images: Sequence[Tensor]) -> list[Found]:
        answers = find([image.flip(-1) for image in images])
        return [answer.mirrored(image.shape[-1]) for answer, image in zip(answers, images, strict=True)]

    return mirrored


def score_mirrored(score: Score) -> Score:
    """Scores the images' mirror images."""
    return lambda images: score(images.flip(-1)).flip(-1)


def find_in_views(find: Find, *, scales: Sequence[float] = (1.0,), mirror: bool = True, same: float = SAME) -> Find:
    """Test-time augmentation: finds at several sizes, and in the mirror; of what is the same the surest is kept."""
    views = [find_at(find, scaled(by)) for by in scales]
    if mirror:
        views += [find_mirrored(view) for view in views]

    def everywhere(images: Sequence[Tensor]) -> list[Found]:
        answers = zip(*(view(images) for view in views), strict=True)
        return [merged(joined(each), same) for each in answers]

    return everywhere


def score_in_views(score: Score, *, scales: Sequence[float] = (1.0,), mirror: bool = True) -> Score:
    """Test-time augmentation: logits whose probabilities are the mean of those at several sizes, and in the mirror."""
    views = [score_at(score, scaled(by)) for by in scales]
    if mirror:
        views += [score_mirrored(view) for view in views]

    def everywhere(images: Tensor) -> Tensor:
        logs = torch.stack([view(images).float().log_softmax(1) for view in views])
        return logs.logsumexp(0) - torch.tensor(float(len(views))).log()

    return everywhere


def merged(found: Found, same: float = SAME) -> Found:
    """The surest first, without what overlaps a surer one of its class by more than `same`."""
    from torchvision.ops import batched_nms

    return found.take(batched_nms(found.boxes, found.scores, found.labels, same))
