"""`eval.html`: one self-contained page of models judged on the same images. It is made from eval.json's content alone."""

from pathlib import Path
from typing import Any

from metaformer import __version__
from metaformer.lab import charts
from metaformer.lab.charts import Series
from metaformer.lab.frame import template
from metaformer.lab.page import number, percent
from metaformer.tasks.metrics import Bin

CLASSES = 40
"""Rows of the table of classes, those that the first model finds least often first."""


def page(told: dict[str, Any]) -> str:
    """The HTML text; the same figures give the same text."""
    names = short([model["name"] for model in told["models"]])
    filters = {"percent": percent, "number": number, "band": band, "signed": signed}
    return template("judge.html", filters).render(
        told=told,
        names=names,
        version=__version__,
        title=f"{', '.join(names) if len(names) < 4 else f'{len(names)} models'} on {Path(told['data']).name or told['data']}",
        rows=_rows(told),
        legend=[Series(name, [], place) for place, name in enumerate(names)],
        selective=_selective(told, names),
        diagrams=[charts.reliability([Bin(**b) for b in model["reliability"]]) for model in told["models"]],
        worse=_worse(told, names),
        sizes=_sizes(told, names),
        ways=any(len(model["ways"]) > 1 for model in told.get("shown", {"models": []})["models"]),
        classes=_classes(told),
        each_class=len(told["models"][0]["per_class"]),
    )


def short(names: list[str]) -> list[str]:
    """Names without the folders that they all lie in."""
    parts = [Path(name).parts for name in names]
    same = 0
    while len(names) > 1 and all(len(row) > same + 1 and row[same] == parts[0][same] for row in parts):
        same += 1
    return [str(Path(*row[same:])) if row else name for row, name in zip(parts, names, strict=True)]


def band(interval: list[float] | None, digits: int = 2, scale: float = 1.0) -> str:
    """An interval in brackets of words: 1.23 to 4.56."""
    return "–" if interval is None else " to ".join(f"{scale * end:.{digits}f}" for end in interval).replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """With its sign: +1.23 or −1.23."""
    return f"{value:+.{digits}f}".replace("-", "−")


FIGURES = (
    ("top1", "Top-1", "%", 1, 2),
    ("top5", "Top-5", "%", 1, 2),
    ("loss", "Loss", "", 1, 3),
    ("brier", "Brier score", "", 1, 3),
    ("ece", "Calibration error, ECE", "%", 100, 2),
    ("macro_f1", "Macro F1", "", 1, 3),
    ("macro_auc", "Macro ROC AUC", "", 1, 4),
    ("aurc", "Risk–coverage area, AURC", "%", 100, 2),
    ("eaurc", "AURC above the best order's, E-AURC", "%", 100, 2),
)
"""Figures by name: what they are called, their unit, what they are multiplied by, and their decimals."""


def _rows(told: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each figure, with a cell for each model; and the differences from the first, where there are several."""
    rows = []
    for name, called, unit, scale, digits in FIGURES:
        cells = [(scale * model[name], model["intervals"].get(name)) for model in told["models"] if model[name] is not None]
        if cells:
            rows.append({"name": name, "called": called, "unit": unit, "scale": scale, "digits": digits, "cells": cells})
    return rows


def _selective(told: dict[str, Any], names: list[str]) -> str:
    lines = [
        Series(name, [(100 * coverage, 100 * risk) for coverage, risk in model["risk_coverage"]], place)
        for place, (name, model) in enumerate(zip(names, told["models"], strict=True))
    ]
    return charts.lines(lines, "images answered, %", "of them wrong, %")


def _worse(told: dict[str, Any], names: list[str]) -> dict[str, Any] | None:
    """Errors under corruption: by severity as a chart, by corruption as a table."""
    models = told.get("shown", {"models": []})["models"]
    if not models or "corruptions" not in models[0]:
        return None
    found = [model["corruptions"] for model in models]
    lines = []
    for place, (name, one) in enumerate(zip(names, found, strict=True)):
        by_severity = zip(*(each["errors"] for each in one["each"].values()), strict=True)
        means = [sum(column) / len(column) for column in by_severity]
        lines.append(Series(name, [(0, one["clean_error"]["value"]), *enumerate(means, 1)], place))
    return {
        "models": found,
        "chart": charts.lines(lines, "severity, 0 is none", "errors, %"),
        "kinds": [(name, each["kind"]) for name, each in found[0]["each"].items()],
    }


def _sizes(told: dict[str, Any], names: list[str]) -> str | None:
    """Top-1 by side."""
    models = told.get("shown", {"models": []})["models"]
    lines = []
    for place, (name, model) in enumerate(zip(names, models, strict=False)):
        points = {int(way[5:]): figures["top1"] for way, figures in model["ways"].items() if way.startswith("size ")}
        if points:
            points.setdefault(told["models"][place]["pixels"], model["ways"]["plain"]["top1"])
            lines.append(Series(name, sorted(points.items()), place))
    return charts.lines(lines, "pixels of a side", "top-1, %") if lines else None


def _classes(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The classes that the first model finds least often: of each model how often, with its interval."""
    first = told["models"][0]["per_class"]
    order = sorted(first, key=lambda name: 2.0 if first[name]["recall"] is None else first[name]["recall"])
    return [
        {
            "name": name,
            "images": first[name]["support"],
            "cells": [(m["per_class"][name]["recall"], m["intervals"]["per_class"][name]["recall"]) for m in told["models"]],
        }
        for name in order[:CLASSES]
    ]
