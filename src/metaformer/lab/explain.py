"""`explain`: where models look, how far they see, how alike their features are; side by side for several models."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaformer.core.device import memory_told
from metaformer.lab.attribution import captum
from metaformer.lab.classifier import Classifier, open_classifier
from metaformer.lab.explain_images import read_images
from metaformer.lab.explain_model import Findings, called, look, rounded
from metaformer.lab.explain_page import page
from metaformer.lab.explain_pictures import PICTURES, draw
from metaformer.lab.feature_maps import level_maps, level_names
from metaformer.lab.plots import check_ours
from metaformer.lab.similarity import LEAST, Similarity
from metaformer.lab.tables import Rows, columns
from metaformer.runs import write_text
from metaformer.weights.pretrained import Model

METHODS = ("cam", "occlusion", "attention", "reach", "similarity")
MOST = 256
"""Images that similarity is measured on; further ones are not looked at."""
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
    16 images, similarity is measured on the first 256. Written are explain.html, explain.json, and a PNG and a PDF of each;
    pictures that an earlier call left in the folder are removed, but none where there is no explain.json.
    Raises ValueError or OSError with a sentence.
    """
    methods = read_methods(ask)
    if shown < 1:
        raise ValueError(f"shown={shown} is not at least 1")
    folder = Path(out)
    check_ours(folder, "explain.json", PICTURES)
    if "cam" in methods or "occlusion" in methods:
        captum()
    opened = [open_classifier(source, model, device), *(open_classifier(other, None, device) for other in beside)]
    for one in opened:
        _check(one, methods, label, window)
    read = read_images(source, images, [one.preprocess for one in opened], MOST, shown)
    steps, tell = len(opened) + 1, progress or _silent
    folder.mkdir(parents=True, exist_ok=True)
    seen = []
    for place, (one, fed) in enumerate(zip(opened, read.fed, strict=True)):
        tell("explained", place, steps)
        with memory_told(one.device, f"shown={max(1, shown // 2)} needs less"):
            try:
                found = look(one, fed, methods, label=label, shown=shown, window=window)
                seen.append(replace(found, truth=read.truth[:shown]))
            except ValueError as error:
                raise ValueError(f"{one.name}: {error}") from error
    tell("explained", len(opened), steps)
    figures = {
        "images": list(read.names[:shown]),
        "truth": list(read.truth[:shown]),
        "looked_at": len(read.names),
        "left_out": read.left_out,
        "unreadable": read.unreadable,
        "asked": list(methods),
        "label": label,
        "models": [one.to_dict() for one in seen],
        "similarity": _alike(seen) if "similarity" in methods and len(read.names) >= LEAST else [],
    }
    write_text(folder / "explain.json", json.dumps(figures) + "\n")
    draw(seen, figures, folder)
    write_text(folder / "explain.html", page(seen, figures))
    tell("explained", steps, steps)
    return Explained(figures, folder / "explain.html")


def _check(one: Classifier, methods: Sequence[str], label: str | None, window: int | None) -> None:
    """Says what is mistyped before anything is computed."""
    if label is not None:
        one.number(label)
    if "occlusion" in methods and window is not None and not 1 <= window <= one.preprocess.size:
        raise ValueError(f"window={window} is not between 1 and {one.preprocess.size}, the side of {one.name}'s images")


def _silent(what: str, done: int, total: int) -> None:
    pass


def read_methods(ask: str) -> tuple[str, ...]:
    """What `ask` names, in the order of METHODS. Raises ValueError for another word."""
    words = METHODS if ask == "all" else tuple(ask.replace(" ", "").split(","))
    for word in words:
        if word not in METHODS:
            raise ValueError(f"ask={word!r} is not one of all, {', '.join(METHODS)}, or some of these with commas")
    return tuple(method for method in METHODS if method in words)


# --- several models ---------------------------------------------------------------------------------------------------


def _alike(seen: Sequence[Findings]) -> list[dict[str, Any]]:
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
def _maps(one: Findings, part: slice) -> list[Tensor]:
    return level_maps(one.opened.model, one.opened.preprocess.normalise(one.fed[part].to(one.opened.device)))


# --- a screen ---------------------------------------------------------------------------------------------------------


def explained_text(told: dict[str, Any]) -> str:
    """The answers, how far each level sees, the similarity of levels with themselves left out."""
    models = told["models"]
    names = called([model["name"] for model in models])
    known = any(told["truth"])
    heads: Rows = [("image", *(("is",) if known else ()), *names)]
    for number, image in enumerate(told["images"]):
        said = (f"{model['answers'][number]['label']} {model['answers'][number]['probability']:.1%}" for model in models)
        heads.append((image, *((told["truth"][number],) if known else ()), *said))
    parts = [columns(heads)]
    if "reach" in models[0]:
        rows: Rows = [("sees", "level", "half within", "95 % within", "of pixels")]
        for name, model in zip(names, models, strict=True):
            rows += [(name, one["name"], str(one["side_50"]), str(one["side_95"]), str(one["of"])) for one in model["reach"]]
        parts.append(columns(rows, right=(2, 3, 4)))
    for pair in told["similarity"]:
        if pair["one"] != pair["other"]:
            rows = [("CKA", *pair["columns"])]
            rows += [(name, *(f"{value:.2f}" for value in row)) for name, row in zip(pair["rows"], pair["values"], strict=True)]
            parts.append(f"{pair['one']} beside {pair['other']}\n{columns(rows, right=tuple(range(1, len(rows[0]))))}")
    return "\n\n".join([*parts, *(f"{one['path']}: {one['error']}" for one in told["unreadable"])])
