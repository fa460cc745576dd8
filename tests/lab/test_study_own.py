"""Studies with code of one's own: from one mixer and one command to the table, and what happens as its file changes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rows import quick_studies
from tests.tiny import QUICK, command, forget, pairs

import metaformer
from metaformer.lab import study_worker
from metaformer.lab.study_results import FILE, read_results
from metaformer.lab.study_run import Wanted, plan_study
from metaformer.lab.study_worker import StudyWorker

pytestmark = [
    pytest.mark.usefixtures("thread"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),  # of a fork, Python 3.12 on
]
PAGE = (Path(__file__).parents[2] / "docs/mixer.md").read_text()
MINE = """
from torch import nn
from beside import SIZE

class Mine(nn.Conv2d):
    def __init__(self, dim):
        super().__init__(dim, dim, SIZE)
"""
SETTINGS = {key: value for key, value in QUICK.items() if key != "changes"} | {"epochs": 1}


@pytest.fixture(scope="module", autouse=True)
def quick(run: metaformer.Run) -> Iterator[None]:
    """Nothing takes longer than it must; training a `run` has imported what training takes."""
    with quick_studies():
        yield


@pytest.fixture
def words(own: Path, fashion: str) -> list[str]:
    """What makes a study a short one of two rows; mine.py and beside.py lie in the current folder."""
    (own / "mine.py").write_text(MINE)
    (own / "beside.py").write_text("SIZE = 1")
    return ["--rows", "pooling,Mine", "--models", "scale=t4", "seeds=1", *pairs(SETTINGS | {"data": fashion})]


def trained(folder: str) -> list[str]:
    """Rows, in the order in which they were trained."""
    return [json.loads(line)["row"] for line in (Path(folder) / FILE).read_text().splitlines()]


def studied(*words: str) -> None:
    """As in a new process."""
    forget(Path.cwd())
    code, _, err = command("study", *words)
    assert (code, err) == (0, "")


# --- the tutorial -----------------------------------------------------------------------------------------------------


def test_a_stranger_comes_from_nothing_to_a_compared_mixer(own: Path) -> None:
    """By the page: its mixer of at most 15 lines, and its one command, with a smaller model, one seed and one epoch."""
    (code,) = re.findall(r"^cat > mine\.py <<'END'\n(.*?)^END$", PAGE, re.MULTILINE | re.DOTALL)
    (line,) = re.findall(r"^metaformer (study mine\.py:Gate .*)$", PAGE, re.MULTILINE)
    assert len(code.splitlines()) <= 15
    (own / "mine.py").write_text(code)
    short = ("seeds=1", "scale=t4", "batch=256", "--rows", "pooling,Gate")
    code, out, err = command(*line.replace("epochs=3", "epochs=1").split(), *short)
    assert (code, err) == (0, "")
    assert re.findall(r"^(\w+) +\d+\.\d\d \(", out, re.MULTILINE) == ["pooling", "Gate"]


# --- a file that changes ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_computes_something_else_is_trained_again_and_it_alone(own: Path, words: list[str]) -> None:
    studied("mine.py:Mine", *words)
    assert trained("studies/mine") == ["pooling", "Mine"]
    (own / "mine.py").write_text(MINE + "# a remark\n")
    studied("mine.py:Mine", *words)
    assert trained("studies/mine") == ["pooling", "Mine"]
    (own / "beside.py").write_text("SIZE = (1, 1)")
    studied("mine.py:Mine", *words)
    assert trained("studies/mine") == ["pooling", "Mine", "Mine"]
    (own / "sub").mkdir()
    for name in ("mine.py", "beside.py"):
        (own / name).rename(own / "sub" / name)
    studied("sub/mine.py:Mine", *words, "name=moved")
    assert {json.loads(line)["study"] for line in Path("studies/moved/results.jsonl").read_text().splitlines()} == {"mine"}


@pytest.mark.slow
def test_what_is_kept_of_it_is_a_model_like_any_other(own: Path, words: list[str], fashion: str) -> None:
    studied("mine.py:Mine", *words)
    (told,) = [one for one in read_results(Path("studies/mine")).values() if one.row == "Mine"]
    assert told.recipe["changes"]["mixers"] == f"({', '.join(4 * ['mine.py:Mine'])})"
    forget(own)
    code, out, err = command("eval", "studies/mine/models/Mine-0", "--data", fashion, "--engine", "torch")
    assert (code, err) == (0, "")
    assert f"{told.top1:.2f}" in out


@pytest.mark.slow
def test_a_row_is_not_trained_by_a_file_that_changed_meanwhile(
    own: Path, words: list[str], fashion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is told, and the same command trains it as it is then."""
    start = StudyWorker.__init__

    def changed(worker: StudyWorker, place: study_worker.Place) -> None:
        (own / "beside.py").write_text("SIZE = (1, 1)")
        forget(own)  # a new process, not a forked one
        start(worker, place)

    with monkeypatch.context() as patch:
        patch.setattr(StudyWorker, "__init__", changed)
        code, out, _ = command("study", "mine.py:Mine", *words)
    assert code == 1
    assert "did not finish: Mine, seed 0, failed: mine.py was changed while the study ran: the same command trains" in out
    studied("mine.py:Mine", *words)
    assert trained("studies/mine") == ["pooling", "Mine", "Mine"]


def test_a_notebook_is_told_that_it_has_older_code(own: Path, words: list[str], fashion: str) -> None:
    wanted = Wanted(1, "t4", root=own)
    plan_study("mine.py:Mine", {"data": fashion}, wanted)
    (own / "mine.py").write_text(MINE + "# a remark\n")
    with pytest.raises(ValueError, match=r"^row .Mine.: mine\.py has changed since this process imported it: start"):
        plan_study("mine.py:Mine", {"data": fashion}, wanted)


# --- which code is run ------------------------------------------------------------------------------------------------


def test_a_folder_s_study_runs_only_what_a_command_has_named(own: Path, words: list[str]) -> None:
    (own / "beside.py").write_text("from pathlib import Path\nPath('ran').touch()\nSIZE = 1")
    folder = own / "studies/mine"
    folder.mkdir(parents=True)
    asked = {"schema": 1, "study": "mine.py:Mine", "settings": {"data": "digits"}, "scale": "t4"}
    (folder / "study.json").write_text(json.dumps(asked))
    code, _, err = command("study", "studies/mine", "--list")
    assert code == 2
    assert "studies/mine is of mine.py:Mine: " in err
    assert "was never named by a command, or has changed since; to run it as it is: metaformer study mine.py" in err
    asked |= {"study": "norm", "settings": {"data": "digits", "changes": {"mixers": "mine.py:Mine"}}}
    (folder / "study.json").write_text(json.dumps(asked))
    assert command("study", "studies/mine", "--list")[0] == 2
    assert not (own / "ran").exists()
    assert command("study", "mine.py:Mine", "name=other", "data=digits", "--list")[0] == 0
    forget(own)
    assert command("study", "studies/mine", "--list")[0] == 0


def test_a_mixer_of_one_s_own_in_all_rows(own: Path, words: list[str], fashion: str) -> None:
    plan = plan_study("norm", {"data": fashion, "changes": {"mixers": "mine.py:Mine"}}, Wanted(1, "t4", root=own))
    assert {tuple(entry.code) for entry in plan.entries} == {("mine.py",)}
    forget(own)
    (own / "beside.py").write_text("SIZE = (1, 1)")
    again = plan_study("norm", {"data": fashion, "changes": {"mixers": "mine.py:Mine"}}, Wanted(1, "t4", root=own))
    assert not {entry.key for entry in plan.entries} & {entry.key for entry in again.entries}
