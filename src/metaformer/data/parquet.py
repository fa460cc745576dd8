"""Parquet files with images in them → what is in them."""

import json
import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from metaformer.data.blocks import Column, Shards
from metaformer.data.dataset import Label, Listing, names_of
from metaformer.data.find import files_in
from metaformer.data.places import Places
from metaformer.data.store import Stored, look_up, one_line, opened
from metaformer.data.tables import LABEL, WORDS, find_column, number_order, separate, separator, wanted_parts

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE = ("image", "img", "bytes", "image_bytes", "picture", "jpg", "png")


class Rows(Sequence[Path | bytes]):
    """The images of Parquet files, kept as Arrow has read them: no copy, no Python object each."""

    def __init__(self, column: "pa.ChunkedArray") -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, i: int) -> bytes: ...
    @overload
    def __getitem__(self, i: slice) -> "Rows": ...
    def __getitem__(self, i: int | slice) -> "bytes | Rows":
        return Rows(self.column[i]) if isinstance(i, slice) else self.column[i].as_py() or b""


def list_parquet(place: Path, *, judged: bool = False, labels: str = "auto") -> Listing:
    """The rows of a Parquet file, or of all in a folder; see `list_rows`."""
    files = [place] if place.is_file() else [file for file in files_in(place) if file.suffix.lower() == ".parquet"]
    if not files:
        raise ValueError(f"{place} has no .parquet file in it")
    root = place.parent if place.is_file() else place
    return list_rows(Places(str(root), tuple(map(str, files))), judged=judged, labels=labels)


def list_rows(places: Places, *, judged: bool = False, labels: str = "auto") -> Listing:
    """The rows of Parquet files.

    The image column holds the bytes of image files, or structs with `bytes` (as Hugging Face writes them); labels are
    integers or text. Files with train, val, valid, validation or test in their name or folder are those parts; where no
    file is so named, nothing says which rows judge. Class names come from Hugging Face's metadata where they are there.
    `labels`: single; multi, with lists of them, or texts with those of an image between `|` or `;`; or auto, multi where they
    are lists. With `judged`, only the part that judges is wanted. Images that are here and fill at most half of the memory are
    read at once; others when they are wanted. Raises ValueError or FileNotFoundError with a sentence.
    """
    import pyarrow as pa

    chosen, notes = chosen_parts({file: places.name(file) for file in places.files}, judged=judged)
    found = {file: _found(file) for file in chosen}
    fits = not any(file.remote for file in found.values()) and _fits(found.values())
    columns: list[Any] = []
    shards: list[Column] = []
    keys: list[str] = []
    every: list[Label] = []
    parts: list[str] = []
    order: tuple[str, ...] | None = None
    for file, part in chosen.items():
        column, told, names = _read(found[file], file, labels, images=fits)
        if keys and names != order and None not in (names, order):
            raise ValueError(f"{file} names other classes than {next(iter(chosen))}")
        order = names
        if isinstance(column, Column):
            shards.append(column)
        else:
            columns += column.chunks
        keys += [f"{places.name(file)} row {row}" for row in range(len(told))]
        every += told
        parts += [part] * len(told) if part is not None else []
    multi = labels == "multi" or any(isinstance(label, tuple) for label in every)
    if multi:
        every = _several(every, places.root)
    if order is None:
        order = number_order(names_of(every))
    items = Rows(pa.chunked_array(columns, pa.large_binary())) if fits else Shards(shards)
    return Listing(items, keys, every, order, parts or None, tuple(notes), multi)


