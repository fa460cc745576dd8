"""How a job was asked for on the command line: here or on Ray, into a file or a folder of parts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from metaformer.data.store import is_remote
from metaformer.infer.exported import is_exported
from metaformer.serve.batch.inputs import only_images
from metaformer.serve.batch.job import Job
from metaformer.serve.batch.on_ray import Cluster
from metaformer.serve.batch.show import ONE_FILE
from metaformer.serve.batch.work import Work, source_sha256


def read_way(engine: str, workers: int | None, gpus: float | None, address: str | None) -> tuple[Cluster | None, str]:
    """What `--engine` says of where (None for this process) and of what runs the model.

    Raises ValueError for options of a cluster where none is asked for.
    """
    where, _, runtime = engine.partition(":")
    if where == "ray":
        return Cluster(workers, gpus or 0.0, address), runtime or "auto"
    for name, value in (("workers", workers), ("gpus", gpus), ("address", address)):
        if value is not None:
            raise ValueError(f"--{name} {value} is for a Ray cluster: add --engine ray")
    return None, (runtime or "auto") if where == "local" else engine


def is_folder(out: str | None) -> bool:
    """Whether answers go into a folder of parts."""
    return out is not None and (is_remote(out) or not Path(out).suffix or Path(out).is_dir())


def check_words(words: Sequence[str]) -> None:
    """Raises ValueError for inputs that are only read by parts."""
    if not only_images(words):
        word = next(word for word in words if not only_images([word]))
        raise ValueError(f"{word} is read by parts: give a folder for these, such as --out labels")


def planned(work: Work, words: Sequence[str], out: str | None, cluster: Cluster | None) -> Job:
    """The job, with the sum of its model's weights. Raises ValueError or OSError: no such model, no place for the answers."""
    if out is None or (work.verb == "predict" and not is_folder(out)):
        said = f", not {out}" if out else ""
        raise ValueError(f"--engine ray writes parts{said}: give a folder for them, such as --out labels")
    suffix = Path(out).suffix.lower()
    if (
        work.verb == "embed"
        and suffix[1:].isalpha()
        and suffix not in ONE_FILE
        and not is_remote(out)
        and not Path(out).is_dir()
    ):
        raise ValueError(
            f"--out {out} is neither {' nor '.join(ONE_FILE)}, nor a folder of parts such as {out[: -len(suffix)]}"
        )
    if work.verb == "embed" and is_exported(work.source) and Path(work.source).is_file():
        raise ValueError(f"{work.source}: an exported file holds no features: give the run that it was exported from")
    source = str(Path(work.source).absolute()) if Path(work.source).exists() else work.source
    return Job(replace(work, source=source, sha256=source_sha256(source)), tuple(words), out, cluster)
