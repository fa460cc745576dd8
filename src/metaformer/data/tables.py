"""CSV files that name image files and their classes → what is in them. And what all tables share."""

import csv
import posixpath
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from metaformer.data.blocks import Shards, Whole
from metaformer.data.dataset import Label, Listing, names_of
from metaformer.data.store import Stored, is_remote, look_up, opened

PATH = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img")
LABEL = ("label", "labels", "class", "target", "category", "fine_label")
PART = ("split", "part", "set", "subset")
"""Names that columns are found by, in any case of letters."""
WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What tells a part of the data."""


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    line: int
    path: str
    label: str
    part: str | None


def list_csv(file: Path | str, *, judged: bool = False, labels: str = "auto") -> Listing:
    """The images that a CSV or TSV file names, with their labels.

    Columns are found by name (`path` or `file`, `label` or `class` ...); without such a header the first is the path and
    the second the label. A column `split` (the third, without a header) says train, val or test; without it, nothing says
    which rows judge. Relative paths start at the file's own folder. Labels are integers or text, not a mixture.
    `file` is a path, or as text an address; the images then have addresses too, and are fetched when they are wanted.
    `labels`: single, multi (those of an image stand between `|` or `;`, and there may be none), or auto, multi where there
    is a `|`. With `judged`, only the part that judges is wanted. Raises ValueError with a sentence that names the line.
    """
    rows, notes = _once(read_rows(file), file)
    multi = labels == "multi" or (labels == "auto" and any("|" in row.label for row in rows))
    if multi and labels == "auto":
        notes.append(f"images of {file} have several labels, between |; labels=single would take each text as one")
    mark = separator([row.label for row in rows])
    unlabelled = next((row for row in rows if not row.label), None)
    if unlabelled is not None and not multi:
        raise ValueError(f"line {unlabelled.line} of {file} has no label")
    wanted, told = wanted_parts({row.part for row in rows}, judged=judged)
    rows = [row for row in rows if row.part in wanted]
    found = separate([row.label for row in rows], mark) if multi else [row.label for row in rows]
    _check_labels(rows, found, file)
    items = _files(rows, file) if isinstance(file, Path) else _elsewhere(rows, file)
    parts = [part for row in rows if (part := wanted[row.part]) is not None]
    keys = [row.path for row in rows]
    return Listing(items, keys, found, number_order(names_of(found)), parts or None, (*notes, *told), multi)


def _files(rows: list[Row], file: Path) -> list[Path | bytes]:
    """The files that rows name. Raises ValueError where one is missing."""
    paths = [file.parent / Path(row.path).expanduser() for row in rows]
    missing = [(row, path) for row, path in zip(rows, paths, strict=True) if not path.is_file()]
    if missing:
        row, path = missing[0]
        count = f" ({len(missing):,} of {len(rows):,} files are missing)" if len(missing) > 1 else ""
        header = "; if line 1 is a header, call its columns path and label" if row.line == 1 else ""
        raise ValueError(
            f"line {row.line} of {file}: there is no file {path}{count}; paths start at the table's folder{header}"
        )
    return [*paths]


def _elsewhere(rows: list[Row], address: str) -> Shards:
    """The same where the table has an address; another table is another copy of what it names."""
    table, folder = look_up(address), posixpath.dirname(address)
    web = address.startswith("http")
    paths = [row.path if is_remote(row.path) else f"{folder}/{quote(row.path, '/%') if web else row.path}" for row in rows]
    return Shards([Whole(Stored(path, None, table.version)) for path in paths])


def separator(texts: Sequence[str]) -> str:
    """What stands between the labels of an image: a `|` if there is one, else `;`."""
    return "|" if any("|" in text for text in texts) else ";"


def separate(texts: Sequence[str], mark: str) -> list[Label]:
    """The labels in each text, none twice, in their order."""
    return [tuple(dict.fromkeys(name for part in text.split(mark) if (name := part.strip()))) for text in texts]


def read_rows(file: Path | str) -> list[Row]:
    """The lines of a table. Raises ValueError where it has no rows, or a row lacks its path or label."""
    try:
        with opened(look_up(str(file))) as held:
            text = held.read().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text in UTF-8: {error}") from error
    start = text.split("\n", 1)[0]
    delimiter = "\t" if str(file).lower().endswith(".tsv") else max(",;\t", key=start.count)
    lines = csv.reader(text.splitlines(), delimiter=delimiter)
    cells = [(lines.line_num, [cell.strip() for cell in line]) for line in lines if any(map(str.strip, line))]
    if not cells or len(cells[0][1]) < 2:
        raise ValueError(f"{file} has no two columns, a path and a label, in its first line")
    columns = _columns(cells[0][1], file)
    if columns is None:
        has_parts = all(len(line) > 2 and line[2].lower() in WORDS for _, line in cells)
        columns = (0, 1, 2 if has_parts else None)
    else:
        cells = cells[1:]
    if not cells:
        raise ValueError(f"{file} has a header but no rows")
    return [_row(number, line, columns, file) for number, line in cells]


def _columns(names: list[str], file: Path | str) -> tuple[int, int, int | None] | None:
    """Where path, label and part are, if the first line is a header."""
    lower = [name.lower() for name in names]
    if not set(lower) & {*PATH, *LABEL}:
        return None
    path, label = find_column(names, PATH, "path", file), find_column(names, LABEL, "label", file)
    part = next((lower.index(name) for name in PART if name in lower), None)
    return names.index(path), names.index(label), part


def _row(number: int, line: list[str], columns: tuple[int, int, int | None], file: Path | str) -> Row:
    path, label, part = (None if i is None else line[i] if i < len(line) else "" for i in columns)
    if not path:
        raise ValueError(f"line {number} of {file} has no path")
    if part is not None and part.lower() not in WORDS:
        raise ValueError(f"line {number} of {file}: {part!r} is not one of {', '.join(WORDS)}")
    assert label is not None
    return Row(number, path, label, None if part is None else WORDS[part.lower()])


def _once(rows: list[Row], file: Path | str) -> tuple[list[Row], list[str]]:
    """Each path once. Raises ValueError for a path with two labels or in two parts."""
    first: dict[str, Row] = {}
    for row in rows:
        before = first.setdefault(row.path, row)
        if (before.label, before.part) != (row.label, row.part):
            raise ValueError(f"lines {before.line} and {row.line} of {file} name {row.path} with different labels or splits")
    again = len(rows) - len(first)
    return list(first.values()), [f"rows of {file} that name a file again, left out: {again:,}"] if again else []


def _check_labels(rows: list[Row], labels: Sequence[Label], file: Path | str) -> None:
    """Raises ValueError where most labels are integers and one is not."""
    named = [(row.line, name) for row, label in zip(rows, labels, strict=True) for name in sorted(names_of([label]))]
    others = [(line, name) for line, name in named if not _is_integer(name)]
    if others and len(others) < len(named) / 2:
        line, name = others[0]
        raise ValueError(f"line {line} of {file}: label {name!r} is not an integer, as {len(named) - len(others):,} others are")


def wanted_parts(present: Collection[str | None], *, judged: bool) -> tuple[dict[str | None, str | None], list[str]]:
    """Of the words that tell parts (None where nothing is told), those to be read, each with the part that it becomes
    (None where a split has to be drawn); and what is to be told of it."""
    judging = next((word for word in ("val", "test") if word in present), None)
    if judging is not None and judged:
        return {judging: "val"}, []
    if judging is not None and "train" in present:
        notes = ["the test part picks the best epoch, because there is no val part"] if judging == "test" else []
        notes += ["val judges; test is left alone"] if judging == "val" and "test" in present else []
        return {"train": "train", judging: "val"}, notes
    if "train" in present and not judged:
        return {"train": None}, []
    return dict.fromkeys(present), []


def find_column(names: Sequence[str], known: Sequence[str], what: str, file: Path | str) -> str:
    """The first of the known names that a table has, in any case. Raises ValueError that says what it has."""
    lower = {name.lower(): name for name in reversed(names)}
    found = next((lower[name] for name in known if name in lower), None)
    if found is None:
        raise ValueError(f"{file} has no {what} column: it has {', '.join(names)}, and is searched for {', '.join(known)}")
    return found


def number_order(names: Collection[str]) -> tuple[str, ...] | None:
    """Classes that are all integers, in the order of their values; None where they are not."""
    return tuple(sorted(names, key=int)) if all(map(_is_integer, names)) else None


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", text) is not None
