"""A new mixer works at once, and nothing is overwritten; the list says what there is."""

import ast
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import command

from metaformer import Attention, DepthwiseConv, Identity, Pooling
from metaformer.lab import mixer_new
from metaformer.lab.mixer_case import Case
from metaformer.lab.mixer_check import LINES, try_contract
from metaformer.lab.mixer_measure import BUILT_IN, read_mixer
from metaformer.lab.mixer_new import mixer_cost, new_mixer

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_code(own: Path) -> None:
    """In an empty folder, with nothing remembered."""


def test_what_is_written_works(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = command("mixer", "new", "row_column")
    assert (code, err) == (0, "")
    assert {file.name for file in here.iterdir()} == {"row_column.py", "test_row_column.py", "row_column_study.py"}
    assert out.splitlines()[-3:] == [
        "  metaformer mixer check row_column.py:RowColumn    # does it keep the contract, and where does it stand?",
        "  python -m pytest test_row_column.py               # its test",
        "  metaformer study row_column_study.py data=digits  # train it and two others, three seeds each",
    ]
    tree = ast.parse((here / "row_column.py").read_text())
    made = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    assert (made.end_lineno or 0) - made.lineno + 1 <= 10
    lines = try_contract(
        Case(read_mixer("row_column.py:RowColumn")), tuple(n for n in LINES if n not in ("compile", "export", "onnx"))
    )
    assert [(line.name, line.why) for line in lines if line.state != "passed"] == []
    monkeypatch.syspath_prepend(here)
    made_test: dict[str, Any] = {}
    exec(compile((here / "test_row_column.py").read_text(), "test_row_column.py", "exec"), made_test)
    made_test["test_a_place_sees_its_row_and_its_column"]()


def test_its_study_is_planned(here: Path, fashion: str) -> None:
    """From another folder than its own, too."""
    (here / "sub").mkdir()
    new_mixer("mine", here / "sub")
    code, out, err = command("study", "sub/mine_study.py", "--list", f"data={fashion}", "seeds=2")
    assert (code, err) == (0, "")
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["pooling", "–", "2"], ["identity", "pooling", "2"], ["mine", "pooling", "2"]
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("thread")
def test_its_study_runs_to_the_table(here: Path) -> None:
    (here / "sub").mkdir()
    new_mixer("mine", here / "sub")
    code, out, err = command("study", "sub/mine_study.py", "data=digits", "seeds=1", "epochs=1", "scale=t4")
    assert (code, err) == (0, "")
    assert re.search(r"^mine +\d+\.\d\d \(", out, re.MULTILINE)


@pytest.mark.parametrize("taken", ["mine.py", "test_mine.py", "mine_study.py"])
def test_nothing_is_overwritten(here: Path, taken: str) -> None:
    (here / taken).write_text("precious")
    code, _, err = command("mixer", "new", "mine")
    assert code == 2
    assert f"{taken} exists: choose another name" in err
    assert {file.name: file.read_text() for file in here.iterdir()} == {taken: "precious"}


def test_all_or_none_is_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file appears between looking and writing, or the disk fails."""
    link, calls = os.link, []

    def fails(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise FileExistsError(17, "File exists", "mine_study.py")
        link(*arguments)  # pyrefly: ignore[bad-argument-type]

    monkeypatch.setattr(mixer_new.os, "link", fails)
    with pytest.raises(FileExistsError):
        new_mixer("mine", here)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(("name", "stem"), [("MyMixer", "my_mixer"), ("shift2", "shift2"), ("a_b", "a_b")])
def test_names(here: Path, name: str, stem: str) -> None:
    assert [file.name for file in new_mixer(name, here)] == [f"{stem}.py", f"test_{stem}.py", f"{stem}_study.py"]


@pytest.mark.parametrize("name", ["my mixer", "2d", "../x", "class", "", "a-b"])
def test_what_is_no_name(here: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a mixer: letters, digits and _, such as my_mixer"):
        new_mixer(name, here)
    assert list(here.iterdir()) == []


# --- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_counts() -> None:
    code, out, err = command("mixer", "list", "--dim", 32, "--side", 7, "--json")
    assert (code, err) == (0, "")
    rows = {row["mixer"].partition("(")[0]: row for row in json.loads(out)}
    assert set(rows) == {type(mixer).__name__ for mixer in BUILT_IN}
    assert rows["Attention"]["parameters"] == f"{4 * 32 * 32:,}"
    assert rows["Random"]["parameters"] == f"{49 * 49:,}"
    assert rows["Pooling"]["what"].startswith("Average pooling minus its input")
    code, out, _ = command("mixer", "list")
    assert out.splitlines()[0].split() == ["mixer", "parameters", "MACs", "at", "14", "×", "14"]
    assert len(out.splitlines()) == 1 + len(BUILT_IN)


def test_what_a_mixer_costs() -> None:
    assert mixer_cost(Identity(), 32, 7) == mixer_cost(Pooling(), 32, 7) == (0, 0)
    assert mixer_cost(DepthwiseConv(kernel=3), 32, 7) == (9 * 32, 9 * 32 * 49)
    assert mixer_cost(Attention(), 32, 7) == (4 * 32**2, 49 * 4 * 32**2 + 2 * 49**2 * 32)
