"""`metaformer.study`: every row is trained once, whatever stops it, and what fails is told."""

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.rows import quick_studies
from tests.tiny import QUICK, as_single, command, one_core, write_several
from torch import Tensor, nn

import metaformer
from metaformer import Identity, Pooling, Row, Studied, Study
from metaformer.data.dataset import Data, Taken
from metaformer.data.splits import Encoded
from metaformer.lab import study_asked, study_run, study_worker
from metaformer.lab.study_asked import Wanted
from metaformer.lab.study_locks import Locks
from metaformer.lab.study_results import FILE, read_results, read_right
from metaformer.lab.study_run import plan_study
from metaformer.lab.study_worker import StudyWorker
from metaformer.train.stop import Terminated

pytestmark = [
    pytest.mark.usefixtures("thread"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),  # of a fork, Python 3.12 on
]

STUDY = Study(
    name="tiny",
    rows=(Row("pooling", {"mixers": Pooling()}), Row("identity", {"mixers": Identity()}, published=74.6, note="S12")),
)
SETTINGS = {key: value for key, value in QUICK.items() if key != "changes"}


@pytest.fixture(scope="module", autouse=True)
def quick(run: metaformer.Run) -> Iterator[None]:
    """Nothing takes longer than it must; training a `run` has imported what training takes."""
    with quick_studies():
        yield


def study(fashion: str, root: Path, what: Any = STUDY, **changes: Any) -> Studied:
    options = {"scale": "t4", "seeds": 2, "root": root, "quiet": True, "data": fashion, **SETTINGS}
    return metaformer.study(what, **(options | changes))


@pytest.fixture(scope="module")
def whole(fashion: str, tmp_path_factory: pytest.TempPathFactory) -> Studied:
    """A study that nothing stopped."""
    with one_core():
        return study(fashion, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StudyWorker, "__init__", lambda *_: pytest.fail("trained"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / FILE).read_text().splitlines()]


TIMED = ("seconds", "date", "peak", "study", "device", "threads")


def outcome(found: Studied) -> list[Any]:
    """What neither a clock nor the place decides."""
    told = []
    for one in found.standings:
        for result in one.results:
            curve = [{key: value for key, value in line.items() if key != "seconds"} for line in result.curve]
            told.append((one.row, replace(result, curve=curve, **dict.fromkeys(TIMED)).__dict__))
            told.append(read_right(found.path, result).tolist())
        told.append((one.top1, one.deviation, one.difference))
    return told


# --- what is trained --------------------------------------------------------------------------------------------------


def test_every_row_is_trained_with_every_seed(whole: Studied, fashion: str) -> None:
    known = lines(whole.path)
    assert [(one["row"], one["seed"]) for one in known] == [(r, s) for s in (0, 1) for r in ("pooling", "identity")]
    assert len({one["key"] for one in known}) == 4
    for one in known:
        assert (one["state"], one["why"], one["images"], one["classes"], one["study"]) == ("finished", "", 40, 10, "tiny")
        assert [line["epoch"] for line in one["curve"]] == [1, 2]
        assert one["recipe"]["data"] == fashion
        assert {key: one["recipe"][key] for key in SETTINGS} == SETTINGS
        assert one["parameters"] > 10_000 < one["macs"]
        assert one["seconds"] == pytest.approx(sum(line["seconds"] for line in one["curve"]))
        assert one["versions"]["torch"].startswith(str(torch.__version__).partition("+")[0])
        assert one["machine"].keys() == {"system", "processor", "cuda"}
        assert (one["device"], one["precision"], one["threads"]) == ("cpu", "fp32", 1)
    for key, one in read_results(whole.path).items():
        assert one.top1 == pytest.approx(100 * read_right(whole.path, one).double().mean().item())
        assert (whole.path / "right" / f"{key}.npy").stat().st_size < 200
    assert (whole.left, whole.failures, whole.verdicts) == (0, (), ())
    assert list((whole.path / "runs").glob("*/")) == []
    assert {path.name for path in whole.path.iterdir()} - {"study.lock"} == {
        "results.jsonl", "right", "runs", "study.json", "log.txt", "speeds.json", "table.md", "table.csv",
        "table.tex",
    }  # fmt: skip


