"""What the bench found: a row per contestant, the summary's ratios, and both as JSON, CSV, Markdown and a picture."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from metaformer.lab.contestants import CEILING, Contestant
from metaformer.lab.turns import Outcome, Ratio, ratio
from metaformer.lab.worker import Cell
from metaformer.runs import write_text


@dataclass(frozen=True)
class Row:
    """One contestant's figures in one cell; what was not measured is None, and `error` says why."""

    model: str
    job: str
    batch: int
    size: int
    contestant: str
    images_per_second: float | None = None
    """Median over the rounds."""
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    """To the cell's baseline: median over the rounds of the ratio within a round, with its 95 % interval."""
    ratio_low: float | None = None
    ratio_high: float | None = None
    gflops: float | None = None
    """2 · MACs · images/s, in 10⁹; training counts three passes."""
    of_ceiling: float | None = None
    """The same over what the machine's matrix product in that precision reaches."""
    peak_mib: float | None = None
    """What a call takes at most above the loaded model."""
    macs: int | None = None
    parameters: int | None = None
    build_seconds: float | None = None
    rounds: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Standing:
    """A cell that was measured."""

    cell: Cell
    baseline: str
    outcomes: list[Outcome]

    @property
    def ran(self) -> list[Outcome]:
        """Those that were measured, the ceiling's aside."""
        return [one for one in self.outcomes if one.rates and one.contestant.owner != CEILING]

    def rows(self) -> list[Row]:
        """A row for each contestant, the fastest first, then what failed, then the ceiling."""
        found = {one.name: one for one in self.outcomes if one.rates}
        base = found.get(self.baseline)
        order = sorted(self.outcomes, key=lambda one: (one.contestant.owner == CEILING, not one.rates, -sum(one.rates)))
        return [self._row(one, base, found.get(f"{CEILING} torch {one.contestant.precision}")) for one in order]

    def _row(self, one: Outcome, base: Outcome | None, top: Outcome | None) -> Row:
        place = (self.cell.model, self.cell.job, self.cell.batch, self.cell.size, one.name)
        if not one.rates or one.built is None:
            return Row(*place, error=one.error)
        ceiling = one.contestant.owner == CEILING
        passes = 3 if self.cell.job == "train" and not ceiling else 1  # backward is to the input and to the weights
        row = Row(
            *place,
            gflops=None if one.built.macs is None else 2e-9 * passes * one.built.macs * one.rate,
            build_seconds=one.built.seconds,
            rounds=len(one.rates),
        )
        if ceiling:
            return row  # its products are no images
        to_base = ratio(one.rates, base.rates) if base else None
        part = None
        if top is not None and top.built is not None and top.built.macs and one.built.macs:
            part = passes * one.built.macs / top.built.macs * ratio(one.rates, top.rates).value
        return replace(
            row,
            images_per_second=one.rate,
            low=min(one.rates),
            high=max(one.rates),
            ratio=None if to_base is None else to_base.value,
            ratio_low=None if to_base is None else to_base.low,
            ratio_high=None if to_base is None else to_base.high,
            of_ceiling=part,
            peak_mib=None if one.peak is None else one.peak / 2**20,
            macs=one.built.macs,
            parameters=one.built.parameters,
        )


# --- the summary ------------------------------------------------------------------------------------------------------

Chosen = Callable[[Contestant], bool]


@dataclass(frozen=True)
class Claim:
    """Ours over theirs, over all cells where both ran: the geometric mean, and the smallest cell."""

    title: str
    cells: int
    mean: float
    least: float
    """The smallest ratio; of memory the largest."""
    least_cell: str
    least_interval: str


def claims(standings: Sequence[Standing]) -> list[Claim]:
    """What can be said of these cells: speeds (more is better), then memory at the largest batch (less is better)."""
    found: list[Claim] = []
    for job in dict.fromkeys(standing.cell.job for standing in standings):
        there = [standing for standing in standings if standing.cell.job == job]
        largest = max(standing.cell.batch for standing in there)
        big = [standing for standing in there if standing.cell.batch == largest]
        for title, mine, theirs in _pairs({(one.contestant.engine, one.contestant.precision) for s in there for one in s.ran}):
            ratios = [(r, s) for s in there if (r := _best(s, mine, theirs, _faster)) is not None]
            found += _claim(f"{job}: {title}, speed", ratios, min)
        for title, mine, theirs in MEMORY[job]:
            ratios = [(r, s) for s in big if (r := _best(s, mine, theirs, _memory)) is not None]
            found += _claim(f"{job}: {title}, peak memory above the model at batch {largest}", ratios, max)
    return found


def _is(precisions: Sequence[str] = (), engine: str = "") -> Chosen:
    return lambda one: (not precisions or one.precision in precisions) and engine in ("", one.engine)


def _pairs(present: set[tuple[str, str]]) -> list[tuple[str, Chosen, Chosen]]:
    """Title, which of ours, which of the peers'."""
    best = [(f"our best {p} over the peers' best {p}", _is([p]), _is([p])) for p in ("fp32", "bf16", "fp16")]
    rest = [
        ("our int8 over the peers' best bf16", _is(["int8"]), _is(["bf16"])),
        ("our int8 over the peers' int8", _is(["int8"]), _is(["int8"])),
        ("our best fp32 over eager fp32", _is(["fp32"]), _is(["fp32"], "torch")),
    ]
    same = [
        (f"ours over the peer, both {engine} {p}", _is([p], engine), _is([p], engine))
        for engine, p in sorted(present)
        if engine in ("torch", "compiled")
    ]
    return best + rest + same


