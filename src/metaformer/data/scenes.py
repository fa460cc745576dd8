"""A part of a data set of objects or regions: images in files, each with what is true of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from metaformer.data.annotations import Annotations
from metaformer.data.decode import decode
from metaformer.data.maps import Maps
from metaformer.data.truth import Scene


@dataclass(frozen=True, eq=False)
class Scenes:
    """Decoded one by one; sizes differ."""

    root: Path
    names: Sequence[str]
    """Paths from the root on."""
    truths: Annotations | Maps

    def __len__(self) -> int:
        return len(self.names)

    @property
    def regions(self) -> bool:
        """Whether truth is a map of regions, and not objects."""
        return isinstance(self.truths, Maps)

    def name(self, sample: int) -> str:
        """The path."""
        return str(self.root / self.names[sample])

    def image(self, sample: int) -> Tensor:
        """Pixels (3, H, W), upright. Raises ValueError that says why it cannot be read."""
        return decode(self.root / self.names[sample], 3)[0]

    def scene(self, sample: int) -> Scene:
        """The image with its truth. Raises ValueError that says why one of them cannot be read."""
        image = self.image(sample)
        _, height, width = image.shape
        return Scene(image, self.truths.read(sample, self.root / self.names[sample], width, height))

    def take(self, keep: Sequence[int]) -> "Scenes":
        """The samples whose numbers are in `keep`, in that order."""
        return Scenes(self.root, [self.names[i] for i in keep], self.truths.take(keep))
