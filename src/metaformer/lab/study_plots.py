"""Pictures of a study: top-1 against what a row costs, learning curves, and figure 1 of both papers drawn again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from metaformer.lab.plots import BLUE, GREY, ORANGE, figure, write
from metaformer.lab.study_figures import Standing

PALETTE = ("#2f6fde", "#e8833a", "#2e9e6b", "#d1453b", "#8e5bd0", "#a0522d", "#17a2b8")
"""Of the families."""


@dataclass(frozen=True)
class Dot:
    """A model in a picture: what it costs, what it reaches, between which bounds, and whose it is."""

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


def apart(dots: Sequence[Dot]) -> list[Dot]:
    """Those that are so far below the others that nothing could be told of these in one picture with them."""
    ys = [dot.y for dot in dots]
    middle = float(np.median(ys))
    return [dot for dot in dots if dot.y < middle - 4 * max(1.0, max(ys) - middle)]


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
    how speed was measured."""
    groups = list(dict.fromkeys(one.base for one in standings))
    shown = [one for one in standings if one.top1 is not None]
    made, axes = figure(13.5, 4.9, 1, 3)
    for axis, (label, value, more) in zip(axes[0], PANELS, strict=True):
        dots = [
            Dot(one.row, x, one.top1.value, one.top1.low, one.top1.high, one.base)
            for one in shown
            if one.top1 is not None and (x := value(one)) is not None
        ]
        if not dots:
            axis.text(0.5, 0.5, "not measured", ha="center", transform=axis.transAxes, color=GREY)
            continue
        far = apart(dots)
        _scatter(axis, [dot for dot in dots if dot not in far], groups, more=more)
        axis.set_xlabel(label, fontsize=9)
        if far:
            told = ", ".join(f"{dot.name} {dot.y:.1f}" for dot in far)
            axis.text(0.01, 0.01, f"far below: {told}", fontsize=6.5, color=GREY, transform=axis.transAxes)
    axes[0, 0].set_ylabel("top-1, %", fontsize=9)
    made.suptitle(f"{title}: top-1 of the last epoch, mean of the seeds, 95 % intervals; line: Pareto front", fontsize=10)
    if how:
        axes[0, 2].set_title(how.partition(", median")[0], fontsize=7, color=GREY)
    write(made, path)


def _scatter(axis: Any, dots: Sequence[Dot], groups: Sequence[str], *, more: bool) -> None:
    edge = front(dots, more=more)
    axis.plot([dot.x for dot in edge], [dot.y for dot in edge], color=GREY, linewidth=1, zorder=1)
    for dot in dots:
        colour = PALETTE[groups.index(dot.group) % len(PALETTE)]
        axis.plot([dot.x, dot.x], [dot.low, dot.high], color=colour, linewidth=1, alpha=0.5, zorder=2)
        axis.plot(dot.x, dot.y, "o", color=colour, markersize=4.5, zorder=3)
    xs = np.array([dot.x for dot in dots])
    axis.set_xscale("log")
    axis.set_xlim(xs.min() / 1.15, xs.max() * max(1.15, (xs.max() / xs.min()) ** 0.22))  # room for names
    _plain_ticks(axis)
    _names(axis, dots)
    axis.grid(visible=True, which="major", color="#e6e8eb", linewidth=0.6, zorder=0)
    axis.set_axisbelow(True)


