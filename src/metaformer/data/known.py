"""Data sets known by name: digits, Fashion-MNIST, CIFAR-10."""

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaformer.data.check import build
from metaformer.data.dataset import Data, Progress, in_memory
from metaformer.data.download import Remote, fetch
from metaformer.data.parquet import list_parquet
from metaformer.data.splits import Images
from metaformer.download import hash_of

# fmt: off
FASHION = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion"
GARMENTS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FASHION_FILES = tuple(Remote("fashion-mnist", name, FASHION, "sha256", digest) for name, digest in (
    ("train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    ("train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    ("t10k-images-idx3-ubyte.gz",  "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    ("t10k-labels-idx1-ubyte.gz",  "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
))
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR = Remote(  # the MD5 on the authors' page
    "cifar10", "cifar-10-binary.tar.gz", "https://www.cs.toronto.edu/~kriz", "md5", "c32a1d4ab5d03f1284b67883e8d87530"
)
PICKLED = {  # MD5 of the files in cifar-10-batches-py, as torchvision publishes them
    "data_batch_1": "c99cafc152244af753f735de768cd75f", "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751", "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb", "test_batch": "40351d587109b95175f43aff81a1287e",
}
# fmt: on


def digits(_: str, progress: Progress | None = None) -> Data:
    """1,797 real handwritten digits, 8×8 grey (UCI, carried by scikit-learn). 360 are held out, stratified, seed 0."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch: Any = load_digits()
    pixels = torch.from_numpy((bunch.images[:, None] * (255 / 16)).round().astype(np.uint8))
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    train, val = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    parts = Images(pixels[train], labels[train]), Images(pixels[val], labels[val])
    return in_memory(*parts, tuple("0123456789"), image_size=32, mirrors=False)


def fashion_mnist(place: str, progress: Progress | None = None) -> Data:
    """Fashion-MNIST, 60,000 + 10,000 grey 28×28, from the four original IDX files, gzipped or not; without a folder that
    has them they are downloaded. torchvision's folder (FashionMNIST/raw) will do too."""
    if place:
        folder = Path(place).expanduser()
        folder = next((raw for raw in (folder / "FashionMNIST/raw", folder / "raw") if raw.is_dir()), folder)
    else:
        files = [fetch(remote, progress=progress) for remote in FASHION_FILES]
        folder = files[0].parent
    splits = []
    for prefix in ("train", "t10k"):
        pixels = _read_idx(folder, f"{prefix}-images-idx3-ubyte", 3)
        labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte", 1)
        if len(pixels) != len(labels):
            raise ValueError(f"{folder}: {len(pixels)} {prefix} images but {len(labels)} labels")
        if not len(labels) or labels.max() >= len(GARMENTS):
            raise ValueError(f"{folder}: the {prefix} labels are not some of 0 to {len(GARMENTS) - 1}")
        splits.append(Images(pixels.unsqueeze(1), labels.long()))
    return in_memory(splits[0], splits[1], GARMENTS, image_size=28, mirrors=True)


def _read_idx(folder: Path, name: str, axes: int) -> Tensor:
    """An IDX file of bytes: two zeros, type 8, the number of axes, each axis' length in big-endian, then the bytes."""
    file = next((folder / n for n in (name, f"{name}.gz") if (folder / n).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder} has neither {name} nor {name}.gz")
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{file} is damaged ({error})") from error
    head = 4 + 4 * axes
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i]) for i in range(axes)]
    if raw[:4] != bytes((0, 0, 8, axes)) or len(raw) != head + int(np.prod(shape)):
        raise ValueError(f"{file} is not an IDX file of {axes} axes, or it is cut short")
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=head).reshape(shape).copy())


