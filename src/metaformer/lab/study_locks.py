"""Which rows are being trained now, for whichever study of a folder: two commands never train the same one."""

from pathlib import Path

from filelock import FileLock, Timeout


class Locks:
    """A lock for each row that this process trains. A process that is dead, whatever ended it, holds none."""

    def __init__(self, root: Path) -> None:
        self.folder = root / ".training"
        """A file for each."""
        self.held: dict[str, FileLock] = {}

    def take(self, key: str) -> bool:
        """Whether nobody else trains it; it is then this process's until `leave`."""
        self.folder.mkdir(exist_ok=True)
        lock = FileLock(self.folder / key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self.held[key] = lock
        return True

    def leave(self, key: str) -> None:
        """It is nobody's now. Who waits for the file that was there tells by its result, kept before, that it is done."""
        (self.folder / key).unlink(missing_ok=True)
        self.held.pop(key).release()

    def leave_all(self) -> None:
        """None is this process's now."""
        for key in [*self.held]:
            self.leave(key)
