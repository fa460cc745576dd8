"""Predictions as lines, JSON lines, CSV and Parquet files."""

import csv
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len

from metaformer.infer import output
from metaformer.infer.output import Table, cells, check_out, columns, json_line, saved, summary
from metaformer.infer.predictor import Prediction

CLASSES = ("ant", "bee", "ladybird beetle")
GOOD = Prediction("pics/a.png", (("bee", 0.8765432109), ("ant", 0.1), ("ladybird beetle", 0.0234567891)))
BAD = Prediction("pics/b, c.png", error="pics/b, c.png: cut off: the file ends before its picture does")


def plain(table: Table, answer: Prediction = GOOD) -> str:
    return table.row(answer).plain


def test_lines_are_aligned() -> None:
    table = Table(["pics/a.png", "pics/longer/b.png"], CLASSES)
    assert plain(table) == "pics/a.png         bee               87.7%  ant 10.0%  ladybird beetle 2.3%"
    other = Prediction("pics/longer/b.png", (("ladybird beetle", 1.0), ("ant", 0.0), ("bee", 0.0)))
    assert plain(table, other) == "pics/longer/b.png  ladybird beetle  100.0%  ant 0.0%  bee 0.0%"
    assert table.header().plain == "image              class             prob.  next"


def test_only_what_there_is_comes_next() -> None:
    assert plain(Table(["a"], ("x",)), Prediction("a", (("x", 1.0),))) == "a      x      100.0%"
    assert plain(Table(["a"], "vwxyz"), Prediction("a", tuple((c, 0.2) for c in "vwxyz"))).endswith("20.0%  w 20.0%  x 20.0%")


def test_a_bar_on_a_wide_terminal() -> None:
    table = Table(["pics/a.png"], CLASSES, width=90)
    assert "87.7%  ██████████▌   ant 10.0%" in plain(table)
    assert table.header().plain.index("next") == plain(table).index("ant 10.0%")
    for value, bar in ((0.0, ""), (1.0, "█" * 12), (0.5, "█" * 6), (0.01, "▏")):
        line = plain(table, Prediction("pics/a.png", (("bee", value), ("ant", 0.0))))
        assert line.partition("%  ")[2].partition(" ")[0] == bar
    assert "█" not in plain(Table(["pics/a.png"], CLASSES, width=60))


@pytest.mark.parametrize("width", [20, 36, 60, 72, 100, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    paths = ["/home/somebody/photographs/2026/holidays/on an island/IMG_20260801_123456.jpg", "猫の写真/" * 12 + "猫.png"]
    classes = ("Cardigan Welsh Corgi, also known as Cardigan", "ウェルシュ・コーギー・カーディガン")
    table = Table(paths, classes, width=width)
    for path in paths:
        line = plain(table, Prediction(path, ((classes[0], 0.9), (classes[1], 0.1))))
        assert cell_len(line) <= width
        if 36 <= width < 200:
            name = line.split("  ")[0]
            assert "…" in name
            assert name.rstrip().endswith(path[-4:])
    assert table.header().cell_len <= width


def test_names_that_would_spoil_a_screen_are_escaped() -> None:
    path = os.fsdecode(b"caf\xe9\n\x1b[31m.png")
    assert plain(Table([path], ("x", "y")), Prediction(path, (("x", 1.0),))).startswith(r"caf\xe9\n\x1b[31m.png  x ")
    assert json.loads(json_line(Prediction(path, error=f"{path}: empty"))) == {
        "path": r"caf\xe9\n\x1b[31m.png",
        "error": "empty",
    }


def write(file: Path, top: int = 2) -> Path:
    with saved(file, top) as save:
        save(GOOD)
        save(BAD)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    return file


def cut(answer: Prediction, top: int) -> Prediction:
    return Prediction(answer.path, answer.top[:top], answer.error)


def test_json_lines(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in write(tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines[0] == GOOD.to_dict()
    assert lines[1] == {"path": "pics/b, c.png", "error": "cut off: the file ends before its picture does"}


def test_csv(tmp_path: Path) -> None:
    with write(tmp_path / "a.CSV", 3).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(columns(3)) == [
        "path", "label", "probability", "label_2", "probability_2", "label_3", "probability_3", "error",
    ]  # fmt: skip
    assert (rows[0]["label"], rows[0]["probability"], rows[0]["label_3"], rows[0]["error"]) == (
        "bee", "0.876543", "ladybird beetle", "",
    )  # fmt: skip
    assert (rows[1]["path"], rows[1]["label"]) == ("pics/b, c.png", "")
    assert rows[1]["error"] == "cut off: the file ends before its picture does"


@pytest.mark.parametrize("many", [1, 10_000, 10_003])
def test_parquet(tmp_path: Path, many: int) -> None:
    with saved(tmp_path / "a.parquet", 3) as save:
        for _ in range(many):
            save(GOOD)
        save(BAD)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.num_rows == many + 1
    assert {field.name: str(field.type) for field in table.schema} == {
        name: "string" if kind is str else "double" for name, kind in columns(3).items()
    }
    rows = table.slice(many - 1).to_pylist()
    assert rows[0] == cells(GOOD)
    assert rows[1] == dict.fromkeys(columns(3)) | cells(BAD)


@pytest.mark.parametrize("suffix", output.FORMATS)
def test_a_file_is_whole_or_as_before(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"

    def stopped() -> None:
        with saved(file, 3) as save:
            save(GOOD)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []
    file.write_text("before")
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert file.read_text() == "before"
    write(file, 3)
    assert file.read_bytes() != b"before"


def test_without_a_file_nothing_is_kept(here: Path) -> None:
    with saved(None, 2) as save:
        save(GOOD)
    assert list(here.iterdir()) == []


def test_where_to_write(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert check_out(None) is None
    assert check_out("~/a.JSONL") == here / "a.JSONL"
    for name in ("a.txt", "a", "csv"):
        with pytest.raises(ValueError, match=rf"^--out {name} does not say a format by its suffix: \.jsonl, \.csv, \.parquet$"):
            check_out(name)
    with pytest.raises(FileNotFoundError, match=r"^there is no folder none to write a\.csv into$"):
        check_out("none/a.csv")


def test_summaries() -> None:
    assert summary(1, 0) == "1 image, 0 unreadable"
    assert summary(1234, 5, Path("a.csv")) == "1,234 images, 5 unreadable; written to a.csv"
