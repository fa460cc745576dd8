"""Shards: the same bytes in tar and Parquet files, finished after a kill, checked."""

import hashlib
import json
import tarfile
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.photos import photos
from tests.tiny import Killer, Stopped, command

from metaformer.data import shard_files
from metaformer.data.shard import bytes_of, shard_data
from metaformer.data.sources import open_data


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve images to learn from and four to judge by, of two classes."""
    root = tmp_path / "photos"
    for i, name in enumerate(("train/ants", "train/bees", "val/ants", "val/bees")):
        photos(root / name, 6 if i < 2 else 2, start=10 * i, size=(12, 10))
    return root


def members(folder: Path) -> dict[str, bytes]:
    """Every file in the tar shards of a folder."""
    found = {}
    for file in sorted(folder.glob("*.tar")):
        with tarfile.open(file) as archive:
            for member in archive:
                held = archive.extractfile(member)
                assert held is not None
                found[f"{file.stem}/{member.name}"] = held.read()
    return found


def test_a_tar_shard_is_webdatasets_layout_with_the_same_bytes(source: Path, tmp_path: Path) -> None:
    size = sum(file.stat().st_size for file in (source / "train").rglob("*.png"))
    done = shard_data(str(source), tmp_path / "out", size=f"{size // 3 + 500}")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [
        "classes.json", "manifest.json", "train-000000.tar", "train-000001.tar", "train-000002.tar", "val-000000.tar"
    ]  # fmt: skip
    assert (done.shards, done.images, done.kept) == (4, 16, 0)
    assert json.loads((tmp_path / "out/classes.json").read_text()) == ["ants", "bees"]
    found = members(tmp_path / "out")
    assert [name for name in found if name.startswith("train-000000")][:3] == [
        "train-000000/000000000.png", "train-000000/000000000.cls", "train-000000/000000000.json"
    ]  # fmt: skip
    seen = set()
    for name, told in found.items():
        if name.endswith(".json"):
            path = json.loads(told)["path"]
            assert found[name.replace(".json", ".png")] == (source / path).read_bytes()
            assert found[name.replace(".json", ".cls")] == (b"0" if "ants" in path else b"1")
            seen.add(path)
    assert len(seen) == 16
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["images"] == {"train": 12, "val": 4}
    for entry in manifest["shards"]:
        raw = (tmp_path / "out" / entry["file"]).read_bytes()
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (entry["bytes"], entry["sha256"])


def test_parquet_shards_are_the_same_data_set(source: Path, tmp_path: Path) -> None:
    done = shard_data(str(source), tmp_path / "out", format="parquet", size="2KB")
    assert done.shards == len(list((tmp_path / "out").glob("*.parquet"))) > 3
    assert (tmp_path / f"out/train-00000-of-{len(list((tmp_path / 'out').glob('train*'))):05d}.parquet").is_file()
    ours, theirs = open_data(str(tmp_path / "out")), open_data(str(source))
    assert ours.classes == theirs.classes == ("ants", "bees")
    for one, other in ((ours.train, theirs.train), (ours.val, theirs.val)):
        assert one.labels.tolist() == other.labels.tolist()
        assert all(one.image(i).equal(other.image(i)) for i in range(len(one)))
    schema = pq.read_schema(next(iter((tmp_path / "out").glob("*.parquet"))))
    assert str(schema.field("image").type) == "struct<bytes: binary, path: string>"
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}, "label": {"names": ["ants", "bees"], "_type": "ClassLabel"}}
    again = shard_data(str(tmp_path / "out"), tmp_path / "back", size="1GB")  # and from Parquet to tar
    assert (again.shards, again.images) == (2, 16)
    assert {*members(tmp_path / "back").values()} >= {file.read_bytes() for file in source.rglob("*.png")}


def test_several_labels_are_kept(tmp_path: Path) -> None:
    photos(tmp_path / "pics", 4)
    (tmp_path / "t.csv").write_text(
        "path,label,split\npics/0.png,cat|dog,train\npics/1.png,,train\npics/2.png,owl,train\npics/3.png,dog,val\n"
    )
    shard_data(str(tmp_path / "t.csv"), tmp_path / "tar")
    told = [json.loads(text)["labels"] for name, text in members(tmp_path / "tar").items() if name.endswith(".json")]
    assert told == [[0, 1], [], [2], [1]]
    assert not any(name.endswith(".cls") for name in members(tmp_path / "tar"))
    shard_data(str(tmp_path / "t.csv"), tmp_path / "rows", format="parquet")
    files = sorted((tmp_path / "rows").glob("*.parquet"))
    assert [label for file in files for label in pq.read_table(file)["label"].to_pylist()] == told
    again = open_data(str(tmp_path / "rows"))
    assert (again.multi, again.classes) == (True, ("cat", "dog", "owl"))


def test_shuffling_follows_from_the_seed(source: Path, tmp_path: Path) -> None:
    orders = {}
    for name, seed in (("a", None), ("b", 1), ("c", 1), ("d", 2)):
        shard_data(str(source), tmp_path / name, size="1MB", shuffle=seed)
        found = members(tmp_path / name)
        orders[name] = [json.loads(text)["path"] for key, text in found.items() if key.endswith(".json")]
    assert orders["a"] == sorted(orders["a"])
    assert orders["b"] == orders["c"] != orders["a"]
    assert orders["d"] not in (orders["a"], orders["b"])
    assert all(sorted(order) == orders["a"] for order in orders.values())
    assert (tmp_path / "b/train-000000.tar").read_bytes() == (tmp_path / "c/train-000000.tar").read_bytes()


@pytest.mark.parametrize("at", range(0, 60, 4))
def test_cut_short_anywhere_it_goes_on(source: Path, tmp_path: Path, at: int) -> None:
    shard_data(str(source), tmp_path / "whole", size="2KB")
    with pytest.MonkeyPatch.context() as patch, suppress(Stopped):
        Killer(patch, at)
        shard_data(str(source), tmp_path / "out", size="2KB")
    there = sum(1 for _ in (tmp_path / "out").glob("*.tar"))
    done = shard_data(str(source), tmp_path / "out", size="2KB")
    assert done.kept in (there, there - 1)  # one may lack its line in the manifest
    assert members(tmp_path / "out") == members(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_a_shard_that_was_changed_or_lost_is_written_again(source: Path, tmp_path: Path) -> None:
    done = shard_data(str(source), tmp_path / "out", size="2KB")
    first, second = sorted((tmp_path / "out").glob("*.tar"))[:2]
    raw = first.read_bytes()
    first.write_bytes(raw[:600] + b"x" + raw[601:])
    second.unlink()
    again = shard_data(str(source), tmp_path / "out", size="2KB")
    assert again.kept == done.shards - 2
    assert first.read_bytes() == raw
    assert second.is_file()


def test_what_is_read_again_must_be_what_was_written(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = shard_files._add

    def damaged(archive: tarfile.TarFile, name: str, content: bytes) -> None:
        add(archive, name, content[:-1] + b"\0" if name == "000000003.png" else content)

    monkeypatch.setattr(shard_files, "_add", damaged)
    with pytest.raises(ValueError, match=r"train-000000\.tar does not hold what was written to it"):
        shard_data(str(source), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar"))


def test_pixels_become_files(fashion: str, tmp_path: Path) -> None:
    shard_data(fashion, tmp_path / "out", format="parquet")
    ours, theirs = open_data(str(tmp_path / "out")), open_data(fashion)
    assert ours.classes == theirs.classes
    assert all(ours.val.image(i).equal(theirs.val.image(i)) for i in range(40))


def test_an_image_without_a_label_is_left_out_and_told(source: Path, tmp_path: Path) -> None:
    photos(source / "train", 1, start=99)
    done = shard_data(str(source), tmp_path / "out")
    assert (done.images, done.notes) == (16, ("images without a label, left out: 1",))


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500_000_000), ("1.5 gb", 1_500_000_000), ("64K", 64_000), ("7", 7), ("9B", 9)]
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


def test_the_command(source: Path, here: Path) -> None:
    code, out, err = command("data", "shard", source, "out", "--size", "2KB")
    assert (code, err) == (0, "")
    assert out.startswith("16 images in ")
    code, again, err = command("data", "shard", source, "out", "--size", "2KB")
    assert (code, err) == (0, "")
    assert "of them from before" in again
    for words, sentence in (
        (("out", "--size", "3KB"), "out has shards of other images or settings"),
        (("out", "--size", "2KB", "--shuffle", "1"), "out has shards of other images or settings"),
        (("new", "--size", "much"), "--size much is not a size: write it as 500MB"),
        (("new", "--format", "zip"), "format='zip' is not one of tar, parquet"),
        ((source, "--format", "parquet"), "has other files in it: name a new folder"),
    ):
        code, out, err = command("data", "shard", source, *words)
        assert (code, out) == (2, "")
        assert sentence in err
    assert not (here / "new").exists()
