"""Data sets: embedded digits, and IDX files, sound or damaged."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from tests.tiny import write_fashion, write_idx

from metaformer.data.dataset import statistics
from metaformer.data.sources import open_data

REAL = Path(__file__).parents[3] / "shared" / "data" / "fashion-mnist"


def test_digits() -> None:
    data = open_data("digits")
    assert (len(data.train), len(data.val)) == (1437, 360)
    assert (data.classes, data.channels, data.image_size, data.mirrors) == (tuple("0123456789"), 1, 32, False)
    assert data.val.labels.bincount().tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    pixels, labels = data.train.pixels[:5], data.train.labels[:5]
    assert (pixels.dtype, pixels.shape, labels.dtype) == (torch.uint8, (5, 1, 8, 8), torch.int64)


def test_digits_are_all_there_once_and_on_one_side() -> None:
    data, bunch = open_data("digits"), load_digits()
    parts = [(split.pixels, split.labels) for split in (data.train, data.val)]
    pixels, labels = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    ours = sorted((label, tuple(image.flatten().tolist())) for image, label in zip(pixels, labels.tolist(), strict=True))
    grey = (bunch.images * 255 / 16).round().astype(int).reshape(-1, 64).tolist()
    assert ours == sorted((label, tuple(image)) for image, label in zip(grey, bunch.target.tolist(), strict=True))
    assert pixels.max() == 255


def test_digits_are_split_the_same_every_time() -> None:
    assert open_data("digits").val.labels[:8].tolist() == [7, 6, 3, 7, 7, 3, 2, 8]


def test_statistics_by_numpy() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (20, 3, 5, 4))
    mean, std = statistics(torch.from_numpy(pixels.astype(np.uint8)))
    assert mean == pytest.approx((pixels / 255).mean((0, 2, 3)))
    assert std == pytest.approx((pixels / 255).std((0, 2, 3)))
    assert statistics(torch.full((2, 1, 3, 3), 7, dtype=torch.uint8)) == ((pytest.approx(7 / 255),), (pytest.approx(1e-6),))


def test_fashion_mnist_reads_gzipped_and_plain_files(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    for prefix, count, end in (("train", 7, ".gz"), ("t10k", 3, "")):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte{end}", random.randint(0, 256, (count, 5, 4)))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte{end}", np.arange(count))
    data = open_data(f"fashion-mnist:{tmp_path}")
    assert (data.channels, data.image_size, data.mirrors, len(data.classes)) == (1, 28, True, 10)
    expected = np.random.RandomState(0).randint(0, 256, (7, 5, 4))
    pixels, labels = data.train.pixels[[6, 0]], data.train.labels[[6, 0]]
    assert torch.equal(pixels, torch.from_numpy(expected[[6, 0], None].astype(np.uint8)))
    assert labels.tolist() == [6, 0]
    assert len(data.val) == 3


def test_home_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion(tmp_path / "fashion")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(open_data("fashion-mnist:~/fashion").train) == 96


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"


def _again(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda raw: gzip.compress(change(gzip.decompress(raw)))


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "gzip cut short": (IMAGES, lambda raw: raw[: len(raw) // 2], "is damaged"),
    "not gzip": (IMAGES, lambda raw: b"not gzip" + raw, "is damaged"),
    "gzip with a wrong byte": (IMAGES, lambda raw: raw[:400] + bytes([raw[400] ^ 255]) + raw[401:], "is damaged"),
    "empty": (IMAGES, lambda _: b"", "is not an IDX file of 3 axes, or it is cut short"),
    "images cut short": (IMAGES, _again(lambda raw: raw[:-1]), "is not an IDX file of 3 axes, or it is cut short"),
    "images too long": (IMAGES, _again(lambda raw: raw + b"0"), "is not an IDX file of 3 axes, or it is cut short"),
    "floats": (IMAGES, _again(lambda raw: b"\0\0\x0d" + raw[3:]), "is not an IDX file of 3 axes"),
    "labels cut short": (LABELS, lambda raw: raw[:-1], "is not an IDX file of 1 axes, or it is cut short"),
    "head cut short": (LABELS, lambda raw: raw[:3], "is not an IDX file of 1 axes, or it is cut short"),
    "wrong magic": (LABELS, lambda raw: b"PK" + raw[2:], "is not an IDX file of 1 axes"),
    "one label less": (LABELS, lambda raw: raw[:7] + b"\x5f" + raw[8:-1], "96 train images but 95 labels"),
    "an eleventh class": (LABELS, lambda raw: raw[:-1] + b"\x0a", "the train labels are not some of 0 to 9"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    name, change, sentence = DAMAGES[damage]
    source = write_fashion(tmp_path)
    (tmp_path / name).write_bytes(change((tmp_path / name).read_bytes()))
    with pytest.raises(ValueError, match=f"{tmp_path}.*{sentence}"):
        open_data(source)


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the t10k labels are not some of 0 to 9"):
        open_data(write_fashion(tmp_path, val=0))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has neither train-images-idx3-ubyte nor train-images-idx3-ubyte\.gz"):
        open_data(f"fashion-mnist:{tmp_path}")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("digit", r"^no data 'digit', and no such folder or file; did you mean digits\?$"),
        ("fashion_mnist:x", r"did you mean fashion-mnist:x\?$"),
        ("CIFAR-10", r"did you mean cifar10\?$"),
        ("photographs", r"^no data 'photographs', and no such folder or file; allowed: digits, fashion-mnist\[:PATH\], "),
        ("", "^no data ''"),
    ],
)
def test_open_data_says_what_is_allowed(source: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        open_data(source)


def test_a_mistyped_path_is_put_right(here: Path) -> None:
    Path("photographs/train").mkdir(parents=True)
    for wrong, right in (("fotographs", "photographs"), ("photographs/trian", "photographs/train")):
        with pytest.raises(FileNotFoundError, match=rf"^there is no {wrong}; did you mean {right}\?$"):
            open_data(wrong)
    with pytest.raises(FileNotFoundError, match=r"^there is no photographs/x; data= may be digits, "):
        open_data("photographs/x")


@pytest.mark.skipif(not REAL.is_dir(), reason="Fashion-MNIST is not there")
def test_real_fashion_mnist() -> None:
    data = open_data(f"fashion-mnist:{REAL}")
    assert (len(data.train), len(data.val)) == (60_000, 10_000)
    assert data.train.labels.bincount().tolist() == [6000] * 10
    assert data.val.labels.bincount().tolist() == [1000] * 10
    assert [data.classes[i] for i in data.val.labels[:4].tolist()] == ["Ankle boot", "Pullover", "Trouser", "Trouser"]
    assert data.mean == pytest.approx((0.2860,), abs=5e-5)  # the figures everybody uses
    assert data.std == pytest.approx((0.3530,), abs=5e-5)
