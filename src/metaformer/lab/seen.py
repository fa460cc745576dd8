"""What explaining found of one model: the figures for explain.json, and the maps that pictures are made from."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from metaformer.lab.opened import Opened
from metaformer.lab.reach import PARTS, Reach


@dataclass(frozen=True)
class Focus:
    """Attention over one grid, of each shown image: (N, h, w), rows of what was taken, each summing to 1 over the places."""

    name: str
    layers: int
    heads: int
    taken: Tensor
    """By the marked place in the last layer, mean over its heads."""
    marked: tuple[tuple[int, int], ...]
    """Row and column of that place on each image."""
    rolled: Tensor
    """By the rollout through all its layers."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        maps = {"taken": rounded(self.taken), "rolled": rounded(self.rolled)}
        return {"name": self.name, "layers": self.layers, "heads": self.heads, "marked": [list(p) for p in self.marked], **maps}


@dataclass(frozen=True)
class Seen:
    """One model's part; what was not asked for is None."""

    opened: Opened
    fed: Tensor
    """(N, C, size, size) of bytes: all images as the model is fed them."""
    classes: tuple[str, ...]
    """What is explained of each shown image."""
    sure: tuple[float, ...]
    """The probability of that."""
    cam: Tensor | None = None
    """(N, h, w) from 0 to 1."""
    lost: Tensor | None = None
    """(N, rows, columns): probability lost where a window is covered."""
    window: int | None = None
    """Its side in pixels."""
    focus: tuple[Focus, ...] | None = None
    reach: tuple[Reach, ...] | None = None
    of_blocks: tuple[Reach, ...] | None = None
    """Over each stage's places, what its blocks alone reach; empty for timm's models."""

    @property
    def name(self) -> str:
        return self.opened.name

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        answers = [{"label": label, "probability": round(p, 6)} for label, p in zip(self.classes, self.sure, strict=True)]
        told: dict[str, Any] = {"name": self.name, "pixels": self.opened.preprocess.size, "answers": answers}
        if self.cam is not None:
            told["cam"] = rounded(self.cam)
        if self.lost is not None:
            told["occlusion"] = {"window": self.window, "lost": rounded(self.lost)}
        if self.focus is not None:
            told["attention"] = [one.to_dict() for one in self.focus]
        if self.reach is not None and self.of_blocks is not None:
            told["reach"] = [reach_told(one) for one in self.reach]
            told["reach_of_blocks"] = [reach_told(one) for one in self.of_blocks]
        return told


def reach_told(one: Reach) -> dict[str, Any]:
    """How far a level sees: of the input's side, the sides of the squares that hold half and 95 % of the field."""
    sides = {f"side_{100 * part:.0f}": one.side(part) for part in PARTS}
    return {"name": one.name, "of": max(one.field.shape), **sides}


def rounded(maps: Tensor) -> list[Any]:
    """To five digits behind the point."""
    return (maps.double().cpu() * 1e5).round().div(1e5).tolist()
