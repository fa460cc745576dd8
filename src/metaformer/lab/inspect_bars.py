"""The figures of a model's parts as bars: parameters, multiply-accumulates, memory, time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaformer.lab.plots import BLUE, GREEN, GREY, ORANGE, RED, figure, plain, write_all

PANELS = (
    ("parameters", "parameters, M", 1e-6),
    ("macs", "multiply-accumulates, M", 1e-6),
    ("kept", "kept for the backward pass, MB", 1e-6),
    ("peak", "alive at once in inference, MB", 1e-6),
    ("seconds", "time, ms", 1e3),
)
"""Figures by name: title and factor."""
COLOURS = (BLUE, GREEN, ORANGE, RED, "#7a5cc9", "#0e9aa7")


def draw_bars(told: dict[str, Any], path: Path) -> None:
    """A row of bars for each part, the first above, coloured by stage. Writes PATH.png and PATH.pdf."""
    parts = [part for part in told["parts"] if part["kind"]]
    panels = [panel for panel in PANELS if any(part[panel[0]] is not None for part in parts)]
    made, axes = figure(1.9 + 1.75 * len(panels), max(1.8, 0.75 + 0.15 * len(parts)), 1, len(panels))
    places, colours = range(len(parts)), _colours([part["name"] for part in parts])
    for number, (axis, (name, title, factor)) in enumerate(zip(axes[0], panels, strict=True)):
        values = [factor * (part[name] or 0) for part in parts]
        axis.barh(places, list(values), color=colours, height=0.72)
        for at, part in enumerate(parts):
            if name == "seconds" and part["low"] is not None:
                axis.plot([factor * part["low"], factor * part["high"]], [at, at], color="black", linewidth=0.8)
                values.append(factor * part["high"])
        axis.set_title(title, fontsize=8)
        axis.set_yticks(places, [_label(part) for part in parts] if number == 0 else [], fontsize=6.5)
        axis.tick_params(axis="x", labelsize=7)
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(len(parts) - 0.4, -0.6)
        axis.set_xlim(0, 1.05 * max([*values, 1e-9]))
        axis.locator_params(axis="x", nbins=4)
    write_all(made, path)


def _label(part: dict[str, Any]) -> str:
    shape = part["shape"]
    sized = f"  {shape[1]}×{shape[2]}" if shape is not None and len(shape) == 3 else ""
    called = part["kind"] if part["kind"] != "Sequential" else ".".join(part["name"].split(".")[-2:])
    return plain(f"{called}{sized}")


def _colours(names: Sequence[str]) -> list[str]:
    """One for each stage that parts lie in, such as `stages.0`, `layer1` or `blocks`; grey for parts of none."""
    inside = [_stage(name.removeprefix("model.").split(".")[:-1]) for name in names]
    known = [stage for stage in dict.fromkeys(inside) if stage]
    return [COLOURS[known.index(stage) % len(COLOURS)] if stage else GREY for stage in inside]


def _stage(containers: Sequence[str]) -> str:
    """The outermost numbered one, else the innermost."""
    numbered = next((place for place, word in enumerate(containers) if word.isdigit()), len(containers))
    return ".".join(containers[: numbered + 1])
