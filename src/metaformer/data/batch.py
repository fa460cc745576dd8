"""What a model is fed in training, and random numbers that follow from a key."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What a model is fed: images (B, C, H, W), normalised, and labels (B,), or (B, classes) of 0 and 1.

    Mixed batches also have the labels of what was mixed in, and the share that each image keeps of its own.
    """

    images: Tensor
    labels: Tensor
    partners: Tensor | None = None
    share: float = 1.0
    samples: Tensor | None = None
    """(B,) on the processor: the images' numbers in their split, where somebody may ask."""
    cuts: tuple[int, ...] | None = None
    """Sizes of the micro-batches, some perhaps 0, where several processes share each of them."""

    def __len__(self) -> int:
        return len(self.labels)

    def blank(self, device: torch.device) -> Tensor:
        """One image of zeros, of these images' size, of which there may be none."""
        return self.images.new_zeros(1, *self.images.shape[1:], device=device)

    def parts(self, count: int) -> "list[Batch]":
        """The batch cut into at most `count` micro-batches, or as `cuts` says."""
        size = -(-len(self.labels) // count) if self.cuts is None else list(self.cuts)
        cut = zip(self.images.split(size), self.labels.split(size), strict=True)
        partners = self.partners.split(size) if self.partners is not None else None
        return [Batch(x, y, None if partners is None else partners[i], self.share) for i, (x, y) in enumerate(cut)]


def generator(*key: int | str) -> torch.Generator:
    """A generator that depends on the key alone: not on the process, not on what was drawn before."""
    return torch.Generator().manual_seed(number(*key))


def number(*key: int | str) -> int:
    """A whole number of 63 bits that follows from the key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
