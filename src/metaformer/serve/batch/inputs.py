"""Which images are meant, cut into parts once and for all; and the images of a part, read as they are wanted.

Words may be files, folders and globs of images, Parquet files and tar shards, here or at an address.
"""

import glob
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from metaformer.data.find import files_in, find_images, is_image, printable
from metaformer.data.places import KINDS, find_places, is_pattern
from metaformer.data.store import WEB, filesystem, is_remote, look_up, one_line, opened
from metaformer.download import PassingError, retried

PART = 500
"""Images of a part: what is done again, at most, where a worker dies."""
AT_ONCE = 64
"""Rows of a Parquet file that are held at a time."""

Image = Path | bytes | str
"""A file here, the bytes of one, or an address."""


@dataclass(frozen=True)
class Piece:
    """What is read from one place: an image, a group of rows of a Parquet file, or a whole tar."""

    name: str
    """What records call it."""
    place: str
    """An absolute path or an address."""
    group: int = -1
    """Of a Parquet file the number of the group of rows; -1 of other files, and of those that could not be read."""
    count: int = 1
    """How many images it stands for, as far as is known."""

    @property
    def kind(self) -> str:
        """.parquet, .tar, or nothing for an image."""
        return next((kind for kind in KINDS if self.place.lower().endswith(kind)), "")


# --- listing ----------------------------------------------------------------------------------------------------------


def list_parts(words: Sequence[str], size: int = PART) -> list[list[Piece]]:
    """The pieces of each part, about `size` images each; a tar is one part, for it is read from its start to its end.

    Nothing comes twice. Raises ValueError or FileNotFoundError for a word that names nothing.
    """
    parts: list[list[Piece]] = []
    known: set[str] = set()
    full = size
    for name in (name for word in words for name in _named(word)):
        place = name if is_remote(name) else os.path.abspath(name)  # noqa: PTH100  Path.absolute keeps "..", and one file would come twice
        if place in known:
            continue
        known.add(place)
        for piece in _pieces(printable(name), place, size):
            if full >= size:
                parts.append([])
                full = 0
            parts[-1].append(piece)
            full += piece.count
    if not parts:
        raise ValueError(f"{' '.join(words)} has no image in it")
    return parts


def only_images(words: Sequence[str]) -> bool:
    """Whether these are files, folders and globs of images here, which need no parts."""
    return not any(is_remote(word) or word.lower().endswith(KINDS) for word in words)


def _named(word: str) -> list[str]:
    """The files that a word of the command line stands for, as records call them."""
    path = Path(word).expanduser()
    if word.lower().endswith(KINDS) and not path.is_dir():
        named = list(find_places(word).files)
        if gone := [file for file in named if not is_remote(file) and not Path(file).is_file()]:
            raise FileNotFoundError(
                f"there is no {gone[0]}" + (f", and {len(gone) - 1} more are not there" if len(gone) > 1 else "")
            )
        return named
    if not is_remote(word) and not is_pattern(word) and not path.exists():
        raise FileNotFoundError(f"there is no {word}")
    if is_remote(word):
        return _elsewhere(word)
    if path.is_dir() and not any(is_image(file) for file in files_in(path)):
        shards = [str(file) for file in files_in(path) if file.suffix.lower() in KINDS]
        if shards:
            return shards
    return list(map(str, find_images([path])))


def _elsewhere(word: str) -> list[str]:
    """The images at an address, in a folder there or by a pattern; shards where a folder has no images."""
    if word.partition("://")[0] in WEB:
        if is_pattern(word):
            raise ValueError(f"{word}: a web server cannot be asked which files it has: name them, or shards-{{00..12}}.tar")
        return [word]
    files, path = filesystem(word)
    found = files.glob(path) if glob.has_magic(path) else files.find(path)
    names = [files.unstrip_protocol(name) for name in sorted(found)]
    right = [name for name in names if is_image(Path(name))] or [name for name in names if name.lower().endswith(KINDS)]
    if not right:
        _check_reached(files, path, word)
        raise FileNotFoundError(f"there is no image and no .tar or .parquet file at {word}")
    return right


