"""Batches of a split, epoch by epoch, read by this process or by workers."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from metaformer.data.augment import Augment, View
from metaformer.data.batch import Batch, generator
from metaformer.data.preprocess import Preprocess, resize
from metaformer.data.splits import Encoded, Images

Key = tuple[int, int]
"""Epoch and sample."""


@dataclass(frozen=True, eq=False)
class Feed(Dataset[Any]):
    """Reads the samples of a batch as bytes of the model's size; this is what workers do."""

    split: Images | Encoded
    preprocess: Preprocess
    view: View | None

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, keys: list[Key]) -> tuple[Tensor, Tensor, dict[int, str]]:
        """Pixels (B, C, size, size), sample numbers (B,), and why those that are missing from them cannot be read."""
        index = torch.tensor([sample for _, sample in keys])
        if isinstance(self.split, Images) and self.view is None:
            return self.preprocess.fitted(self.split.pixels[index]), index, {}
        pixels: dict[int, Tensor] = {}
        damaged: dict[int, str] = {}
        for epoch, sample in keys:
            try:
                pixels[sample] = self._one(epoch, sample)
            except ValueError as error:
                damaged[sample] = str(error)
        size = self.preprocess.size
        stacked = torch.stack(list(pixels.values())) if pixels else torch.empty(0, 1, size, size, dtype=torch.uint8)
        return stacked, torch.tensor(list(pixels), dtype=torch.int64), damaged

    def _one(self, epoch: int, sample: int) -> Tensor:
        pixels = self.split.image(sample)
        return self.preprocess.fitted(pixels[None])[0] if self.view is None else self.view(pixels, epoch, sample)


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

    Of more images than are decoded beforehand some may turn out to be damaged: they are left out of their batch, which may
    then be empty, and kept in `damaged`. More than 1 % of the split raise ValueError; so does any where they come in order.
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
    ) -> None:
        self.split, self.batch, self.preprocess, self.device, self.augment = split, batch, preprocess, device, augment
        self.order = Order()
        self.damaged: dict[int, str] = {}
        self.loader: DataLoader[Any] = DataLoader(
            Feed(split, preprocess, view),
            batch_sampler=self.order,
            collate_fn=_as_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # each epoch draws from it, a resumed one again: not from the model's
        )

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch)

    def epoch(self, epoch: int = 0, start: int = 0, side: int | None = None) -> Iterator[Batch]:
        """The epoch's batches from number `start` on; the last one may be smaller.

        Images are resized to `side` pixels where it is given, after they were moved and before they are erased and mixed.
        """
        for step, (pixels, index) in enumerate(self.pixels(epoch, start), start):
            yield self._ready(pixels, index, epoch, step, side or self.preprocess.size)

    def pixels(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The same batches as they are read, not on the device yet: bytes (B, C, size, size) and sample numbers (B,)."""
        count = len(self.split)
        order = torch.arange(count)
        if self.augment is not None:
            order = torch.randperm(count, generator=generator(self.augment.seed, epoch, "order"))
        self.order.batches = tuple([(epoch, i) for i in part.tolist()] for part in order.split(self.batch)[start:])
        for pixels, index, damaged in self.loader:
            if damaged:
                self._note(damaged)
            yield pixels, index

    def _note(self, damaged: dict[int, str]) -> None:
        self.damaged |= damaged
        if self.augment is None or len(self.damaged) > len(self.split) / 100:
            reason = next(iter(damaged.values()))
            raise ValueError(f"{len(self.damaged):,} of {len(self.split):,} images cannot be read; the last: {reason}")

    def _ready(self, pixels: Tensor, index: Tensor, epoch: int, step: int, side: int) -> Batch:
        pixels = pixels.to(self.device, non_blocking=True)
        if self.augment is not None and len(index):
            pixels = self.augment.move(pixels, index, epoch, len(self.split))
        images = self.preprocess.normalise(pixels)
        if side != self.preprocess.size and len(index):
            images = resize(images, side, side)
        labels = self.split.labels[index].to(self.device, non_blocking=True)
        if self.augment is None or not len(index):
            return Batch(images, labels)
        return self.augment.mixed(Batch(self.augment.erased(images, index, epoch), labels, samples=index), epoch, step)


def _as_is(batch: Any) -> Any:
    return batch


def default_workers(split: Images | Encoded, view: View | None, device: torch.device) -> int:
    """None where reading costs nothing; else as many as there are cores, or half as many where the cores also train."""
    if isinstance(split, Images) and view is None:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // 2 if device.type == "cpu" else cores))
