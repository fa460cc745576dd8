"""Tar shards, in WebDataset's layout or of class folders → what is in them."""

import contextlib
import json
import os
import posixpath
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from metaformer.data.blocks import Shards, Spans
from metaformer.data.dataset import Label, Listing, Progress, names_of
from metaformer.data.find import is_image
from metaformer.data.parquet import chosen_parts, part_of
from metaformer.data.places import Places
from metaformer.data.store import Stored, here, look_up, text_of
from metaformer.data.tables import LABEL, number_order
from metaformer.download import cache_folder

VERSION = 1
"""Of the files in which indexes are kept."""
LARGEST = 2**20
"""Most bytes of a member that tells a label."""

Told = int | str | list[int | str] | None
"""What stands for a label in a shard: the number of a class, its name, several of them, or nothing."""


@dataclass
class Index:
    """The images of a tar, and what it says of them."""

    keys: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    without: int = 0
    """Samples without an image."""


def list_tar(places: Places, *, judged: bool = False, labels: str = "auto", progress: Progress | None = None) -> Listing:
    """The images of tar shards. What is in each is kept in the cache, by its place, size and date.

    The members of a sample follow each other and share their name up to its first dot: an image, and a `.cls` with the
    number or name of its class, or a `.json` with `label`, or with `labels`, a list. Without those, the folder that an
    image lies in is its class. `classes.json` beside the shards names the classes, `manifest.json` the shards that there
    are. `train`, `val`, `validation`, `valid` or `test` in the name or folder of a shard is its part. `labels` and
    `judged` as for Parquet. Raises ValueError or FileNotFoundError with a sentence.
    """
    chosen, notes = chosen_parts({file: places.name(file) for file in places.files}, judged=judged)
    return _list(places, chosen, notes, labels, progress)


def list_every_tar(places: Places) -> Listing:
    """The same of all shards, with the parts that they name, train, val, test or an empty word, as they are."""
    return _list(places, {file: part_of(Path(places.name(file))) or "" for file in places.files}, [], "auto", None)


def _list(
    places: Places, chosen: Mapping[str, str | None], notes: list[str], labels: str, progress: Progress | None
) -> Listing:
    _check_complete(places)
    found = {place: _found(place, places) for place in chosen}
    names = _class_names(places)
    keys: list[str] = []
    told: list[Label] = []
    parts: list[str] = []
    shards: list[Spans] = []
    without = 0
    for done, (place, part) in enumerate(chosen.items()):
        if progress is not None:
            progress("reading shards", done, len(chosen))
        index = _indexed(found[place])
        keys += [f"{places.name(place)} {key}" for key in index.keys]
        told += _named(index, names, place, labels)
        parts += [part] * len(index.keys) if part is not None else []
        shards.append(Spans(found[place], np.array(index.starts, np.int64), np.array(index.sizes, np.int64)))
        without += index.without
    multi = any(isinstance(label, tuple) for label in told)
    if multi and not all(isinstance(label, tuple) for label in told):
        raise ValueError(f"some shards of {places.root} have lists of labels and some have not: make them alike")
    if not keys:
        raise ValueError(f"{next(iter(chosen))} has no image in it")
    notes += [f"samples in shards that have no image, left out: {without:,}"] if without else []
    return Listing(Shards(shards), keys, told, names or number_order(names_of(told)), parts or None, tuple(notes), multi)


def _found(place: str, places: Places) -> Stored:
    """What is known of a shard. Raises FileNotFoundError where there is none."""
    try:
        return look_up(place)
    except FileNotFoundError as error:
        among = f", one of {len(places.files):,} shards that are named" if len(places.files) > 1 else ""
        raise FileNotFoundError(f"there is no {place}{among}") from error


def _check_complete(places: Places) -> None:
    """Raises FileNotFoundError where a folder lacks a shard that its manifest.json lists, ValueError where that is not done."""
    text = text_of(_beside(places, "manifest.json")) if places.whole else None
    if text is None:
        return
    listed = _object(text, _beside(places, "manifest.json"))
    there = {places.name(file) for file in places.files}
    shards = [entry["file"] for entry in listed.get("shards", ()) if isinstance(entry, dict) and "file" in entry]
    missing = [name for name in shards if name not in there]
    if missing:
        raise FileNotFoundError(f"{places.root} lacks {missing[0]}, which its manifest.json lists ({len(missing):,} in all)")
    if isinstance(listed.get("planned"), int) and len(shards) < listed["planned"]:
        raise ValueError(
            f"{places.root} has {len(shards)} of {listed['planned']} shards that were planned: let metaformer data shard end"
        )


def _class_names(places: Places) -> tuple[str, ...] | None:
    place = _beside(places, "classes.json")
    text = text_of(place)
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        names = json.loads(text)
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    raise ValueError(f"{place} is damaged: it is not a list of names")


