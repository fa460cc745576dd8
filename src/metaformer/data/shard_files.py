"""One shard, written and read again: a tar file in WebDataset's layout, or a Parquet file as Hugging Face writes them."""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from metaformer.data.inventory import Inventory

GROUP_BYTES, GROUP_ROWS = 2**26, 1000
"""Most of a Parquet file that a reader has to hold at a time."""


@dataclass(frozen=True)
class Sample:
    """An image in a shard."""

    key: str
    """Its number in its part, of nine digits."""
    suffix: str
    raw: bytes
    labels: tuple[int, ...]
    """Numbers of its classes; one, unless an image may have several."""
    path: str
    """Where it came from."""


class Writer(Protocol):
    """A format of shards."""

    def named(self, part: str, i: int, count: int) -> str:
        """What shard `i` of `count` is called."""
        ...

    def write(self, file: Path, samples: Iterator[Sample], inventory: Inventory) -> None:
        """Writes a shard, to the disk."""
        ...

    def read(self, file: Path) -> Iterator[Sample]:
        """The samples of a shard that was written."""
        ...


class Tar:
    """NNNNNNNNN.jpg, NNNNNNNNN.cls with the number of the class, and NNNNNNNNN.json with the path that it had.

    Where an image may have several labels there is no .cls, and the JSON has their numbers.
    """

    def named(self, part: str, i: int, count: int) -> str:
        return f"{part}-{i:06d}.tar"

    def write(self, file: Path, samples: Iterator[Sample], inventory: Inventory) -> None:
        with file.open("wb") as opened:
            with tarfile.open(fileobj=opened, mode="w", format=tarfile.GNU_FORMAT) as archive:
                for sample in samples:
                    _add(archive, sample.key + sample.suffix, sample.raw)
                    told: dict[str, Any] = {"path": sample.path}
                    if inventory.multi:
                        told["labels"] = list(sample.labels)
                    else:
                        _add(archive, f"{sample.key}.cls", str(sample.labels[0]).encode())
                    _add(archive, f"{sample.key}.json", json.dumps(told, ensure_ascii=False).encode())
            _to_disk(opened)

    def read(self, file: Path) -> Iterator[Sample]:
        with tarfile.open(file, "r:") as archive:
            key, suffix, raw, labels = "", "", b"", ()
            for member in archive:
                held = archive.extractfile(member)
                assert held is not None
                name, content = PurePosixPath(member.name), held.read()
                if name.suffix == ".cls":
                    labels = (int(content),)
                elif name.suffix == ".json":
                    told = json.loads(content)
                    yield Sample(key, suffix, raw, tuple(told.get("labels", labels)), told["path"])
                else:
                    key, suffix, raw = name.stem, name.suffix, content


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """A member without owner and date, so that the same images give the same shard."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))


class Parquet:
    """Rows of an image, as a struct of bytes and path, and a label, or a list of them; class names in the metadata."""

    def named(self, part: str, i: int, count: int) -> str:
        return f"{part}-{i:05d}-of-{count:05d}.parquet"

    def write(self, file: Path, samples: Iterator[Sample], inventory: Inventory) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        label = pa.list_(pa.int64()) if inventory.multi else pa.int64()
        feature: Any = {"names": list(inventory.classes), "_type": "ClassLabel"}
        features = {"image": {"_type": "Image"}, "label": {"feature": feature, "_type": "List"} if inventory.multi else feature}
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        told = {"huggingface": json.dumps({"info": {"features": features}})}
        schema = pa.schema([("image", image), ("label", label)], metadata=told)
        with file.open("wb") as opened:
            with pq.ParquetWriter(opened, schema, compression="snappy") as written:
                for group in _groups(samples):
                    images = [{"bytes": sample.raw, "path": sample.path} for sample in group]
                    labels = [list(sample.labels) if inventory.multi else sample.labels[0] for sample in group]
                    arrays = [pa.array(images, image), pa.array(labels, label)]
                    written.write_batch(pa.record_batch(arrays, schema=schema), row_group_size=len(group))
            _to_disk(opened)

    def read(self, file: Path) -> Iterator[Sample]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(64):
                for row in batch.to_pylist():
                    label, image = row["label"], row["image"]
                    labels = tuple(label) if isinstance(label, list) else (label,)
                    yield Sample("", "", image["bytes"], labels, image["path"])


def _groups(samples: Iterator[Sample]) -> Iterator[list[Sample]]:
    group: list[Sample] = []
    room = 0
    for sample in samples:
        if group and (room + len(sample.raw) > GROUP_BYTES or len(group) == GROUP_ROWS):
            yield group.copy()
            group.clear()
            room = 0
        group.append(sample)
        room += len(sample.raw)
    if group:
        yield group


def _to_disk(file: io.BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())


FORMATS: dict[str, Writer] = {"tar": Tar(), "parquet": Parquet()}
