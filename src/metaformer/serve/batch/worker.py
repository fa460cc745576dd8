"""A worker of a job: the model opened once, and a part of the inputs at a time, read, answered and written."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from metaformer.data.find import printable
from metaformer.data.store import is_remote
from metaformer.infer.engines import cores
from metaformer.serve.batch.answers import open_answerer
from metaformer.serve.batch.folder import Done, Folder, part_name
from metaformer.serve.batch.inputs import WRONG, Image, Piece, images_of, read
from metaformer.serve.batch.work import Work, source_sha256

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 10_000
"""Rows of a group in the files that are written, and at most in memory."""
READERS = 8
"""Images at once that are asked for elsewhere."""
In = TypeVar("In")
Out = TypeVar("Out")


class Worker:
    """Opens the model, when it is made, and does parts of the job in a folder. Raises ValueError or OSError with a sentence."""

    def __init__(self, work: Work, place: str) -> None:
        if work.sha256 and source_sha256(work.source) != work.sha256:
            raise ValueError(f"{work.source} has other weights here than where the job was begun")
        self.folder, self.threads = Folder(place), work.threads
        self.answerer = open_answerer(work)

    def __call__(self, part: int) -> Done:
        """Does a part: its errors are written first, then its answers, with which it is done."""
        import pyarrow as pa

        pieces = self.folder.pieces(part)
        wrong: list[tuple[str, str]] = []
        errors = pa.schema({"path": pa.string(), "error": pa.string()}.items())
        with self.folder.writing(part_name(part)) as file, _Rows(file, self.answerer.schema) as rows:
            inputs = self._fitted(pieces)
            while batch := list(islice(inputs, self.answerer.batch)):
                wrong += [(name, fitted) for name, fitted in batch if isinstance(fitted, str)]
                good = [(name, fitted) for name, fitted in batch if not isinstance(fitted, str)]
                if good:
                    rows.add(self.answerer.answer([name for name, _ in good], [fitted for _, fitted in good]))
            if wrong:
                with self.folder.writing(f"errors/{part_name(part)}") as beside, _Rows(beside, errors) as told:
                    told.add(pa.record_batch([list(column) for column in zip(*wrong, strict=True)], schema=errors))
            else:  # one that was killed after it wrote its errors may have found some
                self.folder.remove(f"errors/{part_name(part)}")
        return Done(part, rows.count, len(wrong), os.getpid())

    def _fitted(self, pieces: list[Piece]) -> Iterator[tuple[str, Any]]:
        """Name and fitted image of each input, in order; a text where it cannot be read."""
        readers = READERS if any(is_remote(piece.place) for piece in pieces) else 0
        if self.threads != 1:
            readers = max(readers, self.threads or cores())
        return ahead(self._fit, images_of(pieces), readers, 2 * max(readers, self.answerer.batch))

    def _fit(self, item: tuple[str, Image | Exception]) -> tuple[str, Any]:
        name, image = item
        try:
            if isinstance(image, Exception):
                raise image
            return name, self.answerer.fit(read(image))
        except WRONG as error:
            said = str(error)
            for called in (str(image), "image"):
                said = said.removeprefix(f"{called}: ")
            return name, printable(said)


def ahead(do: Callable[[In], Out], things: Iterable[In], threads: int, most: int) -> Iterator[Out]:
    """What is made of each, in order, by threads that are at most so many ahead; by this one where there are none."""
    if not threads:
        yield from map(do, things)
        return
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[Future[Out]] = deque()
        for thing in things:
            coming.append(pool.submit(do, thing))
            if len(coming) > most:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


class _Rows:
    """Writes record batches into a Parquet file in groups of many rows."""

    def __init__(self, file: Path, schema: "pa.Schema") -> None:
        import pyarrow.parquet as pq

        self.out, self.schema = pq.ParquetWriter(file, schema), schema
        self.waiting: list[pa.RecordBatch] = []
        self.count = self.written = 0

    def add(self, batch: "pa.RecordBatch") -> None:
        """Rows, written when they are many."""
        self.waiting.append(batch)
        self.count += len(batch)
        if self.count - self.written >= ROWS:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa

        self.out.write_table(pa.Table.from_batches(self.waiting, self.schema))
        self.waiting.clear()
        self.written = self.count

    def __enter__(self) -> "_Rows":
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None:
            self._write()
        self.out.close()
