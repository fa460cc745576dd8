"""The images that models are explained by: files, or images that a run held out; as each of the models is fed them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from metaformer.data.dataset import with_channels
from metaformer.data.decode import decode
from metaformer.data.find import find_images
from metaformer.data.preprocess import Preprocess
from metaformer.data.sources import open_data
from metaformer.infer.evaluate import own_data
from metaformer.runs import is_run


@dataclass(frozen=True)
class Images:
    """Images that could be read, and what is to say of the others."""

    names: tuple[str, ...]
    """Paths, or what the run's data calls them."""
    truth: tuple[str, ...]
    """The class of each; empty texts where that is not known."""
    fed: tuple[Tensor, ...]
    """For each model (N, C, size, size) of bytes."""
    unreadable: list[dict[str, str]]
    left_out: int


def read_images(
    source: str | Path, images: str | Path | Sequence[str | Path] | None, fits: Sequence[Preprocess], most: int, shown: int
) -> Images:
    """At most so many, made ready in each of the ways `fits`; of files the first, for None of the images that the run `source`
    held out some from everywhere, and of these the first `shown` too, as they may lie by class.

    Raises ValueError where there is none that can be read, or `source` is no run.
    """
    channels = sorted({len(fit.mean) for fit in fits})
    if images is None:
        asked = list(_held_out(source, channels))
        kept = _spread(asked, most)
        first = _spread(kept, shown)
        wanted = first + [one for one in kept if one not in first]
    else:
        asked = [_of_file(path, channels) for path in find_images([images] if isinstance(images, str | Path) else images)]
        wanted = asked[:most]
    names, truth, unreadable = list[str](), list[str](), list[dict[str, str]]()
    fed: list[list[Tensor]] = [[] for _ in fits]
    for name, read, label in wanted:
        try:
            pixels = read()
        except ValueError as error:
            unreadable.append({"path": name, "error": str(error).removeprefix(f"{name}: ")})
            continue
        names.append(name)
        truth.append(label)
        for rows, fit in zip(fed, fits, strict=True):
            rows.append(fit.fitted(pixels[len(fit.mean)]))
    if not names:
        none = "the image cannot" if len(wanted) == 1 else f"none of the {len(wanted)} images can"
        raise ValueError(f"{none} be read: {unreadable[0]['path']}: {unreadable[0]['error']}")
    return Images(tuple(names), tuple(truth), tuple(torch.cat(rows) for rows in fed), unreadable, len(asked) - len(wanted))


Named = tuple[str, Callable[[], dict[int, Tensor]], str]
"""An image's name, what reads it (by channels (1, C, H, W) of bytes), and its class, empty where that is not known."""


def _of_file(path: Path, channels: Sequence[int]) -> Named:
    return str(path), lambda: {count: decode(path, count) for count in channels}, ""


def _spread(asked: Sequence[Named], count: int) -> list[Named]:
    """So many, as far from each other as they are many."""
    places = torch.linspace(0, len(asked) - 1, min(len(asked), count)).round().long().tolist()
    return [asked[place] for place in places]


def _held_out(source: str | Path, channels: Sequence[int]) -> Iterator[Named]:
    if not is_run(source):
        raise ValueError(
            f"{source} is no run, which would have images of its own: name some, metaformer explain {source} photos"
        )
    named, split, labels = own_data(source, None)
    data = open_data(named, split=split, labels=labels)
    parts = {count: with_channels(data, count).val for count in channels}
    for sample in range(len(data.val)):
        label = "" if data.multi else data.classes[int(data.val.labels[sample])]
        yield data.val.name(sample), lambda at=sample: {count: part.image(at)[None] for count, part in parts.items()}, label
