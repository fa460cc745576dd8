"""The parts of a job on a Ray cluster, or on Ray's processes here: Ray Data hands them to actors that each hold the model.

A part travels as its number alone: actors read their images and write their answers themselves, so nothing large is ever in
Ray's memory, and what comes back is how many there were. An actor that dies is started again, and its part done again.
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from metaformer.infer.engines import cores
from metaformer.serve.batch.folder import Done
from metaformer.serve.batch.work import Work
from metaformer.serve.batch.worker import Worker

STORE = 200 * 2**20
"""Bytes of shared memory for Ray here; next to nothing is put there."""

PATIENCE = 10.0
"""Seconds for a cluster to be met."""
Tell = Callable[[str], None]
"""What is given a line for whoever waits."""


def silent(said: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Cluster:
    """Who does the work."""

    workers: int | None = None
    """Processes that hold the model; None for as many as there are processors, or GPUs, for."""
    gpus: float = 0.0
    """Of each worker; 0.5 lets two share one."""
    address: str | None = None
    """Of a cluster's head, such as auto or HOST:6379; None for processes here, or what $RAY_ADDRESS says."""

    def __post_init__(self) -> None:
        if self.address is not None and self.address.startswith("ray://"):
            raise ValueError(
                f"--address {self.address} is a client's, which Ray Data does not run from: --address auto on a machine of the "
                "cluster, or ray job submit"
            )
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers {self.workers} is not at least 1")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise ValueError(f"--gpus {self.gpus:g} is for each worker: a part of one, such as 0.5, or a whole number")


class Actor:
    """A worker as Ray Data calls one. What it has to say is told as a row, for Ray buries what is raised in its own words."""

    def __init__(self, work: Work, place: str) -> None:
        self.work, self.place = work, place
        self.worker: Worker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Does the part of a batch, and notes before that it is begun: an actor that died is started again without end."""
        part = int(batch["part"][0])
        try:
            if self.worker is None:
                self.worker = Worker(self.work, self.place)
            self.worker.folder.begin(part)
            told = asdict(self.worker(part)) | {"said": ""}
            self.worker.folder.forget(part)
        except (OSError, ValueError) as error:
            told = asdict(Done(part, 0, 0)) | {"said": str(error)}
        return {key: np.array([value]) for key, value in told.items()}


def do_on_ray(parts: Sequence[int], work: Work, place: str, cluster: Cluster, tell: Tell = silent) -> Iterator[Done]:
    """Does the parts, in whatever order; what takes long before the first one is told.

    Raises ValueError with a sentence: no Ray, no such cluster, or a worker's own.
    """
    ray = _ray()
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if address is not None and not ray.is_initialized():
        _check_reached(address)
    threads = work.threads or 1
    if not ray.is_initialized():
        tell("starting Ray …")
    with _running(ray, address, cluster, threads):
        workers = cluster.workers or _room(ray, cluster, threads, len(parts))
        work = replace(work, threads=threads, device="cpu" if work.device == "auto" and not cluster.gpus else work.device)
        told = min(workers, len(parts))
        tell("a worker opens the model …" if told == 1 else f"{told} workers open the model …")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        data = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map_batches(
            Actor,
            fn_constructor_args=(work, place),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=told, max_tasks_in_flight_per_actor=1),
            num_cpus=threads,
            num_gpus=cluster.gpus or None,
        )
        try:
            for row in data.iter_rows():
                if row["said"]:
                    raise ValueError(str(row["said"]))
                yield Done(**{key: int(value) for key, value in row.items() if key != "said"})
        except ray.exceptions.RayError as error:
            raise ValueError(f"Ray ended the job, which may be gone on with: {str(error).strip().splitlines()[-1]}") from error


def _ray() -> Any:
    """Ray, which reports nothing to anybody. Raises ValueError with what to type where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 is for machines that have something else to do
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError("ray is not installed: pip install 'metaformer[ray]'") from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


@contextmanager
def _running(ray: Any, address: str | None, cluster: Cluster, threads: int) -> Iterator[None]:
    """Ray as it runs already, on the cluster asked for, or started here and ended again."""
    if ray.is_initialized():
        yield
        return
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        with _hushed(), _own_signals():
            if address is None:
                room = threads * (cluster.workers or max(1, cores() // threads))
                ray.init(address="local", num_cpus=room, object_store_memory=STORE, include_dashboard=False, **quiet)
            else:
                ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())[:160]
        token = "" if address is None else "; one that has a token is met with RAY_AUTH_MODE=token"
        raise ValueError(f"no Ray cluster at {address or 'this machine'}: {said}{token}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reached(address: str) -> None:
    """Raises ValueError where nobody listens at HOST:PORT, for which Ray waits in silence."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        raise ValueError(f"no Ray cluster at {address}: {error.strerror or error}") from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """SIGTERM means what it meant; Ray would abort with a trace."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _hushed() -> Iterator[None]:
    """What Ray's C++ says as it starts, of its own log level, goes nowhere; what goes wrong is raised."""
    sys.stderr.flush()
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _room(ray: Any, cluster: Cluster, threads: int, most: int) -> int:
    """How many workers the cluster has room for."""
    there = ray.cluster_resources()
    gpus, processors = there.get("GPU", 0), there.get("CPU", 0)
    room = gpus / cluster.gpus if cluster.gpus else processors / threads
    if room < 1:
        raise ValueError(f"the cluster has {gpus:g} GPUs and {processors:g} processors, and one worker needs more")
    return min(int(room), most)
