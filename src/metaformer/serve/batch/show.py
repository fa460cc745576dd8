"""What `metaformer predict` and `embed` show of a job, and how vectors in parts become one file."""

import shutil
from dataclasses import replace
from pathlib import Path

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


def show_job(job: Job) -> int:
    """Does a job, telling on the errors' side how far it is. How many inputs could not be read."""
    aside = Console(stderr=True, highlight=False, soft_wrap=True)
    states = run_job(job, lambda said: aside.print(said, markup=False))
    state = next(states)
    if state.done:
        aside.print(f"{len(state.done):,} of {state.parts:,} parts were done; the inputs are those listed then", markup=False)
    with Progress(console=aside, transient=True, disable=not aside.is_terminal) as bar:
        shown = bar.add_task("predicting" if job.work.verb == "predict" else "embedding", total=state.parts)
        bar.update(shown, completed=len(state.done))
        try:
            for state in states:
                bar.update(shown, completed=len(state.done))
        except KeyboardInterrupt:
            aside.print(f"{len(state.done):,} of {state.parts:,} parts are done: the same command goes on", markup=False)
            raise
    aside.print(summary(state.images + state.errors, state.errors, Path(job.place)), markup=False)
    if state.errors:
        aside.print(f"why: {job.place}/errors", markup=False)
    return state.errors


def show_embedded(job: Job) -> int:
    """The same; vectors go into one file where the job's place is called so: it then comes from parts beside it."""
    file = Path(job.place)
    if is_remote(job.place) or file.suffix.lower() not in ONE_FILE:
        return show_job(job)
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent} to write {file.name} into")
    parts = f"{job.place}.parts"
    failed = show_job(replace(job, place=parts))
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
