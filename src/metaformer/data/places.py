"""What `data=` names beside single files → the shards that are meant: braces, globs, folders, here or elsewhere."""

import glob
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metaformer.data.find import files_in
from metaformer.data.store import WEB, filesystem, is_remote

KINDS = (".tar", ".parquet")
BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Places:
    """Files in their order, and the folder that all are in."""

    root: str
    files: tuple[str, ...]
    whole: bool = False
    """Whether they are all of their kind that the folder has."""

    @property
    def kind(self) -> str:
        """The suffix that all have. Raises ValueError where they differ."""
        kinds = sorted({posixpath.splitext(file)[1].lower() for file in self.files})
        if len(kinds) > 1:
            raise ValueError(f"{self.root} has files of several kinds, {', '.join(kinds)}: name those that are meant")
        return kinds[0]

    def name(self, file: str) -> str:
        """Its path from the common folder on."""
        return posixpath.relpath(file, self.root) if self.root else file


def is_pattern(source: str) -> bool:
    """Whether a text has braces or stars that stand for several names."""
    return BRACES.search(source) is not None or glob.has_magic(source)


def find_places(source: str) -> Places:
    """The files that a path, an address or a pattern names, sorted; of a folder, its tar files, else its Parquet files.

    `{00..12}` counts, `{train,val}` lists; `*` and `?` match names where they can be listed, which web servers do not offer.
    Raises FileNotFoundError or ValueError with a sentence.
    """
    there = not is_remote(source) and Path(source).exists()  # whatever signs are in its name
    texts = [source] if there else [text if is_remote(text) else str(Path(text).expanduser()) for text in _unbraced(source)]
    named = texts if there else [file for text in texts for file in (_matches(text) if glob.has_magic(text) else [text])]
    if len(named) == 1 and not named[0].lower().endswith((*KINDS, ".csv", ".tsv")):
        return _in_folder(named[0])
    return gathered(dict.fromkeys(named))


def gathered(files: dict[str, None]) -> Places:
    """The files with the folder that all are in."""
    kind, mark, _ = next(iter(files)).rpartition("://")
    folders = [posixpath.dirname(file.removeprefix(kind + mark)) for file in files]
    return Places(kind + mark + posixpath.commonpath(folders), tuple(files))


def _unbraced(text: str) -> Iterator[str]:
    """The texts that one with braces stands for, in order."""
    found = BRACES.search(text)
    if found is None:
        yield text
        return
    inside = found[1]
    counted = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if counted is None and "," not in inside:
        raise ValueError(f"{{{inside}}} in {text!r} is neither numbers, such as {{000..012}}, nor names with commas between")
    if counted is not None:
        first, last = counted.groups()
        words = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
        if not words:
            raise ValueError(f"{{{inside}}} in {text!r} counts down: the lower number comes first")
    else:
        words = inside.split(",")
    for word in words:
        yield from _unbraced(text[: found.start()] + word + text[found.end() :])


def _matches(pattern: str) -> list[str]:
    """The files that stars stand for. Raises FileNotFoundError where there is none."""
    if not is_remote(pattern):
        found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
    elif pattern.partition("://")[0] in WEB:
        raise ValueError(f"{pattern}: a web server cannot be asked which files it has: name them, as in shard-{{00..12}}.tar")
    else:
        files, path = filesystem(pattern)
        found = [files.unstrip_protocol(name) for name in sorted(files.glob(path))]
    if not found:
        raise FileNotFoundError(f"nothing matches {pattern}")
    return found


def _in_folder(folder: str) -> Places:
    if not is_remote(folder):
        inside = [file.as_posix() for file in files_in(Path(folder))]
    elif folder.partition("://")[0] in WEB:
        raise ValueError(f"{folder} is no .tar, .parquet, .csv or .tsv file, and a web server cannot be asked what it has")
    else:
        files, path = filesystem(folder)
        inside = [files.unstrip_protocol(name) for name in sorted(files.find(path))]
    for kind in KINDS:
        found = [file for file in inside if file.lower().endswith(kind)]
        if found:
            return Places(folder.rstrip("/"), tuple(found), whole=True)
    raise FileNotFoundError(f"{folder} has no .tar or .parquet file in it")
