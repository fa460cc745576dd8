"""`metaformer bench`: speed and memory of our models beside timm's, on this machine, in every engine.

`python -m metaformer.lab.bench` does what is usual on this machine, with torch, timm and what they bring; no CLI is needed.
"""

import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from metaformer.core.device import choose_device
from metaformer.infer.engines import cores
from metaformer.lab.contestants import CEILING, ENGINES, PRECISIONS, Contestant, enter
from metaformer.lab.standings import Standing, claims, draw, said, texts, write_all
from metaformer.lab.tables import columns
from metaformer.lab.turns import Turns, compete
from metaformer.lab.worker import Cell
from metaformer.weights.peers import PREFIX
from metaformer.zoo import get_config

MODELS = {
    "predict": ("poolformer_s12", "poolformerv2_s12", "convformer_s18", "caformer_s18"),
    "train": ("poolformerv2_s12", "caformer_s18"),
}
"""What is measured unless models are named."""
JOBS = tuple(MODELS)
Say = Callable[[str], object]


@dataclass(frozen=True)
class Plan:
    """What is measured; what is empty is as usual on the device."""

    models: tuple[str, ...] = ()
    """Names of the zoo, and `timm:NAME` for peers of another name, which join every cell."""
    jobs: tuple[str, ...] = ("predict",)
    engines: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    sizes: tuple[int, ...] = (224,)
    peers: bool = True
    """Whether timm's model of the same name takes part."""
    leave_out: tuple[str, ...] = ()
    """Globs of contestants' names."""
    baseline: str | None = None
    """What ratios are to: a contestant's name; else timm's eager fp32 on a processor, its compiled bf16 on a GPU."""
    minutes: float = 14.0
    """In which all is done: rounds become fewer, and what is not measured is told."""
    device: str = "auto"
    turns: Turns = Turns()

    def __post_init__(self) -> None:
        for what, given, allowed in (
            ("job", self.jobs, JOBS), ("engine", self.engines, ENGINES), ("precision", self.precisions, PRECISIONS),
        ):  # fmt: skip
            for word in given:
                if word not in allowed:
                    near = get_close_matches(word, allowed, n=1)
                    known = f", did you mean {near[0]}?" if near else f": {', '.join(allowed)}"
                    raise ValueError(f"no {what} {word!r}{known}")
        if not self.jobs:
            raise ValueError(f"no job: {', '.join(JOBS)}")
        if min(*self.batches, *self.sizes, self.turns.rounds, 1, 1) < 1 or not self.sizes or self.minutes <= 0:
            raise ValueError("batches, sizes, rounds and minutes are at least 1")
        for name in self.models:
            if not name.startswith(PREFIX):
                get_config(name)


def bench(plan: Plan, out: Path, say: Say) -> list[Standing]:
    """Measures, saying each cell's table as soon as it is known; writes bench.json, .csv, .md and .png into `out`.

    Raises ValueError with a sentence for what there is not.
    """
    began = time.monotonic()
    device = choose_device(plan.device).type
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device={device} cannot be measured: --device cpu or cuda")
    out.mkdir(parents=True, exist_ok=True)
    notes = [f"left out as asked: {glob}" for glob in plan.leave_out]
    standings: list[Standing] = []
    about = {"machine": machine(device), "plan": asdict(plan)}
    with tempfile.TemporaryDirectory() as folder:
        cells = _cells(plan, device, Path(folder), notes)
        end = began + 60 * plan.minutes
        for left, (cell, field) in zip(range(len(cells), 0, -1), cells, strict=True):
            now = time.monotonic()
            if now >= end:
                notes.append(f"{cell.title}: not measured, time was up")
                continue
            outcomes = compete(cell, field, plan.turns, until=now + (end - now) / left, end=end)
            standing = Standing(cell, _baseline(plan, device, [one.name for one in outcomes if one.rates]), outcomes)
            standings.append(standing)
            notes += _shortened(standing, plan.turns.rounds)
            say(f"\n{cell.title}; ratios are to {standing.baseline}\n{columns(texts(standing), right=tuple(range(1, 11)))}\n")
            write_all(out, about, standings, notes)  # a bench that is cut short has said what it found
    if not standings:
        raise ValueError(f"nothing was measured in {plan.minutes:g} minutes: more --minutes, or fewer models")
    files = write_all(out, about, standings, notes) + draw(out, standings)
    lines = [*(said(claim) for claim in claims(standings)), *(f"note: {note}" for note in notes)]
    say("\n" + "\n".join(lines) + f"\n\nwritten: {', '.join(map(str, files))}; {(time.monotonic() - began) / 60:.1f} minutes\n")
    return standings


