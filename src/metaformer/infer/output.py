"""Predictions for people and for machines: aligned lines, JSON lines, CSV and Parquet files."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from metaformer.data.find import printable
from metaformer.infer.predictor import Prediction

Save = Callable[[Prediction], object]

BAR = 12
"""Width of a probability's bar, in cells of a terminal."""
WIDE = 72
"""Width of a terminal from which on there are bars."""
NEXT = 2
"""How many of the next classes a line shows."""


class Table:
    """Predictions as lines, each ready as soon as it is known: the columns are as wide as paths and classes need.

    With `width`, that of a terminal, nothing is wider than it, long names lose their middle, and a wide one shows bars.
    `following` classes come after the first.
    """

    def __init__(
        self, paths: Sequence[str | Path], classes: Sequence[str], *, width: int | None = None, following: int = NEXT
    ) -> None:
        self.width, self.following = width, following
        self.bar = 0 if width is None or width < WIDE else BAR
        self.path = max([5, *(cell_len(printable(path)) for path in paths)])
        self.label = max([5, *map(cell_len, classes)])
        if width is not None:
            self.label = min(self.label, max(8, width // 4))
            others = (
                self.label
                + 10
                + (self.bar + 2 if self.bar else 0)
                + min(min(NEXT, len(classes) - 1) * (self.label + 8), width // 3)
            )
            self.path = min(self.path, max(8, width - others))

    def header(self) -> Text:
        """What the columns are."""
        bar = " " * (self.bar + 2) if self.bar else ""
        line = f"{'image':{self.path}}  {'class':{self.label}}  {'prob.':>6}  {bar}next"
        return self._cut(Text(line, style="bold"))

    def row(self, answer: Prediction) -> Text:
        """A line: path, class, probability, a bar on a terminal, and the next classes."""
        line = Text(_fit(printable(answer.path), self.path))
        name, value = answer.top[0]
        line.append("  ").append(_fit(name, self.label), style="bold").append(f"  {value:6.1%}")
        if self.bar:
            line.append("  ").append(_blocks(round(value * self.bar * 8)).ljust(self.bar), style=_colour(value))
        rest = "  ".join(f"{name} {value:.1%}" for name, value in answer.top[1 : 1 + self.following])
        line.append(f"  {rest}" if rest else "", style="dim")
        return self._cut(line)

    def _cut(self, line: Text) -> Text:
        line.rstrip()
        if self.width is not None:
            line.truncate(self.width, overflow="ellipsis")
        return line


def _fit(text: str, cells: int) -> str:
    """Padded, or with its middle left out: the end of a path tells more than its middle."""
    if cell_len(text) > cells:
        head = cells // 3
        tail = next(i for i in range(len(text)) if cell_len(text[i:]) <= cells - head - 1)
        text = set_cell_size(text, head) + "…" + text[tail:]
    return set_cell_size(text, cells)


def _blocks(eighths: int) -> str:
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def _colour(probability: float) -> str:
    return "green" if probability >= 0.8 else "yellow" if probability >= 0.5 else "red"


def summary(images: int, failed: int, out: Path | None = None) -> str:
    """How it went, in a line."""
    text = f"{images:,} image{'s' * (images != 1)}, {failed:,} unreadable"
    return text if out is None else f"{text}; written to {out}"


def check_out(out: str | None) -> Path | None:
    """The file to write, if any. Raises ValueError for a suffix that says no format, FileNotFoundError for no folder."""
    if out is None:
        return None
    file = Path(out).expanduser()
    if file.suffix.lower() not in FORMATS:
        raise ValueError(f"--out {out} does not say a format by its suffix: {', '.join(FORMATS)}")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent} to write {file.name} into")
    return file


@contextmanager
def saved(file: Path | None, top: int) -> Iterator[Save]:
    """Gives what writes a prediction, with its `top` best classes. The file has its name only when all is in it."""
    if file is None:
        yield lambda _: None
        return
    temporary = file.with_name(f"{file.name}.tmp")
    try:
        with FORMATS[file.suffix.lower()](temporary, top) as save:
            yield save
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _jsonl(file: Path, top: int) -> Iterator[Save]:
    with file.open("w", encoding="utf-8") as out:
        yield lambda answer: out.write(json_line(answer) + "\n")


def json_line(answer: Prediction) -> str:
    """A prediction as JSON: path, label, probability, top; or path and error."""
    fields = answer.to_dict() | {"path": printable(answer.path)}
    return json.dumps(fields if answer.error is None else fields | {"error": reason(answer)})


def reason(answer: Prediction) -> str | None:
    """Why there is no answer, without the path."""
    return None if answer.error is None else printable(answer.error.removeprefix(f"{answer.path}: "))


def columns(top: int) -> dict[str, type]:
    """Name and type of the columns of a table: one row per image, the best class, the next ones, or the error."""
    more = {f"{what}_{n}": kind for n in range(2, top + 1) for what, kind in (("label", str), ("probability", float))}
    return {"path": str, "label": str, "probability": float, **more, "error": str}


def cells(answer: Prediction) -> dict[str, Any]:
    """What a prediction has for the columns."""
    found: dict[str, Any] = {"path": printable(answer.path), "error": reason(answer)}
    for n, (name, value) in enumerate(answer.top, 1):
        end = "" if n == 1 else f"_{n}"
        found |= {f"label{end}": name, f"probability{end}": round(value, 6)}
    return found


@contextmanager
def _csv(file: Path, top: int) -> Iterator[Save]:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(columns(top)), lineterminator="\n")
        writer.writeheader()
        yield lambda answer: writer.writerow(cells(answer))


@contextmanager
def _parquet(file: Path, top: int) -> Iterator[Save]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), float: pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns(top).items()])
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(file, schema) as out:

        def flush() -> None:
            out.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()

        def save(answer: Prediction) -> None:
            rows.append(cells(answer))
            if len(rows) >= 10_000:
                flush()

        yield save
        flush()


FORMATS = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
