"""Every format, here and elsewhere: the same images and labels, each once an epoch, by any number of ranks and workers."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.dirfs import DirFileSystem
from pyarrow.fs import LocalFileSystem
from tests.stored import CLASSES, COUNTS, label, on_the_web, write_parquets, write_table, write_tars
from tests.tiny import QUICK, after_steps, same, timeless, weights

from metaformer import download
from metaformer.config import Recipe
from metaformer.core.ranks import Ranks
from metaformer.data import hub as hub_module
from metaformer.data import loader, parquet, scan, store
from metaformer.data.augment import Augment
from metaformer.data.dataset import Data
from metaformer.data.loader import Loader
from metaformer.data.preprocess import Preprocess
from metaformer.data.sources import open_data, open_judged
from metaformer.data.splits import Encoded
from metaformer.runs import Run
from metaformer.train.train import go_on, prepare, start

PLAIN = Augment(pad=0.0, flip=0.0, erase=0.0, mixup=0.0, cutmix=0.0, seed=1)
FORMATS = (
    "folder",
    "table",
    "parquet",
    "parquet here",
    "tar",
    "web tar",
    "web parquet",
    "web table",
    "memory tar",
    "memory parquet",
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What `data=` takes, by format."""
    root = tmp_path_factory.mktemp("stored")
    write_tars(root / "tar"), write_parquets(root / "parquet"), write_table(root / "table")
    for i in range(COUNTS["train"] + COUNTS["val"]):
        part, i = ("train", i) if i < COUNTS["train"] else ("val", i - COUNTS["train"])
        file = root / "folder" / part / CLASSES[label(i)] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((root / "table" / part / f"{i}.png").read_bytes())
    memory = fsspec.filesystem("memory")
    for kind in ("tar", "parquet"):
        memory.put(str(root / kind), f"/stored/{kind}", recursive=True)
    with on_the_web(root) as hub:
        web = hub.address
        yield {
            "folder": f"{root}/folder", "table": f"{root}/table/all.csv", "parquet": f"{root}/parquet",
            "parquet here": f"{root}/parquet", "tar": f"{root}/tar",
            "web tar": f"{web}/tar/{{train-00000{{0..3}},val-00000{{0..1}}}}.tar",
            "web parquet": f"{web}/parquet/{{train-0000{{0..3}}-of-00004,val-0000{{0..1}}-of-00002}}.parquet",
            "web table": f"{web}/table/all.csv",
            "memory tar": "memory://stored/tar", "memory parquet": "memory://stored/parquet/*.parquet",
        }  # fmt: skip
    memory.rm("/stored", recursive=True)


