"""The architecture as a drawing, after figure 2 of both papers: the stages of a MetaFormer, and the blocks in them.

It is drawn from the config alone, so that hybrids, a mixer per block, or a frame without norm, MLP or residual come out as they
are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.layers import NoNorm, Scale
from metaformer.lab.inspect_parts import brief, mixer_name
from metaformer.lab.plots import fitting, plain, write_all

TINTS = ("#cfe0fb", "#fbdcc4", "#cdebd9", "#e3d6f7", "#f8d3d0", "#d3eef1", "#f5e8b8", "#e2e4e8")
"""Of blocks, a colour for each mixer."""
EMBED, NORM, MLP, INK, SOFT = "#eceff3", "#f4f1e4", "#e9ecf0", "#1d232b", "#67707d"


@dataclass(frozen=True)
class Kind:
    """What a block is but for its width: blocks of a kind are drawn once."""

    name: str
    scale: Scale


@dataclass(frozen=True)
class Drawn:
    """A stage as it is drawn."""

    embed: str
    position: int
    dim: int
    side: int
    runs: tuple[tuple[Kind, int], ...]
    """Neighbouring blocks of one kind, and how many they are."""


def stages_of(config: MetaFormerConfig, image_size: int) -> list[Drawn]:
    """What there is to draw."""
    found: list[Drawn] = []
    mixers, side = iter(config.block_mixers()), image_size
    for number, (depth, dim) in enumerate(zip(config.depths, config.dims, strict=True)):
        side = _side(side, config, number)
        kinds = [Kind(mixer_name(next(mixers), config), config.scales[number]) for _ in range(depth)]
        runs = tuple((kind, len(list(same))) for kind, same in groupby(kinds))
        conv = "Conv 3×3, stride 2" if number else f"Conv 7×7, stride {config.stem_stride}"
        norm = None if isinstance(config.patch_norm, NoNorm) else "Norm"
        steps = [part for part in ((norm, conv) if number else (conv, norm)) if part]
        found.append(Drawn("\n".join(steps), config.pos_embed[number], dim, side, runs))
    return found


def _side(side: int, config: MetaFormerConfig, number: int) -> int:
    if number:
        return (side - 1) // 2 + 1
    padding = 2 if config.stem_stride == 4 else 3
    return (side + 2 * padding - 7) // config.stem_stride + 1


def kinds_of(stages: Sequence[Drawn]) -> list[Kind]:
    """The kinds of blocks, in the order in which they come first."""
    return list(dict.fromkeys(kind for stage in stages for kind, _ in stage.runs))


def draw(config: MetaFormerConfig, image_size: int, path: Path, title: str = "", *, backbone: bool = False) -> None:
    """Writes PATH.svg, PATH.png and PATH.pdf."""
    write_all(blueprint(config, image_size, title, backbone=backbone), path, ("svg", "png", "pdf"))


def blueprint(config: MetaFormerConfig, image_size: int, title: str = "", *, backbone: bool = False) -> Figure:
    """The figure, in inches: above the stages from left to right, below a drawing of each kind of block.

    A `backbone` gives its maps away and has no head.
    """
    stages = stages_of(config, image_size)
    kinds = kinds_of(stages)
    names = list(dict.fromkeys(kind.name for kind in kinds))
    tints = {kind: TINTS[names.index(kind.name) % len(TINTS)] for kind in kinds}
    above, below = _stages_size(stages), _blocks_size(kinds, config)
    width, high = max(above[0], below[0]), below[1]
    made = Figure(figsize=(width, above[1] + high + GUTTER + 0.04))
    FigureCanvasAgg(made)
    axis = made.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, above[1] + high + GUTTER + 0.04))
    axis.axis("off")
    pen = Pen(axis)
    corner = ((width - above[0]) / 2, high + GUTTER)
    end = _draw_stages(pen, stages, tints, f"{image_size}×{image_size}\n×{config.in_chans}", corner)
    if backbone:
        pen.text(end[0] + ENDS / 2, end[1], "maps of\nits stages")
    else:
        _draw_head(pen, config, end, corner[1])
    pen.title(0.12, above[1] + high + GUTTER - 0.09, f"(a) {title}" if title else "(a)")
    pen.title(0.12, high + 0.22, "(b) its blocks" if len(kinds) > 1 else "(b) its block")
    for place, kind in enumerate(kinds):
        left = (width - below[0]) / 2 + 0.15 + BLOCK * place
        _draw_block(pen, kind, tints[kind], config, left)
        pen.text(left + BLOCK / 2 + 0.1, 0.16, _where(kind, stages), size=7, soft=True)
    return made


class Pen:
    """Boxes, arrows and texts on axes whose unit is an inch."""

    def __init__(self, axis: Any) -> None:
        self.axis = axis

    def box(
        self, x: float, y: float, width: float, height: float, text: str, fill: str, *, size: float, upright: bool = False
    ) -> None:
        """Its lower left corner at x, y."""
        style = "round,pad=0,rounding_size=0.05"
        self.axis.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, fc=fill, ec=INK, lw=0.7, zorder=3))
        turn = 90 if upright else 0
        self.axis.text(x + width / 2, y + height / 2, plain(text), fontsize=size, color=INK, rotation=turn, **MIDDLE)

    def frame(self, x: float, y: float, width: float, height: float) -> None:
        """Dashed, around boxes."""
        style = "round,pad=0,rounding_size=0.08"
        self.axis.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, fc="none", ec=SOFT, lw=0.8, ls="--"))

    def text(self, x: float, y: float, text: str, *, size: float = 7.5, soft: bool = False) -> None:
        """Around x, y."""
        self.axis.text(x, y, plain(text), fontsize=size, color=SOFT if soft else INK, **MIDDLE)

    def title(self, x: float, y: float, text: str) -> None:
        """From x on."""
        self.axis.text(x, y, plain(text), fontsize=9, color=INK, fontweight="bold", va="center")

    def line(self, *points: tuple[float, float]) -> None:
        """Through the points."""
        xs, ys = zip(*points, strict=True)
        self.axis.plot(xs, ys, color=INK, lw=0.8, solid_joinstyle="round", solid_capstyle="butt")

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through the points with a head at the last."""
        self.line(*points[:-1])
        self.axis.add_patch(
            FancyArrowPatch(points[-2], points[-1], arrowstyle="-|>", mutation_scale=6, lw=0.8, color=INK, shrinkA=0, shrinkB=0)
        )

    def plus(self, x: float, y: float) -> None:
        """A sum."""
        self.axis.add_patch(Circle((x, y), PLUS, fc="white", ec=INK, lw=0.8, zorder=3))
        for dx, dy in ((PLUS * 0.6, 0), (0, PLUS * 0.6)):
            self.axis.plot([x - dx, x + dx], [y - dy, y + dy], color=INK, lw=0.8, zorder=4)


