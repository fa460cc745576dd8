"""`explain`: where models look, how far they see, how alike their features are; side by side for several models."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaformer.core.device import memory_told
from metaformer.lab.attention import Attended, attention
from metaformer.lab.attribution import captum, grad_cam, occlusion
from metaformer.lab.cam import class_activation
from metaformer.lab.explain_page import page
from metaformer.lab.explain_pictures import draw
from metaformer.lab.levels import level_maps, level_names
from metaformer.lab.looked import read_images
from metaformer.lab.opened import Opened, open_to_explain
from metaformer.lab.reach import reach, reach_of_blocks
from metaformer.lab.seen import Focus, Seen, rounded
from metaformer.lab.similarity import LEAST, Similarity
from metaformer.runs import write_text
from metaformer.weights.pretrained import Model

METHODS = ("cam", "occlusion", "attention", "reach", "similarity")
MOST = 256
"""Images that similarity is measured on; further ones are not looked at."""
REACHED = 16
"""Images that the receptive field is averaged over."""
AT_ONCE = 16
"""Images whose features are compared together; the last batch may have up to as many more."""
Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Explained:
    """What was found, and where it is written."""

    told: dict[str, Any]
    """The figures; explain.json holds them."""
    page: Path

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.told


def explain(
    source: str | Path,
    images: str | Path | Sequence[str | Path] | None = None,
    *,
    beside: Sequence[str | Path] = (),
    ask: str = "all",
    label: str | None = None,
    shown: int = 6,
    window: int | None = None,
    out: str | Path = "explained",
    device: str = "auto",
    model: Model | None = None,
    progress: Told | None = None,
) -> Explained:
    """Explains a classifier by images (files, folders, globs; None for those that a run held out), `beside` others in the same
    pictures; writes the folder `out`.

    `source`, and each of `beside`, is what Predictor takes but for exported files, or `timm:NAME` with the weights that timm
    publishes; `model` is for `source`, as there. `ask` is all or, with commas, cam, occlusion, attention, reach, similarity.
    Grad-CAM, occlusion and attention are of the first `shown` images and of `label`, by default of each model's own answer;
    `window` is occlusion's side in pixels, by default a seventh of the image's. Receptive fields are averaged over the first
    16 images, similarity is measured on the first 256. Written are explain.html, explain.json, and a PNG and a PDF of each.
    Raises ValueError or OSError with a sentence.
    """
    methods = read_methods(ask)
    if shown < 1:
        raise ValueError(f"shown={shown} is not at least 1")
    if "cam" in methods or "occlusion" in methods:
        captum()
    opened = [open_to_explain(source, model, device), *(open_to_explain(other, None, device) for other in beside)]
    looked = read_images(source, images, sorted({len(one.preprocess.mean) for one in opened}), MOST)
    steps = len(opened) + 1
    tell = progress or _silent
    seen = []
    for place, one in enumerate(opened):
        tell("explained", place, steps)
        with memory_told(one.device, f"shown={max(1, shown // 2)} needs less"):
            seen.append(_look(one, _fed(one, list(looked.pixels.values())), methods, label=label, shown=shown, window=window))
    tell("explained", len(opened), steps)
    figures = {
        "images": list(looked.pixels)[:shown],
        "looked_at": len(looked.pixels),
        "left_out": looked.left_out,
        "unreadable": looked.unreadable,
        "asked": list(methods),
        "label": label,
        "models": [one.to_dict() for one in seen],
        "similarity": _alike(seen) if "similarity" in methods and len(looked.pixels) >= LEAST else [],
    }
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    draw(seen, figures, folder)
    write_text(folder / "explain.json", json.dumps(figures) + "\n")
    write_text(folder / "explain.html", page(seen, figures))
    tell("explained", steps, steps)
    return Explained(figures, folder / "explain.html")


def _silent(what: str, done: int, total: int) -> None:
    pass


def read_methods(ask: str) -> tuple[str, ...]:
    """What `ask` names, in the order of METHODS. Raises ValueError for another word."""
    words = METHODS if ask == "all" else tuple(ask.replace(" ", "").split(","))
    for word in words:
        if word not in METHODS:
            raise ValueError(f"ask={word!r} is not one of all, {', '.join(METHODS)}, or some of these with commas")
    return tuple(method for method in METHODS if method in words)


# --- images -----------------------------------------------------------------------------------------------------------


def _fed(one: Opened, read: Sequence[dict[int, Tensor]]) -> Tensor:
    """(N, C, size, size) of bytes: the images as the model is fed them."""
    return torch.cat([one.preprocess.fitted(pixels[len(one.preprocess.mean)]) for pixels in read])


# --- one model --------------------------------------------------------------------------------------------------------


def _look(one: Opened, fed: Tensor, methods: Sequence[str], *, label: str | None, shown: int, window: int | None) -> Seen:
    """What one model makes of the images."""
    images = one.preprocess.normalise(fed[:shown].to(one.device))

    def probabilities(x: Tensor) -> Tensor:
        logits = one.model(x).float()
        return logits.sigmoid() if one.several else logits.softmax(1)

    with torch.no_grad():
        answers = probabilities(images)
    asked = answers.argmax(1) if label is None else torch.full_like(answers.argmax(1), _number(one, label))
    sure = answers.gather(1, asked[:, None])[:, 0]
    seen = Seen(one, fed, tuple(one.classes[place] for place in asked.tolist()), tuple(sure.tolist()))
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


def _number(one: Opened, label: str) -> int:
    if label not in one.classes:
        few = ", ".join(one.classes[:10]) + (" ..." if len(one.classes) > 10 else "")
        raise ValueError(f"label={label!r} is no class of {one.name}: {few}")
    return one.classes.index(label)


def _focused(one: Opened, images: Tensor, asked: Tensor) -> tuple[Focus, ...]:
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


# --- several models ---------------------------------------------------------------------------------------------------


def _alike(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """Each model beside itself, then beside the first one: CKA by levels."""
    pairs = [(place, place) for place in range(len(seen))] + [(0, place) for place in range(1, len(seen))]
    found = {pair: Similarity() for pair in pairs}
    for part in _batches(len(seen[0].fed)):
        maps = [_maps(one, part) for one in seen]
        for (first, second), similarity in found.items():
            similarity.add(maps[first], maps[second])
    names = [level_names(one.opened.model) for one in seen]
    return [
        {"one": seen[i].name, "other": seen[j].name, "rows": names[i], "columns": names[j], "values": rounded(one.value())}
        for (i, j), one in found.items()
    ]


def _batches(images: int) -> list[slice]:
    """Of AT_ONCE images, the last with what is left, lest it is too small for the estimate."""
    starts = [start for start in range(0, images, AT_ONCE) if start == 0 or images - start >= LEAST]
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], images], strict=True)]


@torch.no_grad()
def _maps(one: Seen, part: slice) -> list[Tensor]:
    return level_maps(one.opened.model, one.opened.preprocess.normalise(one.fed[part].to(one.opened.device)))
