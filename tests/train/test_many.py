"""One process, two, three: the same weights, the same evaluation; one run directory, one voice."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.many import CASES, WHICH, distance
from tests.tiny import QUICK, one_core, pairs, same, write_fashion, write_several
from tests.tiny import command as inside
from torch.nn.parallel import DistributedDataParallel

import metaformer
from metaformer.config import read_json
from metaformer.core.ranks import ALONE
from metaformer.data.batch import Batch
from metaformer.runs import Run, open_run
from metaformer.tasks.classification import Classification
from metaformer.train import launch
from metaformer.train.step import accumulate

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
Done = list[dict[str, Any]]
"""What each rank has in the end, by case."""


def environment() -> dict[str, str]:
    """A process's, that finds the tests and uses one thread."""
    return os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}


def started(count: int, which: str, words: list[str]) -> subprocess.Popen[str]:
    """So many processes that do some cases."""
    return subprocess.Popen(
        [*TORCHRUN, f"--nproc-per-node={count}", "-m", "tests.many", which, *words],
        env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def all_done(which: str, out: Path, counts: tuple[int, ...]) -> dict[int, Done]:
    """The cases, done by one process, and by so many."""
    words = [str(out), write_fashion(out / "fashion"), write_several(out / "several", 60, 25)]
    together = [started(count, which, words) for count in counts]
    try:
        with one_core():
            alone = WHICH[which](out, *words[1:], ALONE)
        for processes in together:
            said, _ = processes.communicate(timeout=300)
            assert processes.returncode == 0, said
    finally:
        for processes in together:
            processes.kill()
    return {1: [alone]} | {n: [torch.load(out / f"{n}-{rank}.pt") for rank in range(n)] for n in counts}


@pytest.fixture(scope="module", params=["few", pytest.param("cases", marks=pytest.mark.slow)])
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Done]:
    """A few cases, done by one process and two; or every case, by three too."""
    return all_done(request.param, tmp_path_factory.mktemp("many"), (2,) if request.param == "few" else (2, 3))


EVERY = pytest.mark.parametrize("done", [pytest.param("cases", marks=pytest.mark.slow)], indirect=True, scope="module")
"""For what the few cases do not tell."""


def several(done: dict[int, Done]) -> list[tuple[dict[str, Any], Done]]:
    """What one process has, and what the ranks of each number of them have."""
    return [(done[1][0], ranks) for count, ranks in done.items() if count > 1]


def test_weights_do_not_depend_on_the_number_of_processes(done: dict[int, Done]) -> None:
    for alone, ranks in several(done):
        cases = alone.keys() & {*CASES, "several labels"}
        assert "plain in parts" in cases
        for case in cases:
            off = distance(alone[case]["weights"], ranks[0][case]["weights"])
            assert off <= 1e-5, f"{case}, {len(ranks)} processes"
            for ours, theirs in zip(alone[case]["metrics"], ranks[0][case]["metrics"], strict=True):
                assert theirs == pytest.approx(ours, rel=1e-3)


def test_all_ranks_have_the_same_weights(done: dict[int, Done]) -> None:
    for alone, ranks in several(done):
        for other in ranks[1:]:
            for case in alone.keys() & {*CASES, "several labels", "random", "hours"}:
                assert same(ranks[0][case]["weights"], other[case]["weights"]), case
                assert same(ranks[0][case]["average"], other[case]["average"]), case


@pytest.mark.parametrize("what", ["evaluated", "several evaluated"])
def test_an_evaluation_is_the_same_to_the_bit(done: dict[int, Done], what: str) -> None:
    for alone, ranks in several(done):
        for rank in ranks:
            assert torch.equal(rank[what]["logits"], alone[what]["logits"])
            assert torch.equal(rank[what]["labels"], alone[what]["labels"])
            assert rank[what]["summary"] == alone[what]["summary"]


@EVERY
def test_each_rank_draws_its_own_random_numbers_and_learns_as_well(done: dict[int, Done]) -> None:
    for alone, ranks in several(done):
        assert len({tuple(rank["random"]["random"].tolist()) for rank in ranks}) == len(ranks)
        first, last = alone["random"]["metrics"][0], alone["random"]["metrics"][-1]
        fall = first["train_loss"] - last["train_loss"]
        theirs = ranks[0]["random"]["metrics"]
        assert distance(alone["random"]["weights"], ranks[0]["random"]["weights"]) > 1e-4  # other branches were dropped
        assert theirs[-1]["train_loss"] == pytest.approx(last["train_loss"], abs=0.3 * fall)
        assert theirs[-1]["val_loss"] == pytest.approx(last["val_loss"], rel=0.3)


@EVERY
def test_a_run_that_any_rank_is_asked_to_stop_goes_on_exactly(done: dict[int, Done]) -> None:
    for rank in (*done[1], *done[2], *done[3]):
        assert same(rank["random, gone on"]["weights"], rank["random"]["weights"])
        assert rank["random, gone on"]["metrics"] == rank["random"]["metrics"]


