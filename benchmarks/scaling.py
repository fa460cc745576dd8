"""Time and memory of each mixer against resolution, with batch × pixels constant, and against batch, with fitted exponents.

python benchmarks/scaling.py --out docs/images
python benchmarks/scaling.py --model semantic_fpn/poolformerv2_s12 --sizes 512,1024,2048
What is measured is the first half of a block (norm, mixer, residual) as caformer_s18 has it in its third stage: 320 channels,
a token for 16 × 16 pixels; eager, fp32, inference. Two identities show the norms. Each mixer has a process of its own, in
which the places take turns; times are medians of the rounds. An exponent of 1 is linear: in tokens for resolutions, in images
for batches. Time is of one image for resolutions, of the batch for batches, and so is memory, which is above the loaded model.
One thread, for two wait for each other where a call is short. Needs an idle machine for some 8 minutes. With --model it
is a whole model that is measured, an image at a time, from bytes to its answer (a segmenter's is a map), and only printed.
"""

import argparse
import ctypes
import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
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
    create_model,
)
from metaformer.core.layers import Norm
from metaformer.core.mixers import Mixer
from metaformer.core.model import Block
from metaformer.dense.model import Dense
from metaformer.dense.regions import RegionLogits
from metaformer.lab.bench import machine, numbers
from metaformer.lab.plots import figure, write
from metaformer.lab.worker import Ready, peak, timed
from metaformer.runs import write_text

STRIDE = 16
LEAST = 0.2
"""Seconds of a turn."""
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


def half_block(mixer: str, dim: int, place: Place) -> Ready:
    """The first half of a block on a random map."""
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
    return Ready(go, place.batch)


def whole_model(name: str, place: Place) -> Ready:
    """A published model with random weights, on images of random bytes."""
    torch.manual_seed(0)
    model = create_model(name).eval().to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (place.batch, 3, place.size, place.size), dtype=torch.uint8)

    def go() -> object:
        with torch.inference_mode():
            if not isinstance(model, Dense):
                return model(images.to(memory_format=torch.channels_last) / 255)
            found = model(images)
            return found.decode([(place.size, place.size)] * place.batch) if isinstance(found, RegionLogits) else found

    go()
    return Ready(go, place.batch)


def measure(mixer: str, places: Sequence[Place], dim: int, threads: int, rounds: int) -> list[dict[str, Any]]:
    """What a mixer or a model takes in each place: seconds, the median of the rounds, and bytes above the loaded model.

    The places take turns, because it is they that are compared.
    """
    torch.set_num_threads(threads)
    ready = [half_block(mixer, dim, place) if mixer in MIXERS else whole_model(mixer, place) for place in places]
    peaks = [peak(one) for one in ready]
    keep_memory()
    calls = [max(1, math.ceil(LEAST / timed(one, 1))) for one in ready]
    taken: list[list[float]] = [[] for _ in places]
    order = random.Random(0)
    for _ in range(rounds):
        for n in order.sample(range(len(places)), len(places)):
            taken[n].append(timed(ready[n], calls[n]) / calls[n])
    return [
        {
            "size": size,
            "batch": batch,
            "tokens": max(1, size // STRIDE) ** 2,
            "seconds": statistics.median(seconds),
            "bytes": most,
        }
        for (batch, size), seconds, most in zip(places, taken, peaks, strict=True)
    ]


def keep_memory() -> None:
    """From here on glibc keeps what is freed. Else large maps are given back and zeroed anew at every call.

    That takes several times as long as a norm, and whether it happens hangs on what was asked for before.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


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


def flatness(points: Sequence[dict[str, Any]]) -> float:
    """The longest time per token over the shortest."""
    values = [p["seconds"] / (p["batch"] * p["tokens"]) for p in points]
    return max(values) / min(values)


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


def tell_model(name: str, sizes: Sequence[int], threads: int, rounds: int) -> None:
    """Prints a table: side, seconds of an image, nanoseconds of a pixel, memory; then how flat, and the exponents."""
    places = [Place(1, size) for size in sizes]
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        points = process.submit(measure, name, places, 0, threads, rounds).result()
    print("| side | seconds | ns a pixel | MiB above the model |\n|---:|---:|---:|---:|")
    for point in points:
        memory = "–" if point["bytes"] is None else f"{point['bytes'] / 2**20:,.0f}"
        print(f"| {point['size']} | {point['seconds']:.2f} | {1e9 * point['seconds'] / point['size'] ** 2:.0f} | {memory} |")
    powers = ", ".join(f"{what} {exponent(*series(points, 'resolution', what)) or 0:.2f}" for what in ("seconds", "bytes"))
    print(f"per pixel {flatness(points):.2f} from the least to the most; exponents of pixels: {powers}")


def main() -> None:
    """Writes scaling.json and scaling.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="224,320,448,640,896,1280,1792")
    parser.add_argument("--batches", default="1,2,4,8,16,32,64,128,256", help="at the first of the sizes")
    parser.add_argument("--images", type=int, default=64, help="the batch at the first of the sizes")
    parser.add_argument("--dim", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", help="a whole model instead of the mixers")
    args = parser.parse_args()
    sizes, batches = numbers("sizes", args.sizes), numbers("batches", args.batches)
    least = sizes[0]
    places = {
        "resolution": [Place(max(1, round(args.images * (least / size) ** 2)), size) for size in sizes],
        "batch": [Place(batch, least) for batch in batches],
    }
    if args.model:
        tell_model(args.model, sizes, args.threads, args.rounds)
        return
    each = sorted(set(places["resolution"] + places["batch"]))
    found: dict[str, dict[str, list[dict[str, Any]]]] = {kind: {} for kind in places}
    for mixer in MIXERS:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            records = process.submit(measure, mixer, each, args.dim, args.threads, args.rounds).result()
        taken = dict(zip(each, records, strict=True))
        for kind, where in places.items():
            found[kind][mixer] = [taken[place] for place in where]
        print(f"{mixer}: time per token {flatness(found['resolution'][mixer]):.2f} × from the least to the most", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    powers = {
        f"{what} by {kind}": {name: exponent(*series(points, kind, what)) for name, points in found[kind].items()}
        for kind, what in PANELS
    }
    flat = {name: flatness(points) for name, points in found["resolution"].items()}
    about = {"machine": machine("cpu"), "dim": args.dim, "stride": STRIDE, "rounds": args.rounds, "threads": args.threads}
    result = about | {"exponents": powers, "slowest_over_fastest_per_token": flat, "points": found}
    write_text(args.out / "scaling.json", json.dumps(result, indent=1) + "\n")
    draw(found, args.out / "scaling.png")
    print(json.dumps({"exponents": powers, "slowest_over_fastest_per_token": flat}, indent=1))


if __name__ == "__main__":
    main()