MIDDLE: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 1.15, "zorder": 4}


# --- above: the stages ------------------------------------------------------------------------------------------------

CHIP, SMALL, STAGE, GAP, ENDS, GUTTER = 0.3, 0.22, 1.28, 0.2, 0.62, 0.36
"""Inches: the heights of a box and of one of the head's, the widths of a stage, an arrow, image and head, the way between (a)
and (b)."""


def _chips(stage: Drawn) -> int:
    return 1 + bool(stage.position) + len(stage.runs)


def _stages_size(stages: Sequence[Drawn]) -> tuple[float, float]:
    most = max(_chips(stage) for stage in stages)
    return 0.24 + 2 * (ENDS + GAP) + len(stages) * (STAGE + GAP) - GAP, 0.62 + most * (CHIP + 0.08) + 0.16


def _draw_stages(
    pen: Pen, stages: Sequence[Drawn], tints: dict[Kind, str], image: str, corner: tuple[float, float]
) -> tuple[float, float]:
    """Each stage is a frame: from above the embedding, the position embedding if there is one, and the runs of blocks. What
    is told is where the last arrow ends."""
    (x, y), height = corner, _stages_size(stages)[1] - 0.62
    middle = y + 0.36 + height / 2
    pen.text(x + 0.12 + ENDS / 2, middle, f"image\n{image}")
    left = x + 0.12 + ENDS + GAP
    for number, stage in enumerate(stages, 1):
        pen.arrow((left - GAP, middle), (left, middle))
        pen.frame(left, y + 0.36, STAGE, height)
        pen.text(left + STAGE / 2, y + 0.25, f"stage {number}: {stage.side}×{stage.side}×{stage.dim}", size=7, soft=True)
        chips = [(stage.embed, EMBED)]
        if stage.position:
            chips.append((f"+ position {stage.position}×{stage.position}", EMBED))
        chips += [(f"{kind.name}" + (f"  × {count}" if count > 1 else ""), tints[kind]) for kind, count in stage.runs]
        top = middle + (len(chips) * (CHIP + 0.08) - 0.08) / 2
        for place, (text, fill) in enumerate(chips):
            at = top - CHIP - place * (CHIP + 0.08)
            pen.box(left + 0.08, at, STAGE - 0.16, CHIP, text, fill, size=fitting(text, STAGE - 0.2, 7.5))
            if place:
                pen.arrow((left + STAGE / 2, at + CHIP + 0.08), (left + STAGE / 2, at + CHIP))
        left += STAGE + GAP
    pen.arrow((left - GAP, middle), (left, middle))
    return left, middle


