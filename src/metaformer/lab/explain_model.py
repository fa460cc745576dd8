"""What explaining finds of one model: the figures for explain.json, and the maps that pictures are made from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaformer.lab.attention import Attended, attention
from metaformer.lab.attribution import grad_cam, occlusion
from metaformer.lab.cam import class_activation
from metaformer.lab.classifier import Classifier
from metaformer.lab.reach import PARTS, Reach, reach, reach_of_blocks

REACHED = 16
"""Images that the receptive field is averaged over."""


@dataclass(frozen=True)
class Focus:
    """Attention over one grid, of each shown image: (N, h, w), what was taken of each place; 1 in all, with what was taken of
    a class token."""

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
class Findings:
    """One model's part; what was not asked for is None."""

    opened: Classifier
    fed: Tensor
    """(N, C, size, size) of bytes: all images as the model is fed them."""
    classes: tuple[str, ...]
    """What is explained of each shown image."""
    sure: tuple[float, ...]
    """The probability of that."""
    truth: tuple[str, ...] = ()
    """The class of each shown image, where the data says."""
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


def called(names: Sequence[str]) -> list[str]:
    """What stands over the pictures of models: of paths the shortest ends that tell them apart."""
    paths = {name: Path(name).parts or (name,) for name in names}
    ends = {name: parts[-1] for name, parts in paths.items()}
    count = 1
    while len({*ends.values()}) < len({*paths.values()}):
        count += 1
        ends = {name: "/".join(parts[-count:]) for name, parts in paths.items()}
    return [ends[name] for name in names]


def reach_told(one: Reach) -> dict[str, Any]:
    """How far a level sees: of the input's side, the sides of the smallest squares that hold half and 95 % of the field."""
    sides = {f"side_{100 * part:.0f}": one.side(part) for part in PARTS}
    return {"name": one.name, "of": max(one.field.shape), **sides}


def rounded(maps: Tensor) -> list[Any]:
    """To five digits behind the point."""
    return (maps.double().cpu() * 1e5).round().div(1e5).tolist()


# --- looking ------------------------------------------------------------------------------------------------------------


def look(
    one: Classifier, fed: Tensor, methods: Sequence[str], *, label: str | None, shown: int, window: int | None
) -> Findings:
    """What one model makes of the images."""
    images = one.preprocess.normalise(fed[:shown].to(one.device))

    def probabilities(x: Tensor) -> Tensor:
        logits = one.model(x).float()
        return logits.sigmoid() if one.several else logits.softmax(1)

    with torch.no_grad():
        answers = probabilities(images)
    asked = answers.argmax(1) if label is None else torch.full_like(answers.argmax(1), one.number(label))
    sure = answers.gather(1, asked[:, None])[:, 0]
    seen = Findings(one, fed, tuple(one.classes[place] for place in asked.tolist()), tuple(sure.tolist()))
    if "cam" in methods:
        seen = replace(seen, cam=grad_cam(one.model, images, asked))
    if "occlusion" in methods:
        side = window or max(2, one.preprocess.size // 7)
        each = zip(images.split(1), asked.split(1), strict=True)
        seen = replace(seen, lost=torch.cat([occlusion(probabilities, *pair, side) for pair in each]), window=side)
    if "attention" in methods:
        seen = replace(seen, focus=_focused(one, images, asked))
    if "reach" in methods:
        whole = one.preprocess.normalise(fed[:REACHED].to(one.device))
        seen = replace(seen, reach=tuple(reach(one.model, whole)), of_blocks=tuple(reach_of_blocks(one.model, whole)))
    return seen


def _focused(one: Classifier, images: Tensor, asked: Tensor) -> tuple[Focus, ...]:
    """The attention that is seen from the place of each image that speaks most for the answer, and the rollout."""
    found = attention(one.model, images)
    heat = class_activation(one.model, images, asked) if found else images
    return tuple(_focus(part, heat) for part in found)


def _focus(part: Attended, heat: Tensor) -> Focus:
    highest = heat.flatten(1).argmax(1)
    row, column = highest // heat.shape[2], highest % heat.shape[2]
    centres = [(at + 0.5) / parts * grid for at, parts, grid in zip((row, column), heat.shape[1:], part.grid, strict=True)]
    places = torch.stack(centres, 1).long()
    marked = tuple((int(row), int(column)) for row, column in places.tolist())
    taken = part.seen_from(places).mean(1)
    return Focus(part.name, len(part.weights), part.weights[0].shape[1], taken, marked, part.rolled())
