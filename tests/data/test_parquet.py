"""Parquet files as data: columns, parts, class names, and what is wrong with one."""

import io
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from metaformer.data import parquet
from metaformer.data.blocks import Shards
from metaformer.data.parquet import Rows, list_parquet
from metaformer.data.sources import open_data, open_judged
from metaformer.data.splits import Encoded, Images


def encoded(i: int, side: int = 70) -> bytes:
    """A PNG of noise that only i gives."""
    file = io.BytesIO()
    Image.fromarray(np.random.RandomState(i).randint(0, 256, (side, side, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def write(file: Path, labels: Any, *, start: int = 0, names: Any = None, side: int = 70, **columns: Any) -> Path:
    """Images as Hugging Face writes them, with labels; `columns` replace or add to them."""
    images = [{"bytes": encoded(start + i, side), "path": f"{start + i}.png"} for i in range(len(labels))]
    table = pa.table({"image": images, "label": labels} | columns)
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=3)
    return file


def test_one_file_is_split(tmp_path: Path) -> None:
    file = write(tmp_path / "all.parquet", ["a", "b"] * 10)
    data = open_data(str(file))
    assert data.classes == ("a", "b")
    assert data.train.labels.bincount().tolist() == [8, 8]
    assert data.val.labels.bincount().tolist() == [2, 2]
    assert dict(data.drawn).keys() == {f"all.parquet row {i}" for i in range(20)}
    assert isinstance(data.val, Encoded)
    row = int(data.val.name(1).rpartition(" ")[2])
    expected = np.random.RandomState(row).randint(0, 256, (70, 70, 3), np.uint8)
    assert torch.equal(data.val.image(1), torch.from_numpy(expected).permute(2, 0, 1))


def test_workers_can_read_it(tmp_path: Path) -> None:
    data = open_data(str(write(tmp_path / "all.parquet", ["a", "b"] * 10)))
    again = pickle.loads(pickle.dumps(data.val))
    assert all(torch.equal(again.image(i), data.val.image(i)) for i in range(4))


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train.parquet", "test.parquet"),
        ("train-00000-of-00002.parquet", "validation-00000-of-00001.parquet"),
        ("data/train/0.parquet", "data/val/0.parquet"),
    ],
)
def test_parts_by_the_names_of_files(tmp_path: Path, train: str, val: str) -> None:
    write(tmp_path / train, [0, 1, 1, 0])
    write(tmp_path / val, [1, 0], start=10)
    data = open_data(str(tmp_path))
    assert (data.classes, data.train.labels.tolist(), data.val.labels.tolist()) == (("0", "1"), [0, 1, 1, 0], [1, 0])
    assert data.val.name(1) == f"{val} row 1"
    assert bool(data.notes) == ("test" in val)
    assert len(open_judged(str(tmp_path), ("0", "1"), 3).val) == 2
    assert len(open_judged(str(tmp_path / train), ("0", "1"), 3).val) == 4


def test_val_judges_and_test_is_left_alone(tmp_path: Path) -> None:
    for i, part in enumerate(("train", "val", "test")):
        write(tmp_path / f"{part}.parquet", [0, 1], start=10 * i)
    data = open_data(str(tmp_path))
    assert data.val.name(0) == "val.parquet row 0"
    assert data.notes == ("val judges; test is left alone", "test.parquet left alone")


def test_names_of_classes(tmp_path: Path) -> None:
    data = open_data(str(write(tmp_path / "a.parquet", [0, 1] * 3, names=["zebra", "ant"])))
    assert data.classes == ("zebra", "ant")
    data = open_data(str(write(tmp_path / "b.parquet", [1, 0] * 3, names={"0": "zebra", "1": "ant"})))
    assert data.classes == ("zebra", "ant")
    data = open_data(str(write(tmp_path / "c.parquet", [0, 2] * 3, names=["zebra", "ant", "cow"])))
    assert data.classes == ("zebra", "ant", "cow")
    assert data.notes == (f"'ant' of {tmp_path}/c.parquet has no image, though it is named as a class",)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([10, 9] * 3, ("9", "10")),
        ([1.0, 0.0] * 3, ("0", "1")),
        (["b", "a"] * 3, ("a", "b")),
        (pa.array(["b", "a"] * 3).dictionary_encode(), ("a", "b")),
        ([True, False] * 3, ("False", "True")),
    ],
)
def test_kinds_of_labels(tmp_path: Path, labels: Any, classes: tuple[str, ...]) -> None:
    assert open_data(str(write(tmp_path / "a.parquet", labels))).classes == classes


