"""Which files are meant: paths, folders of images, globs."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm",
    ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""What marks a file in a folder as an image, in any case of letters; HEIC too, which is not read, lest it is missed."""


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """The files named, the images anywhere in the folders named, and what globs such as "photos/**/*.jpg" match
    (only the images among it, if there are any).

    Folders and globs are sorted; hidden files are left out; nothing comes twice. A file named that does not exist is
    kept, so that it gets its own answer. Raises ValueError where a folder has no image or a glob matches nothing.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found |= dict.fromkeys(_images_of(path))
        elif glob.has_magic(str(path)) and not path.exists():
            found |= dict.fromkeys(_matches(str(path)))
        else:
            found[path] = None
    return list(found)


def _images_of(folder: Path) -> list[Path]:
    inside = [file for file in files_in(folder) if is_image(file)]
    if not inside:
        raise ValueError(f"{folder} has no image in it ({', '.join(SUFFIXES)})")
    return inside


def _matches(pattern: str) -> list[Path]:
    matches = sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207  Path.glob takes no absolute pattern
    if not matches:
        raise ValueError(f"nothing matches {pattern}")
    files = [path for path in matches if path.is_file()]
    files = [path for path in files if is_image(path)] or files
    return files + [file for path in matches if path.is_dir() and "**" not in pattern for file in _images_of(path)]


def is_image(file: Path) -> bool:
    """Whether a file is an image by its name."""
    return file.suffix.lower() in SUFFIXES


def files_in(folder: Path) -> Iterator[Path]:
    """All files below a folder, sorted; hidden ones and hidden folders left out; links followed, each folder once."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))
        seen.add(real)


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name; hidden ones and what macOS adds to archives left out."""
    inside = (path for path in folder.iterdir() if path.is_dir())
    return sorted(path for path in inside if not path.name.startswith(".") and path.name != "__MACOSX")


def printable(path: str | Path) -> str:
    """A path as one line of text that can be written: bytes that are not UTF-8 become \\xNN, line breaks \\n."""
    text = os.fsencode(path).decode("utf-8", errors="backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
