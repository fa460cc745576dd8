"""One part of a data set: images in memory, or encoded ones that are decoded when they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from metaformer.data.decode import decode
from metaformer.data.part import Choose, cut, decode_part


class Split(Protocol):
    """What training and judging ask of a part of a data set."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64; where an image may have several classes, (N, classes) of 0 and 1."""
        ...

    def __len__(self) -> int: ...

    def image(self, sample: int) -> Tensor:
        """Pixels (C, H, W) of one sample as uint8. Raises ValueError that says why it cannot be read."""
        ...

    def part(self, sample: int, choose: Choose) -> Tensor:
        """Of the pixels what `choose` wants, told their height and width. Raises ValueError as `image` does."""
        ...

    def name(self, sample: int) -> str:
        """What a person would look for: a path, or a row."""
        ...


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one size, in memory: pixels (N, C, H, W) as uint8."""

    pixels: Tensor
    labels: Tensor
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, sample: int) -> Tensor:
        """Pixels (C, H, W)."""
        return self.pixels[sample]

    def part(self, sample: int, choose: Choose) -> Tensor:
        """What `choose` wants of the pixels (C, H, W)."""
        return cut(self.pixels[sample], choose)

    def name(self, sample: int) -> str:
        """The name given, or the sample's number."""
        return f"image {sample}" if self.names is None else self.names[sample]


@dataclass(frozen=True, eq=False)
class Encoded:
    """Image files, or the bytes of such files, decoded one by one; sizes may differ."""

    items: Sequence[Path | bytes]
    labels: Tensor
    channels: int
    names: Sequence[str] | None = None
    """What to call items that are bytes."""

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, sample: int) -> Tensor:
        """Pixels (C, H, W), upright. Raises ValueError with the reason."""
        item = self.items[sample]
        return decode(item, self.channels, self.name(sample))[0]

    def part(self, sample: int, choose: Choose) -> Tensor:
        """What `choose` wants of the pixels (C, H, W); of a JPEG no more is decoded than that takes."""
        return decode_part(self.items[sample], self.channels, self.name(sample), choose)

    def name(self, sample: int) -> str:
        """The path, or the name given."""
        item = self.items[sample] if isinstance(self.items, list) else None
        if isinstance(item, Path):
            return str(item)
        return self.names[sample] if self.names is not None else f"image {sample}"


def subset(split: Images | Encoded, keep: Tensor) -> Images | Encoded:
    """The samples whose numbers are in `keep`, in that order."""
    numbers = keep.tolist()
    names = None if split.names is None else [split.names[i] for i in numbers]
    if isinstance(split, Images):
        return Images(split.pixels[keep], split.labels[keep], names)
    return Encoded([split.items[i] for i in numbers], split.labels[keep], split.channels, names)
