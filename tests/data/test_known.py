"""CIFAR-10 in all its layouts, and what is downloaded where no path is given."""

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.tiny import write_fashion

from metaformer import download
from metaformer.data import known
from metaformer.data.dataset import Data
from metaformer.data.download import Remote
from metaformer.data.sources import open_data, open_judged
from metaformer.data.splits import Images
from metaformer.download import hash_of

CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg"
NAMES = tuple(known.PICKLED)


def records(name: str, count: int = 20) -> np.ndarray:
    """(count, 3073): a label, then 3 × 32 × 32 bytes."""
    made = np.random.RandomState(NAMES.index(name)).randint(0, 256, (count, 3073), np.uint8)
    made[:, 0] = np.arange(count) % 10
    return made


def as_bin(folder: Path) -> Path:
    (folder / "cifar-10-batches-bin").mkdir(parents=True)
    for name in NAMES:
        (folder / f"cifar-10-batches-bin/{name}.bin").write_bytes(records(name).tobytes())
    return folder


def as_tar(folder: Path) -> Path:
    as_bin(folder)
    (folder / "cifar-10-batches-bin/readme.html").write_text("not a batch")
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(folder / "cifar-10-batches-bin", "cifar-10-batches-bin")
    return folder / "cifar-10-binary.tar.gz"


def as_pickles(folder: Path) -> Path:
    (folder / "cifar-10-batches-py").mkdir(parents=True)
    for name in NAMES:
        made = records(name)
        batch = {b"data": made[:, 1:].copy(), b"labels": made[:, 0].tolist(), b"filenames": [b"x.png"] * 20}
        (folder / f"cifar-10-batches-py/{name}").write_bytes(pickle.dumps(batch, protocol=3))
    return folder


def published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the pickles of a folder were those that were published."""
    files = {name: hash_of(folder / "cifar-10-batches-py" / name, "md5") for name in NAMES}
    monkeypatch.setattr(known, "PICKLED", files)


def as_parquet(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    train = np.concatenate([records(name) for name in NAMES[:5]])
    for part, made in (("train", train), ("test", records("test_batch"))):
        images = []
        for record in made:
            file = io.BytesIO()
            Image.fromarray(record[1:].reshape(3, 32, 32).transpose(1, 2, 0)).save(file, "png")
            images.append({"bytes": file.getvalue(), "path": None})
        pq.write_table(pa.table({"image": images, "label": made[:, 0].astype(np.int64)}), folder / f"{part}.parquet")
    return folder


def check(data: Data) -> None:
    assert isinstance(data.train, Images)
    assert isinstance(data.val, Images)
    train = np.concatenate([records(name) for name in NAMES[:5]])
    for split, made in ((data.train, train), (data.val, records("test_batch"))):
        assert torch.equal(split.pixels, torch.from_numpy(made[:, 1:].reshape(-1, 3, 32, 32).copy()))
        assert split.labels.tolist() == made[:, 0].tolist()
    assert (data.classes[0], data.classes[9], len(data.classes)) == ("airplane", "truck", 10)
    assert (data.channels, data.image_size, data.mirrors, data.notes, data.drawn) == (3, 32, True, (), ())
    assert data.mean == pytest.approx((0.5, 0.5, 0.5), abs=0.01)


@pytest.mark.parametrize("layout", [as_bin, as_tar, as_parquet, lambda folder: as_bin(folder) / "cifar-10-batches-bin"])
def test_layouts(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    check(open_data(f"cifar10:{layout(tmp_path / 'here')}"))


def test_the_python_layout_is_read_without_running_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_pickles(tmp_path)
    published(tmp_path, monkeypatch)
    check(open_data(f"cifar10:{tmp_path}"))
    check(open_data(f"cifar10:{tmp_path}/cifar-10-batches-py"))


def test_an_unknown_pickle_is_not_read(tmp_path: Path) -> None:
    as_pickles(tmp_path)
    with pytest.raises(ValueError, match=r"data_batch_1 is not the published file, and a pickle that is unknown is not read"):
        open_data(f"cifar10:{tmp_path}")


class Evil:
    """What a pickle may do."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.mkdir, (self.sign,)


