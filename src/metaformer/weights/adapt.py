"""Makes weights fit a model of other classes, channels or places; each change says what it does."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.mixers import resize_token_matrix
from metaformer.weights.formats import BODY
from metaformer.weights.imagenet import class_names, rows_by_synset

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Change:
    """What is done to a tensor so that it fits."""

    note: Callable[[], str]
    """A sentence for the user."""
    apply: Callable[[Tensor], Tensor] | None
    """None: the tensor is left out, and the model keeps its own."""


def adaptation(key: str, shape: Shape, like: Shape) -> Change | None:
    """The change that makes our tensor `key` of `shape` one of shape `like`; None where there is none."""
    key = key.removeprefix(BODY)
    for pattern, rule in RULES:
        if re.fullmatch(pattern, key):
            return rule(key, shape, like)
    return None


def classifier_keys(config: MetaFormerConfig) -> set[str]:
    """Our names of a model's classifier, also where the model has no classes."""
    with torch.device("meta"):
        classifier = config.head(config.dims[-1], config.num_classes or 1, 0.0)
    return {f"head.classifier.{key}" for key in classifier.state_dict()}


# --- one function per kind of tensor ----------------------------------------------------------------------------------


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """(O, I, k, k) → (O, channels, k, k), timm's rule: one channel takes the sum; more repeat the channels, times I/channels.

    So an image whose channels are all alike gives what it gave before, where their number is 1 or a multiple.
    """
    given = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight.repeat(1, -(-channels // given), 1, 1)[:, :channels] * (given / channels)


def fit_grid(embedding: Tensor, side: int) -> Tensor:
    """(1, C, g, g) → (1, C, side, side), bicubic, antialiased where it shrinks."""
    return F.interpolate(embedding.float(), (side, side), mode="bicubic", align_corners=False, antialias=True)


def fit_token_matrix(matrix: Tensor, side: int) -> Tensor:
    """(g², g²) → (side², side²): over the input places and the output places, as the mixer does on maps of that size.

    Rows of RandFormer's matrix still sum to 1 and have no negative entry; a row of SpatialFC gives to a constant map what it
    gave before.
    """
    return resize_token_matrix(matrix.float(), isqrt(matrix.shape[0]), (side, side))


def fit_classes(rows: Tensor) -> Tensor:
    """(21841, ...) → (1000, ...): ImageNet-1K's rows of a classifier of ImageNet-21K, by synset; the mean where it has none."""
    places = rows_by_synset()
    taken = rows[torch.tensor([0 if place is None else place for place in places])]
    taken[torch.tensor([place is None for place in places])] = rows.float().mean(0).to(rows.dtype)
    return taken


def _channels(key: str, shape: Shape, like: Shape) -> Change | None:
    if len(shape) != 4 or (shape[0], *shape[2:]) != (like[0], *like[2:]) or not shape[1]:
        return None
    how = "summed" if like[1] == 1 else f"repeated, times {shape[1]}/{like[1]}"
    return Change(lambda: f"stem: {shape[1]} input channels to {like[1]}, {how}", lambda w: fit_channels(w, like[1]))


def _grid(key: str, shape: Shape, like: Shape) -> Change | None:
    if len(shape) != 4 or shape[:2] != like[:2] or shape[2] != shape[3] or not shape[2]:
        return None
    note = f"position embedding of stage {_stage(key)}: {_sides(shape[2], like[2])}, bicubic"
    return Change(lambda: note, lambda w: fit_grid(w, like[2]))


def _token_matrix(key: str, shape: Shape, like: Shape) -> Change | None:
    square = len(shape) == len(like) == 2 and shape[0] == shape[1] == isqrt(shape[0]) ** 2 > 0
    if not square or like[0] != like[1]:
        return None
    side = isqrt(like[0])
    note = f"token matrices of stage {_stage(key)}: {_sides(isqrt(shape[0]), side)}, interpolated over rows and columns"
    return Change(lambda: note, lambda w: fit_token_matrix(w, side))


def _classes(key: str, shape: Shape, like: Shape) -> Change | None:
    if not shape or shape[1:] != like[1:]:
        return None
    if (shape[0], like[0]) == (21841, 1000):
        return Change(_synset_note, fit_classes)
    return Change(lambda: f"classifier: a new last layer of {like[0]} classes, the file's has {shape[0]}", None)


def _dense_classes(key: str, shape: Shape, like: Shape) -> Change | None:
    if len(shape) != len(like) or shape[1:] != like[1:]:
        return None
    return Change(lambda: "head: new last layers, as the file's are for other classes", None)


RULES: tuple[tuple[str, Callable[[str, Shape, Shape], Change | None]], ...] = (
    (r"stages\.0\.embed\.conv\.weight", _channels),
    (r"stages\.\d+\.pos_embed\.weight", _grid),
    (r"stages\.\d+\.blocks\.\d+\.mixer\.branch\.weight", _token_matrix),
    (r"head\.classifier\.fc\.(weight|bias)", _classes),
    (r"((box_)?head\.(label|box)|mask_head\.mask|classify)\.(weight|bias)", _dense_classes),
)


def _synset_note() -> str:
    names = class_names(1000)
    none = [f"{i} ({names[i]})" for i, place in enumerate(rows_by_synset()) if place is None]
    return f"classifier: 1000 of 21841 rows taken by synset; class {', '.join(none)} has none there and takes the mean row"


def _stage(key: str) -> int:
    return int(key.split(".")[1]) + 1


def _sides(given: int, wanted: int) -> str:
    return f"{given}×{given} places to {wanted}×{wanted}"
