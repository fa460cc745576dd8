"""A look at every image of a data set before training: which can be read, in what colours and sizes, with what statistics."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metaformer.data.blocks import blocks_of, first_blocks
from metaformer.data.dataset import Progress, statistics
from metaformer.data.decode import header, see
from metaformer.data.look import moments

SMALL = 64
"""Images that all have one size of at most so many pixels a side are kept decoded."""
MEMORY = 2 * 2**30
"""Most bytes that decoded images may take; more are decoded when they are asked for."""
ALL = 20_000
"""So many images are decoded, each once. Of more, all headers and ends are read, and SAMPLE images are decoded."""
SAMPLE = 5_000
CHUNK = 32


@dataclass(frozen=True, eq=False)
class Scan:
    """What was found."""

    unreadable: dict[int, str]
    """Reason by number."""
    channels: int
    """1 if no readable image has colour, else 3."""
    pixels: Tensor | None
    """(N, channels, H, W) of bytes where all have one small size; the unreadable ones' are undefined."""
    mean: tuple[float, ...]
    """Mean of the pixels of the images that count, each image weighing the same; in units of 0 to 1, one per channel."""
    std: tuple[float, ...]
    digests: dict[int, bytes]
    """Of the files that were read in full, so that copies can be told."""


def scan(
    items: Sequence[Path | bytes], counts: Tensor, *, closely: Tensor | None = None, progress: Progress | None = None
) -> Scan:
    """Looks at images in threads; `counts` (N,) says which contribute to mean and standard deviation.

    Up to 20,000 images, and any number of images of one size up to 64 pixels a side, are decoded, each once: what is not
    reported can be decoded. Of more, those that `closely` (N,) names are decoded, by default those that do not count, and
    5,000 that count, for mean and standard deviation; of the others the header is read, and they are decoded if their end
    is not one of their format. Damage in the middle of those is not seen.

    Of more images in shards that are not here, those that judge and the shards with 5,000 that count are looked at, no more.
    """
    total = len(items)
    blocks = blocks_of(items)
    surely = ~counts if closely is None else closely
    numbers: Sequence[int] = range(total)
    if blocks is not None and not blocks[1] and total > ALL:
        look = _Look(items, counts, None)
        numbers = (surely | first_blocks(blocks[0], counts, SAMPLE)).nonzero().flatten().tolist()
        look.closely = set(numbers)
    else:
        look = _Look(items, counts, _room(items))
    if look.closely is None and look.pixels is None and total > ALL:
        order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
        look.closely = {*order[counts[order]][:SAMPLE].tolist(), *surely.nonzero().flatten().tolist()}
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    whole = _Part()
    try:
        for part in pool.map(look, [numbers[start : start + CHUNK] for start in range(0, len(numbers), CHUNK)]):
            whole.add(part)
            if progress is not None:
                progress("checking images", whole.images, len(numbers))
    finally:
        pool.shutdown(cancel_futures=True)
    return _found(whole, look, counts)


def _found(whole: "_Part", look: "_Look", counts: Tensor) -> Scan:
    channels = 1 if whole.grey else 3
    pixels = None
    if look.pixels is not None and len(whole.sizes) == 1:
        pixels = look.pixels[:, :channels].contiguous()
        readable = torch.ones(len(pixels), dtype=torch.bool)
        readable[list(whole.unreadable)] = False
        mean, std = statistics(pixels[counts & readable])
    else:
        means, squares = whole.sums[:, :channels] / max(whole.weight, 1)
        mean, std = tuple(means.tolist()), tuple(np.sqrt((squares - means**2).clip(1e-12)).tolist())
    return Scan(whole.unreadable, channels, pixels, mean, std, whole.digests)


def _room(items: Sequence[Path | bytes]) -> Tensor | None:
    """Room for all images decoded, if a few spread over them are of one small size and it is not too much."""
    sizes = set()
    for i in range(0, len(items), max(1, len(items) // 32)):
        try:
            sizes.add(header(items[i])[0])
        except ValueError:  # will be found and told when its turn comes
            continue
    if len(sizes) != 1:
        return None
    width, height = sizes.pop()
    if max(width, height) > SMALL or len(items) * 3 * height * width > MEMORY:
        return None
    return torch.empty(len(items), 3, height, width, dtype=torch.uint8)


@dataclass
class _Part:
    """What was found in some of the images."""

    images: int = 0
    unreadable: dict[int, str] = field(default_factory=dict)
    grey: bool = True
    sizes: set[tuple[int, int]] = field(default_factory=set)
    sums: "np.ndarray[tuple[int, int], np.dtype[np.float64]]" = field(default_factory=lambda: np.zeros((2, 3)))
    """Sums over images of the mean and of the mean square of each channel."""
    weight: int = 0
    digests: dict[int, bytes] = field(default_factory=dict)

    def add(self, other: "_Part") -> None:
        self.images += other.images
        self.unreadable |= other.unreadable
        self.grey &= other.grey
        self.sizes |= other.sizes
        self.sums += other.sums
        self.weight += other.weight
        self.digests |= other.digests


class _Look:
    """Looks at the images of the numbers given."""

    def __init__(self, items: Sequence[Path | bytes], counts: Tensor, pixels: Tensor | None) -> None:
        self.items, self.counts, self.pixels = items, counts.tolist(), pixels
        self.rows = None if pixels is None else pixels.numpy()
        self.closely: set[int] | None = None

    def __call__(self, numbers: Iterable[int]) -> _Part:
        part = _Part()
        for i in numbers:
            part.images += 1
            try:
                self._look(i, part)
            except ValueError as error:
                part.unreadable[i] = str(error)
        return part

    def _look(self, i: int, part: _Part) -> None:
        item = self.items[i]
        if self.closely is not None and i not in self.closely:
            size, grey, ends = header(item)
            if ends:
                part.grey &= grey
                part.sizes.add(size)
                return
        image = see(item)
        part.grey &= image.mode == "L"
        part.sizes.add(image.size)
        if self.closely is None:
            part.digests[i] = digest(item)
        if self.rows is not None and self.rows.shape[2:] == (image.height, image.width):
            self.rows[i] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        if self.counts[i]:  # also of images that have a row: one of another size, met later, makes the rows useless
            part.sums += moments(image)
            part.weight += 1


def digest(item: Path | bytes) -> bytes:
    """What is the same for copies of a file and for nothing else."""
    if isinstance(item, bytes):
        return hashlib.blake2b(item, digest_size=16).digest()
    with item.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