def test_a_pickle_calls_nothing_even_if_its_hash_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_pickles(tmp_path)
    (tmp_path / "cifar-10-batches-py/data_batch_1").write_bytes(pickle.dumps(Evil(tmp_path / "sign")))
    published(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=r"a pickle that wants .* is not read$"):
        open_data(f"cifar10:{tmp_path}")
    assert not (tmp_path / "sign").exists()


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has neither train\.parquet and test\.parquet, nor cifar-10-batches-bin, nor"):
        open_data(f"cifar10:{tmp_path}")
    folder = as_bin(tmp_path / "bin") / "cifar-10-batches-bin"
    (folder / "data_batch_3.bin").write_bytes(records("data_batch_3").tobytes()[:-1])
    with pytest.raises(ValueError, match=r"^CIFAR-10's data_batch_3 is damaged: it is not records of a label and 3 × 32 × 32"):
        open_data(f"cifar10:{tmp_path}/bin")
    (folder / "data_batch_3.bin").write_bytes(b"\x0a" + records("data_batch_3").tobytes()[1:])
    with pytest.raises(ValueError, match="data_batch_3 is damaged"):
        open_data(f"cifar10:{tmp_path}/bin")
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3\.bin"):
        open_data(f"cifar10:{tmp_path}/bin")
    archive = as_tar(tmp_path / "tar")
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz is no tar archive, or it is damaged \("):
        open_data(f"cifar10:{archive}")
    (tmp_path / "text.tar.gz").write_text("no archive")
    with pytest.raises(ValueError, match=r"text\.tar\.gz is no tar archive, or it is damaged \("):
        open_data(f"cifar10:{tmp_path}/text.tar.gz")
    with tarfile.open(tmp_path / "other.tar", "w") as other:
        other.add(folder, "cifar-10-batches-bin")
    with pytest.raises(ValueError, match="has 5 of the six batches of CIFAR-10's binary version"):
        open_data(f"cifar10:{tmp_path}/other.tar")


def test_other_parquet_files_are_refused(tmp_path: Path) -> None:
    as_parquet(tmp_path)
    (tmp_path / "test.parquet").unlink()
    with pytest.raises(ValueError, match="is not CIFAR-10: it needs a train and a test file with its ten classes"):
        open_data(f"cifar10:{tmp_path}")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that downloads come from, and an empty cache."""
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METAFORMER_MIRROR", (tmp_path / "mirror").as_uri())
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return tmp_path / "mirror"


def as_served(remote: Remote, mirror: Path) -> Remote:
    """With the hash of what the mirror has."""
    return replace(remote, hexdigest=hash_of(mirror / remote.folder / remote.name, remote.algorithm))


def test_cifar10_is_downloaded(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = as_tar(tmp_path / "here")
    (mirror / "cifar10").mkdir(parents=True)
    archive.rename(mirror / "cifar10/cifar-10-binary.tar.gz")
    with pytest.raises(ValueError, match=r"what came from \S+ is not the published file"):
        open_data("cifar10")
    monkeypatch.setattr(known, "CIFAR", as_served(known.CIFAR, mirror))
    check(open_data("cifar10"))


def test_fashion_mnist_is_downloaded(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion(mirror / "fashion-mnist")
    for plain in (mirror / "fashion-mnist").glob("*ubyte"):
        plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    monkeypatch.setattr(known, "FASHION_FILES", tuple(as_served(remote, mirror) for remote in known.FASHION_FILES))
    data = open_data("fashion-mnist")
    assert (len(data.train), len(data.val)) == (96, 40)


def test_addresses_are_https_and_hashes_are_published() -> None:
    files = (*known.FASHION_FILES, known.CIFAR)
    assert all(file.base.startswith("https://") for file in files)
    torchvision = pytest.importorskip("torchvision.datasets")
    published = {name for name, _ in torchvision.FashionMNIST.resources}
    assert {file.name for file in known.FASHION_FILES} == published
    batches = [*torchvision.CIFAR10.train_list, *torchvision.CIFAR10.test_list]
    assert dict(map(tuple, batches)) == known.PICKLED


def test_torchvision_finds_its_own_folder(tmp_path: Path) -> None:
    write_fashion(tmp_path / "FashionMNIST/raw")
    for place in (tmp_path, tmp_path / "FashionMNIST", tmp_path / "FashionMNIST/raw"):
        assert len(open_data(f"fashion-mnist:{place}").train) == 96


def test_judging_by_name(tmp_path: Path) -> None:
    data = open_judged("digits", tuple("0123456789"), 3)
    assert (len(data.train), len(data.val), data.channels, data.val.image(0).shape) == (0, 360, 3, (3, 8, 8))
    with pytest.raises(ValueError, match=r"^the classes of digits, 0, 1, 2, 3 …, are not the model's, ants, bees$"):
        open_judged("digits", ("ants", "bees"), 3)


@pytest.mark.skipif(not CIFAR.is_dir(), reason="the JPEG CIFAR-10 is not there")
def test_real_cifar10() -> None:
    data = open_data(f"cifar10:{CIFAR}")
    assert isinstance(data.train, Images)
    assert data.train.labels.bincount().tolist() == [5000] * 10
    assert data.val.labels.bincount().tolist() == [1000] * 10
    assert data.std == pytest.approx((0.2452, 0.2428, 0.2606), abs=5e-5)  # as measured in its SOURCE.md
    names = json.loads(pq.read_schema(CIFAR / "test.parquet").metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    assert data.classes == tuple(names)
