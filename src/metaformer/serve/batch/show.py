"""What `metaformer predict` and `embed` show of a job, and how vectors in parts become one file."""

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np
from rich.console import Console
from rich.progress import Progress

from metaformer.data.find import printable
from metaformer.data.store import is_remote
from metaformer.infer.output import summary
from metaformer.serve.batch.folder import Folder, part_name
from metaformer.serve.batch.job import Job, run_job

ONE_FILE = (".parquet", ".npy")
"""What vectors are written into beside a folder of parts."""
SELDOM = 60.0
"""Seconds between two lines where no bar is shown."""


def show_job(job: Job, file: Path | None = None) -> int:
    """Does a job, telling on the errors' side how far it is. How many inputs could not be read.

    `file` is what the parts are to become, where they do not stay.
    """
    aside = Console(stderr=True, highlight=False, soft_wrap=True)
    states = run_job(job, lambda said: aside.print(said, markup=False))
    state = next(states)
    if state.done:
        aside.print(f"{len(state.done):,} of {state.parts:,} parts were done; the inputs are those listed then", markup=False)
    with _terminated(), Progress(console=aside, transient=True, disable=not aside.is_terminal) as bar:
        shown = bar.add_task("predicting" if job.work.verb == "predict" else "embedding", total=state.parts)
        bar.update(shown, completed=len(state.done))
        told = time.monotonic()
        try:
            for state in states:
                bar.update(shown, completed=len(state.done))
                if not aside.is_terminal and time.monotonic() - told > SELDOM:
                    told = time.monotonic()
                    inputs = f"{state.images + state.errors:,} images"
                    aside.print(f"{len(state.done):,} of {state.parts:,} parts are done, {inputs}", markup=False)
        except (KeyboardInterrupt, SystemExit):
            done = len(state.done)
            with suppress(OSError):  # a bucket that is away
                done = len(Folder(job.place).numbers())  # some may not have been told of
            aside.print(f"{done:,} of {state.parts:,} parts are done: the same command goes on", markup=False)
            raise
    aside.print(summary(state.images + state.errors, state.errors, file or Path(job.place)), markup=False)
    if state.errors and file is None:
        aside.print(f"why: {job.place}/errors", markup=False)
    return state.errors


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM, as a cluster or a container sends it, ends the process with 143 as Ctrl-C does with 130."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def show_embedded(job: Job) -> int:
    """The same; vectors go into one file where the job's place is called so: it then comes from parts beside it."""
    file = Path(job.place)
    if is_remote(job.place) or file.suffix.lower() not in ONE_FILE:
        return show_job(job)
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent} to write {file.name} into")
    parts = f"{job.place}.parts"
    failed = show_job(replace(job, place=parts), file)
    for name, reason in join(Folder(parts), file):
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"{name}: {reason}", markup=False)
    shutil.rmtree(parts)
    return failed


def join(folder: Folder, file: Path) -> list[tuple[str, str]]:
    """Writes all vectors into one file, and gives names and reasons of what has none.

    A Parquet file has the columns path and vector; beside an array of NumPy's lies a text, a name on each line.
    """
    import pyarrow.parquet as pq

    done = folder.done()
    temporary = file.with_name(f".{file.name}.tmp")
    wrong: list[tuple[str, str]] = []
    with folder.reading(part_name(0)) as first:
        schema = pq.read_schema(first)
    count, at = sum(one.images for one in done), 0
    names: list[str] = []
    array = out = None
    if file.suffix.lower() == ".npy":
        array = np.lib.format.open_memmap(temporary, "w+", np.float32, (count, schema.field("vector").type.list_size))
    else:
        out = pq.ParquetWriter(temporary, schema)
    for one in done:
        with folder.reading(part_name(one.part)) as part:
            table = pq.read_table(part)
        if out is not None:
            out.write_table(table)
        if array is not None:
            names += table["path"].to_pylist()
            vectors = table["vector"].combine_chunks().flatten().to_numpy()
            array[at : at + len(table)] = vectors.reshape(len(table), array.shape[1])
            at += len(table)
        if one.errors:
            with folder.reading(f"errors/{part_name(one.part)}") as part:
                wrong += [(printable(row["path"]), row["error"]) for row in pq.read_table(part).to_pylist()]
    if out is not None:
        out.close()
    if array is not None:
        array.flush()
        file.with_suffix(".txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    temporary.replace(file)
    return wrong
