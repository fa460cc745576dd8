"""Batches of a split, epoch by epoch, read by this process or by workers."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from metaformer.core.ranks import ALONE, Ranks
from metaformer.data.augment import Augment, View
from metaformer.data.batch import Batch, generator
from metaformer.data.blocks import WINDOW, blocks_of, in_window
from metaformer.data.preprocess import Preprocess, resize
from metaformer.data.share import cuts, places
from metaformer.data.splits import Encoded, Images

Key = tuple[int, int, int]
"""Epoch, sample, and the number of the draw that its augmentation follows from: the sample's own where it is drawn once."""


@dataclass(frozen=True, eq=False)
class Feed(Dataset[Any]):
    """Reads the samples of a batch as bytes of the model's size; this is what workers do."""

    split: Images | Encoded
    preprocess: Preprocess
    view: View | None

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, keys: list[Key]) -> tuple[Tensor, Tensor, dict[int, str]]:
        """Pixels (B, C, size, size), numbers of samples and draws (B, 2), and why samples missing from them cannot be read."""
        if keys and isinstance(self.split, Images) and self.view is None:
            index = torch.tensor([key[1:] for key in keys])
            return self.preprocess.fitted(self.split.pixels[index[:, 0]]), index, {}
        pixels: list[Tensor] = []
        read: list[tuple[int, int]] = []
        damaged: dict[int, str] = {}
        for epoch, sample, draw in keys:
            try:
                pixels.append(self._one(epoch, sample, draw))
                read.append((sample, draw))
            except ValueError as error:
                damaged[sample] = str(error)
        size = self.preprocess.size
        stacked = torch.stack([image.permute(1, 2, 0) for image in pixels]) if pixels else torch.empty(0, size, size, 1).byte()
        return stacked.permute(0, 3, 1, 2), torch.tensor(read, dtype=torch.int64).view(-1, 2), damaged

    def _one(self, epoch: int, sample: int, draw: int) -> Tensor:
        if self.view is None:
            return self.preprocess.fitted(self.split.image(sample)[None])[0]
        return self.view.read(partial(self.split.part, sample), epoch, draw)


