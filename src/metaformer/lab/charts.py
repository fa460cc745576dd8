"""Charts as inline SVG that takes its colours from the page, so that they follow it into the dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from metaformer.tasks.metrics import Bin

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 12, 40


@dataclass(frozen=True)
class Series:
    """A line: its name, its points, and the number of its colour."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` or below to `high` or above, steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high), 1e-3):  # one value, but for rounding
        span = abs(high) if abs(high) > 1e-12 else 1.0
    power = 10 ** math.floor(math.log10(span / about))
    step = next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class Frame:
    """Axes: where a value lies on the drawing."""

    x: Sequence[float]
    """Ticks, from the first to the last of which the axis runs."""
    y: Sequence[float]
    x_name: str
    y_name: str = ""

    def across(self, value: float) -> float:
        return LEFT + (value - self.x[0]) / (self.x[-1] - self.x[0]) * (WIDTH - LEFT - RIGHT)

    def down(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y[0]) / (self.y[-1] - self.y[0]) * (HEIGHT - TOP - BOTTOM)

    def svg(self, inside: Markup, label: str) -> Markup:
        """The drawing with `inside` between grid and frame; `label` is what is read out loud."""
        right, bottom, middle = WIDTH - RIGHT, HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
        parts = [Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, label)]
        for value in self.y:
            y = self.down(value)
            parts.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(LEFT, y, right))
            parts.append(Markup('<text x="{}" y="{:.1f}" text-anchor="end">{:g}</text>').format(LEFT - 6, y + 4, value))
        for value in self.x:
            x = self.across(value)
            parts.append(Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{:g}</text>').format(x, bottom + 16, value))
        clip = Markup('<svg x="{0}" y="{1}" width="{2}" height="{3}" viewBox="{0} {1} {2} {3}">{4}</svg>')
        parts.append(clip.format(LEFT - 4, TOP - 4, right - LEFT + 8, bottom - TOP + 8, inside))
        parts.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, bottom, right))
        x = (LEFT + right) / 2
        parts.append(Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(x, HEIGHT - 6, self.x_name))
        if self.y_name:
            turned = Markup('<text x="11" y="{0}" text-anchor="middle" transform="rotate(-90 11 {0})">{1}</text>')
            parts.append(turned.format(middle, self.y_name))
        return Markup("").join([*parts, Markup("</svg>")])

    def line(self, series: Series) -> Markup:
        """A polyline with its name; a dot where there is only one point."""
        place = _corners([(round(2 * self.across(x)) / 2, round(2 * self.down(y)) / 2) for x, y in series.points])
        style = Markup('class="line" style="--c:var(--c{})"').format(series.colour % 10)
        points = " ".join(f"{x:g},{y:g}" for x, y in place)
        drawn = Markup('<polyline {} points="{}"><title>{}</title></polyline>').format(style, points, series.name)
        return drawn + self.dot(series.points[0], series.colour) if len(series.points) == 1 else drawn

    def dot(self, point: tuple[float, float], colour: int) -> Markup:
        place = Markup('<circle class="dot" style="--c:var(--c{})" cx="{:.1f}" cy="{:.1f}" r="3.5"/>')
        return place.format(colour % 10, self.across(point[0]), self.down(point[1]))

    def diagonal(self) -> Markup:
        ends = (self.across(0), self.down(0), self.across(1), self.down(1))
        return Markup('<path class="dash" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(*ends)

    def box(self, x: tuple[float, float], y: tuple[float, float], kind: str, title: str) -> Markup:
        """A bar over x from y[0] to y[1], with what is shown when it is pointed at."""
        left, right, low, high = self.across(x[0]), self.across(x[1]), self.down(min(y)), self.down(max(y))
        shape = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>')
        return shape.format(kind, left + 0.5, high, max(right - left - 1, 0.5), low - high, title)


def _corners(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without those that repeat their neighbour, or lie between two neighbours on one level or one upright."""
    kept: list[tuple[float, float]] = []
    for x, y in points:
        if kept and kept[-1] == (x, y):
            continue
        if len(kept) > 1 and (kept[-2][0] == kept[-1][0] == x or kept[-2][1] == kept[-1][1] == y):
            kept.pop()
        kept.append((x, y))
    return kept


def by_epoch(series: Sequence[Series], best: int, y_name: str) -> Markup:
    """Lines over epochs, a dot on each at epoch `best`; pointing at an epoch shows its values."""
    epochs = [x for x, _ in series[0].points]
    values = [y for line in series for _, y in line.points if math.isfinite(y)]
    low, high = min(values), max(values)
    across = [tick for tick in ticks(epochs[0], epochs[-1]) if tick == int(tick)]
    if len(epochs) == 1:
        across = [epochs[0] - 1, epochs[0], epochs[0] + 1]
    frame = Frame(across, ticks(0 if 0 <= low < high / 2 else low, high), "epoch")
    inside = Markup("").join(frame.line(line) for line in series)
    for place, epoch in enumerate(epochs):
        said = "\n".join([f"epoch {epoch:g}", *(f"{line.name}: {line.points[place][1]:.4g}" for line in series)])
        inside += frame.box((epoch - 0.5, epoch + 0.5), (frame.y[0], frame.y[-1]), "hit", said)
        if epoch == best:
            inside += Markup("").join(frame.dot(line.points[place], line.colour) for line in series)
    return frame.svg(inside, f"{y_name} by epoch")


def lines(series: Sequence[Series], x_name: str, y_name: str) -> Markup:
    """Lines of several models over the same axis, which begins where the values do."""
    x, y = ([point[axis] for line in series for point in line.points] for axis in (0, 1))
    frame = Frame(ticks(min(x), max(x)), ticks(min(y), max(y)), x_name, y_name)
    return frame.svg(Markup("").join(frame.line(line) for line in series), f"{y_name} by {x_name}")


def roc(series: Sequence[Series]) -> Markup:
    """ROC curves, from (0, 0) to (1, 1)."""
    frame = Frame(ticks(0, 1), ticks(0, 1), "false positive rate", "true positive rate")
    return frame.svg(frame.diagonal() + Markup("").join(frame.line(line) for line in series), "ROC curves")


def roc_left(series: Sequence[Series]) -> Markup:
    """ROC curves up to a false positive rate of 0.1, from where the lowest one is at 0.01: there good models differ."""
    low = min(max(y for x, y in line.points if x <= 0.01) for line in series)
    frame = Frame(ticks(0, 0.1), ticks(min(low, 0.9), 1), "false positive rate", "true positive rate")
    return frame.svg(Markup("").join(frame.line(line) for line in series), "ROC curves, the left tenth")


def reliability(bins: Sequence[Bin]) -> Markup:
    """Accuracy against confidence; a stripe on each bar leads from its accuracy to its mean confidence."""
    frame = Frame(ticks(0, 1), ticks(0, 1), "confidence", "accuracy")
    inside = Markup("")
    for b in bins:
        if b.confidence is None or b.accuracy is None:
            continue
        said = f"{b.low:.0%} to {b.high:.0%} sure: {b.images} images\nconfidence {b.confidence:.1%}, accuracy {b.accuracy:.1%}"
        inside += frame.box((b.low, b.high), (0, b.accuracy), "bar", said)
        middle = (b.low + b.high) / 2
        inside += frame.box((middle - 0.012, middle + 0.012), (b.accuracy, b.confidence), "gap", said)
    inside += frame.diagonal()
    return frame.svg(inside, "reliability diagram")


def sureness(bins: Sequence[Bin]) -> Markup:
    """How many images are how sure, the wrong ones at the foot of each bar."""
    frame = Frame(ticks(0, 1), ticks(0, max(b.images for b in bins)), "confidence")
    inside = Markup("")
    for b in bins:
        if b.accuracy is not None:
            wrong = b.images - round(b.accuracy * b.images)
            said = f"{b.low:.0%} to {b.high:.0%} sure: {b.images - wrong} right, {wrong} wrong"
            inside += frame.box((b.low, b.high), (wrong, b.images), "bar", said)
            inside += frame.box((b.low, b.high), (0, wrong), "wrong", said)
    return frame.svg(inside, "how sure the answers are")
