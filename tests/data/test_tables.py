"""CSV files as data: columns, parts, and what is wrong with one, by its line."""

import re
from pathlib import Path

import pytest
from tests.photos import photos

from metaformer.data.dataset import Data
from metaformer.data.sources import open_data, open_judged


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Where a table may lie: beside ten pictures, pics/0.png ... pics/9.png."""
    photos(tmp_path / "pics", 10)
    return tmp_path / "table.csv"


def write(file: Path, *lines: str) -> str:
    """The `data=` for the lines."""
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def images(data: Data, part: str) -> list[tuple[str, str]]:
    """Name of the file and class."""
    split = data.train if part == "train" else data.val
    return [(Path(split.name(i)).name, data.classes[label]) for i, label in enumerate(split.labels.tolist())]


SIX = ("pics/0.png,cat,train", "pics/1.png,dog,train", "pics/2.png,cat,train", "pics/3.png,dog,val", "pics/4.png,cat,val")


@pytest.mark.parametrize("header", [["path,label,split"], ["File,Class,Set"], []])
def test_columns_are_found_by_name_or_place(table: Path, header: list[str]) -> None:
    data = open_data(write(table, *header, *SIX))
    assert data.classes == ("cat", "dog")
    assert images(data, "train") == [("0.png", "cat"), ("1.png", "dog"), ("2.png", "cat")]
    assert images(data, "val") == [("3.png", "dog"), ("4.png", "cat")]
    assert data.drawn == ()


def test_columns_may_stand_anywhere(table: Path) -> None:
    lines = ["\ufeffpath;label;note;split", *(f"{path};{y};a, b;{part}" for path, y, part in (s.split(",") for s in SIX))]
    assert images(open_data(write(table, *lines)), "val") == [("3.png", "dog"), ("4.png", "cat")]
    tabs = [line.replace(";", "\t") for line in lines]
    assert images(open_data(write(table.with_suffix(".tsv"), *tabs)), "val") == [("3.png", "dog"), ("4.png", "cat")]


def test_paths_may_be_absolute_or_quoted(table: Path) -> None:
    rows = [f'"{table.parent}/pics/{i}.png", {"ab"[i % 2]}' for i in range(10)]
    assert len(open_data(write(table, *rows, "")).val) == 2


def test_without_parts_a_split_is_drawn(table: Path) -> None:
    data = open_data(write(table, *(f"pics/{i}.png,{'ab'[i % 2]}" for i in range(10))))
    assert data.train.labels.bincount().tolist() == data.val.labels.bincount().mul(4).tolist() == [4, 4]
    assert dict(data.drawn).keys() == {f"pics/{i}.png" for i in range(10)}


def test_integers_are_ordered_by_value(table: Path) -> None:
    data = open_data(write(table, *(f"pics/{i}.png,{10 - i // 2}" for i in range(10))))
    assert data.classes == ("6", "7", "8", "9", "10")


def test_test_rows_are_left_where_val_judges(table: Path) -> None:
    data = open_data(write(table, *SIX, "pics/5.png,cat,test"))
    assert images(data, "val") == [("3.png", "dog"), ("4.png", "cat")]
    assert data.notes == ("val judges; test is left alone",)
    data = open_data(write(table, *(line.replace("val", "test") for line in SIX)))
    assert data.notes == ("the test part picks the best epoch, because there is no val part",)


def test_a_row_twice_counts_once(table: Path) -> None:
    data = open_data(write(table, *SIX, SIX[0]))
    assert len(data.train) == 3
    assert data.notes == (f"rows of {table} that name a file again, left out: 1",)


def test_judging(table: Path) -> None:
    assert len(open_judged(write(table, *SIX), ("cat", "dog"), 3).val) == 2
    assert len(open_judged(write(table, *(line.rpartition(",")[0] for line in SIX)), ("cat", "dog"), 3).val) == 5


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([], "FILE has no two columns, a path and a label, in its first line"),
        (["pics/0.png"], "FILE has no two columns, a path and a label, in its first line"),
        (["path,label"], "FILE has a header but no rows"),
        (["path,kind", "pics/0.png,a"], "FILE has no label column: it has path, kind, and is searched for label, "),
        (["id,label", "pics/0.png,a"], "FILE has no path column: it has id, label, and is searched for path, file"),
        (["path,label", "pics/0.png,a", ",b"], "line 3 of FILE has no path"),
        (["path,label", "pics/0.png,a", "pics/1.png"], "line 3 of FILE has no label"),
        (["path,label", "pics/0.png,a", "pics/1.jpg,b"], "line 3 of FILE: there is no file DIR/pics/1.jpg; paths start at"),
        (["id,breed", "x,a", "y,b"], "line 1 of FILE: there is no file DIR/id (3 of 3 files are missing); "),
        (["path,label,split", "pics/0.png,a,tain"], "line 2 of FILE: 'tain' is not one of train, training, val, "),
        (["path,label,split", "pics/0.png,a,"], "line 2 of FILE: '' is not one of train, training, val, "),
        (["pics/0.png,0", "pics/1.png,1", "pics/2.png,cat"], "line 3 of FILE: label 'cat' is not an integer, as 2 others"),
        (["pics/0.png,0", "pics/1.png,1", "pics/2.png,1.5"], "line 3 of FILE: label '1.5' is not an integer, as 2 others"),
        (["pics/0.png,a", "pics/1.png,b", "pics/0.png,b"], "lines 1 and 3 of FILE name pics/0.png with different labels"),
        (["pics/0.png,a", "pics/1.png,a"], "FILE has only one class, 'a': at least two are needed to tell apart"),
        (["pics/0.png,a,train", "pics/1.png,b,train", "pics/2.png,c,val"], "the judging part of FILE has class 'c', which"),
        (["pics/0.png,a,val", "pics/1.png,b,val"], "class 'a' of FILE has one image, too few to split"),
    ],
)  # fmt: skip
def test_mistakes_are_told_by_their_line(table: Path, lines: list[str], sentence: str) -> None:
    source = write(table, *lines)
    expected = sentence.replace("FILE", source).replace("DIR", str(table.parent))
    with pytest.raises(ValueError, match="^" + re.escape(expected)):
        open_data(source)


def test_what_is_not_utf8_is_said(table: Path) -> None:
    table.write_bytes(b"caf\xe9.png,a\n")
    with pytest.raises(ValueError, match="is not text in UTF-8"):
        open_data(str(table))