def _beside(places: Places, name: str) -> str:
    return f"{places.root}/{name}" if places.root else name


def _object(text: str, place: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    raise ValueError(f"{place} is damaged: it holds no names with values")


# --- labels -----------------------------------------------------------------------------------------------------------


def _named(index: Index, names: Sequence[str] | None, place: str, labels: str) -> list[Label]:
    """The labels of a shard's images, by name. Raises ValueError that names the sample."""

    def one(told: int | str, key: str) -> str:
        if isinstance(told, str) or names is None:
            return str(told)
        if not 0 <= told < len(names):
            raise ValueError(f"label {told} of {key} in {place} is not the number of one of its {len(names)} classes")
        return names[told]

    folders = all(told is None for told in index.told) and all("/" in key for key in index.keys)
    found: list[Label] = []
    for key, told in zip(index.keys, index.told, strict=True):
        said = PurePosixPath(key).parent.name if folders else told
        if said is None or said == "":
            raise ValueError(f"{key} in {place} has no label: no .cls, no .json with one")
        if isinstance(said, list) and labels == "single":
            raise ValueError(f"{key} in {place} has a list of labels, and labels=single is one for each image: leave it out")
        several = tuple(dict.fromkeys(one(value, key) for value in (said if isinstance(said, list) else [said])))
        found.append(several if isinstance(said, list) or labels == "multi" else several[0])
    return found


def _told(suffix: str, content: bytes, name: str, place: str) -> Told:
    """What a .cls or .json says of a label."""
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} in {place} is not text in UTF-8") from error
    if suffix == "cls":
        return int(text) if text.lstrip("-").isdecimal() else text
    about = _object(text, f"{name} in {place}")
    value = next((about[key] for key in LABEL if key in about), None)
    if isinstance(value, list) and all(type(one) in (int, str) for one in value):
        return value
    if value is None or type(value) in (int, str):
        return value
    raise ValueError(f"label {value!r} of {name} in {place} is neither an integer nor text, nor a list of them")


# --- what is in a tar -------------------------------------------------------------------------------------------------


def _indexed(stored: Stored) -> Index:
    """What is in a tar, from the cache if it was read before."""
    kept = cache_folder() / "index" / f"{stored.key}.{VERSION}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Index(**json.loads(kept.read_text(encoding="utf-8")))
    with here(stored).open("rb") as file:
        index = read_index(file, stored.place)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time and nothing else
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(asdict(index)), encoding="utf-8")
        part.replace(kept)
    return index


def read_index(file: BinaryIO, place: str) -> Index:
    """Where each image of a tar lies, and its label. Raises ValueError: no tar, compressed, cut short, one name twice."""
    index = Index()
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for key, members in _samples(archive):
                _add(index, key, members, archive, place)
            file.seek(archive.offset)
            whole = file.read(tarfile.BLOCKSIZE) == tarfile.NUL * tarfile.BLOCKSIZE
    except (tarfile.TarError, EOFError) as error:
        if not index.keys:
            raise ValueError(f"{place} is not a tar that can be read: compressed ones have to be unpacked ({error})") from error
        whole = False
    if not whole:
        last = f" after {index.keys[-1]}" if index.keys else ""
        raise ValueError(f"{place} is cut short{last}, its image {len(index.keys):,}: fetch or write it again")
    if len(set(index.keys)) < len(index.keys):
        twice = next(key for i, key in enumerate(index.keys) if key in index.keys[:i])
        raise ValueError(f"{place} holds {twice} twice: a sample's files follow each other, and its name is its own")
    return index


def _samples(archive: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Key of each sample, with its members by what follows the first dot of their names, in lower case."""
    key, members = None, dict[str, tarfile.TarInfo]()
    for member in archive:
        folder, name = posixpath.split(member.name)
        if not member.isreg() or name.startswith("."):
            continue
        stem, _, suffix = name.partition(".")
        own = posixpath.join(folder.removeprefix("./").removeprefix("."), stem)
        if own != key:
            if key is not None:
                yield key, members
            key, members = own, dict[str, tarfile.TarInfo]()
        members[suffix.lower()] = member
    if key is not None:
        yield key, members


def _add(index: Index, key: str, members: Mapping[str, tarfile.TarInfo], archive: tarfile.TarFile, place: str) -> None:
    image = next((member for member in members.values() if is_image(Path(member.name))), None)
    if image is None:
        index.without += 1
        return
    told = None
    for suffix in ("cls", "cls.txt", "json"):
        held = archive.extractfile(members[suffix]) if suffix in members and told is None else None
        if held is not None:
            told = _told(suffix.removesuffix(".txt"), held.read(LARGEST), members[suffix].name, place)
    index.keys.append(key)
    index.starts.append(image.offset_data)
    index.sizes.append(image.size)
    index.told.append(told)
