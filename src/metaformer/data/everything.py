"""All that `data=` may name → an inventory of every image in it, the parts that training leaves alone included."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaformer.data.dataset import Data, Label, Progress, names_of
from metaformer.data.find import SUFFIXES, files_in, is_image, subfolders
from metaformer.data.folder import JUDGING
from metaformer.data.inventory import Gathering, Inventory, Item
from metaformer.data.parquet import IMAGE, class_names, has_lists, labels_of, part_of
from metaformer.data.places import Places
from metaformer.data.sources import FORMS, KNOWN, find_shards, nothing
from metaformer.data.splits import Encoded
from metaformer.data.store import one_line
from metaformer.data.tables import LABEL, WORDS, find_column, number_order, read_rows, separate, separator
from metaformer.data.tar import list_every_tar


def take_stock(source: str, progress: Progress | None = None) -> Inventory:
    """Every image of what `data=` names: train, val and test. No image is opened; files that are missing are counted too.

    Raises ValueError or FileNotFoundError with a sentence.
    """
    name, _, place = source.partition(":")
    path = Path(place if name in KNOWN else source).expanduser()
    if name in KNOWN and not (name == "cifar10" and place and any(path.glob("*.parquet"))):
        return _of_pixels(source, KNOWN[name](place, progress))
    places = find_shards(source)
    if places is not None:
        return _of_tars(source, places)
    if not source or not path.exists():
        raise nothing(source)
    if path.is_dir() and not any(file.suffix.lower() == ".parquet" for file in files_in(path)):
        return _of_folder(source, path)
    if path.is_dir() or path.suffix.lower() == ".parquet":
        return _of_parquet(source, path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _of_table(source, path)
    raise ValueError(f"data={source} is a file, but not a .parquet, .csv or .tsv one; allowed: {FORMS}")


# --- folders and tables -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    """Image files below a folder."""

    root: Path
    names: Sequence[str]

    def read(self, numbers: Sequence[int]) -> Iterator[Item]:
        """Their paths."""
        return (self.root / self.names[i] for i in numbers)


def _of_folder(source: str, root: Path) -> Inventory:
    """Class folders in train/, val/, test/ ..., or in the folder itself. Images outside of them have no label."""
    tops = {path.name.lower(): path for path in subfolders(root)}
    known = ["train", *JUDGING]
    divided = "train" in tops or (bool(tops) and tops.keys() <= set(JUDGING))
    places = [(tops[name], WORDS[name]) for name in known if name in tops] if divided else [(root, None)]
    rows, passed = Gathering(), Counter[str]()
    for place, part in places:
        above = place.relative_to(root).parts
        for file in files_in(place):
            if not is_image(file):
                passed[file.suffix.lower() or "without suffix"] += 1
                continue
            inside = file.relative_to(place).parts
            rows.add("/".join((*above, *inside)), inside[0] if len(inside) > 1 else None, part)
    if not rows.names:
        raise ValueError(f"{root} has no image in it ({', '.join(SUFFIXES)})")
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in passed.most_common(4))
    notes = [f"files in {root} that are no images by their names, left out: {passed.total():,} ({kinds})"] if passed else []
    others = sorted(path.name for name, path in tops.items() if divided and name not in known)
    notes += [f"folders beside train/ in {root}, left out: {', '.join(others[:4])}"] if others else []
    return rows.done(source, Files(root, rows.names), notes=notes)


def _of_table(source: str, file: Path) -> Inventory:
    lines = read_rows(file)
    multi = any("|" in row.label for row in lines)
    texts = [row.label for row in lines]
    labels = separate(texts, separator(texts)) if multi else texts
    rows = Gathering()
    for row, label in zip(lines, labels, strict=True):
        path = row.path if not row.path.startswith("~") else str(Path(row.path).expanduser())
        rows.add(path, label if label or multi else None, row.part)
    return rows.done(source, Files(file.parent, rows.names), order=number_order(names_of(rows.said)), multi=multi)


# --- Parquet ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """Images in the rows of Parquet files, read a few at a time."""

    columns: Sequence[tuple[Path, str]]
    """Each file with its column of images."""
    ends: Sequence[int]
    """How many rows there are up to each file's last."""

    def read(self, numbers: Sequence[int]) -> Iterator[Item]:
        """Their bytes; in rising order none is held, in another all of them are."""
        wanted = np.asarray(numbers, dtype=np.int64)
        order = np.argsort(wanted, kind="stable")
        rising = self._rising(wanted[order])
        if (order == np.arange(len(order))).all():
            yield from rising
            return
        found: dict[int, bytes] = dict(zip(order.tolist(), rising, strict=True))
        yield from (found.pop(i) for i in range(len(order)))

    def _rising(self, wanted: NDArray[np.int64]) -> Iterator[bytes]:
        for (file, column), (first, last) in zip(self.columns, pairwise([0, *self.ends]), strict=True):
            inside = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, last)] - first
            if len(inside):
                yield from _rows_of(file, column, inside)


