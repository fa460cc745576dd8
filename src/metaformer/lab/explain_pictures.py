"""The pictures of `explain`, good enough for a paper: a PNG and a PDF each, rows images, columns models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from metaformer.lab.explain_model import Findings, Focus, called, reach_told
from metaformer.lab.pictures import blended, picture
from metaformer.lab.plots import figure, fitting, plain, remove_all, write_all

SIDE = 384
"""Pixels up to which small images are enlarged for paper."""

FAINT = 0.1
"""Of occlusion: the loss of probability that is red at least."""
HALF_MORE = 0.5
"""Of attention: what is taken beyond an even part that is red at least, in even parts."""
PICTURES = ("cam", "occlusion", "attention", "reach", "similarity")
"""What may be drawn, by name."""


@dataclass(frozen=True)
class Tile:
    """A picture in a grid."""

    image: Image.Image
    note: str = ""
    """Below it."""


def draw(seen: Sequence[Findings], figures: dict[str, Any], folder: Path) -> None:
    """Writes the pictures of what was asked, and removes those of an earlier call that was asked for more."""
    for name in PICTURES:
        remove_all(folder / name)
    grids = {"cam": cam_grid(seen), "occlusion": occlusion_grid(seen), "attention": attention_grid(seen)}
    for name, (heads, rows) in grids.items():
        if heads:
            write_all(grid_figure(heads, rows, ramps()[name]), folder / name)
    if seen[0].reach is not None:
        write_all(reach_figure(seen), folder / "reach")
    if figures["similarity"]:
        write_all(similarity_figure(figures["similarity"]), folder / "similarity")


@dataclass(frozen=True)
class Ramp:
    """What colours mean: a strip of them from the least at the left, and what is written below it, by place from 0 to 1."""

    image: Image.Image
    marks: tuple[tuple[float, str], ...]


def ramps() -> dict[str, Ramp]:
    """Those of the pictures."""
    shade = torch.linspace(0, 1, 240)[None].expand(12, -1)
    over = blended(torch.full((1, 12, 240), 190, dtype=torch.uint8), shade)
    faint = tuple((part**0.25, f"{100 * part:g} %") for part in (1e-4, 0.01, 0.1, 1.0))
    return {
        "cam": Ramp(over, ((0.0, "0"), (1.0, "the map's maximum"))),
        "occlusion": Ramp(over, ((0.0, "nothing lost"), (1.0, "the most lost"))),
        "attention": Ramp(over, ((0.0, "at most even"), (1.0, "the most taken"))),
        "reach": Ramp(_magma(shade), faint),
    }


Grid = tuple[list[str], list[list[Tile]]]
"""What stands over the columns, and the rows; both empty where there is nothing to show."""


def cam_grid(seen: Sequence[Findings], side: int = SIDE) -> Grid:
    """An image, then the Grad-CAM of each model; below it, where no place speaks for the answer."""
    heads, rows = _beside([one.cam for one in seen], seen, side)
    for number, row in enumerate(rows):
        for place, one in enumerate(seen, 1):
            if one.cam is not None and not one.cam[number].any():
                row[place] = replace(row[place], note=f"{row[place].note}\nnothing speaks for it")
    return heads, rows


def occlusion_grid(seen: Sequence[Findings], side: int = SIDE) -> Grid:
    """An image, then for each model where covering it costs probability, the costliest place red; below it, how much."""
    maps = [None if one.lost is None else lost_shades(one.lost) for one in seen]
    heads, rows = _beside(maps, seen, side)
    for number, row in enumerate(rows):
        for place, one in enumerate(seen, 1):
            assert one.lost is not None
            most = max(0.0, 100 * one.lost[number].max().item())
            least = "under 1 point" if most < 1 else f"up to −{most:.0f} points"
            row[place] = Tile(row[place].image, f"{row[place].note}, {least}")
    return heads, rows


def _beside(maps: Sequence[Tensor | None], seen: Sequence[Findings], side: int) -> Grid:
    if maps[0] is None:
        return [], []
    rows = []
    for number in range(len(seen[0].classes)):
        row = [_itself(seen, number, side)]
        for one, heat in zip(seen, maps, strict=True):
            assert heat is not None
            row.append(Tile(blended(one.fed[number], heat[number], side), answer(one, number)))
        rows.append(row)
    return ["image", *called([one.name for one in seen])], rows


def attention_grid(seen: Sequence[Findings], side: int = SIDE) -> Grid:
    """An image, then for each model and grid of attention what the marked place takes, and the rollout."""
    focused = [
        (one, name, focus) for one, name in zip(seen, called([s.name for s in seen]), strict=True) for focus in one.focus or ()
    ]
    if not focused:
        return [], []
    heads = ["image", *(f"{name}\n{focus.name}, {what}" for _, name, focus in focused for what in ("last layer", "rollout"))]
    rows = []
    for number in range(len(seen[0].classes)):
        row = [_itself(seen, number, side)]
        for one, _, focus in focused:
            taken, rolled = (times_even(maps[number]) for maps in (focus.taken, focus.rolled))
            tiles = [
                Tile(blended(one.fed[number], above_even(times), side, smooth=False), f"up to ×{times.max():.2f}")
                for times in (taken, rolled)
            ]
            row += [replace(tiles[0], image=_marked(tiles[0].image, focus, number)), tiles[1]]
        rows.append(row)
    return heads, rows


def _itself(seen: Sequence[Findings], number: int, side: int) -> Tile:
    """An image, below it its class where that is known."""
    truth = seen[0].truth[number] if seen[0].truth else ""
    return Tile(picture(_finest(seen)[number], side), truth and f"is {truth.split(',')[0]}")


def _finest(seen: Sequence[Findings]) -> Tensor:
    """The images as the model is fed them that takes the largest."""
    return max((one.fed for one in seen), key=lambda fed: fed.shape[-1])


def answer(one: Findings, number: int) -> str:
    """What the model says of an image, and how surely."""
    return f"{one.classes[number].split(',')[0]}, {one.sure[number]:.0%}"


def lost_shades(lost: Tensor) -> Tensor:
    """(N, h, w), each divided by its maximum, but by no less than FAINT, lest what costs next to nothing is red."""
    return lost.clamp(min=0) / lost.amax((1, 2), keepdim=True).clamp(min=FAINT)


def times_even(taken: Tensor) -> Tensor:
    """(h, w): how many times as much is taken of each place as if all were taken alike."""
    return taken / taken.mean().clamp(min=1e-12)


def above_even(times: Tensor) -> Tensor:
    """From 0, where a place is taken no more than evenly, to 1 where it is taken the most, and half as much again at least,
    lest attention that is all but even is red."""
    above = (times - 1).clamp(min=0)
    return above / above.max().clamp(min=HALF_MORE)


def _marked(image: Image.Image, focus: Focus, number: int) -> Image.Image:
    """With a white frame around the place that attention is seen from."""
    pixels = np.asarray(image).copy()
    (row, column), (high, wide) = focus.marked[number], focus.taken.shape[1:]
    top, bottom = (round(at * len(pixels) / high) for at in (row, row + 1))
    left, right = (round(at * pixels.shape[1] / wide) for at in (column, column + 1))
    thick = max(2, len(pixels) // 100)
    inside = pixels[top + thick : bottom - thick, left + thick : right - thick].copy()
    pixels[top:bottom, left:right] = 255
    pixels[top + thick : bottom - thick, left + thick : right - thick] = inside
    return Image.fromarray(pixels)


def reach_picture(field: Tensor, side: int = SIDE) -> Image.Image:
    """A field in shades, on the scale of its fourth root: the faint part is what differs between models."""
    image = _magma((field / field.max().clamp(min=1e-30)).sqrt().sqrt())
    scale = max(1, side // max(image.size))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def _magma(shade: Tensor) -> Image.Image:
    return Image.fromarray((matplotlib.colormaps["magma"](shade.numpy())[..., :3] * 255).astype(np.uint8))


# --- matplotlib -------------------------------------------------------------------------------------------------------


def grid_figure(heads: Sequence[str], rows: Sequence[Sequence[Tile]], ramp: Ramp) -> Figure:
    """Tiles in rows, what stands over the columns, the ramp below."""
    notes = [tile.note for row in rows for tile in row]
    below = 0.17 + 0.1 * max(note.count("\n") for note in notes) if any(notes) else 0.0
    over = 0.3 + 0.12 * max(head.count("\n") for head in heads)
    made, axes = figure(1.5 * len(heads), over + (1.46 + below) * len(rows) + STRIP, len(rows), len(heads))
    _tight(made, ramp)
    small = min(fitting(note, 1.45, 6.5) for note in notes)
    large = min(fitting(head, 1.45, 8) for head in heads)
    for place, row in enumerate(rows):
        for axis, tile, head in zip(axes[place], row, heads, strict=True):
            _bare(axis)
            axis.imshow(tile.image, interpolation="none")
            axis.set_xlabel(plain(tile.note), fontsize=small, labelpad=2)
            if place == 0:
                axis.set_title(plain(head), fontsize=large, pad=4)
    return made


def reach_figure(seen: Sequence[Findings]) -> Figure:
    """A row for each model, a column for each of its levels."""
    most = max(len(one.reach or ()) for one in seen)
    made, axes = figure(0.25 + 1.5 * most, 1.78 * len(seen) + STRIP, len(seen), most)
    _tight(made, ramps()["reach"])
    for row, one, name in zip(axes, seen, called([one.name for one in seen]), strict=True):
        for axis in row:
            _bare(axis)
        row[0].set_ylabel(plain(name), fontsize=fitting(name, 1.45, 8))
        for axis, level in zip(row, one.reach or (), strict=False):
            axis.imshow(reach_picture(level.field), interpolation="none")
            axis.set_title(plain(level.name), fontsize=fitting(level.name, 1.45, 8), pad=3)
            told = reach_told(level)
            axis.set_xlabel(f"50 %: {told['side_50']}, 95 %: {told['side_95']} px", fontsize=6.5, labelpad=2)
    return made


STRIP = 0.34
"""Inches below the pictures, for the ramp."""


def _bare(axis: Any) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _tight(made: Figure, ramp: Ramp) -> None:
    """Pictures close to each other, below them the ramp in the middle."""
    width, height = made.get_size_inches()
    made.set_layout_engine(
        "constrained", w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0, rect=(0, STRIP / height, 1, 1 - STRIP / height)
    )
    long = min(1.8, 0.6 * width)
    axis = made.add_axes(((width - long) / 2 / width, 0.21 / height, long / width, 0.08 / height))
    axis.set_in_layout(False)
    axis.imshow(ramp.image, aspect="auto", extent=(0, 1, 0, 1))
    axis.set_xticks([at for at, _ in ramp.marks], [text for _, text in ramp.marks], fontsize=6.5)
    axis.set_yticks([])
    axis.tick_params(length=2, pad=1.5)
    axis.spines[:].set_visible(False)


def similarity_figure(found: Sequence[dict[str, Any]]) -> Figure:
    """A square of shades for each pair of models."""
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    made, axes = figure(2.5 * columns + 0.45, 2.45 * rows, rows, columns)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    whole = [*dict.fromkeys(name for pair in found for name in (pair["one"], pair["other"]))]
    short_of = dict(zip(whole, called(whole), strict=True))
    shades = []
    for axis, pair in zip(axes.flat, found, strict=False):
        values = np.array(pair["values"], float)
        shades.append(axis.imshow(values, cmap="Blues", vmin=0, vmax=1))
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        axis.set_xticks(
            range(len(pair["columns"])), pair["columns"], fontsize=6.5, rotation=45, ha="right", rotation_mode="anchor"
        )
        axis.set_yticks(range(len(pair["rows"])), pair["rows"], fontsize=6.5)
        axis.set_xlabel(plain(short_of[pair["other"]]), fontsize=fitting(short_of[pair["other"]], 1.9, 8))
        axis.set_ylabel(plain(short_of[pair["one"]]), fontsize=fitting(short_of[pair["one"]], 1.9, 8))
        for (row, column), value in np.ndenumerate(values):
            axis.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color="white" if value > 0.6 else "black"
            )
    bar = made.colorbar(shades[0], ax=axes, shrink=0.6 / rows + 0.1, aspect=18, pad=0.02)
    bar.set_label("linear CKA", fontsize=7)
    bar.ax.tick_params(labelsize=6.5, length=2)
    bar.outline.set_visible(False)
    return made
