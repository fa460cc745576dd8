"""`metaformer mixer check`: does a mixer keep its contract, what does it grow with, and where does it stand?"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import torch

from metaformer.core.device import choose_device
from metaformer.core.spec import to_text
from metaformer.lab import mixer_contract as contract
from metaformer.lab import mixer_forms as forms
from metaformer.lab.bench import machine
from metaformer.lab.mixer_case import Case, Line, first, run_line
from metaformer.lab.mixer_measure import (
    CLASSES,
    FRAME,
    JOBS,
    QUICK,
    SIZE,
    Effort,
    Entry,
    Place,
    Power,
    apart,
    enter,
    grow,
    power,
    race,
    read_mixer,
)
from metaformer.lab.tables import Rows, columns
from metaformer.lab.widths import check_equal
from metaformer.own import FAILURES
from metaformer.runs import write_text

Measured = TypeVar("Measured")
LINES: dict[str, Callable[[Case], str]] = {
    "builds": contract.builds,
    "shape": contract.shape,
    "spec": contract.spec,
    "dtype": contract.dtype,
    "odd sizes": contract.odd_sizes,
    "one pixel": contract.one_pixel,
    "several sizes": contract.several_sizes,
    "finite": contract.finite,
    "input": contract.untouched,
    "gradient": contract.gradient,
    "parameters": contract.parameters,
    "batch": contract.batch,
    "deterministic": contract.deterministic,
    "modes": contract.modes,
    "state": contract.state,
    "copy": contract.copies,
    "channels-last": contract.layout,
    "bf16": partial(contract.half, kind=torch.bfloat16, most=0.1),
    "fp16": partial(contract.half, kind=torch.float16, most=0.02),
    "autocast": contract.autocast,
    "device": contract.other_device,
    "compile": forms.compiles,
    "export": forms.exports,
    "onnx": forms.onnx,
}
"""The contract: name and test of each line, in the order in which they are tried."""
AFTER = "comes after "
FIRST = ("builds", "shape")
"""Lines without which no other can be tried, nor anything measured."""
ANY_SIDES = dict.fromkeys(("export", "onnx"), "odd sizes")
"""Lines that take any sides, and would only say in other words that it does not."""


@dataclass(frozen=True)
class Checked:
    """What was found of a mixer."""

    mixer: str
    dim: int
    lines: tuple[Line, ...]
    places: tuple[Place, ...] = ()
    """What it takes against tokens; nothing where the contract forbids to measure."""
    entries: tuple[Entry, ...] = ()
    """Whole models, the first with this mixer."""
    unmeasured: tuple[str, ...] = ()
    """Why it could not be measured, or compared."""
    equal: str = "parameters"
    quick: bool = False
    machine: dict[str, Any] | None = None

    @property
    def passed(self) -> bool:
        """Whether no line failed."""
        return all(line.state != "failed" for line in self.lines)

    @property
    def powers(self) -> dict[str, Power | None]:
        """What time and memory grow with: `predict seconds`, `train bytes` ..."""
        tokens = [place.tokens for place in self.places]
        found: dict[str, Power | None] = {}
        for job in JOBS:
            found[f"{job} seconds"] = power(tokens, [place.seconds[job] for place in self.places])
            found[f"{job} bytes"] = power(tokens, [place.bytes[job] for place in self.places])
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        powers = {what: None if found is None else asdict(found) for what, found in self.powers.items()}
        return {"passed": self.passed} | asdict(self) | {"exponents": powers}

    def __str__(self) -> str:
        parts = [_contract_text(self)]
        if self.places:
            parts.append(_places_text(self))
        if self.entries:
            parts.append(_entries_text(self))
        parts += self.unmeasured
        return "\n\n".join(parts)


def check(text: str, *, dim: int = 64, device: str = "auto", equal: str = "parameters", quick: bool = False) -> Checked:
    """Tries the contract of the mixer that `text` names, line by line, with `dim` channels; then measures and compares it.

    `text` is as model.mixers= has it: Pooling, `Pooling(window=5)`, `mine.py:Shift`, `package.mixers:Shift`. Compared are
    whole models of 32 pixels, each with one mixer in all blocks, of `equal` parameters or width. Raises ValueError with a
    sentence.
    """
    check_equal(equal)
    where, mixer = choose_device(device), read_mixer(text)
    lines = try_contract(Case(mixer, dim, where, quick))
    if any(line.state != "passed" for line in lines if line.name in FIRST):
        return Checked(to_text(mixer), dim, lines, quick=quick)
    effort, why = QUICK if quick else Effort(), list[str]()
    places = _measured("against tokens", why, lambda: apart(grow, text, dim, where.type, effort))
    entries = _measured("in a model", why, lambda: apart(race, enter(text, equal), where.type, effort))
    return Checked(
        mixer=to_text(mixer),
        dim=dim,
        lines=lines,
        places=tuple(places),
        entries=tuple(entries),
        unmeasured=tuple(why),
        equal=equal,
        quick=quick,
        machine=machine(where.type),
    )


def _measured(how: str, why: list[str], measure: Callable[[], list[Measured]]) -> list[Measured]:
    """What is measured; nothing of a mixer that breaks its contract so that it cannot be, which is added to `why`."""
    try:
        return measure()
    except FAILURES as error:
        why.append(f"It cannot be measured {how}: {type(error).__name__}: {first(error)}")
        return []


def try_contract(case: Case, names: tuple[str, ...] = tuple(LINES)) -> tuple[Line, ...]:
    """What became of each line; after a failure among the first ones the rest is left out, after one of odd sizes what needs
    any."""
    found: list[Line] = []
    for name in names:
        broken = [line.name for line in found if line.name in FIRST and line.state != "passed"]
        broken += [line.name for line in found if line.name == ANY_SIDES.get(name) and line.state == "failed"]
        if broken:
            found.append(Line(name, "left out", f"{AFTER}{broken[0]}"))
        else:
            found.append(run_line(name, LINES[name], case))
    return tuple(found)


def write_checked(found: Checked, file: Path) -> None:
    """Writes it as JSON."""
    write_text(file, json.dumps(found.to_dict(), indent=1) + "\n")


# --- for people -------------------------------------------------------------------------------------------------------


def _contract_text(found: Checked) -> str:
    rows: Rows = [("contract", "", f"of {found.mixer}, {found.dim} channels")]
    failed = [line.name for line in found.lines if line.state == "failed"]
    waiting = [line for line in found.lines if line.why.startswith(AFTER)]
    rows += [(line.name, line.state, line.why) for line in found.lines if line not in waiting]
    said = f"It fails {len(failed)} of {len(found.lines)} lines: {', '.join(failed)}." if failed else "It keeps the contract."
    said += f" The other {len(waiting)} wait for it." if waiting else ""
    return f"{columns(rows)}\n\n{said}"


def _places_text(found: Checked) -> str:
    rows: Rows = [("tokens", "batch", "predict, ms", "train, ms", "predict, MiB", "train, MiB")]
    for place in found.places:
        times = tuple(f"{1000 * place.seconds[job]:.3g}" for job in JOBS)
        memory = tuple("–" if place.bytes[job] is None else f"{(place.bytes[job] or 0) / 2**20:.3g}" for job in JOBS)
        rows.append((f"{place.tokens:,}", str(place.batch), *times, *memory))
    told = {what: "–" if each is None else str(each) for what, each in found.powers.items()}
    rows.append(("exponent", "", *(told[f"{job} {what}"] for what in ("seconds", "bytes") for job in JOBS)))
    head = f"Of one map of {found.dim} channels; exponents are of tokens, with 95 % intervals over the sizes (1 is linear):"
    return f"{head}\n{columns(rows, right=(0, 1, 2, 3, 4, 5))}"


def _entries_text(found: Checked) -> str:
    heads = ("mixer", "dims", "parameters", "MACs", "predict, images/s", "train, images/s", "as fast as yours", "train, MiB")
    rows: Rows = [heads]
    for n, entry in enumerate(found.entries):
        rows.append(
            (
                entry.mixer.strip("(").partition("(")[0] if n else "yours",
                ", ".join(map(str, entry.dims)),
                f"{entry.parameters:,}",
                f"{entry.macs / 1e6:,.1f} M",
                f"{entry.predict:,.0f}",
                f"{entry.train:,.0f}",
                str(entry.ratios["train"]) if n and entry.ratios else "",
                "–" if entry.bytes is None else f"{entry.bytes / 2**20:,.0f}",
            )
        )
    head = f"{FRAME} with one mixer in all blocks, of equal {found.equal}; images of {SIZE} pixels, {CLASSES} classes"
    how = "How many times as fast as yours is of training, with its 95 % interval over the rounds"
    train = f"metaformer train {FRAME} data=... model.mixers='{found.entries[0].mixer}'"
    learns = f"What it learns, beside others: metaformer study {quote(found.mixer)} data=..."
    last = learns if ":" in found.mixer else f"What it learns: {train}"
    if failed := [line.name for line in found.lines if line.state == "failed"]:
        last = f"Mend what fails first: {', '.join(failed)}. {last}"
    return f"{head}.\n{how}:\n{columns(rows, right=(2, 3, 4, 5, 6, 7))}\n\n{last}"
