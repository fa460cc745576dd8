"""The folder of a job, here or at an address: its list of inputs, its parts, and what says how far it is.

    manifest.json              what was asked of which model, by the sum of its weights, and which parts are done
    inputs.parquet             every input, a group of rows for each part
    part-00000.parquet         the answers of a part; a part is done when this is there
    errors/part-00000.parquet  the inputs of that part that cannot be read, and why; written before it

Nothing else is remembered, and no file is there by half: so a job may be killed anywhere.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from metaformer.data.store import filesystem, is_remote
from metaformer.serve.batch.inputs import Piece

SCHEMA = 1
MANIFEST, INPUTS, TRIES = "manifest.json", "inputs.parquet", "tries"
PART_NAME = re.compile(r"part-(\d+)\.parquet")
MOST_TRIES = 5
"""How often a part is begun that ends its worker."""


@dataclass(frozen=True)
class Done:
    """A part that is done."""

    part: int
    images: int
    errors: int
    process: int = 0
    """Which process did it, on its machine."""


def part_name(part: int) -> str:
    """What the file of a part is called."""
    return f"part-{part:05d}.parquet"


class Folder:
    """A folder by its path or address. Files get their names when all is in them."""

    def __init__(self, place: str) -> None:
        self.place = place if is_remote(place) else os.path.abspath(place)  # noqa: PTH100  the workers' folder is another one
        self.files, self.path = filesystem(place if is_remote(place) else f"file://{self.place}")
        self.local = None if is_remote(place) else Path(self.place)

    def names(self, below: str = "") -> set[str]:
        """The files in it, or in a folder in it."""
        self.files.invalidate_cache()
        folder = f"{self.path}/{below}".rstrip("/")
        found = self.files.ls(folder, detail=False) if self.files.isdir(folder) else []
        return {str(name).rstrip("/").rpartition("/")[2] for name in found}

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """An open file of it."""
        with self.files.open(f"{self.path}/{name}", "rb") as file:
            yield file

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A file here to be written, which then goes where it belongs."""
        if self.local is None:
            with TemporaryDirectory() as folder:
                yield Path(folder) / "part"
                self.files.put_file(str(Path(folder) / "part"), f"{self.path}/{name}")
            return
        file = self.local / name
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        try:
            yield part
            with part.open("rb+") as written:
                os.fsync(written.fileno())
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """A file that may be there."""
        if self.files.exists(f"{self.path}/{name}"):
            self.files.rm_file(f"{self.path}/{name}")

    def held(self) -> Any:
        """Keeps other jobs of this machine out while it is held. Raises ValueError where one is in."""
        if self.local is None:
            return nullcontext()
        self.local.mkdir(parents=True, exist_ok=True)
        try:
            return FileLock(self.local / ".lock").acquire(timeout=0)
        except Timeout as error:
            raise ValueError(f"another job writes into {self.place}: let it end") from error

    # --- what is in it ------------------------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any] | None:
        """What manifest.json says; None where there is none. Raises ValueError for what we did not write."""
        if MANIFEST not in self.names():
            return None
        with self.reading(MANIFEST) as file:
            raw = file.read()
        try:
            found = json.loads(raw)
            if found["schema"] == SCHEMA and isinstance(found["job"], dict):
                return found
        except (ValueError, LookupError, TypeError):
            pass
        raise ValueError(f"{self.place}/{MANIFEST} is damaged, or of another version: give another --out")

    def write_manifest(self, told: Mapping[str, Any], done: Sequence[Done], parts: int) -> None:
        """What was asked, `told`, and how far it is."""
        done = sorted(done, key=lambda one: one.part)
        rows = [{"part": one.part, "images": one.images, "errors": one.errors} for one in done]
        counts = {key: sum(row[key] for row in rows) for key in ("images", "errors")}
        text = json.dumps({"schema": SCHEMA, **told, "complete": len(rows) == parts, "parts": parts, **counts, "done": rows})
        with self.writing(MANIFEST) as file:
            file.write_text(text + "\n", encoding="utf-8")

    def write_inputs(self, parts: Sequence[Sequence[Piece]]) -> None:
        """The list, once."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema(
            [("part", pa.int32()), ("name", pa.string()), ("place", pa.binary()), ("group", pa.int32()), ("count", pa.int64())]
        )
        with self.writing(INPUTS) as file, pq.ParquetWriter(file, schema) as out:
            for number, pieces in enumerate(parts):
                rows = [
                    {"part": number, "name": one.name, "place": os.fsencode(one.place), "group": one.group, "count": one.count}
                    for one in pieces
                ]
                out.write_table(pa.Table.from_pylist(rows, schema=schema))

    def count_parts(self) -> int:
        """How many parts the list has."""
        import pyarrow.parquet as pq

        with self.reading(INPUTS) as file, pq.ParquetFile(file) as table:
            return table.num_row_groups

    def pieces(self, part: int) -> list[Piece]:
        """What a part reads."""
        import pyarrow.parquet as pq

        with self.reading(INPUTS) as file, pq.ParquetFile(file) as table:
            rows = table.read_row_group(part).to_pylist()
        return [Piece(row["name"], os.fsdecode(row["place"]), row["group"], row["count"]) for row in rows]

    def done(self) -> list[Done]:
        """The parts that are there, counted in their files."""
        numbers = self.numbers()
        wrong = self.names("errors")
        with ThreadPoolExecutor(8) as pool:
            images = pool.map(lambda number: self._rows(part_name(number)), numbers)
            errors = pool.map(lambda name: self._rows(f"errors/{name}") if name in wrong else 0, map(part_name, numbers))
            return [Done(*row) for row in zip(numbers, images, errors, strict=True)]

    def numbers(self) -> list[int]:
        """Of the parts that are there, in order; no file is opened."""
        return sorted(int(match[1]) for name in self.names() if (match := PART_NAME.fullmatch(name)))

    def _rows(self, name: str) -> int:
        import pyarrow.parquet as pq

        with self.reading(name) as file, pq.ParquetFile(file) as table:
            return table.metadata.num_rows

    # --- parts that end their workers ---------------------------------------------------------------------------------

    def begin(self, part: int) -> None:
        """Notes that a part is begun. Raises ValueError where that ended its worker again and again."""
        before = self._tries(part)
        if len(before) >= MOST_TRIES:
            first, *_, last = 2 * self.pieces(part)
            raise ValueError(
                f"part {part} ended its worker {len(before)} times, by an image or for want of memory: it goes from "
                f"{first.name} to {last.name}"
            )
        with self.writing(f"{TRIES}/{part}-{len(before)}") as file:
            file.touch()

    def forget(self, part: int) -> None:
        """Removes the notes of a part that is done."""
        for name in self._tries(part):
            self.files.rm_file(f"{self.path}/{TRIES}/{name}")

    def _tries(self, part: int) -> list[str]:
        return [name for name in self.names(TRIES) if name.startswith(f"{part}-")]

    def has_nothing(self, manifest: Mapping[str, Any]) -> bool:
        """Whether no part was ever done; False of a folder elsewhere, in which another job may be at work."""
        return self.local is not None and not manifest.get("done") and not self.numbers()

    def empty(self) -> None:
        """Removes what a job wrote that did no part; stopped anywhere, it is that job's folder or nobody's."""
        assert self.local is not None
        self.clean()
        shutil.rmtree(self.local / "errors", ignore_errors=True)
        for name in (MANIFEST, INPUTS):
            self.remove(name)

    def clean(self) -> None:
        """Removes what killed jobs left: files that are half written, and notes of parts that were begun."""
        for file in self.local.rglob(".*.parquet.*") if self.local is not None else ():
            file.unlink(missing_ok=True)
        if self.names(TRIES):
            self.files.rm(f"{self.path}/{TRIES}", recursive=True)
