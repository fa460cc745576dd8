"""Pictures of a study, as wide as a column of a page: top-1 against what a row costs, and learning curves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metaformer.lab.labels import Label, plain_ticks, write_names
from metaformer.lab.plots import BLUE, GREY, figure, plain, write_all
from metaformer.lab.study_figures import Standing

PALETTE = ("#2f6fde", "#e8833a", "#2e9e6b", "#d1453b", "#8e5bd0", "#a0522d", "#17a2b8")
"""Of rows that are compared with the same one."""
COLUMN, DPI = 5.2, 200
"""Inches, of which a page shrinks few, and dots an inch."""
LINES = "#e6e8eb"


@dataclass(frozen=True)
class Dot:
    """A row in a picture: what it costs, what it reaches, between which bounds, and what it is compared with."""

    name: str
    x: float
    y: float
    low: float
    high: float
    group: str


def front(dots: Sequence[Dot], *, more: bool) -> list[Dot]:
    """Those that none beats in both, from the cheapest on; `more` where x is speed, of which more is better."""
    found = list[Dot]()
    for dot in sorted(dots, key=lambda one: (-one.x if more else one.x, -one.y)):
        if not found or dot.y > found[-1].y:
            found.append(dot)
    return found


def far_below(ys: Sequence[float]) -> list[bool]:
    """Which of some top-1 are so far below the others that nothing could be told of these in one picture with them."""
    middle = float(np.median(ys))
    return [y < middle - 4 * max(1.0, max(ys) - middle) for y in ys]


PANELS: tuple[tuple[str, Callable[[Standing], float | None], bool], ...] = (
    ("multiply-accumulates, M", lambda one: _of(one, "macs"), False),
    ("parameters, M", lambda one: _of(one, "parameters"), False),
    ("measured images/s, forward", lambda one: one.rate, True),
)


def _of(one: Standing, key: str) -> float | None:
    value = None if one.any is None else getattr(one.any, key)
    return None if value is None else value / 1e6


def accuracy(standings: Sequence[Standing], path: Path, title: str, how: str) -> None:
    """Top-1 with its interval against MACs, parameters and speed, on logarithmic scales; the Pareto front is a line. `how` says
    how speed was measured. Writes PATH.png and PATH.pdf."""
    groups = list(dict.fromkeys(one.base for one in standings))
    shown = [one for one in standings if one.top1 is not None]
    made, axes = figure(COLUMN, 10.6, 3, 1, dpi=DPI)
    made.suptitle(
        f"{plain(title)}: top-1 of the last epoch, %\nmean of the seeds, 95 % intervals; grey line: Pareto front", fontsize=9
    )
    names = list[tuple[Any, list[Label]]]()
    for axis, (label, value, more) in zip(axes.flat, PANELS, strict=True):
        dots = [
            Dot(one.row, x, one.top1.value, one.top1.low, one.top1.high, one.base)
            for one in shown
            if one.top1 is not None and (x := value(one)) is not None
        ]
        axis.set_xlabel(f"{label}\n({how.partition(', median')[0]})" if more and how else label, fontsize=8)
        if dots:
            names.append((axis, _scatter(axis, dots, groups, more=more)))
        else:
            axis.text(0.5, 0.5, "not measured", ha="center", transform=axis.transAxes, color=GREY)
    if len(groups) > 1:
        _key(axes[0, 0], groups)
    for axis, labels in names:
        write_names(axis, labels)
    write_all(made, path)


def _key(axis: Any, groups: Sequence[str]) -> None:
    """What colours mean, above the picture."""
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], marker="o", linestyle="", markersize=4, color=PALETTE[i % len(PALETTE)]) for i in range(len(groups))
    ]
    names = [plain(f"compared with {group}") for group in groups]
    axis.legend(marks, names, fontsize=7, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), handletextpad=0.2)


def _scatter(axis: Any, dots: Sequence[Dot], groups: Sequence[str], *, more: bool) -> list[Label]:
    """Everything but names, which are returned: what else is in the picture decides where they have room. What others are
    compared with is drawn however far below it is."""
    below = far_below([dot.y for dot in dots])
    far = [dot for dot, gone in zip(dots, below, strict=True) if gone and dot.name not in groups]
    near = [dot for dot in dots if dot not in far]
    edge = front(near, more=more)
    axis.plot([dot.x for dot in edge], [dot.y for dot in edge], color=GREY, linewidth=1, zorder=1)
    for dot in near:
        colour = PALETTE[groups.index(dot.group) % len(PALETTE)]
        axis.plot([dot.x, dot.x], [dot.low, dot.high], color=colour, linewidth=1, alpha=0.5, zorder=2)
        axis.plot(dot.x, dot.y, "o", color=colour, markersize=4, zorder=3)
    xs = np.array([dot.x for dot in near])
    axis.set_xscale("log")
    room = max(1.15, (xs.max() / xs.min()) ** 0.25)  # for names
    axis.set_xlim(xs.min() / room, xs.max() * room)
    axis.tick_params(labelsize=7)
    plain_ticks(axis)
    axis.grid(visible=True, which="major", color=LINES, linewidth=0.6, zorder=0)
    axis.set_axisbelow(True)
    if far:
        told = plain(", ".join(f"{dot.name} {dot.y:.1f}" for dot in far))
        axis.set_xlabel(f"{axis.get_xlabel()}\nfar below: {told}", fontsize=8)
    return [Label(plain(dot.name), dot.x, dot.y) for dot in near]


def learning(standings: Sequence[Standing], path: Path, title: str) -> None:
    """Top-1 by epoch, a panel per row: the mean of its seeds, between the lowest and the highest; grey is what it is compared
    with. What is far below the others has a scale of its own. Writes PATH.png and PATH.pdf."""
    shown = [one for one in standings if any(result.curve for result in one.results)]
    curves = {one.row: _curves(one) for one in shown}
    bases = {one.base for one in shown}
    alone = {
        one.row: below and one.row not in bases
        for one, below in zip(shown, far_below([float(np.nanmax(curves[one.row])) for one in shown]), strict=True)
    }
    every = np.concatenate([curves[one.row].ravel() for one in shown if not alone[one.row]])
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    made, axes = figure(1.75 * columns + 0.3, 1.5 * rows + 0.5, rows, columns, dpi=DPI)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for axis, one in zip(axes.flat, shown, strict=False):
        values = curves[one.row]
        if one.base in curves and one.base != one.row and not alone[one.row]:
            _mean(axis, curves[one.base], color=GREY, linewidth=1)
        epochs = range(1, values.shape[1] + 1)
        axis.fill_between(epochs, np.nanmin(values, 0), np.nanmax(values, 0), color=BLUE, alpha=0.2, linewidth=0)
        _mean(axis, values, color=BLUE, linewidth=1.2, marker="." if values.shape[1] < 12 else "")
        axis.set_title(plain(f"{one.row} (own scale)" if alone[one.row] else one.row), fontsize=7)
        scale = values if alone[one.row] else every
        low, high = np.nanmin(scale), max(np.nanmax(scale), np.nanmin(scale) + 1)
        axis.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        axis.xaxis.get_major_locator().set_params(integer=True, nbins=5, min_n_ticks=1)
        axis.tick_params(labelsize=6.5)
        axis.grid(visible=True, color=LINES, linewidth=0.6)
    made.suptitle(
        f"{plain(title)}: top-1 on held-out images by epoch, %\n"
        "line: mean of the seeds; band: from the lowest to the highest; grey: the row compared with",
        fontsize=8.5 if columns > 2 else 5.5,
    )
    made.supxlabel("epoch", fontsize=8)
    write_all(made, path)


def _mean(axis: Any, values: np.ndarray[Any, Any], *, color: str, linewidth: float, marker: str = "") -> None:
    axis.plot(range(1, values.shape[1] + 1), np.nanmean(values, 0), color=color, linewidth=linewidth, marker=marker)


def _curves(one: Standing) -> np.ndarray[Any, Any]:
    """(seeds, epochs) of top-1; what was not reached is no number, and an epoch that no seed reached is none."""
    lines = [[line["top1"] for line in result.curve] for result in one.results if result.curve]
    made = np.full((len(lines), max(map(len, lines))), np.nan)
    for values, line in zip(made, lines, strict=True):
        values[: len(line)] = line
    return made
