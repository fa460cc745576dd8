"""Pictures of a run: curves, confusion matrix, predictions. Matplotlib without a display."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from metaformer.runs import SCORES, score, score_of

BLUE, ORANGE, GREEN, RED, GREY = "#2f6fde", "#e8833a", "#2e9e6b", "#d1453b", "#8a8f98"
KINDS = ("png", "pdf", "svg")


def figure(width: float, height: float, rows: int = 1, columns: int = 1, *, dpi: int = 130) -> tuple[Figure, Any]:
    """A figure in inches with its axes, drawn without any window."""
    made = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return made, axes


def write(made: Figure, path: Path, *, kind: str = "png", dpi: float | None = None) -> None:
    """Writes a PNG, or another kind of file, under a temporary name, then renames it."""
    temporary = path.with_name(path.name + ".tmp")
    made.savefig(temporary, format=kind, dpi=dpi or made.dpi)
    temporary.replace(path)


def write_all(made: Figure, path: Path, kinds: Sequence[str] = ("png", "pdf")) -> None:
    """Writes PATH.png and PATH.pdf, or files of other kinds, fine enough for paper."""
    for kind in kinds:
        write(made, path.with_name(f"{path.name}.{kind}"), kind=kind, dpi=200)


def remove_all(path: Path) -> None:
    """Removes what an earlier call of `write_all` wrote at PATH, of any kind."""
    for kind in KINDS:
        path.with_name(f"{path.name}.{kind}").unlink(missing_ok=True)


def check_ours(folder: Path, mark: str, names: Sequence[str]) -> None:
    """Raises ValueError where pictures of these names are in a folder, but not the file `mark`, which we write beside ours."""
    found = [f"{name}.{kind}" for name in names for kind in KINDS if (folder / f"{name}.{kind}").exists()]
    if found and not (folder / mark).exists():
        raise ValueError(
            f"{folder / found[0]} would be replaced, and is none of ours: {mark} is not beside it; name another folder"
        )


def curves(metrics: Sequence[dict[str, Any]], path: Path) -> None:
    """Losses, top-1 (or mAP) and learning rate by epoch."""
    made, axes = figure(9, 2.8, 1, 3)
    epochs = [line["epoch"] for line in metrics]
    loss, scores, lr = axes[0]
    dot = "." if len(epochs) == 1 else ""  # one point makes no line
    loss.plot(epochs, [line["train_loss"] for line in metrics], color=ORANGE, marker=dot, label="training (augmented)")
    if "val_loss" in metrics[0]:  # a detector has none
        loss.plot(epochs, [line["val_loss"] for line in metrics], color=BLUE, marker=dot, label="held out")
    loss.set_title("loss", fontsize=10)
    loss.legend(fontsize=8, frameon=False)
    key = score_of(metrics[0])
    values = [line[key] for line in metrics]
    scores.plot(epochs, values, color=BLUE)
    best = int(np.argmax(values))
    scores.plot(epochs[best], values[best], "o", color=GREEN)
    scores.annotate(
        f"{values[best]:.2f} %", (epochs[best], values[best]), (-6, -14), textcoords="offset points", ha="right", fontsize=9
    )
    scores.set_title(f"{SCORES[key]} on held-out images, %", fontsize=10)
    lr.plot(epochs, [line["lr"] for line in metrics], color=GREY, marker=dot)
    lr.set_title("learning rate", fontsize=10)
    for axis in axes[0]:
        axis.set_xlabel("epoch", fontsize=8)
        axis.xaxis.get_major_locator().set_params(integer=True)
    write(made, path)


def learning_rates(
    rates: Sequence[float], losses: Sequence[float], smooth: Sequence[float], found: Mapping[str, float], path: Path
) -> None:
    """Loss over learning rate, with a line at each rate that was found."""
    made, axes = figure(6, 3.6)
    axis = axes[0, 0]
    axis.plot(rates, losses, ".", color=GREY, markersize=3, label="loss of a step")
    axis.plot(rates, smooth, color=BLUE, label="smoothed")
    texts = {"steepest": (GREEN, "falls fastest"), "tenth": (ORANGE, "a tenth of the lowest's"), "lowest": (RED, "lowest")}
    for name, rate in found.items():
        colour, text = texts[name]
        axis.axvline(rate, color=colour, linewidth=1, label=f"{text}: lr={rate:.2g}")
    axis.set_xscale("log")
    low, high = min(smooth), smooth[0]
    axis.set_ylim(low - 0.3 * (high - low), high + 0.7 * (high - low))  # how far it goes up says nothing
    axis.set_xlabel("learning rate", fontsize=8)
    axis.set_title("loss as the learning rate rises", fontsize=10)
    axis.legend(fontsize=7, frameon=False, loc="lower left")
    write(made, path)


def confusion(counts: Tensor, classes: Sequence[str], path: Path) -> None:
    """Rows are the true classes; shade is the part of the row, numbers are images. Names up to 60 classes, numbers up to 30."""
    side = min(12.0, 2.2 + 0.42 * len(classes))
    made, axes = figure(side + 0.6, side)
    axis = axes[0, 0]
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 60:
        names = [plain(name) for name in classes]
        axis.set_xticks(range(len(classes)), names, rotation=90 if max(map(len, names)) > 2 else 0, fontsize=8)
        axis.set_yticks(range(len(classes)), names, fontsize=8)
    axis.set_xlabel("called", fontsize=9)
    axis.set_ylabel("is", fontsize=9)
    if len(classes) <= 30:
        for (row, column), value in np.ndenumerate(counts.numpy()):
            if value:
                color = "white" if shares[row, column] > 0.5 else "black"
                axis.text(column, row, str(value), ha="center", va="center", fontsize=7, color=color)
    write(made, path)


def predictions(
    pixels: Iterable[Tensor], truth: Sequence[str], called: Sequence[tuple[str, float]], path: Path, columns: int = 8
) -> None:
    """A grid of images (C, H, W) as uint8, each with what the model called it; wrong ones in red with the truth."""
    rows = -(-len(truth) // columns)
    made, axes = figure(1.2 * columns, 1.45 * rows, rows, columns)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, right, (name, probability) in zip(axes.flat, pixels, truth, called, strict=False):
        axis.imshow(image.permute(1, 2, 0).squeeze(2) if len(image) == 1 else image.permute(1, 2, 0), cmap="gray")
        text = plain(f"{name} {probability:.0%}" if name == right else f"{name} {probability:.0%}\nis {right}")
        axis.set_title(text, fontsize=8, color=GREEN if name == right else RED)
    write(made, path)


def overlaid(runs: Mapping[str, Sequence[dict[str, Any]]], path: Path) -> None:
    """Score, losses and learning rate by epoch of several runs of one kind, by name, a colour each."""
    made, axes = figure(11, 3.4, 1, 3)
    scores, loss, lr = axes[0]
    called = SCORES[score_of(next(iter(runs.values()))[0])]
    for number, (name, metrics) in enumerate(runs.items()):
        epochs, colour, dot = [line["epoch"] for line in metrics], f"C{number % 10}", "." if len(metrics) == 1 else ""
        scores.plot(epochs, [score(line) for line in metrics], color=colour, marker=dot, label=plain(name))
        loss.plot(epochs, [line.get("val_loss", line["train_loss"]) for line in metrics], color=colour, marker=dot)
        loss.plot(epochs, [line["train_loss"] for line in metrics], color=colour, marker=dot, linestyle=":")
        lr.plot(epochs, [line["lr"] for line in metrics], color=colour, marker=dot)
    titles = (f"{called} on held-out images, %", "loss: held out, dotted: training (augmented)", "learning rate")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch", fontsize=8)
        axis.xaxis.get_major_locator().set_params(integer=True)
    scores.legend(fontsize=8, frameon=False)
    write(made, path)


def search(
    trials: Sequence[Any], importances: Mapping[str, float], logs: Mapping[str, bool], path: Path, *, called: str = "top-1"
) -> None:
    """Scores by trial with the best so far, what each setting explains, and scores by each setting; `logs`: on which scale.

    A trial has its number, settings as texts, state, and score or None; `called` says what the score is.
    """
    shown = [trial for trial in trials if trial.score is not None]
    importances = importances if len(importances) > 1 else {}  # of one alone there is nothing to say
    panels = 1 + bool(importances) + len(logs)
    columns = min(3, panels)
    rows = -(-panels // columns)
    made, axes = figure(3.2 * columns, 2.8 * rows, rows, columns)
    for axis in axes.flat[panels:]:
        axis.set_visible(False)
    left = iter(axes.flat)
    history = next(left)
    _dots(history, [trial.number for trial in shown], shown)
    whole = [trial for trial in shown if trial.state == "finished"]
    best = list(accumulate((trial.score for trial in whole), max))
    history.step([trial.number for trial in whole], best, where="post", color=GREEN, label="best so far")
    history.xaxis.get_major_locator().set_params(integer=True)
    history.set_title(f"{called} on held-out images, %, by trial", fontsize=9)
    history.legend(fontsize=7, frameon=False)
    if importances:
        bars = next(left)
        bars.barh(list(importances)[::-1], [100 * part for part in importances.values()][::-1], color=BLUE, height=0.6)
        bars.set_title("variance that a setting explains, %", fontsize=9)
    for key, log in logs.items():
        axis, with_it = next(left), [trial for trial in shown if key in trial.settings]
        texts = [trial.settings[key] for trial in with_it]
        numbers = all(_is_number(text) for text in texts)
        _dots(axis, [float(text) for text in texts] if numbers else texts, with_it)
        axis.set_title(plain(key), fontsize=9)
        if log and numbers and texts:
            axis.set_xscale("log")
    write(made, path)


def robustness(names: Sequence[str], models: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Of models whose `corruptions` are told as `lab.judge` does: errors by severity, and by corruption as shades."""
    made, axes = figure(10, 4.2, 1, 2)
    lines, shades = axes[0]
    each = [list(model["each"].values()) for model in models]
    for name, model, rows in zip(names, models, each, strict=True):
        errors = [model["clean_error"]["value"], *np.mean([row["errors"] for row in rows], 0)]
        lines.plot(range(len(errors)), errors, marker=".", label=name)
    lines.set_title("error by severity, mean of the corruptions, %", fontsize=10)
    lines.set_xlabel("severity, 0 is none", fontsize=8)
    lines.legend(fontsize=8, frameon=False)
    values = np.array([[row["mean"] for row in rows] for rows in each]).T
    shades.imshow(values, cmap="Reds", vmin=0, vmax=max(100.0, values.max()), aspect="auto")
    for place, value in np.ndenumerate(values):
        shades.text(place[1], place[0], f"{value:.0f}", ha="center", va="center", fontsize=7)
    shades.set_xticks(range(len(names)), names, rotation=20, fontsize=7, ha="right")
    shades.set_yticks(range(len(values)), [name.replace("_", " ") for name in models[0]["each"]], fontsize=7)
    shades.set_title("error by corruption, mean of the severities, %", fontsize=10)
    write(made, path)