@EVERY
@pytest.mark.usefixtures("thread")
def test_another_number_of_processes_takes_over_at_an_epochs_end_only(done: dict[int, Done]) -> None:
    middle, end = done[2][0]["left"]
    assert len(open_run(end).metrics) == 2
    assert read_json(open_run(middle).last / "checkpoint.json")["processes"] == 2
    with pytest.raises(ValueError, match=r"saved in the middle of an epoch by 2 processes.*devices=2"):
        metaformer.train(middle, quiet=True)
    assert not open_run(middle).finished
    assert metaformer.train(end, quiet=True).finished


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # workers are forked from a process with threads
@pytest.mark.parametrize(
    ("which", "bounds"),
    [("slow", {"teacher": 1e-5, "of one's own": 1e-5, "half": 3e-2}), ("compiled", {"compiled": 1e-5})],
)
def test_workers_a_teacher_and_a_compiler_change_nothing(tmp_path: Path, which: str, bounds: dict[str, float]) -> None:
    found = all_done(which, tmp_path, (2,))
    (alone,) = found[1]
    for case, most in bounds.items():
        assert distance(alone[case]["weights"], found[2][0][case]["weights"]) <= most, case
        assert same(found[2][0][case]["weights"], found[2][1][case]["weights"]), case


def test_gradients_are_exchanged_once_a_step(tmp_path: Path) -> None:
    exchanged = []

    def exchange(_: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        exchanged.append(bucket.index())
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        model = DistributedDataParallel(torch.nn.Linear(4, 3))
        model.register_comm_hook(None, exchange)
        accumulate(model, Classification(("a", "b", "c")), [Batch(torch.ones(2, 4), torch.zeros(2, dtype=torch.int64))] * 3)
    finally:
        dist.destroy_process_group()
    assert exchanged == [0]


@pytest.mark.slow
def test_where_one_fails_all_end_and_it_says_why(tmp_path: Path) -> None:
    processes = started(2, "fail", [str(tmp_path), write_fashion(tmp_path / "fashion"), ""])
    try:
        said, _ = processes.communicate(timeout=60)
    finally:
        processes.kill()
    assert processes.returncode != 0
    assert said.count("ValueError: an image that nobody can read") == 1
    assert not list(tmp_path.glob("*.pt"))


def command(*words: str, cwd: Path, seconds: float = 100) -> subprocess.CompletedProcess[str]:
    """`metaformer WORDS` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "metaformer", *words],
        env=environment(), cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_devices_starts_processes_of_which_one_speaks_and_writes(fashion: str, here: Path) -> None:
    words = ["train", "caformer_t6", f"data={fashion}", "name=two", *pairs(QUICK | {"epochs": 1, "device": "cpu"})]
    ended = command(*words, "devices=2", cwd=here)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("Everything is in runs/two") == 1
    assert ended.stdout.count("on cpu in 2 processes") == 1
    log = (here / "runs/two/log.txt").read_text()
    assert log.count("best top-1") == 1
    assert {path.name for path in (here / "runs").iterdir()} == {"two"}
    assert (here / "runs/two/report.html").exists()
    again = command(*words, "devices=2", cwd=here)
    assert again.returncode == 2
    assert again.stderr.count("runs/two exists (caformer_t6, data=fashion-mnist:") == 1
    assert "Traceback" not in again.stderr


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("devices=none", "devices=none is not a whole number from 1 to 1024"),
        ("devices=0", "devices=0 is not a whole number from 1 to 1024"),
        ("epochs=no", "epochs=no is not a whole number"),
        ("epochs=0", "epochs=0 is not at least 1"),
        ("data=nothing-here", "no data 'nothing-here'"),
        ("recipe=smal", "did you mean small?"),
        ("name=a/b", "name=a/b is not the name of one folder"),
        ("name=taken", "runs/taken exists: choose another name="),
    ],
)
def test_what_is_mistyped_starts_nothing(here: Path, word: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_launch", lambda *_: pytest.fail("processes were started"))
    (here / "runs" / "taken").mkdir(parents=True)
    code, out, err = inside("train", "caformer_t6", "devices=2" if "devices" not in word else "epochs=1", word)
    assert (code, out) == (2, "")
    assert sentence in err


def test_a_run_that_so_many_cannot_go_on_with_starts_nothing(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its newest save's JSON says: by how many it was written, and whether in the middle of an epoch."""
    started = list[int]()
    monkeypatch.setattr(launch, "_launch", lambda count, _: started.append(count))
    left = Run(Path(shutil.copytree(run.path, here / "left")))
    kept, about = left.last / "checkpoint.json", left.last / "model.json"
    assert read_json(kept)["processes"] == 1
    assert inside("train", "left", "devices=2") == (0, "", "")  # as at an epoch's end
    about.write_text(json.dumps(read_json(about) | {"step": 1}))
    for saved, rest in ((1, ""), (3, " devices=3")):
        kept.write_text(json.dumps(read_json(kept) | {"processes": saved}))
        code, out, err = inside("train", "left", "devices=2")
        assert (code, out) == (2, "")
        assert err.endswith(f"Go on with as many: metaformer train left{rest}\n")
    assert "by 3 processes, and its random numbers are theirs" in err
    assert inside("train", "left", "devices=3") == (0, "", "")
    code, out, err = inside("train", "left", "devices=3", "epochs=5")
    assert (code, "without settings" in err) == (2, True)
    assert started == [2, 3]


def test_python_says_how_to_start_several(fashion: str) -> None:
    with pytest.raises(ValueError, match=r"devices=2 is for the command: metaformer train; start a script with torchrun"):
        metaformer.train("caformer_t6", data=fashion, devices=2)


def test_other_verbs_are_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert inside("models")[0] == 2
    assert "metaformer models is done by one process: start it without torchrun" in inside("models")[2]
    assert "torchrun has started these: leave it out" in inside("train", "caformer_t6", "devices=2")[2]
