"""Speed beside timm's models of the same name: `python -m metaformer.lab.bench`. Needs torch and timm, installs nothing.

The contestants take turns within each round, so that a machine's drift hits all alike; reported are medians, and the
median and range of the ratio to timm's compiled model, round by round.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaformer.core.device import choose_device, choose_precision
from metaformer.runs import write_text
from metaformer.weights.create import create_model

MODELS = ("poolformer_s12", "poolformerv2_s12", "convformer_s18", "caformer_s18")
BASE = "timm compiled"


@dataclass(frozen=True)
class Row:
    """One contestant's figures on one model."""

    model: str
    job: str
    contestant: str
    images_per_second: float
    ratio: float
    """To timm's compiled model: median over the rounds."""
    ratio_min: float
    ratio_max: float
    peak_mib: float | None
    """Peak memory allocated on the GPU while it ran; None on other devices."""


def main(arguments: list[str] | None = None) -> None:
    """Prints a table and writes a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m metaformer.lab.bench", description=__doc__)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--jobs", nargs="*", default=("predict", "train"), choices=("predict", "train"))
    parser.add_argument("--batch", type=int, help="256 on a GPU, 16 elsewhere")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=7.0, help="no new model is begun after this")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    given = parser.parse_args(arguments)
    device = choose_device(given.device)
    precision = choose_precision(given.precision, device)
    batch = given.batch or (256 if device.type == "cuda" else 16)

    rows: list[Row] = []
    until = time.monotonic() + 60 * given.minutes
    for job in given.jobs:
        for name in given.models:
            if time.monotonic() < until:
                rows += compare(name, job, batch, given.size, device, precision, given.rounds)
                sys.stdout.write(table(rows[-4:]) + "\n")
                sys.stdout.flush()
    about = machine(device) | {"precision": str(precision), "batch": batch, "size": given.size, "rounds": given.rounds}
    write_text(given.out, json.dumps(about | {"rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    sys.stdout.write(f"\n{table(rows)}\n\n{json.dumps(about)}\nwritten to {given.out}\n")


def compare(name: str, job: str, batch: int, size: int, device: torch.device, precision: torch.dtype, rounds: int) -> list[Row]:
    """Ours and timm's, eager and compiled."""
    import timm

    makers: dict[str, Callable[[], Any]] = {"ours": lambda: create_model(name), "timm": lambda: timm.create_model(name)}
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    contestants: dict[str, Callable[[], object]] = {}
    for owner, make in makers.items():
        for how in ("eager", "compiled"):
            torch.manual_seed(0)
            model = make().to(device=device, memory_format=torch.channels_last)
            mode = "max-autotune-no-cudagraphs" if job == "train" else "reduce-overhead"
            run = torch.compile(model, mode=mode if device.type == "cuda" else None) if how == "compiled" else model
            contestants[f"{owner} {how}"] = (predicting if job == "predict" else training)(model, run, images, precision)
    speeds: dict[str, list[float]] = {key: [] for key in contestants}
    peaks = {key: _peak(go, device) for key, go in contestants.items()}  # also warms up and compiles
    repeats = {key: max(1, round(0.25 / _seconds(go, 2, device))) for key, go in contestants.items()}
    for _ in range(rounds):
        for key, go in contestants.items():
            speeds[key].append(batch / _seconds(go, repeats[key], device))
    return [_row(name, job, key, speeds, peaks[key]) for key in contestants]


def predicting(model: nn.Module, run: Any, images: Tensor, precision: torch.dtype) -> Callable[[], object]:
    """A forward pass with all weights in `precision`."""
    model.eval().to(precision)
    cast = images.to(precision)

    def go() -> object:
        with torch.inference_mode():
            return run(cast)

    return go


def training(model: nn.Module, run: Any, images: Tensor, precision: torch.dtype) -> Callable[[], object]:
    """Forward, backward and an AdamW step; autocast to `precision`."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=images.device.type == "cuda")
    labels = torch.arange(len(images), device=images.device) % 1000

    def go() -> object:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
            loss = nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return go


def _seconds(go: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Per call."""
    _wait(device)
    started = time.perf_counter()
    for _ in range(repeats):
        go()
    _wait(device)
    return (time.perf_counter() - started) / repeats


def _peak(go: Callable[[], object], device: torch.device) -> float | None:
    """Three calls; what they allocated at most, in MiB, beyond what was there."""
    for _ in range(3):
        go()
    if device.type != "cuda":
        return None
    _wait(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    go()
    _wait(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _row(model: str, job: str, key: str, speeds: dict[str, list[float]], peak: float | None) -> Row:
    ratios = [a / b for a, b in zip(speeds[key], speeds[BASE], strict=True)]
    return Row(model, job, key, statistics.median(speeds[key]), statistics.median(ratios), min(ratios), max(ratios), peak)


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [f"| model | job | contestant | images/s | ratio to {BASE} (range) | peak MiB |", "|---|---|---|---:|---:|---:|"]
    for row in rows:
        ratio = f"{row.ratio:.2f} ({row.ratio_min:.2f}–{row.ratio_max:.2f})"
        peak = "–" if row.peak_mib is None else f"{row.peak_mib:,.0f}"
        lines.append(f"| {row.model} | {row.job} | {row.contestant} | {row.images_per_second:,.1f} | {ratio} | {peak} |")
    return "\n".join(lines)


def machine(device: torch.device) -> dict[str, Any]:
    """What was measured on, and when."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return {"device": name, "threads": threads, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}


if __name__ == "__main__":
    main()