def _draw_head(pen: Pen, config: MetaFormerConfig, at: tuple[float, float], y: float) -> None:
    left, middle = at
    steps = _head(config)
    top = middle + len(steps) * SMALL / 2
    for place, text in enumerate(steps, 1):
        pen.box(left, top - place * SMALL + 0.02, ENDS, SMALL - 0.04, text, EMBED, size=fitting(text, ENDS - 0.06, 7.5))
    if config.num_classes:
        pen.text(left + ENDS / 2, y + 0.25, f"{config.num_classes} classes", size=7, soft=True)


def _head(config: MetaFormerConfig) -> list[str]:
    """From above downwards."""
    norm = [] if isinstance(config.head_norm, NoNorm) else ["Norm"]
    steps = ["mean", *norm] if config.pool_first else [*norm, "mean"]
    return [*steps, *([brief(config.head).removesuffix("Head")] if config.num_classes else [])]


# --- below: the blocks ------------------------------------------------------------------------------------------------

BLOCK, WIDE, TALL, STEP, PLUS, BASE = 1.85, 1.06, 0.27, 0.15, 0.075, 0.4
"""A block's column, its boxes, the way between two, the radius of a sum, where the lowest way begins."""


def _half(kind: Kind, config: MetaFormerConfig, text: str, fill: str) -> list[tuple[str, str]]:
    """The boxes of a branch, from below: norm, mixer or MLP, and what the branch is scaled by."""
    norm = [] if isinstance(config.norm, NoNorm) else [(brief(config.norm), NORM)]
    scaled = [] if kind.scale.branch is None else [("LayerScale", "white")]
    return [*norm, (text, fill), *scaled]


def _halves(kind: Kind, tint: str, config: MetaFormerConfig) -> list[list[tuple[str, str]]]:
    mixer = kind.name.removesuffix(", no MLP")
    halves = [_half(kind, config, mixer, tint)]
    if config.mlp_ratio:
        activation = brief(config.activation)
        halves.append(_half(kind, config, f"channel MLP ×{config.mlp_ratio:g}\n{activation}", MLP))
    return halves


def _block_height(kind: Kind, config: MetaFormerConfig) -> float:
    boxes = [len(half) for half in _halves(kind, "", config)]
    sums = (2 * PLUS + STEP) * len(boxes) if config.residual else 0.0
    return sum(boxes) * (TALL + STEP) + sums + STEP + 0.1 * bool(config.mlp_ratio)


def _where(kind: Kind, stages: Sequence[Drawn]) -> str:
    """The stages in which there are blocks of the kind."""
    places = [str(number) for number, stage in enumerate(stages, 1) if kind in dict(stage.runs)]
    return f"stage{'s' if len(places) > 1 else ''} {', '.join(places)}"


def _blocks_size(kinds: Sequence[Kind], config: MetaFormerConfig) -> tuple[float, float]:
    return 0.3 + BLOCK * len(kinds), max(_block_height(kind, config) for kind in kinds) + BASE + 0.04


def _draw_block(pen: Pen, kind: Kind, tint: str, config: MetaFormerConfig, x: float) -> None:
    """From below upwards, as the papers have it: the shortcut at the left."""
    middle, y = x + BLOCK / 2 + 0.1, BASE
    pen.line((middle, y - 0.1), (middle, y + 0.05))
    for half in _halves(kind, tint, config):
        entered = y
        for text, fill in half:
            tall = TALL + (0.1 if "\n" in text else 0.0)
            pen.arrow((middle, y), (middle, y + STEP))
            pen.box(middle - WIDE / 2, y + STEP, WIDE, tall, text, fill, size=fitting(text, WIDE - 0.06, 7.0))
            y += STEP + tall
        if config.residual:
            centre = y + STEP + PLUS
            pen.arrow((middle, y), (middle, centre - PLUS))
            side = middle - WIDE / 2 - 0.2
            pen.arrow((middle, entered + 0.04), (side, entered + 0.04), (side, centre), (middle - PLUS, centre))
            if kind.scale.shortcut is not None:
                pen.box(side - 0.09, (entered + centre) / 2 - 0.28, 0.18, 0.56, "ResScale", "white", size=6.5, upright=True)
            pen.plus(middle, centre)
            y = centre + PLUS
    pen.arrow((middle, y), (middle, y + STEP))
