"""Tar shards: what labels an image, and what is wrong with one, a sentence each."""

import gzip
import json
import os
from pathlib import Path

import pytest
from tests.stored import CLASSES, label, picture, write_tar, write_tars
from tests.tiny import write_fashion

from metaformer.data import tar
from metaformer.data.everything import take_stock
from metaformer.data.shard import shard_data
from metaformer.data.sources import open_data


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path / "cache"))


def many(told: str, *, count: int = 10) -> dict[str, bytes]:
    """Images with a member beside each, `told` with the number of its class in the place of `%`."""
    suffix, _, content = told.partition(" ")
    found: dict[str, bytes] = {}
    for i in range(count):
        found |= {f"a/{i:03d}.PNG": picture("train", i), f"a/{i:03d}.{suffix}": content.replace("%", str(label(i))).encode()}
    return found


@pytest.mark.parametrize(
    ("told", "classes"),
    [
        ("cls %", ("0", "1", "2")),
        ("cls.txt %\n", ("0", "1", "2")),
        ("cls kind%", ("kind0", "kind1", "kind2")),
        ('json {"label": %}', ("0", "1", "2")),
        ('json {"class": "kind%", "size": 3}', ("kind0", "kind1", "kind2")),
    ],
)
def test_what_labels_an_image(tmp_path: Path, told: str, classes: tuple[str, ...]) -> None:
    data = open_data(str(write_tar(tmp_path / "x.tar", many(told))))
    assert data.classes == classes
    assert len(data.train) + len(data.val) == 10
    for split in (data.train, data.val):
        assert all(int(split.image(i)[0, 0, 0]) % 3 == split.labels[i] for i in range(len(split)))


def test_class_folders_in_a_tar(tmp_path: Path) -> None:
    members = {f"./{part}/{CLASSES[label(i)]}/{i}.png": picture(part, i) for part in ("train",) for i in range(10)}
    data = open_data(str(write_tar(tmp_path / "all.tar", {"./._x.png": b"", "./readme.txt": b"", **members})))
    assert data.classes == CLASSES
    assert any("no image, left out: 1" in note for note in data.notes)


def test_several_labels(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    file = write_tar(tmp_path / "x.tar", many('json {"labels": [%, 0, 0], "path": "x"}'))
    data = open_data(str(file))
    assert data.multi
    both = {int(s.image(i)[0, 0, 0]): s.labels[i].tolist() for s in (data.train, data.val) for i in range(len(s))}
    assert both == {i: [1, int(label(i) == 1), int(label(i) == 2)] for i in range(10)}
    with pytest.raises(ValueError, match=r"a/000 in .* has a list of labels, and labels=single is one for each image"):
        open_data(str(file), labels="single")
    assert open_data(str(write_tar(tmp_path / "y.tar", many("cls %"))), labels="multi").multi


def test_what_data_shard_writes(tmp_path: Path) -> None:
    fashion = write_fashion(tmp_path / "fashion")
    assert shard_data(fashion, tmp_path / "out", size="20KB", shuffle=0).shards > 4
    ours, theirs = open_data(str(tmp_path / "out")), open_data(fashion)
    assert (len(ours.train), len(ours.val), ours.classes) == (96, 40, theirs.classes)
    assert ours.train.labels.bincount().tolist() == theirs.train.labels.bincount().tolist()
    assert (ours.mean, ours.image_size) == (pytest.approx(theirs.mean), theirs.image_size)


BROKEN = {
    "x in .* has no label: no .cls, no .json with one": {"x.png": b"x", "y.png": b"y", "y.cls": b"1"},
    "label 3 of x in .* is not the number of one of its 3 classes": {"x.png": b"x", "x.cls": b"3"},
    "x.cls in .* is not text in UTF-8": {"x.png": b"x", "x.cls": b"\xff"},
    "x.json in .* is damaged: it holds no names with values": {"x.png": b"x", "x.json": b"{"},
    "label 1.5 of x.json in .* is neither an integer nor text": {"x.png": b"x", "x.json": b'{"label": 1.5}'},
    "has no image in it": {"x.txt": b"x"},
    "holds x twice: a sample's files follow each other": {"x.png": b"x", "y.png": b"y", "x.jpg": b"x"},
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_what_is_wrong_is_said(tmp_path: Path, sentence: str) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    with pytest.raises(ValueError, match=sentence):
        open_data(str(write_tar(tmp_path / "x.tar", BROKEN[sentence])))


def test_no_tar_a_compressed_one_and_classes_that_are_none(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "x.tar", many("cls %"))
    file.write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(ValueError, match=r"x\.tar is not a tar that can be read: compressed ones have to be unpacked"):
        open_data(str(file))
    (tmp_path / "classes.json").write_text('["ants", 2]')
    with pytest.raises(ValueError, match=r"classes\.json is damaged: it is not a list of names"):
        open_data(str(file))


@pytest.mark.parametrize("cut", [700, 1536, 5000, 10240, -1024])
def test_a_tar_cut_short(tmp_path: Path, cut: int) -> None:
    file = write_tar(tmp_path / "x.tar", many("cls %"))
    whole = file.read_bytes()
    ends = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # where its last member does
    file.write_bytes(whole[: cut if cut > 0 else ends])
    with pytest.raises(
        ValueError, match=r"x\.tar is (cut short( after a/\d+)?, its image \d+: fetch|not a tar that can be read)"
    ):
        open_data(str(file))


def test_damaged_members_are_left_out_and_listed(tmp_path: Path) -> None:
    members = many("cls %", count=120)
    members["a/007.PNG"] = members["a/007.PNG"][:60]
    data = open_data(str(write_tar(tmp_path / "x.tar", members)))
    assert len(data.train) + len(data.val) == 119
    ((name, reason),) = data.unreadable
    assert name == "x.tar a/007"
    assert reason
    members["a/008.PNG"] = b""
    with pytest.raises(ValueError, match=r"2 of the 120 images of .*x\.tar cannot be read, more than 1 %"):
        open_data(str(write_tar(tmp_path / "x.tar", members)))


def test_what_is_in_a_tar_is_kept_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_tar(tmp_path / "x.tar", many("cls %"))
    first = open_data(str(file))
    with monkeypatch.context() as patch:
        patch.delattr(tar, "read_index")
        assert open_data(str(file)).drawn == first.drawn
    write_tar(file, many("cls %", count=12))
    os.utime(file, (1, 1))
    assert len(open_data(str(file)).drawn) == 12
    for kept in (tmp_path / "cache" / "index").iterdir():
        kept.write_text("{")
    assert len(open_data(str(file)).drawn) == 12


def test_a_folder_of_photos_with_a_tar_in_it_is_one_of_photos(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / CLASSES[i % 2]).mkdir(exist_ok=True)
        (tmp_path / CLASSES[i % 2] / f"{i}.png").write_bytes(picture("train", i))
    write_tars(tmp_path / "ants")
    assert open_data(str(tmp_path)).classes == ("ants", "bees")


def test_a_whole_data_set_is_looked_at_and_sharded_again(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "tar")
    write_tar(root / "test-000000.tar", {"7.png": picture("val", 50), "7.cls": b"2"})
    done = shard_data(str(root), tmp_path / "rows", format="parquet")
    assert (done.shards, done.images) == (3, 31)
    stock = take_stock(str(tmp_path / "rows"))
    assert (len(stock), stock.classes, set(stock.named)) == (31, CLASSES, {"train", "val", "test"})
    with pytest.raises(ValueError, match="of patterns and addresses only tar files can be looked at as a whole"):
        take_stock(f"{tmp_path}/rows/*.parquet")
