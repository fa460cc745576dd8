"""A data set → shards: tar files in WebDataset's layout, or Parquet files as Hugging Face writes them; bytes unchanged."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaformer.data.dataset import Progress, names_of
from metaformer.data.everything import take_stock
from metaformer.data.inventory import Inventory, Item
from metaformer.data.look import SUFFIXES, format_of
from metaformer.data.shard_files import FORMATS, Sample, Writer

MANIFEST, CLASSES = "manifest.json", "classes.json"
SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class Sharded:
    """What was written."""

    folder: Path
    shards: int
    images: int
    bytes: int
    kept: int
    """Shards of an earlier call that were finished, and were checked again."""
    notes: tuple[str, ...]


def shard_data(
    source: str,
    out: str | Path,
    *,
    format: str = "tar",
    size: str = "500MB",
    shuffle: int | None = None,
    progress: Progress | None = None,
) -> Sharded:
    """Writes every image that `data=` names into shards of about `size` in the folder `out`, each part its own.

    `format` is tar or parquet. With `shuffle`, a seed, the images of a part are in random order. Images that are stored
    as pixels become PNG files; others keep their bytes. Each shard is read again and compared before it gets its name;
    one that is finished is not written again, so a call that was cut short goes on where it was.
    Raises ValueError with a sentence: other shards in `out`, an image that cannot be opened or has no label.
    """
    if format not in FORMATS:
        raise ValueError(f"format={format!r} is not one of {', '.join(FORMATS)}")
    inventory = take_stock(source, progress)
    notes = inventory.notes
    if not inventory.multi and (bare := int((inventory.labels < 0).sum())):
        notes += (f"images without a label, left out: {bare:,}",)
    plan, parcels = _plan(inventory, format, bytes_of(size), shuffle)
    folder = Path(out)
    finished = _finished(folder, plan)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / CLASSES, list(inventory.classes))
    kept, done = len(finished), 0
    for parcel in parcels:
        file = folder / parcel.name
        known = finished.get(parcel.name)
        if known is None or not file.is_file() or _hash_of(file) != known["sha256"]:
            kept -= known is not None
            finished[parcel.name] = _write(inventory, parcel, file, FORMATS[format])
            _write_json(folder / MANIFEST, plan | {"shards": [finished[p.name] for p in parcels if p.name in finished]})
        done += len(parcel.numbers)
        if progress is not None:
            progress("writing shards", done, sum(len(p.numbers) for p in parcels))
    total = sum(entry["bytes"] for entry in finished.values())
    return Sharded(folder, len(parcels), done, total, kept, notes)


def bytes_of(size: str) -> int:
    """500MB → 500,000,000. Raises ValueError for what is no size."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", size.strip().upper())
    whole = int(float(found[1]) * SIZES[found[2]]) if found else 0
    if whole < 1:
        raise ValueError(f"--size {size} is not a size: write it as 500MB, 64KB or 2GB")
    return whole


# --- what goes where --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Parcel:
    """A shard to be: its name, and the images in it in their order."""

    name: str
    numbers: NDArray[np.int64]
    first: int
    """What its first image is numbered in its part."""


def _plan(inventory: Inventory, format: str, most: int, shuffle: int | None) -> tuple[dict[str, Any], list[Parcel]]:
    """What the manifest says of all shards, and the shards; the same source and settings give the same ones."""
    sizes = _sizes(inventory)
    parcels: list[Parcel] = []
    for part, name in enumerate(inventory.named):
        inside = np.flatnonzero((inventory.parts == part) & ((inventory.labels >= 0) | inventory.multi))
        if shuffle is not None:
            inside = np.random.default_rng([shuffle, part]).permutation(inside)
        cuts = _cuts(sizes[inside], most)
        for i, (start, end) in enumerate(pairwise(cuts)):
            called = FORMATS[format].named(name or "images", i, len(cuts) - 1)
            parcels.append(Parcel(called, inside[start:end], start))
    digest = hashlib.sha256(repr((format, most, shuffle, inventory.classes, inventory.multi)).encode())
    for parcel in parcels:
        digest.update(parcel.name.encode())
        for i in parcel.numbers.tolist():
            digest.update(f"{inventory.names[i]}\0{inventory.label(i)}\0{sizes[i]}\n".encode(errors="surrogateescape"))
    return {
        "version": 1, "format": format, "source": inventory.source, "size": most, "shuffle": shuffle, "multi": inventory.multi,
        "images": {name or "images": int((inventory.parts == part).sum()) for part, name in enumerate(inventory.named)},
        "planned": len(parcels), "plan": digest.hexdigest(),
    }, parcels  # fmt: skip