def _plain_ticks(axis: Any) -> None:
    """Numbers as they are on a logarithmic axis, few of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_xlim()
    steps = (1.0, 2.0, 5.0) if high / low > 8 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    if high / low < 1.6:
        steps = tuple(1 + 0.1 * i for i in range(90))
    axis.xaxis.set_major_locator(LogLocator(subs=steps, numticks=6))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:.3g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _names(axis: Any, dots: Sequence[Dot], size: float = 6.5) -> None:
    """A name beside each dot, moved up or down until no two overlap; a thin line leads to one that was moved."""
    axis.figure.canvas.draw()  # which decides on the axes' places
    to_pixels = axis.transData.transform
    scale = axis.figure.dpi / 72
    taken: list[tuple[float, float, float, float]] = []
    height = 1.25 * size * scale
    inside = axis.get_window_extent()
    dotted = [(*to_pixels((dot.x, dot.y)),) for dot in dots]
    taken += [(x - 3 * scale, y - 3 * scale, x + 3 * scale, y + 3 * scale) for x, y in dotted]
    for dot, (x, y) in sorted(zip(dots, dotted, strict=True), key=lambda pair: -pair[0].y):
        width = 0.56 * size * scale * len(dot.name)
        place = _free(x, y, width, height, scale, inside, taken)
        taken.append((place[0], place[1], place[0] + width, place[1] + height))
        moved = abs(place[1] + height / 2 - y) > height
        axis.annotate(
            dot.name, (dot.x, dot.y), ((place[0] - x) / scale, (place[1] + height / 4 - y) / scale), textcoords="offset points",
            fontsize=size, arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkB": 3} if moved else None,
        )  # fmt: skip


def _free(
    x: float,
    y: float,
    width: float,
    height: float,
    scale: float,
    inside: Any,
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float]:
    """The nearest place for a name beside a dot where nothing is yet: left and lower corner."""
    steps = [sign * step for step in range(40) for sign in (1, -1)]
    lefts = [left for left in (x + 5 * scale, x - 5 * scale - width) if inside.x0 <= left and left + width <= inside.x1]
    bottoms = [y - height / 2 + step * height / 3 for step in steps]
    bottoms = [bottom for bottom in bottoms if inside.y0 <= bottom and bottom + height <= inside.y1]
    for bottom, left in product(bottoms, lefts):
        if not any(left < b and a < left + width and bottom < d and c < bottom + height for a, c, b, d in taken):
            return left, bottom
    return x + 5 * scale, y - height / 2


def learning(standings: Sequence[Standing], path: Path, title: str) -> None:
    """Top-1 by epoch, a panel per row: the mean of its seeds, between the lowest and the highest; grey is what it is compared
    with."""
    shown = [one for one in standings if any(result.curve for result in one.results)]
    curves = {one.row: _curves(one) for one in shown}
    columns = min(6, len(shown))
    rows = -(-len(shown) // columns)
    made, axes = figure(2.1 * columns + 0.3, 1.75 * rows + 0.4, rows, columns)
    every = np.concatenate([values.ravel() for values in curves.values()])
    low, high = np.nanmin(every), np.nanmax(every)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for axis, one in zip(axes.flat, shown, strict=False):
        if one.base in curves and one.base != one.row:
            values = curves[one.base]
            axis.plot(range(1, values.shape[1] + 1), np.nanmean(values, 0), color=GREY, linewidth=1)
        values = curves[one.row]
        epochs = range(1, values.shape[1] + 1)
        axis.fill_between(epochs, np.nanmin(values, 0), np.nanmax(values, 0), color=BLUE, alpha=0.2, linewidth=0)
        axis.plot(epochs, np.nanmean(values, 0), color=BLUE, linewidth=1.2, marker="." if values.shape[1] < 12 else "")
        axis.set_title(one.row, fontsize=8)
        axis.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        axis.xaxis.get_major_locator().set_params(integer=True, nbins=5)
        axis.tick_params(labelsize=6.5)
        axis.grid(visible=True, color="#e6e8eb", linewidth=0.6)
    made.suptitle(f"{title}: top-1 on held-out images by epoch, %; grey is the row compared with", fontsize=9)
    write(made, path)


def _curves(one: Standing) -> np.ndarray[Any, Any]:
    """(seeds, epochs) of top-1; what was not reached is no number, and an epoch that no seed reached is none."""
    lines = [[line["top1"] for line in result.curve] for result in one.results if result.curve]
    made = np.full((len(lines), max(map(len, lines))), np.nan)
    for values, line in zip(made, lines, strict=True):
        values[: len(line)] = line
    return made


# --- figure 1 of both papers ------------------------------------------------------------------------------------------


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


def figure_one(models: Sequence[PublishedModel], levels: Mapping[str, float], path: Path, *, how: str = "") -> None:
    """PUBLISHED top-1 on ImageNet-1K against MACs, parameters and, where it was, images/s as measured here. `levels` are models
    of which only top-1 is known."""
    measured = [one for one in models if one.rate is not None]
    panels: list[tuple[str, Callable[[PublishedModel], float | None]]] = [
        ("multiply-accumulates at 224, G", lambda one: one.macs), ("parameters, M", lambda one: one.parameters),
    ]  # fmt: skip
    if measured:
        panels.append(("images/s as measured here, forward", lambda one: one.rate))
    made, axes = figure(5.4 * len(panels), 5.6, 1, len(panels))
    families = list(dict.fromkeys(one.family for one in models))
    for axis, (label, value) in zip(axes[0], panels, strict=True):
        for number, family in enumerate(families):
            dots = [(x, one.top1, one.name) for one in models if one.family == family and (x := value(one)) is not None]
            if not dots:
                continue
            dots.sort()
            xs, ys, _ = zip(*dots, strict=True)
            alone = len(dots) == 1
            colour = GREY if family == "others" else PALETTE[number % len(PALETTE)]
            line = "" if alone or family in ("others", "hybrids") else "-"
            axis.plot(xs, ys, marker="o", markersize=4, linestyle=line, linewidth=1.2, color=colour, label=family)
            for x, y, name in dots:
                axis.annotate(name, (x, y), (4, -8), textcoords="offset points", fontsize=6, color=colour)
        axis.set_xscale("log")
        _plain_ticks(axis)
        axis.set_xlabel(label, fontsize=9)
        axis.grid(visible=True, color="#e6e8eb", linewidth=0.6)
        axis.set_axisbelow(True)
    first = axes[0, 0]
    for name, top1 in levels.items():
        first.axhline(top1, color=GREY, linewidth=0.5, linestyle=":")
        first.annotate(name, (1, top1), (-2, 1.5), xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=5.5,
                       color=GREY, ha="right")  # fmt: skip
    first.set_ylabel("PUBLISHED top-1 on ImageNet-1K at 224, %", fontsize=9)
    first.legend(fontsize=7, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.05))
    if how and measured:
        axes[0, -1].set_title(how, fontsize=7, color=ORANGE)
    made.suptitle(
        "Figure 1 of arXiv 2111.11418 and 2210.13452 drawn again: all top-1 figures are the papers', none was trained here",
        fontsize=9,
    )  # fmt: skip
    write(made, path)