def test_a_row_is_what_train_makes_of_it(whole: Studied, fashion: str, tmp_path: Path) -> None:
    changes = {"mixers": "Identity()", "depths": "(1, 1, 1, 1)", "dims": "(16, 16, 32, 32)"}
    settings = SETTINGS | {"changes": changes, "seed": 1, "root": tmp_path, "quiet": True}
    run = metaformer.train("poolformerv2_t6", data=fashion, **settings)
    (mine,) = [one for one in read_results(whole.path).values() if (one.row, one.seed) == ("identity", 1)]
    for line, other in zip(run.metrics, mine.curve, strict=True):
        assert {key: line[key] for key in ("train_loss", "val_loss", "top1")} == {
            key: other[key] for key in ("train_loss", "val_loss", "top1")
        }
    assert mine.top1 == pytest.approx(run.metrics[-1]["top1"])


def test_the_table_says_what_is_known(whole: Studied) -> None:
    text = (whole.path / "table.md").read_text()
    assert "tiny on fashion-mnist: 2 epochs, batch 32, lr 0.005, fp32, scale t4." in text
    assert "| 74.6 (S12) |" in text
    assert "forward, eager, batch 64, float32, 1 thread, median of 2 rounds in turns" in text
    speeds = json.loads((whole.path / "speeds.json").read_text())
    assert [len(rates) for rates in speeds["rates"].values()] == [2, 2]
    base, other = whole.standings
    assert (base.difference, other.difference is not None, other.base) == (None, True, "pooling")
    assert min(one.rate or 0 for one in whole.standings) > 0
    assert other.peak is None or other.peak >= 0
    assert json.loads(json.dumps(whole.to_dict()))["rows"][1]["row"] == "identity"
    assert str(whole).split()[:2] == ["row", "top-1,"]
    assert "* is apart from the row it is compared with" in str(whole)


@pytest.mark.slow
def test_several_at_a_time_come_to_the_same(fashion: str, whole: Studied, tmp_path: Path) -> None:
    assert outcome(study(fashion, tmp_path, jobs=2)) == outcome(whole)


def test_globs_choose_rows_and_what_they_are_compared_with(fashion: str, tmp_path: Path) -> None:
    three = replace(STUDY, rows=(*STUDY.rows, Row("pooling-5", {"mixers": Pooling(window=5)})))
    plan = plan_study(three, {"data": fashion, **SETTINGS}, Wanted(1, "t4", "*-5", root=tmp_path))
    assert [entry.row for entry in plan.entries] == ["pooling", "pooling-5"]
    for globs, said in (("x*", "'x\\*'; allowed: pooling, "), ("pooling,identiti", "'identiti', did you mean identity")):
        with pytest.raises(ValueError, match=f"^no row of tiny matches {said}"):
            plan_study(three, {"data": fashion}, Wanted(1, "t4", globs, root=tmp_path))


# --- what is not trained ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_training")
def test_what_is_done_is_not_trained_again(fashion: str, whole: Studied, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "tiny")
    before = (tmp_path / "tiny" / FILE).read_bytes()
    assert outcome(study(fashion, tmp_path)) == outcome(whole)
    assert (tmp_path / "tiny" / FILE).read_bytes() == before


@pytest.mark.usefixtures("no_training")
def test_what_another_study_did_is_taken_over(fashion: str, whole: Studied, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "tiny")
    renamed = Study(name="other", rows=(Row("base", {"mixers": "Pooling(3)"}), Row("nothing", {"mixers": "Identity"})))
    found = study(fashion, tmp_path, renamed)
    assert [one["row"] for one in lines(found.path)] == ["base", "nothing", "base", "nothing"]
    assert {one["study"] for one in lines(found.path)} == {"tiny"}
    assert [one.top1 for one in found.standings] == [one.top1 for one in whole.standings]
    shutil.rmtree(tmp_path / "tiny")  # it stands by itself
    assert [one.top1 for one in study(fashion, tmp_path, renamed).standings] == [one.top1 for one in whole.standings]


@pytest.mark.usefixtures("no_training")
def test_rows_that_were_renamed_or_are_the_same_are_told_by_the_folder_too(
    fashion: str, whole: Studied, tmp_path: Path
) -> None:
    shutil.copytree(whole.path, tmp_path / "tiny")
    renamed = Study(
        name="tiny",
        rows=(
            Row("base", {"mixers": "Pooling(3)"}),
            Row("twin", {"mixers": Pooling()}),
            Row("identity", {"mixers": Identity()}),
        ),
    )
    found = study(fashion, tmp_path, renamed)
    assert [len(one.finished) for one in found.standings] == [2, 2, 2]
    again = study(fashion, tmp_path, renamed, train=False)
    assert (again.left, again.standings) == (0, found.standings)


