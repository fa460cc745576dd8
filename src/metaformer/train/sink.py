"""A large file written past the system's cache: memory for a cache that nobody reads costs more than all the rest of a save."""

import errno
import hashlib
import mmap
import os
from pathlib import Path
from types import TracebackType

CHUNK = 4 * 2**20
"""Bytes that are handed to the disk at once."""
DIRECT: int = getattr(os, "O_DIRECT", 0)
"""Linux's word for it; elsewhere the file goes through the cache."""


class Sink:
    """A file to write to, from its start to its end, as a context manager; `sum` is the SHA-256 of all that was written.

    torch goes on to an error of its own where the disk fails: the disk's is kept as `error`.
    """

    def __init__(self, path: Path) -> None:
        self.sum = hashlib.sha256()
        self.error: OSError | None = None
        self.room = mmap.mmap(-1, CHUNK)  # which begins with a page, as a disk wants it
        self.filled = self.size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        try:
            self.handle, self.direct = os.open(path, flags | DIRECT, 0o666), bool(DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a disk that has no such way
                raise
            self.handle, self.direct = os.open(path, flags, 0o666), False

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._hand_on(-(-self.filled // mmap.PAGESIZE) * mmap.PAGESIZE)
                os.ftruncate(self.handle, self.size)
        finally:
            os.close(self.handle)

    def write(self, data: bytes) -> int:
        """Takes all of it, and hands on what fills a chunk."""
        self.sum.update(data)
        try:
            with memoryview(data) as view:
                at = 0
                while at < len(view):
                    count = min(CHUNK - self.filled, len(view) - at)
                    self.room[self.filled : self.filled + count] = view[at : at + count]
                    at, self.filled, self.size = at + count, self.filled + count, self.size + count
                    if self.filled == CHUNK:
                        self._hand_on(CHUNK)
        except OSError as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        """What is left follows at the end."""

    def _hand_on(self, count: int) -> None:
        """Writes so many bytes, whole pages, of what was taken."""
        at = 0
        with memoryview(self.room) as room:
            while at < count:
                try:
                    at += os.write(self.handle, room[at:count])
                except OSError as error:
                    if not self.direct or error.errno != errno.EINVAL:
                        raise
                    self._use_cache()
        self.filled = 0

    def _use_cache(self) -> None:
        """Goes on as files are written usually: a disk may take whole pages only at some places, or not at all."""
        import fcntl

        fcntl.fcntl(self.handle, fcntl.F_SETFL, fcntl.fcntl(self.handle, fcntl.F_GETFL) & ~DIRECT)
        self.direct = False
