"""Public files of data sets → the cache."""

import os
from dataclasses import dataclass
from pathlib import Path

from metaformer import download
from metaformer.data.dataset import Progress


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


def fetch(remote: Remote, *, progress: Progress | None = None) -> Path:
    """The file in the cache, downloaded if it is not there.

    $METAFORMER_MIRROR is an address that has all files, each under its folder. Raises ValueError with a sentence: no
    connection, refused by the server, not the file that was published.
    """
    file = download.cache_folder() / remote.folder / remote.name
    mirror = os.environ.get("METAFORMER_MIRROR")
    address = f"{mirror.rstrip('/')}/{remote.folder}/{remote.name}" if mirror else f"{remote.base.rstrip('/')}/{remote.name}"

    def tell(have: int, total: int | None) -> None:
        if progress is not None:
            progress(f"downloading {remote.name}", have, total or 0)

    try:
        return download.keep(download.Remote(address, None, remote.algorithm, remote.hexdigest), file, tell)
    except (OSError, ValueError) as error:
        raise ValueError(f"{error}; you may put the file at {file} yourself") from error