MEMORY: dict[str, list[tuple[str, Chosen, Chosen]]] = {
    "predict": [("our fastest fp32 over eager fp32", _is(["fp32"]), _is(["fp32"], "torch"))],
    "train": [
        (f"ours over the peer, both {engine} {p}", _is([p], engine), _is([p], engine))
        for engine in ("torch", "compiled")
        for p in ("fp32", "bf16")
    ],
}


def _best(
    standing: Standing, mine: Chosen, theirs: Chosen, compare: Callable[[Outcome, Outcome], Ratio | None]
) -> Ratio | None:
    """Our fastest of those chosen with their fastest."""
    ours = [one for one in standing.ran if one.contestant.owner == "ours" and mine(one.contestant)]
    peers = [one for one in standing.ran if one.contestant.owner == "timm" and theirs(one.contestant)]
    if not ours or not peers:
        return None
    return compare(max(ours, key=lambda one: one.rate), max(peers, key=lambda one: one.rate))


def _faster(one: Outcome, other: Outcome) -> Ratio:
    return ratio(one.rates, other.rates)


def _memory(one: Outcome, other: Outcome) -> Ratio | None:
    if one.peak is None or not other.peak:
        return None
    value = one.peak / other.peak
    return Ratio(value, value, value)


def _claim(title: str, ratios: list[tuple[Ratio, Standing]], worst: Callable[..., Any]) -> list[Claim]:
    if not ratios:
        return []
    least, standing = worst(ratios, key=lambda pair: pair[0].value)
    positive = [max(r.value, 1e-9) for r, _ in ratios]
    return [Claim(title, len(ratios), geometric_mean(positive), least.value, standing.cell.title, str(least))]


# --- writing ----------------------------------------------------------------------------------------------------------

HEADINGS = (
    "contestant", "images/s", "range", "ratio (95 %)", "GFLOP/s", "of ceiling", "peak MiB", "MACs", "parameters", "built in",
    "rounds",
)  # fmt: skip


def texts(standing: Standing) -> list[tuple[str, ...]]:
    """The cell's table, its headings first; why somebody failed is a note."""
    return [HEADINGS, *(_text(row) for row in standing.rows())]


def _text(row: Row) -> tuple[str, ...]:
    if row.error is not None:
        return (row.contestant, "failed", *("–",) * (len(HEADINGS) - 2))
    interval = "–" if row.ratio is None else f"{row.ratio:.2f} ({row.ratio_low:.2f}–{row.ratio_high:.2f})"
    return (
        row.contestant,
        _or_dash(row.images_per_second, ",.1f"),
        "–" if row.low is None else f"{row.low:,.1f}–{row.high:,.1f}",
        interval,
        _or_dash(row.gflops, ",.0f"),
        _or_dash(row.of_ceiling, ".0%"),
        _or_dash(row.peak_mib, ",.0f"),
        "–" if row.macs is None else f"{row.macs / 1e9:.2f} G",
        "–" if row.parameters is None else f"{row.parameters / 1e6:.1f} M",
        _or_dash(row.build_seconds, ".0f", " s"),
        str(row.rounds),
    )


def _or_dash(value: float | None, how: str, unit: str = "") -> str:
    return "–" if value is None else format(value, how) + unit


def said(claim: Claim) -> str:
    """A claim in a line."""
    edge = "largest" if "memory" in claim.title else "smallest"
    mean = f"geometric mean {claim.mean:.2f} over {claim.cells} cell{'s' if claim.cells > 1 else ''}"
    return f"{claim.title}: {mean}; {edge} {claim.least_interval}, {claim.least_cell}"


def write_all(folder: Path, about: dict[str, Any], standings: Sequence[Standing], notes: Sequence[str]) -> list[Path]:
    """bench.json, bench.csv and bench.md; the files that were written."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = claims(standings)
    rows = [row for standing in standings for row in standing.rows()]
    rates = {standing.cell.title: {one.name: one.rates for one in standing.outcomes if one.rates} for standing in standings}
    content = about | {
        "notes": list(notes),
        "summary": [asdict(claim) for claim in summary],
        "baselines": {standing.cell.title: standing.baseline for standing in standings},
        "rows": [asdict(row) for row in rows],
        "rates": rates,
    }
    write_text(folder / "bench.json", json.dumps(content, indent=1) + "\n")
    write_text(folder / "bench.csv", _csv(rows))
    write_text(folder / "bench.md", _markdown(about, standings, summary, notes))
    return [folder / f"bench.{kind}" for kind in ("json", "csv", "md")]


def draw(folder: Path, standings: Sequence[Standing]) -> list[Path]:
    """bench.png, where matplotlib is; the files that were written."""
    try:
        from metaformer.lab.plots import bars
    except ImportError:
        return []
    bars([(standing.cell.title, standing.baseline, standing.rows()) for standing in standings], folder / "bench.png")
    return [folder / "bench.png"]


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def _markdown(about: dict[str, Any], standings: Sequence[Standing], summary: Sequence[Claim], notes: Sequence[str]) -> str:
    parts = ["# Bench", "", ", ".join(f"{key} {value}" for key, value in about["machine"].items()), ""]
    parts += [*(f"- {said(claim)}" for claim in summary), ""] if summary else []
    parts += [*(f"- Note: {note}" for note in notes), ""] if notes else []
    for standing in standings:
        head, *body = texts(standing)
        parts += [f"## {standing.cell.title}", "", f"Ratios are to {standing.baseline}.", ""]
        parts += [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
        parts += [*(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in body), ""]
    return "\n".join(parts)
