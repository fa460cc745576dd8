"""Public files → the cache: resumed where they were cut off, checked by their hash, never there half."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from metaformer.data.dataset import Progress

TRIES = 5
PAUSE = 1.0
"""Seconds before the second try; each further one waits twice as long."""
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as lost."""
BLOCK = 2**18


@dataclass(frozen=True)
class Remote:
    """A file that somebody publishes."""

    folder: str
    """Where it goes in the cache, and where a mirror has it."""
    name: str
    base: str
    """Address that it lies under."""
    algorithm: str
    hexdigest: str


def cache_folder() -> Path:
    """$METAFORMER_CACHE, else $XDG_CACHE_HOME/metaformer, else ~/.cache/metaformer."""
    own = os.environ.get("METAFORMER_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "metaformer"


def fetch(remote: Remote, *, progress: Progress | None = None) -> Path:
    """The file in the cache, downloaded if it is not there; another process that downloads it is waited for.

    $METAFORMER_MIRROR is an address that has all files, each under its folder. A download that is cut off goes on where
    it was; what fails for a moment (no connection, server errors) is tried five times. Raises ValueError with a sentence:
    no connection, refused by the server, not the file that was published. A file has its name only once its hash is right.
    """
    file = cache_folder() / remote.folder / remote.name
    if file.is_file():
        return file
    mirror = os.environ.get("METAFORMER_MIRROR")
    address = f"{mirror.rstrip('/')}/{remote.folder}/{remote.name}" if mirror else f"{remote.base.rstrip('/')}/{remote.name}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if not file.is_file():
                _download(address, file, remote, progress)
    except PermissionError as error:
        raise ValueError(f"{error.filename} may not be written: METAFORMER_CACHE names another folder for downloads") from error
    return file


def _download(address: str, file: Path, remote: Remote, progress: Progress | None) -> None:
    part = file.with_name(f"{file.name}.part")
    reason = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            _append(address, part, file.name, progress)
            break
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and part.exists():  # nothing beyond what is there: it is whole, or of another file
                break
            reason = f"the server says {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                raise ValueError(_sentence(address, reason, file)) from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error) or type(error).__name__
    else:
        raise ValueError(_sentence(address, f"{reason}, {TRIES} times; the next attempt goes on where this one ended", file))
    if hash_of(part, remote.algorithm) != remote.hexdigest:
        part.unlink()
        raise ValueError(_sentence(address, f"what came is not the published file (its {remote.algorithm} differs)", file))
    part.replace(file)


def _append(address: str, part: Path, name: str, progress: Progress | None) -> None:
    """Downloads what is missing of `part`. Raises OSError or HTTPException where it does not come to its end."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        address, headers={"User-Agent": "metaformer", "Range": f"bytes={have}-"} if have else {"User-Agent": "metaformer"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if answer.status != 206:
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None and length.isdigit() else 0
        with part.open("ab" if have else "wb") as out:
            while block := answer.read1(BLOCK):
                out.write(block)
                have += len(block)
                if progress is not None:
                    progress(f"downloading {name}", have, total)
    if have < total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def _sentence(address: str, reason: str, file: Path) -> str:
    return f"cannot download {address}: {reason}; you may put the file at {file} yourself"


def hash_of(file: Path, algorithm: str) -> str:
    """The hash of a file's bytes, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