def _dots(axis: Any, places: Sequence[Any], trials: Sequence[Any]) -> None:
    for cut, colour, label in ((False, BLUE, "to the end"), (True, GREY, "cut short")):
        at = [i for i, trial in enumerate(trials) if (trial.state != "finished") is cut]
        axis.scatter([places[i] for i in at], [trials[i].score for i in at], color=colour, s=14, zorder=2, label=label)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def plain(text: str) -> str:
    """As it is, where matplotlib would read what stands between two dollar signs as mathematics."""
    return text.replace("$", r"\$")


def fitting(text: str, width: float, largest: float) -> float:
    """The size of type in which the text's longest line is no wider, in inches: a letter is taken as 0.55 of its size."""
    return min(largest, width * 72 / (0.55 * max(1, *map(len, text.split("\n")))))


def bars(cells: Sequence[tuple[str, str, Sequence[Any]]], path: Path) -> None:
    """Images/s of each contestant with the range over the rounds, a panel per cell: its title, its baseline, its rows."""
    columns = min(2, len(cells))
    shown = [
        (title, base, [row for row in rows if row.images_per_second and row.macs is not None]) for title, base, rows in cells
    ]
    rows = -(-len(cells) // columns)
    most = max(len(panel) for _, _, panel in shown)
    made, axes = figure(6.5 * columns, rows * (0.9 + 0.24 * most), rows, columns)
    for axis in axes.flat[len(cells) :]:
        axis.set_visible(False)
    for axis, (title, base, panel) in zip(axes.flat, shown, strict=False):
        places = range(len(panel), 0, -1)
        speeds = [row.images_per_second for row in panel]
        spread = [[row.images_per_second - row.low for row in panel], [row.high - row.images_per_second for row in panel]]
        colours = [BLUE if row.contestant.startswith("ours ") else GREY for row in panel]
        axis.barh(places, speeds, xerr=spread, color=colours, height=0.7, error_kw={"elinewidth": 0.8})
        axis.set_yticks(places, [row.contestant for row in panel], fontsize=7)
        for place, row in zip(places, panel, strict=True):
            text = f" {row.images_per_second:,.1f}" + ("" if row.ratio is None else f"  ×{row.ratio:.2f}")
            axis.text(row.high, place, text, va="center", fontsize=7)
        axis.set_xlim(0, 1.25 * max((row.high for row in panel), default=1))
        axis.set_title(f"{title}: images/s, × {base}", fontsize=8)
    write(made, path)
