"""A job: inputs listed once, parts done by workers here or on Ray, counted by what is in the folder; begun, or gone on with."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from metaformer.data.store import is_remote
from metaformer.infer.predictor import PAYS
from metaformer.serve.batch.answers import Labels
from metaformer.serve.batch.folder import INPUTS, Done, Folder
from metaformer.serve.batch.inputs import PART, list_parts
from metaformer.serve.batch.on_ray import Cluster, Tell, do_on_ray, silent
from metaformer.serve.batch.work import Work
from metaformer.serve.batch.worker import Worker

OFTEN = 5.0
"""Seconds between two writings of the manifest, which only tells what the parts do."""


@dataclass(frozen=True)
class Job:
    """What is asked of which images, and where the answers go."""

    work: Work
    words: tuple[str, ...]
    """Paths, globs and addresses of the images."""
    place: str
    """The folder, or its address."""
    cluster: Cluster | None = None
    """None for this process."""
    size: int = PART
    """Images of a part."""


@dataclass(frozen=True)
class State:
    """How far a job is."""

    parts: int
    done: tuple[Done, ...]

    @property
    def images(self) -> int:
        """Inputs with an answer."""
        return sum(one.images for one in self.done)

    @property
    def errors(self) -> int:
        """Inputs with none."""
        return sum(one.errors for one in self.done)


def run_job(job: Job, tell: Tell = silent) -> Iterator[State]:
    """Does what is left of a job, and tells how far it is: at the start, and with each part. `tell` is given what takes long.

    Raises ValueError or OSError with a sentence, also where the folder is of another job.
    """
    folder = Folder(job.place)
    with folder.held():
        told = _begun(folder, job)
        parts, done = folder.count_parts(), folder.done()
        yield State(parts, tuple(done))
        left = sorted(set(range(parts)) - {one.part for one in done})
        written = time.monotonic()
        for one in _doing(left, job, folder, tell) if left else ():
            done.append(one)
            if time.monotonic() - written > OFTEN:
                folder.write_manifest(told, done, parts)
                written = time.monotonic()
            yield State(parts, tuple(done))
        folder.clean()
        folder.write_manifest(told, done, parts)


def _doing(left: Sequence[int], job: Job, folder: Folder, tell: Tell) -> Iterator[Done]:
    if job.cluster is not None:
        yield from do_on_ray(left, job.work, folder.place, job.cluster, tell)
        return
    worker = Worker(job.work, folder.place)
    for count, part in enumerate(left, 1):
        began = time.monotonic()
        yield worker(part)
        predictor = worker.answerer.predictor if isinstance(worker.answerer, Labels) else None
        if predictor is not None and predictor.tunes and (time.monotonic() - began) * (len(left) - count) > PAYS:
            predictor.tune()


def _begun(folder: Folder, job: Job) -> dict[str, Any]:
    """What the manifest tells of the job: this one's, or the same one's that was begun. Raises ValueError for another's."""
    told = {"job": job.work.told() | {"inputs": [_plain(word) for word in job.words]}}
    found = folder.manifest()
    then = _plainly(found)
    if found is not None and then != told["job"] and folder.has_nothing(found):  # a slip, perhaps
        folder.empty()
        found = None
    if found is None:
        if any(name for name in folder.names() if not name.startswith(".") and name != INPUTS):
            raise ValueError(f"{folder.place} has other files in it: give another --out")
        parts = list_parts(job.words, job.size)
        folder.write_inputs(parts)
        told |= {"begun": datetime.now(UTC).isoformat(timespec="seconds")}
        folder.write_manifest(told, (), len(parts))
        return told
    for key, value in told["job"].items():
        before = then.get(key)
        if before != value:
            was, now = _shown(key, before), _shown(key, value)
            raise ValueError(f"{folder.place} was begun with {was}, and this is {now}: give another --out")
    folder.clean()
    return {"job": found["job"], "begun": found["begun"]}


def _plainly(manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a manifest tells of its job, with inputs as they would be told now."""
    then: dict[str, Any] = {} if manifest is None else dict(manifest["job"])
    return then | {"inputs": [_plain(word) for word in then.get("inputs") or ()]}


def _plain(word: str) -> str:
    """A path or an address however it is typed, with a slash at its end or without."""
    return (word.rstrip("/") or word) if is_remote(word) else str(Path(word))


def _shown(key: str, value: Any) -> str:
    if key == "inputs":
        return " ".join(value or ["no inputs"])
    return f"other weights ({str(value)[:12]})" if key == "sha256" else f"{key}={value}"
