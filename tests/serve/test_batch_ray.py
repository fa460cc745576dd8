"""The same job on a Ray cluster of two workers here: the same answers, also where a worker is killed in the middle."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.serve.many_images import COUNT, DAMAGED, rows_of, write_images, write_model, write_rows, write_tar
from tests.tiny import command

from metaformer import Predictor
from metaformer.serve.batch.job import Job, run_job
from metaformer.serve.batch.on_ray import Cluster, do_on_ray
from metaformer.serve.batch.work import Work, source_sha256

pytestmark = [
    pytest.mark.slow,  # Ray takes ten seconds to start, and each actor imports torch
    pytest.mark.filterwarnings("ignore"),  # Ray warns of itself: of options to come, of its sockets
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two processors and little memory."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # beside other tests it would starve at 15
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_images(tmp_path_factory.mktemp("images") / "photos")


def job(model: Path, place: Path, *words: object, workers: int = 2) -> Job:
    work = Work("predict", str(model), sha256=source_sha256(str(model)))
    return Job(work, tuple(map(str, words)), str(place), Cluster(workers), size=4)


def test_a_worker_is_killed_in_the_middle(model: Path, images: list[Path], tmp_path: Path) -> None:
    """Each input is once in the results or in the errors, and what is said of it is what a Predictor says."""
    table = write_rows(tmp_path / "a.parquet", group=4)
    killed: list[int] = []
    processes: set[int] = set()
    for state in run_job(job(model, tmp_path / "out", images[0].parent, table)):
        processes |= {one.process for one in state.done}
        if len(state.done) >= 3 and not killed:
            killed.append(state.done[-1].process)
            os.kill(killed[0], signal.SIGKILL)
    assert len(processes) == 3  # two, and the one in the place of the killed one
    assert (state.parts, state.images, state.errors) == (20, 2 * (COUNT - 2), 4)
    good, wrong = rows_of(tmp_path / "out")
    names = [*map(str, images), *(f"{table} row {i}" for i in range(COUNT))]
    expected = Predictor(model, threads=1)(images) * 2
    assert [row["path"] for row in wrong] == [name for i, name in enumerate(names) if i % COUNT in DAMAGED]
    assert [row["path"] for row in good] == [name for i, name in enumerate(names) if i % COUNT not in DAMAGED]
    for row, answer in zip(good, (answer for answer in expected if answer.error is None), strict=True):
        assert (row["label"], row["probability"]) == (answer.label, pytest.approx(answer.top[0][1], abs=2e-6))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["complete"]


def test_begun_here_it_goes_on_there(model: Path, images: list[Path], tmp_path: Path) -> None:
    asked = job(model, tmp_path / "out", images[0].parent)
    here = run_job(replace(asked, cluster=None))
    while len(next(here).done) < 4:
        pass
    here.close()
    states = list(run_job(asked))
    assert (len(states[0].done), len(states[-1].done)) == (4, 10)
    assert len(rows_of(tmp_path / "out")[0]) == COUNT - 2


def test_the_command(model: Path, images: list[Path], here: Path) -> None:
    tar = write_tar(here / "a.tar")
    code, out, err = command("predict", model, tar, images[0], "--out", "labels", "--engine", "ray:torch", "--workers", "1")
    assert (code, out) == (1, "")
    assert err.startswith("a worker opens the model …\n")
    assert "41 images, 2 unreadable; written to labels" in err
    code, _, err = command("embed", model, images[0].parent, "--out", "v.parquet", "--engine", "ray", "--workers", "1")
    assert (code, pq.read_table("v.parquet").num_rows) == (1, COUNT - 2)


def test_what_a_worker_says_is_one_sentence(model: Path, images: list[Path], here: Path) -> None:
    wrong = Work("predict", str(model), engine="nothing")
    with pytest.raises(ValueError, match=r"^no engine 'nothing'"):
        list(run_job(Job(wrong, (str(images[0]),), "out", Cluster(1))))
    with pytest.raises(ValueError, match="the cluster has 0 GPUs and 2 processors, and one worker needs more"):
        list(do_on_ray([0], wrong, "out", Cluster(gpus=1)))


def test_no_ray(model: Path, images: list[Path], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = command("predict", model, images[0], "--out", "labels", "--engine", "ray")
    assert (code, err) == (2, "metaformer: ray is not installed: pip install 'metaformer[ray]'\n")