def test_data_that_was_moved_is_the_same_data(fashion: str, whole: Studied, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "tiny")
    shutil.copytree(fashion.partition(":")[2], tmp_path / "moved")
    assert study(f"fashion-mnist:{tmp_path / 'moved'}", tmp_path, name="again").left == 0


def test_other_data_is_other_data(fashion: str, whole: Studied, tmp_path: Path) -> None:
    from tests.tiny import write_fashion

    other = write_fashion(tmp_path / "other", train=97)
    plan = plan_study(STUDY, {"data": other, **SETTINGS}, Wanted(2, "t4", root=tmp_path))
    assert not {entry.key for entry in plan.entries} & read_results(whole.path).keys()


def shards(val: bytes = b"c", names: str = "xyz", mean: float = 0.5) -> Data:
    """Three images, as those that lie in large files are given: one after the other, not as a list."""
    labels = torch.tensor([0, 1])
    train = Encoded(Taken([b"a", b"b"], [0, 1]), labels, 3, [*names[:2]])
    return Data(train, Encoded(Taken([val], [0]), labels[:1], 3, [names[2]]), ("p", "q"), 3, None, True, (mean,), (0.25,))


def test_other_images_in_shards_are_other_data() -> None:
    marks = [study_run.mark_of(data) for data in (shards(), shards(b"d"), shards(names="xya"), shards(mean=0.51))]
    assert len(set(marks)) == 4
    assert study_run.mark_of(shards(mean=0.5 + 1e-9)) == marks[0] == study_run.mark_of(shards())


def test_labels_are_what_was_said_of_them(tmp_path: Path) -> None:
    """Not what they look like to the process that trains."""
    table = as_single(write_several(tmp_path / "several"))
    found = study(table, tmp_path, rows="pooling", seeds=1, epochs=1, labels="single")
    assert found.failures == ()
    assert found.standings[0].results[0].classes > 3


def test_results_of_other_images_are_not_compared(whole: Studied, fashion: str, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "tiny")
    first, *rest = lines(tmp_path / "tiny")
    told = [first | {"images": 41, "key": "other"}, *rest]
    (tmp_path / "tiny" / FILE).write_text("".join(json.dumps(line) + "\n" for line in told))
    with pytest.raises(ValueError, match=r"tiny has results of 40 and of 41 images, as its data changed: train it to have"):
        study(fashion, tmp_path, train=False)


def test_more_seeds_are_added(fashion: str, whole: Studied, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "tiny")
    plan = plan_study(STUDY, {"data": fashion, **SETTINGS}, Wanted(3, "t4", root=tmp_path))
    assert [(entry.row, entry.seed) for entry in plan.todo()] == [("pooling", 2), ("identity", 2)]
    again = plan_study(STUDY, {"data": fashion, **SETTINGS}, Wanted(None, "t4", root=tmp_path))
    assert (again.todo(), again.asked.seeds, plan.asked.seeds) == ([], 2, 3)


