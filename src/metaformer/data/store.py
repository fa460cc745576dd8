"""Files that may lie elsewhere (https://, s3://, gs://, hf:// ...): what is known of one, its bytes, and a copy here.

Copies are of whole files, in a folder of bounded size that the processes of a machine share: a server need not send parts.
"""

import contextlib
import hashlib
import os
import posixpath
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from metaformer import download

SPACE = 50.0
"""Gigabytes that copies may take; $METAFORMER_SHARDS says another number."""
WEB = ("http", "https")
BY_ARROW = ("s3", "gs", "gcs")
"""What pyarrow reads by itself, where fsspec would need another package."""
PATIENCE = 20
"""Seconds of trying again until Google's storage counts as unreachable; unless told, pyarrow takes a quarter of an hour."""


@dataclass(frozen=True)
class Stored:
    """A file as it was when it was found."""

    place: str
    """A path or an address."""
    size: int | None = None
    version: str = ""
    """What changes with its content, as far as its keeper tells."""

    @property
    def remote(self) -> bool:
        """Whether it lies elsewhere."""
        return is_remote(self.place)

    @property
    def name(self) -> str:
        """The last part of its place."""
        return posixpath.basename(self.place)

    @property
    def key(self) -> str:
        """A name for what is made of it here, another one when it changes."""
        about = repr((self.place, self.size, self.version))
        return f"{hashlib.blake2b(about.encode(), digest_size=10).hexdigest()}-{self.name[-60:]}"


def is_remote(place: str) -> bool:
    """Whether this is an address and no path."""
    return "://" in place


def look_up(place: str) -> Stored:
    """What is known of a file. Raises FileNotFoundError or ConnectionError, and ValueError for an unknown kind of address."""
    if not is_remote(place):
        found = Path(place).stat()
        return Stored(os.path.abspath(place), found.st_size, str(found.st_mtime_ns))  # noqa: PTH100  Path.absolute keeps "..", and one file would be stored under two names
    if _on_the_web(place):
        _check_online(place)
        return download.retried(lambda: _look_up_on_the_web(place), f"reach {place}")
    files, path = filesystem(place)
    about = files.info(path)
    return Stored(place, about.get("size"), str(files.ukey(path)))


def _look_up_on_the_web(place: str) -> Stored:
    request = urllib.request.Request(place, method="HEAD", headers={"User-Agent": "metaformer"})
    try:
        with urllib.request.urlopen(request, timeout=download.TIMEOUT) as answer:
            size = answer.headers.get("Content-Length", "")
            version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            return Stored(place, int(size) if size.isdigit() else None, version)
    except urllib.error.HTTPError as error:
        error.close()
        raise download.refused(place, error.code, error.headers.get("Retry-After")) from error
    except (TimeoutError, urllib.error.URLError, ConnectionError) as error:
        raise download.PassingError(str(getattr(error, "reason", error))) from error