def _rows_of(file: Path, column: str, wanted: NDArray[np.int64]) -> Iterator[bytes]:
    """Images of a file, by rising row; row groups without any are skipped."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    at = 0
    with pq.ParquetFile(file) as opened:
        for group in range(opened.num_row_groups):
            start, at = at, at + opened.metadata.row_group(group).num_rows
            if np.searchsorted(wanted, start) == np.searchsorted(wanted, at):
                continue
            for batch in opened.iter_batches(64, row_groups=[group], columns=[column]):
                images = batch.column(0)
                if pa.types.is_struct(images.type):
                    images = images.field("bytes")
                low, high = np.searchsorted(wanted, [start, start + len(images)])
                yield from (images[row - start].as_py() or b"" for row in wanted[low:high].tolist())
                start += len(images)


def _of_parquet(source: str, place: Path) -> Inventory:
    files = [place] if place.is_file() else [file for file in files_in(place) if file.suffix.lower() == ".parquet"]
    root = place.parent if place.is_file() else place
    words = {file: part_of(file.relative_to(root)) for file in files}
    rows, multi = Gathering(), False
    columns: list[tuple[Path, str]] = []
    ends: list[int] = []
    order: tuple[str, ...] | None = None
    for file in files:
        column, labels, names = _columns(file)
        if rows.names and names != order and None not in (names, order):
            raise ValueError(f"{file} names other classes than {files[0]}")
        order = names or order
        for row, label in enumerate(labels):
            multi |= isinstance(label, tuple)
            rows.add(f"{file.relative_to(root).as_posix()} row {row}", label, words[file])
        columns.append((file, column))
        ends.append(len(rows.names))
    return rows.done(source, Stored(columns, ends), order=order or number_order(names_of(rows.said)), multi=multi)


def _columns(file: Path) -> tuple[str, list[Label], tuple[str, ...] | None]:
    """The column of images, the labels by name, and the order of the classes if the file says it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
        image, label = find_column(schema.names, IMAGE, "image", file), find_column(schema.names, LABEL, "label", file)
        column = pq.read_table(file, columns=[label])[label]
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is not a Parquet file, or it is damaged ({one_line(error)})") from error
    kind = schema.field(image).type
    kind = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(f"column {image!r} of {file} holds {kind}, not the bytes of image files")
    names = class_names(schema, label)
    return image, labels_of(column, label, file, names, lists=has_lists(column.type), labels="auto"), names


# --- tar --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Listed:
    """Images that are read one by one."""

    items: Sequence[Path | bytes]

    def read(self, numbers: Sequence[int]) -> Iterator[Item]:
        """Their bytes."""
        return (self.items[i] for i in numbers)


def _of_tars(source: str, places: Places) -> Inventory:
    if places.kind != ".tar":
        raise ValueError(
            f"{source}: of patterns and addresses only tar files can be looked at as a whole: name a file or folder"
        )
    listing, rows = list_every_tar(places), Gathering()
    assert listing.parts is not None
    for key, label, part in zip(listing.keys, listing.labels, listing.parts, strict=True):
        rows.add(key, label, part)
    return rows.done(source, Listed(listing.items), order=listing.classes, multi=listing.multi, notes=listing.notes)


# --- pixels -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images of a data set that is stored as pixels."""

    data: Data

    def read(self, numbers: Sequence[int]) -> Iterator[Item]:
        """Pixels (H, W) or (H, W, 3), of what is learnt from first."""
        for i in numbers:
            split, place = (self.data.train, i) if i < len(self.data.train) else (self.data.val, i - len(self.data.train))
            pixels = split.image(place).permute(1, 2, 0).numpy()
            yield pixels[..., 0] if pixels.shape[2] == 1 else pixels


def _of_pixels(source: str, data: Data) -> Inventory:
    rows = Gathering()
    for part, split in (("train", data.train), ("val", data.val)):
        assert not isinstance(split, Encoded)
        for i, label in enumerate(split.labels.tolist()):
            rows.add(f"{part} {split.name(i)}", data.classes[label], part)
    return rows.done(source, Decoded(data), order=data.classes)