def _cuts(sizes: NDArray[np.int64], most: int) -> list[int]:
    """Where shards end, from 0 on, so that none has more than `most` bytes unless it is one image."""
    cuts, room = [0], 0
    for i, size in enumerate(sizes.tolist()):
        if room + size > most and i > cuts[-1]:
            cuts.append(i)
            room = 0
        room += size
    return [*cuts, len(sizes)] if len(sizes) else cuts


def _sizes(inventory: Inventory) -> NDArray[np.int64]:
    """(N,): how many bytes each image has; of pixels, that many bytes. Raises ValueError for a file that is not there."""
    sizes = np.zeros(len(inventory), np.int64)
    for i, item in enumerate(inventory.items.read(range(len(inventory)))):
        if isinstance(item, Path):
            if not item.is_file():
                raise ValueError(f"there is no file {item}, which {inventory.source} names: metaformer data check lists all")
            sizes[i] = item.stat().st_size
        else:
            sizes[i] = len(item) if isinstance(item, bytes) else item.size
    return sizes


def _finished(folder: Path, plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The shards that are there, by name. Raises ValueError where they are of other images or settings."""
    file = folder / MANIFEST
    if not file.is_file():
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if names - {f"{CLASSES}.tmp"} and CLASSES not in names:
            raise ValueError(f"{folder} has other files in it: name a new folder")
        return {}
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        if before["plan"] == plan["plan"]:
            return {entry["file"]: entry for entry in before["shards"]}
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{file} is damaged: remove {folder} or name a new folder") from error
    raise ValueError(f"{folder} has shards of other images or settings (see its {MANIFEST}): remove it or name a new folder")


# --- writing ----------------------------------------------------------------------------------------------------------


def _write(inventory: Inventory, parcel: Parcel, file: Path, writer: Writer) -> dict[str, Any]:
    """Writes a shard under another name, reads it again, renames it; what the manifest says of it."""
    temporary = file.with_name(file.name + ".tmp")
    told = hashlib.sha256()
    writer.write(temporary, _told(_samples(inventory, parcel), told), inventory)
    again = hashlib.sha256()
    count = sum(1 for _ in _told(writer.read(temporary), again))
    if count != len(parcel.numbers) or told.digest() != again.digest():
        raise ValueError(f"{file} does not hold what was written to it: is the disk sound?")
    entry = {"file": file.name, "images": count, "bytes": temporary.stat().st_size, "sha256": _hash_of(temporary)}
    temporary.replace(file)
    return entry


def _samples(inventory: Inventory, parcel: Parcel) -> Iterator[Sample]:
    place = {name: i for i, name in enumerate(inventory.classes)}
    items = inventory.items.read(parcel.numbers.tolist())
    for number, (i, item) in enumerate(zip(parcel.numbers.tolist(), items, strict=True), parcel.first):
        raw = _bytes(item)
        label = int(inventory.labels[i])
        names = names_of([inventory.said[label]]) if label >= 0 else set()
        suffix = SUFFIXES.get(format_of(raw), (Path(inventory.names[i]).suffix.lower() or ".bin",))[0]
        yield Sample(f"{number:09d}", suffix, raw, tuple(sorted(place[name] for name in names)), inventory.name(i))


def _bytes(item: Item) -> bytes:
    if isinstance(item, np.ndarray):
        file = BytesIO()
        Image.fromarray(item).save(file, "png")
        return file.getvalue()
    return item if isinstance(item, bytes) else item.read_bytes()


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def _told(samples: Iterator[Sample], into: _Hash) -> Iterator[Sample]:
    """The samples, with all that they are added to a hash."""
    for sample in samples:
        into.update(repr((sample.labels, sample.path)).encode() + hashlib.sha256(sample.raw).digest())
        yield sample


def _hash_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write_json(file: Path, told: dict[str, Any] | Sequence[str]) -> None:
    """Under a temporary name, then renamed: a reader sees the old file or the new one."""
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(file)
