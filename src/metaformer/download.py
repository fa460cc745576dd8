"""The bytes of a remote file → a file: tried again, resumed where they were cut off, checked, never there half. No torch."""

import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

Result = TypeVar("Result")
Progress = Callable[[int, int | None], None]
"""Told how many bytes are here, and of how many."""
TRIES = 5
PAUSE = 1.0
"""Seconds before the second try; each further one waits twice as long, or as long as the server says, up to MOST."""
MOST = 60.0
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as lost."""
BLOCK = 2**18
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""What a server says when it may say otherwise in a moment."""


@dataclass(frozen=True)
class Remote:
    """A file on a server, with all that is known of it before it is here."""

    address: str
    size: int | None = None
    algorithm: str = ""
    """One of hashlib's, or git for a small file in a repository; empty where the server tells no hash."""
    digest: str = ""
    """The hash in hexadecimal digits, or its first ones."""
    headers: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    """The state of its repository."""


class PassingError(OSError):
    """What may go well at the next try; `after` is how many seconds the server asks to wait."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


def cache_folder() -> Path:
    """$METAFORMER_CACHE, else $XDG_CACHE_HOME/metaformer, else ~/.cache/metaformer."""
    own = os.environ.get("METAFORMER_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "metaformer"


def is_offline() -> bool:
    """Whether $METAFORMER_OFFLINE or $HF_HUB_OFFLINE forbids the network."""
    names = ("METAFORMER_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)


def keep(remote: Remote, file: Path, progress: Progress) -> Path:
    """`file` with the remote's bytes; another process that downloads it is waited for.

    Raises OSError where it cannot be had, ValueError where what came is not what was published or may not be written.
    """
    if file.is_file():
        return file
    if is_offline():
        raise FileNotFoundError(
            f"{file.name} is not on this machine, and METAFORMER_OFFLINE or HF_HUB_OFFLINE forbids to fetch it"
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if not file.is_file():
                part = file.with_name(f"{file.name}.part")
                retried(lambda: _append(remote, part, progress), f"download {remote.address}")
                _check(part, remote)
                part.replace(file)
    except PermissionError as error:
        if error.filename is None:
            raise
        raise ValueError(f"{error.filename} may not be written: METAFORMER_CACHE names another folder for downloads") from error
    return file


def retried(act: Callable[[], Result], what: str, tries: int | None = None) -> Result:
    """What `act` returns; tried again after a pause while it raises PassingError. Then raises ConnectionError."""
    most = tries or TRIES
    for attempt in range(1, most + 1):
        try:
            return act()
        except PassingError as error:
            if attempt == most:
                times = "" if most == 1 else f", {most} times"
                raise ConnectionError(f"cannot {what}: {error}{times}; try again later") from error
            time.sleep(min(MOST, max(error.after, PAUSE * 2 ** (attempt - 1))))
    raise AssertionError


def refused(what: str, code: int, after: str | None = None) -> OSError:
    """What a status and its Retry-After mean: PassingError, or a sentence for good."""
    said = f"the server says {code} {http.client.responses.get(code, '')}".rstrip()
    if code in PASSING:
        return PassingError(said, float(after) if after and after.isdigit() else 0.0)
    if code in (401, 403):
        return PermissionError(f"{what}: {said}")
    return FileNotFoundError(f"{what}: {said}")


def _append(remote: Remote, part: Path, progress: Progress) -> None:
    """Downloads what is missing of `part`. Raises PassingError where it does not come to its end."""
    have = part.stat().st_size if part.exists() else 0
    if have and have == remote.size:
        return
    request = urllib.request.Request(remote.address, headers={"Range": f"bytes={have}-"} if have else {})
    for name, value in ({"user-agent": "metaformer"} | remote.headers).items():
        request.add_unredirected_header(name, value)  # a token is for the hub, not for where it may send us
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            if answer.headers.get_content_type() == "text/html":
                raise ValueError(f"{remote.address} answers with a web page: does this network want you to log in?")
            have = have if answer.status == 206 else 0
            length = answer.headers.get("Content-Length", "")
            total = remote.size or (have + int(length) if length.isdigit() else None)
            with part.open("ab" if have else "wb") as out:
                while block := answer.read1(BLOCK):
                    out.write(block)
                    have += len(block)
                    progress(have, total)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and error.headers.get("Content-Range", "").endswith(f"/{have}"):  # it is whole already
            return
        if error.code == 416 and have:
            part.unlink()
            raise PassingError("what was here is of another file") from error
        raise refused(remote.address, error.code, error.headers.get("Retry-After")) from error
    except (TimeoutError, urllib.error.URLError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
        raise PassingError(str(getattr(error, "reason", None) or error) or type(error).__name__) from error
    if total is not None and have < total:
        raise PassingError(f"the connection ended after {have:,} of {total:,} bytes")


def _check(part: Path, remote: Remote) -> None:
    """Raises ValueError, and removes the file, if it is not what the server had announced."""
    size = part.stat().st_size
    wrong = f"{size:,} bytes came, and it has {remote.size:,}" if remote.size is not None and size != remote.size else ""
    if not wrong and remote.algorithm and not hash_of(part, remote.algorithm).startswith(remote.digest):
        wrong = f"its {remote.algorithm} hash differs"
    if wrong:
        part.unlink()
        raise ValueError(f"what came from {remote.address} is not the published file ({wrong}): try again")


def hash_of(file: Path, algorithm: str) -> str:
    """The hash of a file's bytes, or the SHA-1 by which git calls it, in hexadecimal digits."""
    with file.open("rb") as opened:
        if algorithm != "git":
            return hashlib.file_digest(opened, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
        head = hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
        head.update(opened.read())
        return head.hexdigest()
