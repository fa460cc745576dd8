"""Reading caformer_b36 (99 M parameters) from a safetensors file into a model, beside `load_file` and a copy.

python benchmarks/load_weights.py
The ways take turns; a round is each way once. Reported: medians and ranges of seconds and of the ratio of each round, and
the peak memory of a fresh process that makes the model and loads once, over the file's size: the model counts, what the
interpreter and torch hold before anything is made does not and is reported apart.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from metaformer import MetaFormer, create_model, load_weights
from metaformer.weights.convert import convert
from metaformer.weights.pretrained import save_pretrained


def empty_model(name: str) -> MetaFormer:
    """A model without the time and memory of an initialisation; every page of it is in use."""
    with torch.device("meta"):
        model = create_model(name)
    model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.zero_()
    return model


def load_and_copy(model: MetaFormer, path: Path) -> None:
    """What a plain script does with a file in our names; with others it would have to translate first."""
    own = model.state_dict()
    with torch.no_grad():
        for key, tensor in load_file(path).items():
            own[key].copy_(tensor)


WAYS: dict[str, Callable[[MetaFormer, Path], object]] = {
    "the model alone": lambda model, path: None,
    "load_file + copy": load_and_copy,
    "load_file + load_state_dict": lambda model, path: model.load_state_dict(load_file(path)),
    "ours": load_weights,
    "ours, timm's names": load_weights,
}


def most_memory() -> int:
    """Bytes that this process held at most. Linux only: `getrusage` would count the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def peak(name: str, way: str, path: Path) -> int:
    """Bytes that a fresh process held at most, its model included."""
    command = [sys.executable, __file__, "--peak", way, str(path), "--model", name]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def over(peaks: dict[str, list[int]], least: int, size: int) -> dict[str, dict[str, float]]:
    """Each way's memory above `least`, over the file's size."""
    return {way: spread([(value - least) / size for value in values]) for way, values in peaks.items()}


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    """Prints a JSON record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="caformer_b36")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peak", nargs=2, metavar=("WAY", "FILE"), help="load once and print the peak memory in bytes")
    args = parser.parse_args()
    if args.peak:
        way, path = args.peak
        if way != "torch":
            WAYS[way](empty_model(args.model), Path(path))
        print(most_memory())
        return
    model = empty_model(args.model)

    seconds: dict[str, list[float]] = {way: [] for way in WAYS if way != "the model alone"}
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(create_model(args.model), folder)
        ours, timms = Path(folder) / "model.safetensors", Path(folder) / "timm.safetensors"
        convert(folder, timms, to="timm")
        paths = {way: timms if "timm" in way else ours for way in WAYS}
        for done in range(args.rounds + 1):
            for way, taken in seconds.items():
                started = time.perf_counter()
                WAYS[way](model, paths[way])
                if done:  # the first round warms up
                    taken.append(time.perf_counter() - started)
        size = ours.stat().st_size
        least = peak(args.model, "torch", ours)
        peaks = {way: [peak(args.model, way, paths[way]) for _ in range(3)] for way in WAYS}
    base = seconds["load_file + copy"]
    record: dict[str, Any] = {
        "model": args.model,
        "file_bytes": size,
        "seconds": {way: spread(taken) for way, taken in seconds.items()},
        "time_over_load_file_and_copy": {
            way: spread([a / b for a, b in zip(taken, base, strict=True)]) for way, taken in seconds.items()
        },
        "peak_memory_over_file": over(peaks, least, size),
        "torch_alone_bytes": least,
        "rounds": args.rounds,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
