"""How fast rows are: forward passes on this machine, all rows in turns, so that what drifts in the machine hits all alike."""

import json
import math
import random
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import nn

from metaformer.config import read_json
from metaformer.core.device import choose_device, choose_precision
from metaformer.lab.doctor import examine
from metaformer.lab.study import Entry
from metaformer.lab.study_run import Plan
from metaformer.runs import write_text
from metaformer.train.train import prepare

ROUNDS = 7
SECONDS = 0.1
"""What a turn takes at least."""
BATCH = 64


@dataclass(frozen=True)
class Speeds:
    """Images/s by row and round, and how they were measured."""

    rates: dict[str, list[float]]
    keys: dict[str, str]
    """Of each row what its speed depends on."""
    how: str
    machine: str

    @property
    def medians(self) -> dict[str, float]:
        """Images/s by row."""
        return {name: statistics.median(rates) for name, rates in self.rates.items()}


def machine() -> str:
    """What speeds depend on beside the model."""
    known = examine()
    cuda = "" if known["cuda"] == "no" else f", {known['cuda']}"
    return f"{known['processor']}{cuda}, torch {known['torch']}"


def threads() -> str:
    """On how many it computes."""
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"


def measure_rows(plan: Plan, rows: Collection[str], *, batch: int = BATCH, anew: bool = False) -> Speeds:
    """Of rows of a study, kept in speeds.json; measured again, all together, where a row, this machine or its threads are
    new, or with `anew`. Measure while the machine does nothing else."""
    device = choose_device(plan.recipe.device)
    firsts = {entry.row: entry for entry in reversed(plan.entries) if entry.row in rows}
    size = plan.recipe.image_size or plan.data.image_size
    precision = choose_precision(plan.recipe.precision, device)
    keys = {row: _key(entry, size) for row, entry in firsts.items()}
    where = "the GPU" if device.type == "cuda" else threads()
    how = f"forward, eager, batch {batch}, {str(precision).removeprefix('torch.')}, {where}, median of {ROUNDS} rounds in turns"
    known = None if anew else known_speeds(plan.path)
    if known is not None and (known.how, known.machine) == (how, machine()) and keys.items() <= known.keys.items():
        return known
    makers = {row: (lambda entry=entry: _model(entry, plan)) for row, entry in firsts.items()}
    sizes = {row: entry.recipe.image_size or size or 224 for row, entry in firsts.items()}
    rates = in_turns(makers, sizes, plan.data.channels, batch=batch, device=device, precision=precision, rounds=ROUNDS)
    made = Speeds(rates, keys, how, machine())
    write_text(plan.path / "speeds.json", json.dumps(asdict(made), indent=1) + "\n")
    return made


def _key(entry: Entry, size: int | None) -> str:
    side = entry.recipe.image_size or size
    code = f" of {dict(entry.code)}" if entry.code else ""
    return f"{entry.recipe.model if entry.shape is None else entry.shape.to_dict()}{code} at {side}"


def _model(entry: Entry, plan: Plan) -> nn.Module:
    return prepare(entry.recipe, plan.data, None).state.model


def in_turns(
    makers: Mapping[str, Callable[[], nn.Module]],
    sizes: Mapping[str, int],
    channels: int,
    *,
    batch: int,
    device: torch.device,
    precision: torch.dtype,
    rounds: int,
) -> dict[str, list[float]]:
    """Images/s by model and round; the order is drawn anew for each round. `sizes` are the sides of the images."""
    calls: dict[str, Callable[[], None]] = {}
    often: dict[str, int] = {}
    shown = {side: _images(batch, channels, side, device) for side in set(sizes.values())}
    for name, make in makers.items():
        model = make().to(device).eval()
        calls[name] = _call(model, shown[sizes[name]], precision)
        calls[name]()
        often[name] = max(1, math.ceil(SECONDS / max(_seconds(calls[name], 1), 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in makers}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(calls), len(calls)):
            found[name].append(often[name] * batch / _seconds(calls[name], often[name]))
    return found


def _images(batch: int, channels: int, side: int, device: torch.device) -> torch.Tensor:
    return torch.randn(batch, channels, side, side, device=device).contiguous(memory_format=torch.channels_last)


def _call(model: nn.Module, images: torch.Tensor, precision: torch.dtype) -> Callable[[], None]:
    device = images.device.type

    def call() -> None:
        with torch.inference_mode(), torch.autocast(device, precision, enabled=precision != torch.float32):
            model(images)
        if device == "cuda":
            torch.cuda.synchronize()

    return call


def _seconds(call: Callable[[], None], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        call()
    return time.perf_counter() - began


def known_speeds(folder: Path) -> Speeds | None:
    """What was measured for a study, if anything was; nothing where another version wrote it."""
    file = folder / "speeds.json"
    told = read_json(file) if file.is_file() else {}
    return Speeds(**told) if told.keys() == {f.name for f in fields(Speeds)} else None