def _check_reached(files: Any, path: str, word: str) -> None:
    """A listing leaves out what cannot be asked. Raises ConnectionError where that is all of it."""
    try:
        files.info(re.split(r"[*?\[]", path, maxsplit=1)[0].rstrip("/"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConnectionError(f"cannot reach {word}: {one_line(error)}") from error


def _pieces(name: str, place: str, size: int) -> Iterator[Piece]:
    whole = Piece(name, place, count=size)
    if whole.kind != ".parquet":
        yield whole if whole.kind else Piece(name, place)
        return
    groups = _groups(place)
    yield from (Piece(name, place, i, rows) for i, rows in enumerate(groups) if rows) if groups is not None else (whole,)


def _groups(place: str) -> list[int] | None:
    """How many rows each group of a Parquet file has; None of one that is damaged, which is an error among the results.

    Raises ValueError where it has no column of images, OSError where it is not to be had.
    """
    import pyarrow as pa

    from metaformer.data.parquet import IMAGE  # torch comes with it, which an exported file does without
    from metaformer.data.tables import find_column

    try:
        with _table(place) as table:
            about = table.metadata
            find_column(table.schema_arrow.names, IMAGE, "image", place)
            return [about.row_group(i).num_rows for i in range(about.num_row_groups)]
    except pa.ArrowException:
        return None


@contextmanager
def _table(place: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with opened(look_up(place)) as source, pq.ParquetFile(source) as table:
        yield table


# --- reading ----------------------------------------------------------------------------------------------------------


WRONG = (FileNotFoundError, PermissionError, ValueError)
"""What is an input's own fault, and so stands among the errors; other trouble passes, and ends the job until it goes on."""


def images_of(pieces: Iterable[Piece]) -> Iterator[tuple[str, Image | Exception]]:
    """Name and image of each input of a part; or what is wrong with a shard, after the images that it still gave."""
    for piece in pieces:
        if not piece.kind:
            yield piece.name, piece.place if is_remote(piece.place) else Path(piece.place)
            continue
        try:
            yield from _rows(piece) if piece.kind == ".parquet" else _members(piece)
        except WRONG as error:
            yield piece.name, error


def read(image: Image) -> Path | bytes:
    """The bytes of an image that lies elsewhere; what is here is left as it is. Raises OSError or ValueError."""
    if not isinstance(image, str):
        return image
    if image.partition("://")[0] in WEB:
        with opened(look_up(image)) as file:
            return file.read()
    files, path = filesystem(image)

    def got() -> bytes:
        try:
            return files.cat_file(path)
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            raise PassingError(str(error)) from error

    return retried(got, f"read {image}")


def _rows(piece: Piece) -> Iterator[tuple[str, bytes]]:
    """The images of a group of rows, a few at a time."""
    import pyarrow as pa

    from metaformer.data.parquet import IMAGE
    from metaformer.data.tables import find_column

    try:
        with _table(piece.place) as table:
            about = table.metadata
            if not 0 <= piece.group < about.num_row_groups or about.row_group(piece.group).num_rows != piece.count:
                raise ValueError("it is not the file that it was when the job was begun: give another --out")
            column = find_column(table.schema_arrow.names, IMAGE, "image", piece.place)
            row = sum(about.row_group(i).num_rows for i in range(piece.group))
            for batch in table.iter_batches(AT_ONCE, row_groups=[piece.group], columns=[column]):
                images = batch.column(0)
                for image in images.field("bytes") if pa.types.is_struct(images.type) else images:
                    yield f"{piece.name} row {row}", image.as_py() or b""
                    row += 1
    except pa.ArrowException as error:
        raise ValueError(f"not a Parquet file, or it is damaged ({one_line(error)})") from error


def _members(piece: Piece) -> Iterator[tuple[str, bytes]]:
    """The images of a tar, from its start to its end. Raises ValueError where that is missing."""
    last = ""
    with opened(look_up(piece.place)) as file:
        tail: Any = _Tail(file)
        try:
            with tarfile.open(fileobj=tail, mode="r|") as archive:
                for member in archive:
                    if not member.isreg() or not is_image(Path(member.name)) or Path(member.name).name.startswith("."):
                        continue
                    held = archive.extractfile(member)
                    assert held is not None
                    content, last = held.read(), member.name
                    yield f"{piece.name} {printable(member.name)}", content
            while tail.read(2**20):
                pass
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(f"not a tar, or cut short{last and f' after {last}'} ({one_line(error)})") from error
        if tail.last != tarfile.NUL * tarfile.BLOCKSIZE:
            raise ValueError(f"cut short{last and f' after {last}'}: fetch or write it again")


class _Tail:
    """A file that is read from start to end, and what it ended with: a tar ends with a block of zeros."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.last = file, b""

    def read(self, size: int) -> bytes:
        """The next bytes."""
        data = self.file.read(size)
        self.last = (self.last + data)[-tarfile.BLOCKSIZE :]
        return data