@pytest.mark.parametrize("column", ["img", "image_bytes", "Bytes"])
def test_bytes_alone(tmp_path: Path, column: str) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({column: [encoded(i, 8) for i in range(6)], "target": [0, 1] * 3}), file)
    data = open_data(str(file))
    assert isinstance(data.train, Images)
    assert data.train.pixels.shape == (4, 3, 8, 8)
    assert data.image_size == 28
    assert data.train.name(0).startswith("a.parquet row ")


NULL = {"bytes": None, "path": None}


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"label": [0, None, 1]}, "row 1 of FILE has no label"),
        ({"label": [0.0, 1.5, 1.0]}, "label 1.5 in row 1 of FILE is neither an integer nor text"),
        ({"label": [[0], [1.5], [0]]}, "label 1.5 in row 1 of FILE is neither an integer nor text"),
        ({"image": [1, 2, 3]}, "column 'image' of FILE holds int64, not the bytes of image files"),
        ({"image": [NULL, NULL, NULL], "label": [0, 1, 0]}, "column 'image' of FILE holds null, not the bytes of image files"),
    ],
)
def test_mistakes_are_told_by_their_row(tmp_path: Path, columns: dict[str, Any], sentence: str) -> None:
    file = write(tmp_path / "a.parquet", [0, 1, 0], **columns)
    with pytest.raises(ValueError, match="^" + re.escape(sentence.replace("FILE", str(file)))):
        open_data(str(file))


def test_mistakes_in_columns_and_files(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"picture": [b""], "kind": [0]}), file)
    with pytest.raises(ValueError, match="has no label column: it has picture, kind, and is searched for label, labels, "):
        open_data(str(file))
    for label in (-1, 2):
        write(tmp_path / "b/train.parquet", [0, 1, label], names=["x", "y"])
        with pytest.raises(ValueError, match=rf"label {label} in row 2 of .*train\.parquet is not a number of one of its 2 cl"):
            open_data(str(tmp_path / "b"))
    write(tmp_path / "b/train.parquet", [0, 1, 1], names=["x", "y"])
    write(tmp_path / "b/val.parquet", [0, 1], names=["y", "x"], start=5)
    with pytest.raises(ValueError, match=r"val\.parquet names other classes than .*train\.parquet$"):
        open_data(str(tmp_path / "b"))


@pytest.mark.parametrize("damage", ["text", "cut", "empty", "page"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    file = write(tmp_path / "a.parquet", [0, 1] * 3)
    raw = bytearray(file.read_bytes())
    raw[20:2000] = bytes(1980)
    file.write_bytes({"text": b"path,label\n", "cut": file.read_bytes()[:-9], "empty": b"", "page": bytes(raw)}[damage])
    with pytest.raises(ValueError, match=r"a\.parquet is not a Parquet file, or it is damaged \("):
        open_data(str(file))


def test_more_than_memory_is_read_when_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.parquet", [0, 1] * 3)
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path / "cache"))
    assert isinstance(list_parquet(file).items, Rows)
    monkeypatch.setattr(parquet.os, "sysconf", lambda _: 100)
    items = list_parquet(file).items
    assert isinstance(items, Shards)
    assert not (tmp_path / "cache").exists()
    assert list(items) == [encoded(i) for i in range(6)]


def test_an_image_without_bytes_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [NULL if i == 4 else {"bytes": encoded(i), "path": None} for i in range(6)]
    file = write(tmp_path / "a.parquet", [0, 1] * 3, image=images)
    with pytest.raises(ValueError, match=r"1 of the 6 images of .* cannot be read, .*\(a\.parquet row 4: empty\)$"):
        open_data(str(file))
