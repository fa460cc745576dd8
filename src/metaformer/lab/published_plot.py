"""Figure 1 of both papers drawn again, from what they published."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from metaformer.lab.labels import Box, Label, plain_ticks, write_names
from metaformer.lab.plots import GREY, ORANGE, figure, write_all
from metaformer.lab.study_plots import COLUMN, DPI, LINES, PALETTE


@dataclass(frozen=True)
class PublishedModel:
    """A model of a paper: cost and published top-1, and images/s as measured here, if they were."""

    name: str
    family: str
    parameters: float
    """Millions."""
    macs: float
    """Billions, at 224."""
    top1: float
    rate: float | None = None


Value = Callable[[PublishedModel], float | None]


def figure_one(models: Sequence[PublishedModel], levels: Mapping[str, float], path: Path, *, how: str = "") -> None:
    """PUBLISHED top-1 on ImageNet-1K against MACs, parameters and, where it was, images/s as measured here. `levels` are models
    of which only top-1 is known. Writes PATH.png and PATH.pdf."""
    panels: list[tuple[str, Value]] = [
        ("multiply-accumulates at 224, G", lambda one: one.macs), ("parameters, M", lambda one: one.parameters),
    ]  # fmt: skip
    if any(one.rate is not None for one in models):
        panels.append((f"images/s MEASURED HERE\n{fill(how, 80)}", lambda one: one.rate))
    made, axes = figure(COLUMN, 4.6 * len(panels) + 0.5, len(panels), 1, dpi=DPI)
    made.suptitle(
        "Figure 1 of arXiv 2111.11418 and 2210.13452 drawn again:\nall top-1 figures are PUBLISHED, none was trained here",
        fontsize=9,
    )
    for axis, (label, _) in zip(axes.flat, panels, strict=True):
        axis.set_xlabel(label, fontsize=8, color=ORANGE if "MEASURED" in label else "black")
        axis.set_ylabel("PUBLISHED top-1 on ImageNet-1K, %", fontsize=8)
    names = [_panel(axis, models, value) for axis, (_, value) in zip(axes.flat, panels, strict=True)]
    axes[0, 0].legend(fontsize=6.5, frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    made.canvas.draw()
    for axis, labels in zip(axes.flat, names, strict=True):
        write_names(axis, labels, 6, _levels(axis, levels if axis is axes[0, 0] else {}))
    write_all(made, path)


def _panel(axis: Any, models: Sequence[PublishedModel], value: Value) -> list[Label]:
    """Dots and lines; the names that belong there."""
    families = list(dict.fromkeys(one.family for one in models))
    labels = list[Label]()
    for number, family in enumerate(families):
        colour = GREY if family == "others" else PALETTE[number % len(PALETTE)]
        known = [(x, one) for one in models if one.family == family and (x := value(one)) is not None]
        if not known:
            continue
        xs, ys = [x for x, _ in known], [one.top1 for _, one in known]
        line = "" if family in ("others", "hybrids") else "-"
        axis.plot(xs, ys, marker="o", markersize=3.5, linestyle=line, linewidth=1, color=colour, label=family)
        labels += [Label(one.name, x, one.top1, colour) for x, one in known]
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    axis.set_xlim(low, high * (high / low) ** 0.1)  # room for names
    axis.tick_params(labelsize=7)
    plain_ticks(axis)
    axis.grid(visible=True, color=LINES, linewidth=0.6)
    axis.set_axisbelow(True)
    return labels


def _levels(axis: Any, levels: Mapping[str, float]) -> list[Box]:
    """A line for each, with its name at the left; where names stand."""
    written = list[Box]()
    for name, top1 in levels.items():
        axis.axhline(top1, color=GREY, linewidth=0.5, linestyle=":")
        text = axis.annotate(
            name, (0, top1), (2, 1.5), xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=5.5, color=GREY
        )
        box = text.get_window_extent()
        written.append((box.x0, box.y0, box.x1, box.y1))
    return written
