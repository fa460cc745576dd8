"""What `data=` can name. A source gives two splits of images with labels, and what a recipe needs to know of them."""

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaformer.data.splits import Encoded, Images


@dataclass(frozen=True, eq=False)
class Data:
    """A classification data set: two splits, and what a recipe needs to know of them."""

    train: Images | Encoded
    val: Images | Encoded
    classes: tuple[str, ...]
    channels: int
    image_size: int | None
    """Side in pixels that models are fed by default; None where images have many sizes and the model decides."""
    mirrors: bool
    """Whether an image keeps its meaning in a mirror."""
    mean: tuple[float, ...] = ()
    """Mean of the training pixels per channel, in units of 0 to 1."""
    std: tuple[float, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    """Images that were left out, each with its reason."""


def statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of (N, C, H, W) bytes, in units of 0 to 1."""
    counts = [torch.bincount(pixels[:, c].flatten(), minlength=256).double() for c in range(pixels.shape[1])]
    values = torch.arange(256).double() / 255
    means = [float((count * values).sum() / count.sum()) for count in counts]
    squares = [float((count * values**2).sum() / count.sum()) for count in counts]
    stds = [max(square - mean**2, 1e-12) ** 0.5 for mean, square in zip(means, squares, strict=True)]
    return tuple(means), tuple(stds)


def in_memory(train: Images, val: Images, classes: tuple[str, ...], *, image_size: int, mirrors: bool) -> Data:
    """A data set whose splits are in memory."""
    mean, std = statistics(train.pixels)
    return Data(train, val, classes, train.pixels.shape[1], image_size, mirrors, mean, std)


def digits(_: str) -> Data:
    """1,797 real handwritten digits, 8×8 grey (UCI, carried by scikit-learn). 360 are held out, stratified, seed 0."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch: Any = load_digits()
    pixels = torch.from_numpy((bunch.images[:, None] * (255 / 16)).round().astype(np.uint8))
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    train, val = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    parts = Images(pixels[train], labels[train]), Images(pixels[val], labels[val])
    return in_memory(*parts, tuple("0123456789"), image_size=32, mirrors=False)


GARMENTS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def fashion_mnist(place: str) -> Data:
    """Fashion-MNIST, 60,000 + 10,000 grey 28×28, from a folder with the four original IDX files (gzipped or not)."""
    if not place:
        raise ValueError("fashion-mnist needs its folder: data=fashion-mnist:PATH, with the four original IDX files")
    folder = Path(place).expanduser()
    splits = []
    for prefix in ("train", "t10k"):
        pixels = _read_idx(folder, f"{prefix}-images-idx3-ubyte", 3)
        labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte", 1)
        if len(pixels) != len(labels):
            raise ValueError(f"{folder}: {len(pixels)} {prefix} images but {len(labels)} labels")
        if not len(labels) or labels.max() >= len(GARMENTS):
            raise ValueError(f"{folder}: the {prefix} labels are not some of 0 to {len(GARMENTS) - 1}")
        splits.append(Images(pixels.unsqueeze(1), labels.long()))
    return in_memory(splits[0], splits[1], GARMENTS, image_size=28, mirrors=True)


def _read_idx(folder: Path, name: str, axes: int) -> Tensor:
    """An IDX file of bytes: two zeros, type 8, the number of axes, each axis' length in big-endian, then the bytes."""
    file = next((folder / n for n in (name, f"{name}.gz") if (folder / n).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder} has neither {name} nor {name}.gz")
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{file} is damaged ({error})") from error
    head = 4 + 4 * axes
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i]) for i in range(axes)]
    if raw[:4] != bytes((0, 0, 8, axes)) or len(raw) != head + int(np.prod(shape)):
        raise ValueError(f"{file} is not an IDX file of {axes} axes, or it is cut short")
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=head).reshape(shape).copy())


SOURCES: dict[str, Callable[[str], Data]] = {"digits": digits, "fashion-mnist": fashion_mnist}


def open_data(source: str) -> Data:
    """The data set that `data=NAME` or `data=NAME:PATH` names. Raises ValueError or FileNotFoundError with a sentence."""
    name, _, place = source.partition(":")
    if name not in SOURCES:
        raise ValueError(f"no data {name!r}; allowed: digits, fashion-mnist:PATH")
    return SOURCES[name](place)
