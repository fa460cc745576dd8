"""`explain.html`: one self-contained page of what explaining found, side by side for several models."""

from collections.abc import Sequence
from typing import Any

from metaformer import __version__
from metaformer.lab.explain_model import Findings, called, reach_told
from metaformer.lab.explain_pictures import Grid, attention_grid, cam_grid, occlusion_grid, ramps, reach_picture
from metaformer.lab.frame import template
from metaformer.lab.page import number
from metaformer.lab.pictures import SIDE, embedded, shrunk


def page(seen: Sequence[Findings], figures: dict[str, Any]) -> str:
    """The HTML text; the same figures and maps give the same text."""
    names = called([one.name for one in seen])
    return template("explain.html", {"number": number}).render(
        figures=figures,
        names=names,
        title=" beside ".join(names) if len(names) < 3 else f"{names[0]} beside {len(names) - 1} others",
        version=__version__,
        ramps={name: (embedded(ramp.image, "png"), ramp.marks) for name, ramp in ramps().items()},
        cam=_shown(cam_grid(seen, SIDE)),
        occlusion=_shown(occlusion_grid(seen, SIDE)),
        windows=[one.window for one in seen],
        attention=_shown(attention_grid(seen, SIDE)),
        focused=[(name, one.focus) for name, one in zip(names, seen, strict=True)] if seen[0].focus is not None else [],
        reach=_reached(seen, names),
        similarity=_similar(figures, seen, names),
    )


def _shown(grid: Grid) -> dict[str, Any] | None:
    """Pictures as addresses; None where there is nothing to show."""
    heads, rows = grid
    if not heads:
        return None
    return {"heads": heads, "rows": [[(shrunk(tile.image), tile.note) for tile in row] for row in rows]}


def _reached(seen: Sequence[Findings], names: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for one, name in zip(seen, names, strict=True):
        if one.reach is not None:
            levels = [(shrunk(reach_picture(level.field, SIDE)), reach_told(level)) for level in one.reach]
            found.append({"name": name, "levels": levels, "blocks": [reach_told(level) for level in one.of_blocks or ()]})
    return found


def _similar(figures: dict[str, Any], seen: Sequence[Findings], names: Sequence[str]) -> list[dict[str, Any]]:
    shown = {one.name: name for one, name in zip(seen, names, strict=True)}
    return [pair | {"one": shown[pair["one"]], "other": shown[pair["other"]]} for pair in figures["similarity"]]
