"""Tables whose images have several labels: how they are written, told apart from one label, split and checked."""

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.photos import photos

from metaformer.data.dataset import Data
from metaformer.data.sources import few, open_data, open_judged


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Where a table may lie: beside twenty pictures, pics/0.png ... pics/19.png."""
    photos(tmp_path / "pics", 20)
    return tmp_path / "table.csv"


def write(file: Path, *labels: str, head: str = "path,label") -> str:
    """The `data=` of a table with a row for each text."""
    file.write_text("\n".join([head, *(f"pics/{i}.png,{text}" for i, text in enumerate(labels))]) + "\n", encoding="utf-8")
    return str(file)


def told(data: Data, part: str) -> dict[str, set[str]]:
    """Labels by the name of the file."""
    split = data.train if part == "train" else data.val
    rows = [{data.classes[k] for k in row.nonzero().flatten().tolist()} for row in split.labels]
    return {Path(split.name(i)).name: row for i, row in enumerate(rows)}


PARTS = ("cat|dog,train", "dog,train", ",train", "owl | cat| ,train", "cat|cat,val", ",val", "owl,val")


def test_labels_stand_between_bars(table: Path) -> None:
    data = open_data(write(table, *PARTS, head="path,label,split"))
    assert data.multi
    assert data.classes == ("cat", "dog", "owl")
    assert told(data, "train") == {"0.png": {"cat", "dog"}, "1.png": {"dog"}, "2.png": set(), "3.png": {"owl", "cat"}}
    assert told(data, "val") == {"4.png": {"cat"}, "5.png": set(), "6.png": {"owl"}}
    assert data.train.labels.dtype == torch.uint8
    assert data.train.labels.shape == (4, 3)
    assert f"images of {table} have several labels, between |; labels=single would take each text as one" in data.notes


def test_single_takes_each_text_as_one_label(table: Path) -> None:
    data = open_data(write(table, *["a|b", "c"] * 10), labels="single")
    assert not data.multi
    assert data.classes == ("a|b", "c")
    with pytest.raises(ValueError, match=f"^line 4 of {table} has no label$"):
        open_data(write(table, "a", "b|c", ""), labels="single")


def test_multi_takes_semicolons_and_single_labels(table: Path) -> None:
    data = open_data(write(table, *["a;b", "c", ""] * 6), labels="multi")
    assert (data.classes, data.notes) == (("a", "b", "c"), ())
    assert open_data(write(table, *["a;b", "c|d"] * 6), labels="multi").classes == ("a;b", "c", "d")  # bars come first
    plain = open_data(write(table, *["a", "b"] * 6), labels="multi")
    assert plain.multi
    assert plain.train.labels.sum(1).tolist() == [1] * len(plain.train)


def test_without_bars_nothing_is_changed(table: Path) -> None:
    assert open_data(write(table, *["a;b", "c"] * 6)).classes == ("a;b", "c")
    with pytest.raises(ValueError, match="has no label"):
        open_data(write(table, *["a", ""] * 6))


def test_one_label_is_enough_and_integers_are_ordered_by_value(table: Path) -> None:
    assert open_data(write(table, *["yes", ""] * 6), labels="multi").classes == ("yes",)
    assert open_data(write(table, *["10|9", "2"] * 6)).classes == ("2", "9", "10")
    with pytest.raises(ValueError, match=f"^line 3 of {table}: label 'b' is not an integer, as 11 others are"):
        open_data(write(table, "1|2", "3|b", *["1"] * 8))


def test_a_drawn_split_leaves_no_label_untaught(table: Path) -> None:
    texts = ["a|b", "b", "", "a"] * 4 + ["rare", "a|rarer", "b", "a"]
    for seed in range(12):
        data = open_data(write(table, *texts), seed=seed)
        assert data.train.labels.sum(0).min() >= 1
        assert 1 <= len(data.val) <= 4
        assert len(data.train) + len(data.val) == 20
        assert dict(data.drawn).keys() == {f"pics/{i}.png" for i in range(20)}
    assert told(open_data(str(table), seed=1), "val") != told(open_data(str(table), seed=2), "val")
    assert told(open_data(str(table), seed=1), "val") == told(open_data(str(table), seed=1), "val")


def test_few_of_them(table: Path) -> None:
    small = few(open_data(write(table, *["a|b", "b"] * 10)), 3)
    assert (len(small.train), small.train.labels.shape) == (3, (3, 2))


def test_judging(table: Path) -> None:
    source = write(table, *PARTS, head="path,label,split")
    data = open_judged(source, ("owl", "dog", "cat"), 3, labels="multi")
    assert told(data, "val") == {"4.png": {"cat"}, "5.png": set(), "6.png": {"owl"}}
    with pytest.raises(ValueError, match=r"has class 'owl', which the model does not know"):
        open_judged(source, ("cat", "dog"), 3, labels="multi")
    with pytest.raises(ValueError, match="has no label"):  # a model of one label
        open_judged(source, ("cat", "dog", "owl"), 3)


@pytest.mark.parametrize(
    ("texts", "head", "sentence"),
    [
        (["a|b,train", ",val"], "path,label,split", "no image that judges in FILE has a label: nothing could be found right"),
        ([",train", "a|b,val"], "path,label,split", "FILE has no image with a label to learn from"),
        (["a,train", "a|b,val"], "path,label,split", "the judging part of FILE has class 'b', which the part to learn from"),
        (["a|b,val", "a,val", "b,val"], "path,label,split", None),
        (["a|b"], "path,label", "FILE has too few images to split, 1: say in a column which are train and which val"),
        (["a|B", "b|a"] * 5, "path,label", "FILE has classes 'B' and 'b', alike but for case"),
    ],
)
def test_mistakes_are_sentences(table: Path, texts: list[str], head: str, sentence: str | None) -> None:
    source = write(table, *texts, head=head)
    if sentence is None:
        assert len(open_data(source).val) == 1
        return
    with pytest.raises(ValueError, match="^" + re.escape(sentence.replace("FILE", source))):
        open_data(source)


@pytest.mark.parametrize("source", ["digits", "DIR"])
def test_what_has_one_label_is_not_read_as_several(tmp_path: Path, source: str) -> None:
    photos(tmp_path / "a", 5)
    photos(tmp_path / "b", 5, 10)
    source = source.replace("DIR", str(tmp_path))
    for opened in (lambda: open_data(source, labels="multi"), lambda: open_judged(source, ("a", "b"), 3, labels="multi")):
        with pytest.raises(ValueError, match=f"^{source} has one label for each image: labels=multi is for a .csv or"):
            opened()


# --- Parquet ----------------------------------------------------------------------------------------------------------


def parquet(file: Path, labels: Any, *, feature: Any = None) -> str:
    images = []
    for i in range(len(labels)):
        bytes_ = BytesIO()
        Image.fromarray(np.random.RandomState(i).randint(0, 256, (8, 8, 3), np.uint8)).save(bytes_, "png")
        images.append({"bytes": bytes_.getvalue(), "path": None})
    made = pa.table({"image": images, "label": labels})
    if feature is not None:
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {"label": feature}}})})
    pq.write_table(made, file)
    return str(file)


LISTS = [["a", "b"], ["b"], [], ["c", "a"], None] * 4


@pytest.mark.parametrize("labels", [LISTS, pa.array(LISTS, pa.large_list(pa.string()))], ids=["list", "large list"])
def test_lists_are_several_labels(tmp_path: Path, labels: Any) -> None:
    data = open_data(parquet(tmp_path / "a.parquet", labels))
    assert data.multi
    assert data.classes == ("a", "b", "c")
    every = torch.cat([data.train.labels, data.val.labels]).sum(0)
    assert every.tolist() == [8, 8, 4]
    with pytest.raises(ValueError, match=r"label of .* has lists of labels, and labels=single is one for each image"):
        open_data(str(tmp_path / "a.parquet"), labels="single")


NAMED = {"names": ["zebra", "ant;bee"], "_type": "ClassLabel"}


@pytest.mark.parametrize("feature", [{"feature": NAMED, "_type": "Sequence"}, [NAMED]], ids=["Sequence", "list"])
def test_numbers_in_lists_have_the_names_that_hugging_face_gives_them(tmp_path: Path, feature: Any) -> None:
    data = open_data(parquet(tmp_path / "a.parquet", [[0], [1, 0], []] * 5, feature=feature))
    assert data.classes == ("zebra", "ant;bee")
    assert torch.cat([data.train.labels, data.val.labels]).sum(0).tolist() == [10, 5]
    with pytest.raises(ValueError, match=r"label 2 in row 1 of .* is not a number of one of its 2 classes"):
        open_data(parquet(tmp_path / "b.parquet", [[0], [2]], feature=feature))


def test_texts_and_single_numbers_are_several_where_that_is_said(tmp_path: Path) -> None:
    assert open_data(parquet(tmp_path / "a.parquet", ["a|b", "b", "", None] * 5), labels="multi").classes == ("a", "b")
    data = open_data(parquet(tmp_path / "b.parquet", [0, 1] * 5, feature=NAMED), labels="multi")
    assert (data.multi, data.classes) == (True, ("zebra", "ant;bee"))


def test_files_that_differ_are_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", LISTS)
    parquet(tmp_path / "val.parquet", ["a", "b"])
    with pytest.raises(ValueError, match=f"^some files of {tmp_path} have lists of labels and some have not"):
        open_data(str(tmp_path))