@pytest.fixture(params=FORMATS)
def data(request: pytest.FixtureRequest, stored: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Data:
    """The images, opened from a format."""
    if request.param == "parquet here":
        monkeypatch.setattr(parquet.os, "sysconf", lambda _: 100)  # too large for the memory: read when it is wanted
    monkeypatch.setattr(loader, "WINDOW", 8)
    return open_data(stored[request.param])


def values(loader: Loader, epoch: int, start: int = 0) -> list[list[int]]:
    """What tells the images of each batch apart, as they were read."""
    return [pixels[:, 0, 0, 0].tolist() for pixels, _ in loader.pixels(epoch, start)]


def test_every_format_has_the_same_images_and_labels(data: Data) -> None:
    assert data.classes == CLASSES
    assert (data.channels, data.image_size, data.drawn, data.unreadable) == (3, None, (), ())
    for split, part in ((data.train, "train"), (data.val, "val")):
        assert isinstance(split, Encoded)
        shift = 100 if part == "val" else 0
        found = {int(split.image(i)[0, 0, 0]): CLASSES[split.labels[i]] for i in range(len(split))}
        assert found == {i + shift: CLASSES[label(i)] for i in range(COUNTS[part])}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_every_image_comes_once_an_epoch_for_ranks_and_goes_on_where_it_stopped(data: Data) -> None:
    preprocess, device = Preprocess(4, (0.5,), (0.5,)), torch.device("cpu")
    for count in (1, 2, 3, 4):
        loaders = [
            Loader(data.train, 5, preprocess, device, augment=PLAIN, ranks=Ranks(rank, count), window=None)
            for rank in range(count)
        ]
        for epoch in (0, 1):
            read = [values(loader, epoch) for loader in loaders]
            assert sorted(value for steps in read for batch in steps for value in batch) == list(range(23))
            assert all(values(loader, epoch, 2) == steps[2:] for loader, steps in zip(loaders, read, strict=True))
        assert values(loaders[0], 0) != values(loaders[0], 1)
        judging = [Loader(data.val, 2, preprocess, device, ranks=Ranks(rank, count)) for rank in range(count)]
        assert sorted(v for loader in judging for batch in values(loader, 0) for v in batch) == list(range(100, 107))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes:UserWarning")  # of two cores
def test_workers_change_nothing(data: Data, workers: int) -> None:
    preprocess, device = Preprocess(4, (0.5,), (0.5,)), torch.device("cpu")
    for count in (1, 2, 3, 4):
        read = []
        for rank in range(count):
            alone, helped = (
                Loader(data.train, 5, preprocess, device, augment=PLAIN, ranks=Ranks(rank, count), workers=many)
                for many in (0, workers)
            )
            assert values(helped, 1) == values(alone, 1)
            assert values(helped, 1, 2) == values(alone, 1, 2)
            read += values(helped, 0)
        assert sorted(value for batch in read for value in batch) == list(range(23))


def test_shards_elsewhere_are_read_one_after_the_other(stored: dict[str, str]) -> None:
    def shards(source: str, window: int | None) -> list[int]:
        split = open_data(stored[source]).train
        augment = PLAIN
        fed = Loader(split, 1, Preprocess(4, (0.5,), (0.5,)), torch.device("cpu"), augment=augment, window=window)
        return torch.tensor([batch[0] // 6 for batch in values(fed, 0)]).unique_consecutive().tolist()

    assert sorted(shards("memory tar", 1)) == [0, 1, 2, 3]
    assert len(shards("memory tar", None)) > 4  # 20,000, more than there are
    assert sorted(shards("tar", 1)) == [0, 1, 2, 3]
    assert len(shards("tar", None)) > 4


def test_judging_and_a_split_that_is_drawn(stored: dict[str, str], tmp_path: Path) -> None:
    judged = open_judged(stored["tar"], CLASSES, 3)
    assert (len(judged.train), len(judged.val), judged.val.name(0)) == (0, 7, "val-000000.tar 000000")
    drawn = open_data(f"tar:{stored['tar']}/train-*.tar")
    assert (len(drawn.train), len(drawn.val)) == (18, 5)
    assert dict(drawn.drawn).keys() == {f"train-{i // 6:06d}.tar {i:06d}" for i in range(23)}


def test_large_data_elsewhere_is_looked_at_in_part(stored: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "ALL", 10)
    monkeypatch.setattr(scan, "SAMPLE", 7)
    seen: list[tuple[int, int]] = []
    open_data(stored["memory parquet"], progress=lambda what, done, all_: seen.append((done, all_)))
    assert seen[-1] in {(19, 19), (18, 18)}  # what judges, 7, and two of four shards, of which one has 5 images
    copies = list((Path(os.environ["METAFORMER_CACHE"]) / "shards").glob("*.rows"))
    assert len(copies) == 4


def test_copies_take_no_more_room_than_is_said(stored: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.environ["METAFORMER_CACHE"]) / "shards"
    whole = open_data(stored["memory tar"])
    copies = sum(file.stat().st_size for file in folder.glob("*.tar"))
    largest = max(file.stat().st_size for file in folder.glob("*.tar"))
    assert len(list(folder.glob("*.tar"))) == 6
    monkeypatch.setenv("METAFORMER_SHARDS", str(2 * largest / 1e9))
    for file in folder.glob("*.tar"):
        file.unlink()
    images = [whole.train.image(i) for i in range(23)]
    assert len(images) == 23
    assert 0 < sum(file.stat().st_size for file in folder.glob("*.tar")) <= 2 * largest < copies
    monkeypatch.setenv("METAFORMER_SHARDS", "much")
    for file in folder.glob("*.tar"):
        file.unlink()
    with pytest.raises(ValueError, match="METAFORMER_SHARDS=much is not a number of gigabytes, such as 50"):
        whole.train.image(0)


def test_a_server_that_cuts_off_or_sends_no_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.01)
    root = write_tars(tmp_path / "stored" / "tar").parent
    with on_the_web(root) as hub:
        source = f"{hub.address}/tar/{{train-000000,val-000000}}.tar"
        # Each shard is looked up, which leads elsewhere, both before the names of the classes; the rest is fetching.
        hub.plan = ["well", "well", "well", "cut", "well", "cut", "no ranges"]
        data = open_data(source)
        assert (len(data.train), len(data.val), data.classes) == (6, 6, CLASSES)
        assert [bool(wanted) for wanted in hub.gets()[3:]] == [False, True, False, True]
        before = len(hub.asked)
        assert torch.equal(open_data(source).train.image(3), data.train.image(3))
        assert [path for kind, path, _ in hub.asked[before:] if kind == "GET" and not path.startswith("/bytes")] == []


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("https://example.org/shards/", "is no .tar, .parquet, .csv or .tsv file, and a web server cannot be asked"),
        ("https://example.org/train-*.tar", "a web server cannot be asked which files it has"),
        ("abfs://container/train.parquet", "abfs:// needs a package that is not here. Install adlfs"),
        ("zzz://bucket/train.parquet", "zzz:// is not known; https, s3, gs and hf are"),
        ("memory://nothing/*.tar", "nothing matches memory://nothing"),
        ("memory://nothing/a.parquet", "there is no memory://nothing/a.parquet"),
        ("tar:nothing-{3..1}.tar", "counts down: the lower number comes first"),
        ("tar:nothing-{x}.tar", "is neither numbers, such as {000..012}, nor names with commas"),
        ("tar:nothing-{0..2}.tar", "there is no nothing-0.tar, one of 3 shards that are named"),
        ("{a.tar,b.parquet}", "has files of several kinds, .parquet, .tar: name those that are meant"),
    ],
)
def test_what_cannot_be_had_is_said(source: str, sentence: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        open_data(source)
    assert re.search(sentence.replace("{", r"\{"), str(caught.value))


def test_google_s_storage_is_not_waited_for_a_quarter_of_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Arrow:
        @staticmethod
        def from_uri(uri: str) -> tuple[LocalFileSystem, str]:
            asked.append(uri)
            return LocalFileSystem(), "bucket/a.tar"

    monkeypatch.setattr("pyarrow.fs.FileSystem", Arrow)
    assert store.filesystem("gs://bucket/a.tar")[1] == store.filesystem("s3://bucket/a.tar")[1] == "bucket/a.tar"
    assert asked == ["gs://bucket/a.tar?retry_limit_seconds=20", "s3://bucket/a.tar"]


@pytest.mark.parametrize("source", ["hf:user/name", "s3://bucket/a.tar", "https://example.org/a.parquet"])
def test_offline_nothing_is_fetched(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFORMER_OFFLINE", "1")
    with pytest.raises(ConnectionError, match="is not on this machine, and METAFORMER_OFFLINE or HF_HUB_OFFLINE forbids"):
        open_data(source)


# --- the hub ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose inside stands for hf://."""
    files = DirFileSystem(str(tmp_path / "hub"), fsspec.filesystem("file"))

    def system(place: str) -> tuple[DirFileSystem, str]:
        return files, place.removeprefix("hf://")

    monkeypatch.setattr(hub_module, "filesystem", system)
    monkeypatch.setattr(store, "filesystem", system)
    return tmp_path / "hub" / "datasets" / "user"


def test_a_data_set_of_the_hub(hub: Path) -> None:
    write_parquets(hub / "own" / "data")
    write_parquets(hub / "two" / "small"), write_parquets(hub / "two" / "large")
    write_tars(hub / "tars")
    write_parquets(hub / "other@refs" / "convert" / "parquet" / "default")
    (hub / "other").mkdir()
    (hub / "other" / "all.zip").write_bytes(b"")
    for name in ("own", "two:small", "tars", "other", "other:default"):
        data = open_data(f"hf:user/{name}")
        assert (len(data.train), len(data.val), data.classes) == (23, 7, CLASSES)
    with pytest.raises(
        ValueError, match="hf:user/two has several configurations, large, small: name one, as in hf:user/two:large"
    ):
        open_data("hf:user/two")
    with pytest.raises(ValueError, match="hf:user/two has no configuration 'tiny': it has large, small"):
        open_data("hf:user/two:tiny")
    with pytest.raises(
        FileNotFoundError, match="hf:user/none is not on the hub, or has no Parquet or tar files, or needs HF_TOKEN"
    ):
        open_data("hf:user/none")


def test_a_part_is_not_taken_for_all(hub: Path) -> None:
    write_parquets(hub / "big@refs" / "convert" / "parquet" / "default" / "partial-train")
    with pytest.raises(ValueError, match="the hub has made Parquet files of a part of user/big only"):
        open_data("hf:user/big")


def test_manifests_say_what_is_missing(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "tar")
    listed = {"planned": 6, "shards": [{"file": file.name} for file in sorted(root.glob("*.tar"))]}
    (root / "manifest.json").write_text(json.dumps(listed))
    assert len(open_data(str(root)).train) == 23
    (root / "manifest.json").write_text(json.dumps(listed | {"planned": 7}))
    with pytest.raises(ValueError, match="has 6 of 7 shards that were planned: let metaformer data shard end"):
        open_data(str(root))
    (root / "manifest.json").write_text(json.dumps(listed))
    (root / "train-000002.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks train-000002.tar, which its manifest.json lists \(1 in all\)"):
        open_data(str(root))
    assert len(open_data(f"{root}/{{train-000000,val-000000}}.tar").train) == 6  # who names some wants no others


# --- training ---------------------------------------------------------------------------------------------------------


def recipe(source: str, **settings: Any) -> Recipe:
    return Recipe(model="caformer_t6", data=source, **{**QUICK, "batch": 4, **settings})


def test_the_window_is_the_recipes(stored: dict[str, str]) -> None:
    fit = prepare(recipe(stored["tar"], window=1), open_data(stored["tar"]), None)
    shards = torch.tensor([value // 6 for batch in values(fit.train, 0) for value in batch])
    assert sorted(shards.unique_consecutive().tolist()) == [0, 1, 2, 3]


@pytest.mark.usefixtures("thread")
@pytest.mark.parametrize("kind", ["table", "parquet", "tar", "web parquet", "memory tar"])
def test_a_run_goes_on_in_the_middle_of_an_epoch(
    kind: str, stored: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(stored[kind], window=8, workers=0)
    data = open_data(asked.data)
    whole = start(asked, data, None, name="run", root=tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        after_steps(patch, 9, lambda: signal.raise_signal(signal.SIGINT))  # the third of the six of the second epoch
        with pytest.raises(KeyboardInterrupt):
            start(asked, data, None, name="run", root=tmp_path / "part", quiet=True)
    part = go_on(Run(tmp_path / "part" / "run"), open_data(asked.data), None, quiet=True)
    assert same(weights(part.last), weights(whole.last))
    assert timeless(part.metrics) == timeless(whole.metrics)