def _found(file: str) -> Stored:
    try:
        return look_up(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no {file}") from error


def _several(labels: list[Label], place: str) -> list[Label]:
    """The labels of each image. Raises ValueError where some files have lists of them and others have not."""
    texts = [label for label in labels if isinstance(label, str)]
    if texts and len(texts) < len(labels):
        raise ValueError(f"some files of {place} have lists of labels and some have not: make them alike")
    return separate(texts, separator(texts)) if texts else labels


def part_of(path: Path) -> str | None:
    """The part that a path names, the last word counting: train-00000-of-00004.parquet, data/test/0.parquet."""
    words = [word for word in re.split(r"[^a-z]+", path.as_posix().lower()) if word in WORDS]
    return WORDS[words[-1]] if words else None


def chosen_parts(files: Mapping[str, str], *, judged: bool) -> tuple[dict[str, str | None], list[str]]:
    """Which files are read, as which part (None: not said), by what each is called; and what is to be told of it."""
    words = {file: part_of(Path(name)) for file, name in files.items()}
    wanted, notes = wanted_parts(set(words.values()), judged=judged)
    rest = [posixpath.basename(files[file]) for file, word in words.items() if word not in wanted]
    if rest and not judged:
        notes.append(f"{', '.join(rest[:3])}{' …' if len(rest) > 3 else ''} left alone")
    return {file: wanted[word] for file, word in words.items() if word in wanted}, notes


def _fits(files: Iterable[Stored]) -> bool:
    """Whether what the files hold takes at most half of what memory the machine has."""
    import pyarrow.parquet as pq

    total = 0
    for file in files:
        try:
            groups = pq.read_metadata(file.place)
        except (ValueError, OSError) as error:
            raise ValueError(f"{file.place} is not a Parquet file, or it is damaged ({one_line(error)})") from error
        total += sum(groups.row_group(i).total_byte_size for i in range(groups.num_row_groups))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**33
    return total <= memory / 2


def _read(
    stored: Stored, file: str, labels: str, *, images: bool
) -> tuple["pa.ChunkedArray | Column", list[Label], tuple[str, ...] | None]:
    """Image bytes, or where they are to be read; labels by name; and the order of the classes if the file says it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened(stored) as source, pq.ParquetFile(source) as rows:
            schema = rows.schema_arrow
            image, label = find_column(schema.names, IMAGE, "image", file), find_column(schema.names, LABEL, "label", file)
            table = rows.read(columns=[image, label] if images else [label])
    except (ConnectionError, FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is not a Parquet file, or it is damaged ({one_line(error)})") from error
    kind = schema.field(image).type
    struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    kind = kind.field("bytes").type if struct else kind
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(f"column {image!r} of {file} holds {kind}, not the bytes of image files")
    names = class_names(schema, label)
    lists = has_lists(table[label].type)
    if lists and labels == "single":
        raise ValueError(f"{label} of {file} has lists of labels, and labels=single is one for each image: leave it out")
    told = labels_of(table[label], label, file, names, lists=lists, labels=labels)
    if not images:
        return Column(stored, image, len(told)), told, names
    held = table[image]
    if struct:
        held = pa.chunked_array([chunk.field("bytes") for chunk in held.chunks], kind)
    return held.cast(pa.large_binary()), told, names


def has_lists(kind: "pa.DataType") -> bool:
    """Whether a column of this type has several values for each row."""
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def class_names(schema: "pa.Schema", label: str) -> tuple[str, ...] | None:
    """The names in the metadata that Hugging Face's `datasets` writes."""
    try:
        kept = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = kept["info"]["features"][label]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)  # of a list's values
        names = feature["names"]
        return tuple(names.values()) if isinstance(names, dict) else tuple(map(str, names))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def labels_of(
    column: "pa.ChunkedArray", label: str, file: Path | str, names: tuple[str, ...] | None, *, lists: bool, labels: str
) -> list[Label]:
    """The labels in a column, by name. Raises ValueError that names the row."""

    def one(value: object, row: int) -> str:
        if names is None:
            return _label(value, row, label, file)
        if type(value) is not int or not 0 <= value < len(names):
            raise ValueError(f"{label} {value!r} in row {row} of {file} is not a number of one of its {len(names)} classes")
        return names[value]

    values = enumerate(column.to_pylist())
    if lists:
        return [tuple(dict.fromkeys(one(value, row) for value in found or ())) for row, found in values]
    if labels != "multi":
        return [one(value, row) for row, value in values]
    if names is not None:
        return [(one(value, row),) for row, value in values]
    return ["" if value is None or value == "" else one(value, row) for row, value in values]


def _label(value: object, row: int, label: str, file: Path | str) -> str:
    if value is None or value == "":
        raise ValueError(f"row {row} of {file} has no {label}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int | str):
        raise ValueError(f"{label} {value!r} in row {row} of {file} is neither an integer nor text")
    return str(value)