def words(text: str) -> tuple[str, ...]:
    """What a comma lies between."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(what: str, text: str) -> tuple[int, ...]:
    """Whole numbers between commas. Raises ValueError for anything else."""
    try:
        return tuple(int(word) for word in words(text))
    except ValueError:
        raise ValueError(f"{what}={text} is not whole numbers, such as 1,16") from None


def _cells(plan: Plan, device: str, folder: Path, notes: list[str]) -> list[tuple[Cell, list[Contestant]]]:
    """The comparisons in their order, with their contestants. Raises ValueError where nobody takes part."""
    engines = plan.engines or (ENGINES if device == "cpu" else ("torch", "compiled"))
    precisions = plan.precisions or (("fp32", "bf16") if device == "cpu" else ("bf16",))
    others = [name.removeprefix(PREFIX) for name in plan.models if name.startswith(PREFIX)]
    mine = [name for name in plan.models if not name.startswith(PREFIX)]
    cells: list[tuple[Cell, list[Contestant]]] = []
    for job in plan.jobs:
        models = mine or ([PREFIX + others[0]] if others else MODELS[job])
        usual = {"cpu": {"predict": (1, 16), "train": (16,)}}.get(device, {"predict": (256, 1), "train": (256,)})[job]
        for model in models:
            same = [model] if plan.peers and not model.startswith(PREFIX) and _timm_has(model, notes) else []
            for size in plan.sizes:
                for batch in plan.batches or usual:
                    cell = Cell(job, model, batch, size, device, cores(), folder)
                    cells.append((cell, enter(cell, engines, precisions, [*same, *others], plan.leave_out)))
    _check(plan, cells)
    cells.sort(key=lambda pair: -pair[0].batch)  # where time is short, large batches say more
    return cells


def _check(plan: Plan, cells: Sequence[tuple[Cell, list[Contestant]]]) -> None:
    names = sorted({one.name for _, field in cells for one in field if one.owner != CEILING})
    if not names:
        raise ValueError("nobody takes part: fewer --leave-out, or other --engine, --precision, --device")
    if plan.baseline is not None and plan.baseline not in names:
        near = get_close_matches(plan.baseline, names, n=1)
        known = f", did you mean {near[0]}?" if near else f"; there are: {', '.join(names)}"
        raise ValueError(f"no contestant {plan.baseline!r} for a baseline{known}")


def _timm_has(name: str, notes: list[str]) -> bool:
    import timm

    if timm.is_model(name):
        return True
    note = f"timm has no {name}: it has no peer of its name"
    if note not in notes:
        notes.append(note)
    return False


def _baseline(plan: Plan, device: str, ran: Sequence[str]) -> str:
    """The wanted one if it ran, else the first of what is usual, else anybody."""
    usual = ("timm torch fp32", "timm torch bf16") if device == "cpu" else ("timm compiled bf16", "timm torch bf16")
    wanted = [plan.baseline] if plan.baseline else []
    return next((name for name in [*wanted, *usual, *ran] if name in ran), "nobody")


def _shortened(standing: Standing, rounds: int) -> list[str]:
    """What a cell's table lacks."""
    done = max((len(one.rates) for one in standing.outcomes), default=0)
    few = [f"{standing.cell.title}: {done} of {rounds} rounds, for want of time"] if 0 < done < rounds else []
    return few + [f"{standing.cell.title}: {one.name}: {one.error}" for one in standing.outcomes if one.error]


def machine(device: str) -> dict[str, Any]:
    """What was measured on, and when."""
    found: dict[str, Any] = {"device": torch.cuda.get_device_name() if device == "cuda" else _processor(), "threads": cores()}
    for name in ("metaformer", "torch", "timm", "openvino", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found | {"python": platform.python_version(), "date": time.strftime("%Y-%m-%d")}


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    """What is usual on this machine, within eight minutes; results go to the folder `bench`."""

    def say(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    gpu = choose_device("auto").type == "cuda"
    bench(Plan(jobs=JOBS if gpu else ("predict",), minutes=7.0 if gpu else 14.0), Path("bench"), say)


if __name__ == "__main__":
    main()