def cifar10(place: str, progress: Progress | None = None) -> Data:
    """CIFAR-10, 50,000 + 10,000 colour 32×32.

    From a folder with train.parquet and test.parquet, from cifar-10-batches-bin or cifar-10-batches-py (or the folder
    above, as torchvision lays it out), or from cifar-10-binary.tar.gz; without a place it is downloaded.
    """
    path = Path(place).expanduser() if place else fetch(CIFAR, progress=progress)
    if path.is_file():
        records = _from_tar(path)
    elif (folder := _inner(path, "cifar-10-batches-bin", "test_batch.bin")) is not None:
        records = ((name, (folder / f"{name}.bin").read_bytes()) for name in PICKLED)
    elif (folder := _inner(path, "cifar-10-batches-py", "test_batch")) is not None:
        records = _from_pickles(folder)
    elif path.is_dir() and any(path.glob("*.parquet")):
        return _from_parquet(path, progress)
    else:
        raise FileNotFoundError(
            f"{path} has neither train.parquet and test.parquet, nor cifar-10-batches-bin, nor cifar-10-batches-py; "
            "data=cifar10 without a path downloads it"
        )
    batches = dict(records)
    train = [_images(raw, name) for name, raw in batches.items() if name != "test_batch"]
    both = Images(torch.cat([part.pixels for part in train]), torch.cat([part.labels for part in train]))
    return in_memory(both, _images(batches["test_batch"], "test_batch"), OBJECTS, image_size=32, mirrors=True)


def _inner(path: Path, name: str, sign: str) -> Path | None:
    return next((folder for folder in (path, path / name) if (folder / sign).is_file()), None)


def _images(raw: bytes, name: str) -> Images:
    """Records of a label and the red, green and blue plane."""
    if not raw or len(raw) % 3073 or max(raw[::3073]) > 9:
        raise ValueError(f"CIFAR-10's {name} is damaged: it is not records of a label and 3 × 32 × 32 bytes")
    records = torch.from_numpy(np.frombuffer(raw, np.uint8).reshape(-1, 3073).copy())
    return Images(records[:, 1:].reshape(-1, 3, 32, 32).contiguous(), records[:, 0].long())


def _from_tar(file: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the six batches in an archive, read in memory."""
    found = 0
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                name = Path(member.name).stem
                opened = archive.extractfile(member) if name in PICKLED and member.size <= 2**26 else None
                if opened is not None and member.name.endswith(".bin"):
                    found += 1
                    yield name, opened.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{file} is no tar archive, or it is damaged ({error})") from error
    if found != len(PICKLED):
        raise ValueError(f"{file} has {found} of the six batches of CIFAR-10's binary version")


def _from_pickles(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The same from the version for Python. A pickle can run code when it is read, so only the published bytes are read,
    told by their hash, and even then nothing in them is called."""
    for name, digest in PICKLED.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}")
        if hash_of(folder / name, "md5") != digest:
            raise ValueError(
                f"{folder / name} is not the published file, and a pickle that is unknown is not read: give "
                "Parquet files or cifar-10-batches-bin"
            )
        batch = _Plain(io.BytesIO((folder / name).read_bytes()), encoding="bytes").load()
        pixels = np.frombuffer(batch[b"data"].raw, np.uint8).reshape(-1, 3072)
        labels = np.array(batch[b"labels"], np.uint8)[:, None]
        yield name, np.hstack([labels, pixels]).tobytes()


class _Plain(pickle.Unpickler):
    """Reads numbers, text and containers; of an array it keeps the bytes, and nothing is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.partition(".")[0], name) in {("numpy", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}:
            return _Kept
        raise ValueError(f"a pickle that wants {module}.{name} is not read")


class _Kept:
    """In the place of an array: its bytes."""

    raw = b""

    def __init__(self, *_: object) -> None:
        """Nothing of how it was made is kept."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.raw = state[-1] if isinstance(state[-1], bytes) else b""


def _from_parquet(path: Path, progress: Progress | None) -> Data:
    data = build(list_parquet(path), str(path), progress=progress)
    if data.drawn or data.classes not in (OBJECTS, tuple("0123456789")):
        raise ValueError(f"{path} is not CIFAR-10: it needs a train and a test file with its ten classes")
    return replace(data, classes=OBJECTS, notes=())
