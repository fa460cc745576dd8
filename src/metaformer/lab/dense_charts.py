"""Charts of detection and segmentation for a page: precision over recall, and a bar for each class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from metaformer.lab.charts import Frame, Series, ticks
from metaformer.tasks.coco import RECALLS, Array, Figures
from metaformer.tasks.regions import RegionEvaluation

LINES = 9
"""How many classes have a line of their own: the page has as many colours, and one for the mean."""
ROW, NAMES, WIDTH, VALUES = 20, 120, 360, 44
"""Heights and widths of bars, in pixels of the drawing."""


def precision_recall(figures: Figures, classes: Sequence[str]) -> tuple[Markup, list[Series]]:
    """Precision over recall at IoU 0.5, and what its lines are: the mean, and the classes that have the most objects."""
    known = [c for c in range(len(classes)) if not np.isnan(figures.precision[c, 0])]
    shown = sorted(known, key=lambda c: -figures.per_class[c].objects)[:LINES] if len(known) > 1 else []
    lines = [Series(classes[c], _points(figures.precision[c]), colour) for colour, c in enumerate(shown, 1)]
    if known:
        lines.insert(0, Series("all classes" if len(known) > 1 else classes[known[0]], _points(figures.mean_precision), 0))
    frame = Frame(ticks(0, 1), ticks(0, 1), "recall", "precision")
    inside = Markup("").join(frame.line(line) for line in reversed(lines))  # the mean on top
    return frame.svg(inside, "precision over recall at IoU 0.5"), lines


def _points(precision: Array) -> list[tuple[float, float]]:
    return list(zip(RECALLS.tolist(), precision.tolist(), strict=True))


@dataclass(frozen=True)
class Row:
    """A class with its figure, 0 to 1 (None where there is none), and what is said when it is pointed at."""

    name: str
    value: float | None
    said: str


def detection_rows(figures: Figures, classes: Sequence[str]) -> list[Row]:
    """AP of each class."""
    return [
        Row(
            name,
            each.ap,
            f"{name}: AP {_said(each.ap)}, AP50 {_said(each.ap50)}, recall {_said(each.recall)}, {each.objects:,} objects",
        )
        for name, each in zip(classes, figures.per_class, strict=True)
    ]


def region_rows(done: RegionEvaluation) -> list[Row]:
    """Intersection over union of each class."""
    return [
        Row(
            name, each.iou, f"{name}: IoU {_said(each.iou)}, accuracy {_said(each.accuracy)}, boundary F {_said(each.boundary)}"
        )
        for name, each in zip(done.classes, done.per_class, strict=True)
    ]


def _said(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def class_bars(rows: Sequence[Row], label: str) -> Markup:
    """A bar for each class, the best first, those without a figure last; `label` is what the figure is."""
    ordered = sorted(rows, key=lambda row: (row.value is None, -(row.value or 0.0)))
    parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, ROW * len(rows) + 4, label)]
    room = WIDTH - NAMES - VALUES
    for place, row in enumerate(ordered):
        top = ROW * place + 2
        text = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
        parts.append(Markup("<g><title>{}</title>").format(row.said))
        parts.append(text.format(NAMES - 6, top + 14, "end", _short(row.name)))
        wide = room * (row.value or 0.0)
        bar = Markup('<rect class="bar" x="{}" y="{}" width="{:.1f}" height="{}"/>')
        parts.append(bar.format(NAMES, top + 3, max(wide, 0.5), ROW - 6))
        parts.append(text.format(f"{NAMES + wide + 5:.1f}", top + 14, "start", _said(row.value)))
        parts.append(Markup("</g>"))
    return Markup("").join([*parts, Markup("</svg>")])


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