@dataclass
class Order:
    """The batches of keys of one epoch, from `start` on; set anew for each."""

    batches: tuple[list[Key], ...] = ()

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Loader:
    """Batches on the device. With `augment` they are shuffled by (seed, epoch); without, they come in order.

    With `balanced` too, an epoch draws as many images as there are, every class equally often, with replacement.

    Of more images than are decoded beforehand some may turn out to be damaged: they are left out of their batch, which may
    then be empty, and kept in `damaged`. More than 1 % of the split raise ValueError; so does any where they come in order.

    Of several `ranks` each has its part of every batch, cut for as many micro-batches as `accumulate` says; where the images
    come in order, every so many a batch, whole: what a model answers may depend on how many it is asked about at once.

    Images in shards are shuffled over a `window` of so many (`blocks.in_window`); without it, over all of them where the
    shards are here, else over 20,000.
    """

    def __init__(
        self,
        split: Images | Encoded,
        batch: int,
        preprocess: Preprocess,
        device: torch.device,
        *,
        workers: int = 0,
        view: View | None = None,
        augment: Augment | None = None,
        balanced: bool = False,
        ranks: Ranks = ALONE,
        accumulate: int = 1,
        window: int | None = None,
    ) -> None:
        self.split, self.batch, self.preprocess, self.device, self.augment = split, batch, preprocess, device, augment
        self.balanced, self.ranks, self.accumulate = balanced, ranks, accumulate
        self.blocks, self.window = _sequence(split, window) if augment is not None else (None, 0)
        self.order = Order()
        self.damaged: dict[int, str] = {}
        self.loader: DataLoader[Any] = DataLoader(
            Feed(split, preprocess, view),
            batch_sampler=self.order,
            collate_fn=as_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=undisturbed,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # each epoch draws from it, a resumed one again: not from the model's
        )

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch)

    def epoch(self, epoch: int = 0, start: int = 0, side: int | None = None) -> Iterator[Batch]:
        """The epoch's batches from number `start` on; the last one may be smaller.

        Images are resized to `side` pixels where it is given, after they were moved and mixed and before they are erased.
        """
        for done, (pixels, index) in enumerate(self._read(epoch, start)):
            batch = self._ready(pixels, index, epoch, start + done, side or self.preprocess.size)
            if self.augment is not None and self.ranks.count > 1:
                batch = replace(batch, cuts=self._cuts(start + done, self.order.batches[done], set(index[:, 1].tolist())))
            yield batch

    def pixels(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The same batches as they are read, not on the device yet: bytes (B, C, size, size) and sample numbers (B,)."""
        for pixels, index in self._read(epoch, start):
            yield pixels, index[:, 0]

    def _read(self, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Bytes (B, C, size, size), and the numbers of samples and of draws (B, 2)."""
        samples, draws = self._drawn(epoch)
        keys = [(epoch, sample, draw) for sample, draw in zip(samples.tolist(), draws.tolist(), strict=True)]
        batches = [keys[at : at + self.batch] for at in range(start * self.batch, len(keys), self.batch)]
        if self.augment is None:
            batches = batches[self.ranks.rank :: self.ranks.count]
        elif self.ranks.count > 1:
            batches = [[batch[place] for place in self._places(len(batch))] for batch in batches]
        self.order.batches = tuple(batches)
        for pixels, index, damaged in self.loader:
            if damaged:
                self._note(damaged)
            yield pixels, index

    def _cuts(self, step: int, keys: list[Key], read: set[int]) -> tuple[int, ...]:
        """How many images of each micro-batch this rank has of a step's `keys`, of which the draws in `read` could be read."""
        batch = min(self.batch, len(self.split) - step * self.batch)
        mine = [place for place, key in zip(self._places(batch), keys, strict=True) if key[2] in read]
        return cuts(batch, mine, self.accumulate)

    def _places(self, batch: int) -> list[int]:
        """This rank's places in a batch of so many."""
        return places(batch, self.ranks, pairs=self.augment is not None and self.augment.mixes)

    def _drawn(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The samples of an epoch in their order, and the number of each draw, no two the same."""
        if self.augment is None:
            order = torch.arange(len(self.split))
            return order, order
        draw = generator(self.augment.seed, epoch, "order")
        if self.balanced:
            return self._near(draw_balanced(self.split.labels, draw), draw), torch.arange(len(self.split))
        order = self._near(torch.randperm(len(self.split), generator=draw), draw)
        return order, order

    def _near(self, samples: Tensor, draw: torch.Generator) -> Tensor:
        """Shuffled samples, those of a shard near each other where it is to be read as a whole."""
        return samples if self.blocks is None else in_window(samples, self.blocks, self.window, draw)

    def _note(self, damaged: dict[int, str]) -> None:
        self.damaged |= damaged
        if self.augment is None or len(self.damaged) > len(self.split) / 100:
            reason = next(iter(damaged.values()))
            raise ValueError(f"{len(self.damaged):,} of {len(self.split):,} images cannot be read; the last: {reason}")

    def _ready(self, pixels: Tensor, index: Tensor, epoch: int, step: int, side: int) -> Batch:
        samples, draws = index.unbind(1)
        pixels = pixels.to(self.device, non_blocking=True)
        if self.augment is not None and len(index):
            pixels = self.augment.move(pixels, draws, epoch, len(self.split))
        labels = self.split.labels[samples].to(self.device, non_blocking=True)
        batch = Batch(pixels, labels, samples=samples if self.augment is not None and len(index) else None)
        if self.augment is not None and len(index):
            batch = self.augment.mixed(batch, epoch, step)
        images = self.preprocess.normalise(batch.images)
        if side != self.preprocess.size and len(index):
            images = resize(images, side, side)
        if self.augment is not None and len(index):
            images = self.augment.erased(images, draws, epoch)
        return replace(batch, images=images)


def _sequence(split: Images | Encoded, window: int | None) -> tuple[Tensor | None, int]:
    """The shard of each image (N,) where their order has to respect it, and over how many images it is shuffled."""
    found = blocks_of(split.items) if isinstance(split, Encoded) else None
    if found is None or (found[1] and window is None):
        return None, 0
    return found[0], WINDOW if window is None else window


def draw_balanced(labels: Tensor, draw: torch.Generator) -> Tensor:
    """As many samples as there are labels (N,), with replacement: each class that has any comes equally often, or once more."""
    _, place, counts = labels.unique(return_inverse=True, return_counts=True)
    turns = torch.randperm(len(labels), generator=draw) % len(counts)
    turns = torch.randperm(len(counts), generator=draw)[turns]  # whose turn is the one too many
    members, first = place.argsort(stable=True), counts.cumsum(0) - counts
    which = torch.randint(2**62, (len(labels),), generator=draw) % counts[turns]
    return members[first[turns] + which]


def undisturbed(_: int) -> None:
    """Lets a worker go on when Ctrl-C, or a cluster's first SIGTERM, comes to all processes: the trainer has a step to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def as_is(batch: Any) -> Any:
    """What workers send, as they made it."""
    return batch


def default_workers(split: object, view: View | None, device: torch.device, *, near: int = 1) -> int:
    """None where reading costs nothing; else as many as there are cores, or half as many where the cores also train.

    Of `near` processes that train on this machine, each has its part of that.
    """
    if isinstance(split, Images) and view is None:
        return 0
    cores = (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) // near
    return max(1, min(8, cores // 2 if device.type == "cpu" else cores))