def filesystem(place: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it. Raises ValueError that says which package is missing."""
    from fsspec.core import url_to_fs

    _check_online(place)
    kind = place.partition("://")[0]
    try:
        return url_to_fs(place)
    except ImportError as error:
        if kind in BY_ARROW:
            return _by_arrow(place)
        raise ValueError(f"{kind}:// needs a package that is not here. {error}") from error
    except ValueError as error:
        raise ValueError(f"{place}: {kind}:// is not known; https, s3, gs and hf are, and what fsspec has besides") from error


def _by_arrow(place: str) -> tuple[Any, str]:
    """pyarrow's file system as fsspec's. Credentials and endpoint are those of the environment and of its usual files."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import FileSystem

    try:
        limit = "" if place.startswith("s3:") else f"?retry_limit_seconds={PATIENCE}"
        files, path = FileSystem.from_uri(place + limit)
    except (OSError, ValueError) as error:
        raise ValueError(f"{place} cannot be opened ({one_line(error)})") from error
    return ArrowFSWrapper(files), path


@contextlib.contextmanager
def opened(stored: Stored) -> Iterator[BinaryIO]:
    """Its bytes, read where they are; those on the web from a copy, as not every server sends parts."""
    if not stored.remote or _on_the_web(stored.place):
        with here(stored).open("rb") as file:
            yield file
        return
    files, path = filesystem(stored.place)
    with files.open(path, "rb") as file:
        yield file


def text_of(place: str) -> str | None:
    """A small file's text; None where there is none, or none for us."""
    try:
        with opened(look_up(place)) as file:
            return file.read().decode("utf-8")
    except (FileNotFoundError, PermissionError):
        return None


def here(stored: Stored) -> Path:
    """The file itself, or its copy, which is fetched if it is not there.

    Raises OSError where it cannot be had, ValueError where it is not what it was when it was found.
    """
    return kept(stored.key, stored.size or 0, lambda part: _fetch(stored, part)) if stored.remote else Path(stored.place)


def read_at(stored: Stored, start: int, size: int) -> bytes:
    """Some bytes of a file; fewer where it has become shorter."""
    return read_kept(lambda: here(stored), start, size)


def read_kept(make: Callable[[], Path], start: int, size: int) -> bytes:
    """Some bytes of what `make` makes, again if another process removes it meanwhile to have room."""
    path = None
    for _ in range(3):
        path = make()
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(start)
            return file.read(size)
    raise FileNotFoundError(f"{path} is removed again and again: let METAFORMER_SHARDS be more than {_space() / 1e9:g} (GB)")


def kept(name: str, size: int, make: Callable[[Path], None]) -> Path:
    """The file of this name among the copies, made of about `size` bytes if it is not there; one process makes it."""
    folder = download.cache_folder() / "shards"
    file = folder / name
    with contextlib.suppress(FileNotFoundError):
        os.utime(file)  # the one not used for longest goes first
        return file
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if not file.is_file():
            _make_room(folder, size)
            part = file.with_name(f"{name}.new")
            make(part)
            part.replace(file)
    return file


def _space() -> float:
    text = os.environ.get("METAFORMER_SHARDS", str(SPACE))
    try:
        return float(text) * 1e9
    except ValueError as error:
        raise ValueError(f"METAFORMER_SHARDS={text} is not a number of gigabytes, such as 50") from error


def _make_room(folder: Path, size: int) -> None:
    """Removes what was not used for longest, until `size` more bytes are not too many."""
    found = []
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if file.suffix not in (".lock", ".new", ".part"):
                found.append((file.stat().st_mtime_ns, file.stat().st_size, file))
    used, most = sum(bytes_ for _, bytes_, _ in found), _space()
    for _, bytes_, file in sorted(found):
        if used + size <= most:
            break
        file.unlink(missing_ok=True)
        used -= bytes_


def _fetch(stored: Stored, part: Path) -> None:
    if _on_the_web(stored.place):
        download.keep(download.Remote(stored.place, stored.size), part, lambda have, total: None)
        return
    files, path = filesystem(stored.place)

    def get() -> None:
        try:
            files.get_file(path, str(part))
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            raise download.PassingError(str(error)) from error

    download.retried(get, f"fetch {stored.place}")
    if stored.size is not None and part.stat().st_size != stored.size:
        part.unlink()
        raise ValueError(f"{stored.place} is not what it was when it was found: start again")


def _check_online(place: str) -> None:
    if download.is_offline() and not place.startswith(("file:", "memory:")):
        raise ConnectionError(f"{place} is not on this machine, and METAFORMER_OFFLINE or HF_HUB_OFFLINE forbids to fetch it")


def _on_the_web(place: str) -> bool:
    return place.partition("://")[0] in WEB


def one_line(error: BaseException) -> str:
    """What a library said, without line breaks."""
    said = " ".join(str(error).split())
    return said if len(said) <= 200 else f"{said[:196]} ..."