@pytest.mark.usefixtures("no_training")
def test_what_is_known_of_no_images_is_trained_again(fashion: str, whole: Studied, tmp_path: Path) -> None:
    """Where the file of which images were called right is damaged, its remedy is said, and is one."""
    shutil.copytree(whole.path, tmp_path / "tiny")
    (row, *_) = read_results(tmp_path / "tiny").values()
    file = tmp_path / "tiny/right" / f"{row.key}.npy"
    again = r"start the study once more, and the row pooling is trained again with seed 0$"
    for content in (b"", b"x" * 20, file.read_bytes()[:-1]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{row.key}\.npy is damaged: delete it, {again}"):
            study(fashion, tmp_path, train=False)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{row.key}\.npy is missing: {again}"):
        study(fashion, tmp_path, train=False)
    plan = plan_study(STUDY, {"data": fashion, **SETTINGS}, Wanted(2, "t4", root=tmp_path))
    assert [(entry.row, entry.seed) for entry in plan.todo()] == [("pooling", 0)]


@pytest.mark.usefixtures("no_training")
def test_only_tables_are_made_of_what_is_done(fashion: str, whole: Studied, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "tiny")
    found = study(fashion, tmp_path, seeds=3, train=False)
    assert (found.left, [len(one.finished) for one in found.standings]) == (2, [2, 2])
    (found.path / "claims.md").write_text("of more rows than these")
    study(fashion, tmp_path, rows="pooling", train=False)
    assert not (found.path / "claims.md").exists()


@pytest.mark.usefixtures("no_training")
def test_a_committed_folder_is_drawn_without_its_images(whole: Studied, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it lies, by its folder or its name; the tables are those that training wrote."""
    monkeypatch.setitem(study_asked.STUDIES, "tiny", STUDY)
    shutil.copytree(whole.path, here / "docs/tiny")
    for file in (here / "docs/tiny").glob("*.json*"):
        file.write_text(re.sub('fashion-mnist:[^"]*', "fashion-mnist:gone", file.read_text()))
    written = {name: (whole.path / name).read_text() for name in ("table.md", "table.csv", "table.tex")}
    for words in (["docs/tiny"], ["tiny", "root=docs"]):
        for name in written:
            (here / "docs/tiny" / name).unlink()
        assert command("study", *words, "--draw")[::2] == (0, "")
        assert {name: (here / "docs/tiny" / name).read_text() for name in written} == written
    code, _, err = command("study", "tiny", "root=docs", "lr=1", "--draw")
    assert (code, "docs/tiny is of tiny at scale=t4 and equal=width with data=fashion-mnist:gone" in err) == (2, True)


def test_speeds_are_measured_anew_when_that_is_asked(fashion: str, whole: Studied, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "tiny")
    file = tmp_path / "tiny/speeds.json"
    file.write_text(file.read_text().replace('"rates": {', '"rates": {"old": [1.0],'))
    study(fashion, tmp_path)
    assert json.loads(file.read_text())["rates"].keys() == {"old", "pooling", "identity"}
    found = study(fashion, tmp_path, train=False, measure=True)
    assert json.loads(file.read_text())["rates"].keys() == {"pooling", "identity"}
    assert min(one.rate or 0 for one in found.standings) > 0


# --- two commands at once ---------------------------------------------------------------------------------------------


def test_what_another_study_trains_is_waited_for(
    fashion: str, whole: Studied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is trained once: here by the other, which is done when the first row of ours is."""
    theirs = next(one for one in lines(whole.path) if (one["row"], one["seed"]) == ("pooling", 0))
    other = Locks(tmp_path)
    assert other.take(theirs["key"])
    hear, wait = study_run.Running._hear, study_run.wait

    def heard(self: Any, *arguments: Any) -> None:
        hear(self, *arguments)
        if not (tmp_path / "other").exists() and (tmp_path / "tiny" / FILE).exists():
            shutil.copytree(whole.path, tmp_path / "other", ignore=lambda *_: {FILE})

    def waited(links: list[Any], timeout: float) -> list[Any]:
        if (tmp_path / "other").exists() and other.held:
            (tmp_path / "other" / FILE).write_text(json.dumps(theirs) + "\n")
            other.leave(theirs["key"])
        return wait(links, timeout if links else 0.01)

    monkeypatch.setattr(study_run.Running, "_hear", heard)
    monkeypatch.setattr(study_run, "wait", waited)
    found = study(fashion, tmp_path, seeds=1)
    assert [(one["row"], one["study"], one["seconds"]) for one in lines(found.path)][1:] == [
        ("pooling", "tiny", theirs["seconds"])
    ]
    log = (found.path / "log.txt").read_text()
    assert "1 are being trained for another study: waits for them\n" in log
    assert "pooling, seed 0: finished for another study meanwhile\n" in log
    assert found.left == 0
    assert list((tmp_path / ".training").glob("*")) == []


# --- what is cut short ------------------------------------------------------------------------------------------------


def killed(fashion: str, root: Path, finished: int) -> None:
    """A study in a process that is killed when so many rows are finished and the next one has told of an epoch."""

    def doomed() -> None:
        hear = study_run.Running._hear

        def heard(self: Any, number: int, slots: Any, under_way: dict[int, int]) -> None:
            hear(self, number, slots, under_way)
            if under_way.get(number) and len(read_results(root / "tiny")) == finished:
                os.kill(os.getpid(), signal.SIGKILL)

        study_run.Running._hear = heard  # type: ignore[method-assign]
        study(fashion, root)

    child = get_context("fork").Process(target=doomed)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("finished", [1, pytest.param(0, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_killed_in_the_midst_it_goes_on(fashion: str, whole: Studied, tmp_path: Path, finished: int) -> None:
    """At the step where the row was saved, so that what is in the curve of an epoch done before has the seconds of then."""
    killed(fashion, tmp_path, finished)
    before = lines(tmp_path / "tiny") if finished else []
    assert len(before) == finished
    (cut,) = (tmp_path / "tiny" / "runs").glob("*/metrics.jsonl")
    seconds = json.loads(cut.read_text().splitlines()[0])["seconds"]
    with (tmp_path / "tiny" / FILE).open("a") as file:
        file.write('{"key": "cut sh')  # as if it had been killed while it wrote
    found = study(fashion, tmp_path, models=True)
    assert outcome(found) == outcome(whole)
    after = lines(tmp_path / "tiny")
    assert after[: len(before)] == before
    assert len({one["key"] for one in after}) == len(after) == 4
    assert read_results(tmp_path / "tiny")[cut.parent.name].curve[0]["seconds"] == seconds
    models = {f"{one['row']}-{one['seed']}": one["top1"] for one in after[finished:]}
    assert {path.name for path in (found.path / "models").iterdir()} == models.keys()
    name, top1 = models.popitem()
    assert metaformer.evaluate(found.path / "models" / name, data=fashion).top1 == pytest.approx(top1)


def test_weights_are_kept_though_it_was_killed_before_that(
    fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(study_run, "_move", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            study(fashion, tmp_path, seeds=1, rows="pooling", models=True)
    assert [one["row"] for one in lines(tmp_path / "tiny")] == ["pooling"]
    found = study(fashion, tmp_path, seeds=1, rows="pooling", models=True)
    assert metaformer.evaluate(found.path / "models/pooling-0", data=fashion).top1 == found.standings[0].results[0].top1
    assert list((found.path / "runs").glob("*/")) == []
    shutil.rmtree(found.path / "models")
    study(fashion, tmp_path, seeds=1, rows="pooling", models=True)
    assert "1 rows were trained before, without --models" in (found.path / "log.txt").read_text()


def test_killed_before_it_was_judged_it_is_judged_and_its_peak_is_not_known(
    fashion: str, whole: Studied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(study_worker, "_judged", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        assert study(fashion, tmp_path, rows="pooling", seeds=1).failures != ()
    found = study(fashion, tmp_path, rows="pooling", seeds=1)
    ((one,),) = (standing.results for standing in found.standings)
    theirs = whole.standings[0].results[0]
    assert (one.state, one.top1, one.peak) == ("finished", theirs.top1, None)


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), pytest.param(signal.SIGTERM, Terminated, marks=pytest.mark.slow)],
)
def test_asked_to_stop_it_saves_and_goes_on(
    fashion: str, whole: Studied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[BaseException]
) -> None:
    hear = study_run.Running._hear

    def heard(self: Any, *arguments: Any) -> None:
        hear(self, *arguments)
        signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(study_run.Running, "_hear", heard)
        with pytest.raises(error):
            study(fashion, tmp_path, rows="pooling")
    assert (tmp_path / "tiny" / "log.txt").read_text().endswith("stopped and saved; the same command goes on\n")
    assert not (tmp_path / "tiny" / FILE).exists()
    assert outcome(study(fashion, tmp_path, rows="pooling")) == outcome(whole)[: len(outcome(whole)) // 2]


def test_two_do_not_train_for_one_study(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_run, "WAIT", 0)
    (tmp_path / "tiny").mkdir()
    with study_run.held(tmp_path / "tiny"), pytest.raises(ValueError, match="is being trained for by another process"):
        study(fashion, tmp_path)


# --- what fails -------------------------------------------------------------------------------------------------------


class Deadly(nn.Module):
    """Kills its process where it learns."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled() and x.device.type == "cpu":
            os.kill(os.getpid(), signal.SIGKILL)
        return x


class Faulty(nn.Module):
    """Fails where it learns, in a way that nobody foresaw."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled() and x.device.type == "cpu":
            raise LookupError("no such thing")
        return x


FAULTS = Study(
    name="faults",
    rows=(
        Row("wild", settings={"lr": 1e9, "clip": None}),
        Row("deadly", {"mixers": Deadly}),
        Row("faulty", {"mixers": Faulty}),
        Row("pooling", {"mixers": Pooling()}),
    ),
)


@pytest.mark.usefixtures("own")
def test_a_row_that_fails_is_told_and_the_others_go_on(fashion: str, tmp_path: Path) -> None:
    found = study(fashion, tmp_path, FAULTS, seeds=1)
    states = {one["row"]: one["state"] for one in lines(found.path)}
    assert states == {"wild": "diverged", "deadly": "failed", "faulty": "failed", "pooling": "finished"}
    wild, deadly, faulty = found.failures
    assert wild.startswith("wild, seed 0, diverged: the loss or its gradient became ")
    assert deadly == "deadly, seed 0, failed: its process was ended by SIGKILL"
    assert faulty == "faulty, seed 0, failed: LookupError: no such thing"
    assert "- Did not finish: deadly, seed 0" in (found.path / "table.md").read_text()
    plan = plan_study(FAULTS, {"data": fashion, **SETTINGS}, Wanted(1, "t4", root=tmp_path))
    assert [entry.row for entry in plan.todo()] == ["deadly", "faulty"]  # what diverged would again


@pytest.mark.slow
def test_the_exit_code_says_that_rows_failed(fashion: str, own: Path) -> None:
    (own / "wild.py").write_text(
        "from metaformer import Row, Study\n"
        "STUDY = Study(name='wild', rows=(Row('wild', settings={'lr': 1e9, 'clip': None}), Row('tame')))\n"
    )
    pairs = [f"{key}={value}" for key, value in SETTINGS.items()]
    code, out, err = command("study", "wild.py", f"data={fashion}", "scale=t4", "seeds=1", *pairs)
    assert (code, err) == (1, "")
    assert "did not finish: wild, seed 0, diverged: the loss" in out
    assert "All is in studies/wild: " in out
    assert [one["state"] for one in lines(own / "studies/wild")] == ["diverged", "finished"]
    code, out, _ = command("study", "studies/wild", "--json", "seeds=1")
    assert code == 1
    assert json.loads(out)["left"] == 0


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_folder_is_of_one_study(fashion: str, whole: Studied, tmp_path: Path) -> None:
    shutil.copytree(whole.path, tmp_path / "tiny")
    with pytest.raises(
        FileExistsError, match=r"tiny is of tiny at scale=t4 and equal=width with .*lr=0\.005.*: give this one another name="
    ):
        study(fashion, tmp_path, lr=1e-3)
    with pytest.raises(ValueError, match=r"^nothing is trained yet for .*slow$"):
        study(fashion, tmp_path, lr=1e-3, name="slow", train=False)
    assert not (tmp_path / "slow").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hours": 1.0}, "hours= is not for a study: all rows learn equally long, seeds=N says how often"),
        ({"smoke": True}, "smoke= is not for a study"),
        ({"patience": 2}, "patience= is not for a study: all rows learn equally long"),
        ({"equal": "size"}, "equal=size is not one of parameters, width"),
        ({"lrr": 1.0}, "no setting 'lrr', did you mean lr"),
        ({"devices": 2}, "--devices 2: this computes on cpu, one device; --jobs 2 trains two rows at a time"),
        ({"seeds": 0}, "seeds=0, 1 devices, 1 jobs: each is at least 1"),
        ({"name": "a/b"}, "name=a/b is not the name of one folder"),
        ({"scale": "t7"}, "no scale 't7'; allowed: "),
    ],
)
def test_what_a_study_does_not_take(fashion: str, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        study(fashion, tmp_path, **changes)
    assert not (tmp_path / "tiny").exists()


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_the_command_lists_studies_and_rows(fashion: str) -> None:
    code, out, err = command("study")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == [
        "study", "mixers", "pool-size", "norm", "activation", "branch-scale", "bias", "frame", "hybrid-stages", "depth-width",
        "resolution", "claims", "figure1",
    ]  # fmt: skip
    code, out, err = command("study", "norm", "--list", f"data={fashion}", "scale=t4", "seeds=2")
    assert (code, err) == (0, "")
    assert [line.split()[:4] for line in out.splitlines()[1:]] == [
        ["pooling", "–", "2", "77.2"], ["layernorm", "pooling", "2", "76.5"], ["batchnorm", "pooling", "2", "76.4"],
        ["no-norm", "pooling", "2", "46.1"],
    ]  # fmt: skip
    assert not Path("studies").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nrom"], "no study 'nrom', did you mean norm?\n  metaformer study norm\n"),
        (["norm", "seeds=two"], "seeds=two is not a whole number\n"),
        (["norm", "lrr=1"], "no setting 'lrr', did you mean lr?\n  metaformer study norm lr=1\n"),
        (["figure1", "lr=1"], "lr= is not for figure1, whose figures are published: it takes device=, name=, root=\n"),
        (["figure1", "seeds=3"], "seeds= is not for figure1, whose figures are published: it takes device=, name=, root=\n"),
        *(
            (["figure1", *words], f"{words[0]} is not for figure1, whose figures are published: it takes --draw, --measure\n")
            for words in (["--rows", "a*"], ["--devices", "2"], ["--jobs", "2"], ["--models"], ["--list"], ["--json"])
        ),
    ],
)
@pytest.mark.usefixtures("here")
def test_mistakes_are_one_sentence(words: list[str], said: str) -> None:
    assert command("study", *words) == (2, "", f"metaformer: {said}")


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_study_of_one_s_own_on_the_page_takes_ten_lines(own: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/study.md").read_text()
    (code,) = re.findall(r"^```python\n# shift\.py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (line,) = re.findall(r"^metaformer (study shift\.py .*)$", page, re.MULTILINE)
    assert len([one for one in code.splitlines() if one.strip()]) <= 10
    (own / "shift.py").write_text(code)
    words = line.replace("epochs=3", "epochs=1 image_size=16 scale=t4").replace("seeds=2", "seeds=1").split()
    code, out, err = command(*words)
    assert (code, err) == (0, "")
    assert [one["row"] for one in lines(own / "studies/shift")] == ["pooling", "pooling-5", "shift"]
    assert re.search(r"^shift +\d+\.\d\d \(", out, re.MULTILINE)


# --- slow -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_row_of_every_study_runs_to_its_end(fashion: str, tmp_path: Path) -> None:
    """Rows of several studies are trained once. Nothing in it is a result."""
    from metaformer.lab.studies import STUDIES

    trained = 0
    for name, known in STUDIES.items():
        found = study(fashion, tmp_path, name, seeds=1, epochs=1, train=True)
        assert found.left == 0
        assert [one.row for one in found.standings] == [row.name for row in known.rows]
        assert found.failures == ()
        trained += sum(one["study"] == name for one in lines(found.path))
        assert (found.path / "claims.md").exists() is bool(found.verdicts)
    rows = {row.name for known in STUDIES.values() for row in known.rows}
    assert trained == len(rows)


@pytest.mark.slow
def test_a_row_may_be_another_model_altogether(fashion: str, tmp_path: Path) -> None:
    peers = Study(name="peers", rows=(Row("pooling"), Row("resnet", model="timm:test_resnet", settings={"image_size": 32})))
    found = study(fashion, tmp_path, peers, seeds=1, epochs=1)
    assert (found.failures, found.left) == ((), 0)
    assert [one.results[0].recipe["model"] for one in found.standings] == ["poolformerv2_s12", "timm:test_resnet"]
    assert found.standings[1].rate is not None


def until(done: Any, seconds: float = 60.0) -> None:
    """Waits for it."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.005)


@pytest.mark.slow
def test_a_killed_command_goes_on(fashion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user has it: new processes, SIGKILL, and the very same command."""
    import subprocess

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pairs = [f"{key}={value}" for key, value in SETTINGS.items()]
    words = [sys.executable, "-m", "metaformer", "study", "pool-size", f"data={fashion}", "scale=t4", "seeds=2", *pairs]
    results = tmp_path / "studies/pool-size" / FILE
    first = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL)
    until(lambda: results.exists() and len(results.read_text().splitlines()) >= 3, 120)
    first.kill()
    first.wait()
    before = results.read_text().splitlines()
    subprocess.run(words, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    after = results.read_text().splitlines()
    assert after[: len(before)] == before
    assert len(after) == len({json.loads(line)["key"] for line in after}) == 8
    assert (tmp_path / "studies/pool-size/accuracy.png").stat().st_size > 5000
