"""Time and memory of each mixer against resolution, with batch × pixels constant, and against batch, with fitted exponents.

python benchmarks/scaling.py --out docs/images
What is measured is the first half of a block (norm, mixer, residual) as caformer_s18 has it in its third stage: 320 channels,
a token for 16 × 16 pixels; eager, fp32, inference. Two identities show the norms. A mixer has a process for each place,
and these take turns as in `metaformer bench`. An exponent of 1 is linear: in tokens for resolutions, in images for
batches; time is of one image for resolutions, of the batch for batches, and so is memory, which is above the loaded model.
One thread, for two wait for each other where a call is short. Needs an idle machine for some 15 minutes.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from metaformer import (
    MLN,
    Attention,
    DepthwiseConv,
    Fourier,
    Identity,
    LayerNorm,
    MaxPooling,
    MetaFormerConfig,
    Pooling,
    Random,
    Scale,
    SepConv,
    SpatialFC,
)
from metaformer.core.layers import Norm
from metaformer.core.mixers import Mixer
from metaformer.core.model import Block
from metaformer.lab.bench import machine, numbers
from metaformer.lab.contestants import Contestant
from metaformer.lab.plots import figure, write
from metaformer.lab.turns import Outcome, Turns, compete
from metaformer.lab.worker import Cell, Ready
from metaformer.runs import write_text

STRIDE = 16
MIXERS: dict[str, tuple[Callable[[int], Mixer], Norm]] = {
    "Identity": (lambda grid: Identity(), LayerNorm()),
    "Identity, MLN": (lambda grid: Identity(), MLN()),
    "Pooling": (lambda grid: Pooling(), LayerNorm()),
    "MaxPooling": (lambda grid: MaxPooling(), LayerNorm()),
    "DepthwiseConv": (lambda grid: DepthwiseConv(), LayerNorm()),
    "SepConv": (lambda grid: SepConv(), LayerNorm()),
    "Attention": (lambda grid: Attention(), LayerNorm()),
    "Random": (lambda grid: Random(grid=grid), LayerNorm()),
    "SpatialFC": (lambda grid: SpatialFC(grid=grid), LayerNorm()),
    "Fourier": (lambda grid: Fourier(), LayerNorm()),
}
"""By name: the mixer for a grid of tokens, and the norm before it."""


class Place(NamedTuple):
    """Where a mixer is measured: so many images of so many pixels a side."""

    batch: int
    size: int


def half_block(cell: Cell, *, mixer: str, dim: int, place: Place) -> Ready:
    """The first half of a block on a random map."""
    torch.set_num_threads(cell.threads)
    grid = max(1, place.size // STRIDE)
    make, norm = MIXERS[mixer]
    config = MetaFormerConfig(depths=(1,), dims=(dim,), mixers=(make(grid),), norm=norm, scales=(Scale(),), mlp_ratio=0)
    block: nn.Module = Block(dim, config.mixers[0], config, config.scales[0], 0.0).eval()
    block = block.to(memory_format=torch.channels_last)
    x = torch.randn(place.batch, dim, grid, grid).to(memory_format=torch.channels_last)

    def go() -> object:
        with torch.inference_mode():
            return block(x)

    go()
    return Ready(go, place.batch, parameters=sum(p.numel() for p in block.parameters()))


def measure(mixer: str, places: Sequence[Place], dim: int, threads: int, turns: Turns) -> dict[Place, dict[str, Any]]:
    """What a mixer takes in each place. The places take turns, because it is they that are compared."""
    field = {
        place: Contestant(
            "ours", f"{place.batch} × {place.size}", "fp32", partial(half_block, mixer=mixer, dim=dim, place=place)
        )
        for place in places
    }
    with tempfile.TemporaryDirectory() as folder:
        cell = Cell("predict", mixer, places[0].batch, places[0].size, "cpu", threads, Path(folder))
        outcomes = compete(cell, list(field.values()), turns)
    return {place: record(place, outcome) for place, outcome in zip(field, outcomes, strict=True)}


def record(place: Place, outcome: Outcome) -> dict[str, Any]:
    """Seconds of a call, and what it takes above the loaded model."""
    seconds = place.batch / outcome.rate if outcome.rates else None
    tokens = max(1, place.size // STRIDE) ** 2
    where = {"size": place.size, "batch": place.batch, "tokens": tokens}
    return where | {"seconds": seconds, "bytes": outcome.peak, "error": outcome.error}


def exponent(x: Sequence[float], y: Sequence[float | None]) -> float | None:
    """The slope of a line through the logarithms, by least squares."""
    points = [(math.log(a), math.log(b)) for a, b in zip(x, y, strict=True) if b]
    if len({a for a, _ in points}) < 2:
        return None
    across, up = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - across) * (b - up) for a, b in points) / sum((a - across) ** 2 for a, _ in points)


def series(points: Sequence[dict[str, Any]], kind: str, what: str) -> tuple[list[float], list[float | None]]:
    """What is drawn: by tokens, of one image; or by batch, of the batch."""
    if kind == "batch":
        return [p["batch"] for p in points], [p[what] for p in points]
    return [p["tokens"] for p in points], [None if p[what] is None else p[what] / p["batch"] for p in points]


def flatness(points: Sequence[dict[str, Any]]) -> float | None:
    """The longest time per pixel over the shortest."""
    values = [p["seconds"] / (p["batch"] * p["size"] ** 2) for p in points if p["seconds"]]
    return max(values) / min(values) if values else None


PANELS = (("resolution", "seconds"), ("resolution", "bytes"), ("batch", "seconds"), ("batch", "bytes"))
WORDS = {
    ("resolution", "seconds"): ("seconds of an image", "side in pixels, batch × pixels constant (exponent: of tokens)"),
    ("resolution", "bytes"): (
        "MiB of an image, above the model",
        "side in pixels, batch × pixels constant (exponent: of tokens)",
    ),
    ("batch", "seconds"): ("seconds of a batch", "batch"),
    ("batch", "bytes"): ("MiB of a batch, above the model", "batch"),
}


def draw(found: dict[str, dict[str, list[dict[str, Any]]]], path: Path) -> None:
    """Four panels, both axes logarithmic, the exponents in the legends."""
    made, axes = figure(10, 8, 2, 2)
    for axis, (kind, what) in zip(axes.flat, PANELS, strict=True):
        for name, points in found[kind].items():
            x, y = series(points, kind, what)
            there = [(a, b / 2**20 if what == "bytes" else b) for a, b in zip(x, y, strict=True) if b]
            power = exponent(x, y)
            label = name if power is None else f"{name}: {power:.2f}"
            axis.plot([a for a, _ in there], [b for _, b in there], marker=".", label=label)
        title, across = WORDS[kind, what]
        axis.set(xscale="log", yscale="log", title=f"{title}; exponent", xlabel=across)
        points = next(iter(found[kind].values()))
        axis.set_xticks(series(points, kind, what)[0], [p["size" if kind == "resolution" else "batch"] for p in points])
        axis.set_xticks([], minor=True)
        axis.legend(fontsize=7, frameon=False)
    write(made, path)


def main() -> None:
    """Writes scaling.json and scaling.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="224,320,448,640,896,1280,1792")
    parser.add_argument("--batches", default="1,2,4,8,16,32,64,128,256", help="at the first of the sizes")
    parser.add_argument("--images", type=int, default=64, help="the batch at the first of the sizes")
    parser.add_argument("--dim", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    sizes, batches = numbers("sizes", args.sizes), numbers("batches", args.batches)
    least = sizes[0]
    places = {
        "resolution": [Place(max(1, round(args.images * (least / size) ** 2)), size) for size in sizes],
        "batch": [Place(batch, least) for batch in batches],
    }
    each = sorted(set(places["resolution"] + places["batch"]))
    found: dict[str, dict[str, list[dict[str, Any]]]] = {kind: {} for kind in places}
    for mixer in MIXERS:
        taken = measure(mixer, each, args.dim, args.threads, Turns(args.rounds))
        for kind, where in places.items():
            found[kind][mixer] = [taken[place] for place in where]
        print(f"{mixer}: {flatness(found['resolution'][mixer])}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    powers = {
        f"{what} by {kind}": {name: exponent(*series(points, kind, what)) for name, points in found[kind].items()}
        for kind, what in PANELS
    }
    flat = {name: flatness(points) for name, points in found["resolution"].items()}
    about = {"machine": machine("cpu"), "dim": args.dim, "stride": STRIDE, "rounds": args.rounds, "threads": args.threads}
    result = about | {"exponents": powers, "slowest_over_fastest_per_pixel": flat, "points": found}
    write_text(args.out / "scaling.json", json.dumps(result, indent=1) + "\n")
    draw(found, args.out / "scaling.png")
    print(json.dumps({"exponents": powers, "slowest_over_fastest_per_pixel": flat}, indent=1))


if __name__ == "__main__":
    main()
