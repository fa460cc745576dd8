"""Names beside the dots of a picture, moved until none covers another or a dot; and plain numbers on a logarithmic axis."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

from metaformer.lab.plots import GREY

Box = tuple[float, float, float, float]
"""Left, lower, right and upper, in pixels."""
INK = "#333333"


@dataclass(frozen=True)
class Label:
    """A name, the place in the data that it is of, and its colour."""

    text: str
    x: float
    y: float
    colour: str = INK


def write_names(axis: Any, labels: Sequence[Label], size: float = 6.5, taken: Sequence[Box] = ()) -> None:
    """Writes each name as near to its dot as nothing else is; a thin line leads to one that is farther. `taken` are boxes in
    which other things stand. Scales and limits are to be set before."""
    from matplotlib.patheffects import withStroke

    axis.figure.canvas.draw()  # which decides on the axes' places
    scale = axis.figure.dpi / 72
    inside = axis.get_window_extent()
    dots = [tuple(map(float, axis.transData.transform((one.x, one.y)))) for one in labels]
    full = [*taken, *((x - 2.5 * scale, y - 2.5 * scale, x + 2.5 * scale, y + 2.5 * scale) for x, y in dots)]
    for one, (x, y) in sorted(zip(labels, dots, strict=True), key=lambda pair: (-pair[0].y, pair[0].x)):
        width, height = _extent(axis, one.text, size)
        left, lower = _free(x, y, width, height, scale, inside, full)
        box = (left, lower, left + width, lower + height)
        full.append((left - 0.3 * height, lower, left + width + 0.3 * height, lower + height))  # no two names are one word
        gap = _gap(box, x, y)
        unclear = gap > 0.8 * height or any(_gap(box, *dot) < gap for dot in dots)
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
        axis.annotate(
            one.text, (one.x, one.y), ((left - x) / scale, (lower + 0.2 * height - y) / scale), textcoords="offset points",
            fontsize=size, color=one.colour, arrowprops=line if unclear else None,
            path_effects=[withStroke(linewidth=1.2, foreground="white")],
        )  # fmt: skip


def _gap(box: Box, x: float, y: float) -> float:
    """Pixels from a point to a box."""
    left, lower, right, upper = box
    return hypot(max(left - x, x - right, 0.0), max(lower - y, y - upper, 0.0))


def _extent(axis: Any, text: str, size: float) -> tuple[float, float]:
    """Width and height in pixels."""
    probe = axis.text(0, 0, text, fontsize=size)
    box = probe.get_window_extent()
    probe.remove()
    return box.width, box.height


def _free(
    x: float, y: float, width: float, height: float, scale: float, inside: Any, full: Sequence[Box]
) -> tuple[float, float]:
    """The nearest place for a name where nothing is yet: left and lower."""
    for left, lower in _places(x, y, width, height, scale):
        right, upper = left + width, lower + height
        if not (inside.x0 <= left and right <= inside.x1 and inside.y0 <= lower and upper <= inside.y1):
            continue
        if not any(left < c and a < right and lower < d and b < upper for a, b, c, d in full):
            return left, lower
    return x + 4 * scale, y - height / 2


def _places(x: float, y: float, width: float, height: float, scale: float) -> Iterator[tuple[float, float]]:
    """Right of a dot, left of it, above and below; then farther and farther off."""
    off = 4 * scale
    for ring in range(30):
        reach = ring * height / 2
        for up in (-reach, reach) if ring else (0.0,):  # down first, as names come from the top
            for aside in {0.0, 0.5 * reach}:
                yield x + off + aside, y - height / 2 + up
                yield x - off - aside - width, y - height / 2 + up
        yield x - width / 2, y - off - reach - height
        yield x - width / 2, y + off + reach


def plain_ticks(axis: Any) -> None:
    """Numbers as they are on a logarithmic axis, few of them; where that is short they are evenly far from each other."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    low, high = axis.get_xlim()
    if high / low > 8:
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    else:
        axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 100 else f"{value:.3g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
