"""Batches of scenes, epoch by epoch, read by this process or by workers, shared by ranks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from metaformer.core.ranks import ALONE, Ranks
from metaformer.data.batch import generator
from metaformer.data.dense_views import DenseView
from metaformer.data.loader import Key, Order, as_is, undisturbed
from metaformer.data.packed import Packed, pack
from metaformer.data.scenes import Scenes
from metaformer.data.share import cuts, places
from metaformer.data.truth import Objects, Scene

Images = list[Tensor] | Tensor
"""(3, H, W) of bytes each; one tensor, (B, 3, H, W), where all have one size."""
Truths = list[Objects] | list[Tensor] | Tensor
"""Objects for each image; or maps (H, W), one tensor, (B, H, W), where all have one size."""


SMALL = 64
"""Side of a blank image in pixels."""


@dataclass(frozen=True, eq=False)
class DenseBatch:
    """Images and what is true of them. Unpacks into the two."""

    images: Images
    truths: Truths
    samples: Tensor | None = None
    """(B,) on the processor: the images' numbers in their part."""
    cuts: tuple[int, ...] | None = None
    """Sizes of the micro-batches, some perhaps 0, where several processes share each of them."""

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> "Iterator[Images | Truths]":
        return iter((self.images, self.truths))

    def blank(self, device: torch.device) -> Tensor:
        """One image of zeros, already normalised, small."""
        return torch.zeros(1, 3, SMALL, SMALL, device=device)

    def parts(self, count: int) -> "list[DenseBatch]":
        """The batch cut into at most `count` micro-batches, or as `cuts` says."""
        size = max(1, -(-len(self) // count))
        sizes = [min(size, len(self) - at) for at in range(0, len(self), size)] if self.cuts is None else self.cuts
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        spans = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        samples = self.samples
        return [DenseBatch(self.images[s], self.truths[s], None if samples is None else samples[s]) for s in spans]


@dataclass(frozen=True, eq=False)
class DenseFeed(Dataset[Any]):
    """Reads the scenes of a batch; this is what workers do."""

    scenes: Scenes
    view: DenseView

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitems__(self, keys: list[Key]) -> tuple[Packed, Tensor, dict[int, str]]:
        """Scenes, numbers of samples and draws (B, 2), and why samples missing from them cannot be read."""
        shown: list[Scene] = []
        read: list[tuple[int, int]] = []
        damaged: dict[int, str] = {}
        for epoch, sample, draw in keys:
            try:
                shown.append(self.view(self.scenes, epoch, sample, draw))
                read.append((sample, draw))
            except ValueError as error:
                damaged[sample] = str(error)
        return pack(shown), torch.tensor(read, dtype=torch.int64).view(-1, 2), damaged


class DenseLoader:
    """Batches on the device. With `shuffled` their order follows from (the view's seed, epoch); without, they come in order.

    Images that turn out to be damaged are left out of their batch, which may then be empty, and kept in `damaged`. More than
    1 % of the part raise ValueError; so does any where they come in order.

    Of several `ranks` each has its share of every batch, cut for as many micro-batches as `accumulate` says; where the
    images come in order, every so many a batch, whole.
    """

    def __init__(
        self,
        scenes: Scenes,
        batch: int,
        view: DenseView,
        device: torch.device,
        *,
        workers: int = 0,
        shuffled: bool = False,
        ranks: Ranks = ALONE,
        accumulate: int = 1,
    ) -> None:
        self.scenes, self.batch, self.view, self.device = scenes, batch, view, device
        self.shuffled, self.ranks, self.accumulate = shuffled, ranks, accumulate
        self.order = Order()
        self.damaged: dict[int, str] = {}
        self.loader: DataLoader[Any] = DataLoader(
            DenseFeed(scenes, view),
            batch_sampler=self.order,
            collate_fn=as_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=undisturbed,
            pin_memory=device.type == "cuda",  # without it nothing is copied while the GPU computes
            generator=torch.Generator(),  # each epoch draws from it, a resumed one again: not from the model's
        )

    @property
    def split(self) -> Scenes:
        """What the batches are of."""
        return self.scenes

    def __len__(self) -> int:
        return -(-len(self.scenes) // self.batch)

    def epoch(self, epoch: int = 0, start: int = 0, side: int | None = None) -> Iterator[DenseBatch]:
        """The epoch's batches from number `start` on; the last one may be smaller.

        Images are as large as the view shows them: `side` is what a run says of them, whatever the epoch.
        """
        keys = [(epoch, sample, sample) for sample in self._drawn(epoch)]
        batches = [keys[at : at + self.batch] for at in range(start * self.batch, len(keys), self.batch)]
        sizes = [len(batch) for batch in batches]
        if not self.shuffled:
            batches = batches[self.ranks.rank :: self.ranks.count]
        elif self.ranks.count > 1:
            batches = [[batch[place] for place in places(len(batch), self.ranks, pairs=False)] for batch in batches]
        self.order.batches = tuple(batches)
        for done, (sent, index, damaged) in enumerate(self.loader):
            if damaged:
                self._note(damaged)
            batch = self._ready(sent.scenes(), index)
            if self.shuffled and self.ranks.count > 1:
                batch = replace(batch, cuts=self._cuts(sizes[done], batches[done], set(index[:, 0].tolist())))
            yield batch

    def _drawn(self, epoch: int) -> Sequence[int]:
        if not self.shuffled:
            return range(len(self.scenes))
        return torch.randperm(len(self.scenes), generator=generator(self.view.seed, epoch, "order")).tolist()

    def _cuts(self, size: int, keys: list[Key], read: set[int]) -> tuple[int, ...]:
        """How many images of each micro-batch of a batch this rank has, of its `keys` those in `read` that could be read."""
        own = places(size, self.ranks, pairs=False)
        return cuts(size, [place for place, key in zip(own, keys, strict=True) if key[1] in read], self.accumulate)

    def _note(self, damaged: dict[int, str]) -> None:
        self.damaged |= damaged
        if not self.shuffled or len(self.damaged) > len(self.scenes) / 100:
            reason = next(iter(damaged.values()))
            raise ValueError(f"{len(self.damaged):,} of {len(self.scenes):,} images cannot be read; the last: {reason}")

    def _ready(self, shown: list[Scene], index: Tensor) -> DenseBatch:
        """The batch on the device."""
        images = _stacked([scene.image for scene in shown], self.device)
        objects = [scene.truth.to(self.device) for scene in shown if isinstance(scene.truth, Objects)]
        maps = [scene.truth for scene in shown if isinstance(scene.truth, Tensor)]
        return DenseBatch(images, _stacked(maps, self.device) if maps else objects, index[:, 0])


def _stacked(tensors: list[Tensor], device: torch.device) -> list[Tensor] | Tensor:
    """One tensor where all have one size."""
    sent = [tensor.to(device, non_blocking=True) for tensor in tensors]
    return torch.stack(sent) if len({tensor.shape for tensor in sent}) == 1 else sent
