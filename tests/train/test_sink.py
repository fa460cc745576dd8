"""Files that go past the system's cache: the same bytes, on any disk."""

import hashlib
import os
import resource
from pathlib import Path

import pytest

from metaformer.train import sink
from metaformer.train.sink import CHUNK, Sink


@pytest.fixture(params=["direct", "refused when opened", "refused when written"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a disk takes it; what it refuses is written as files usually are."""
    if request.param == "refused when opened":
        opened = os.open

        def refusing(path: Path, flags: int, mode: int) -> int:
            if flags & sink.DIRECT:
                raise OSError(22, "Invalid argument")
            return opened(path, flags, mode)

        monkeypatch.setattr(os, "open", refusing)
    if request.param == "refused when written":
        write, calls = os.write, list[int]()

        def once(handle: int, data: memoryview) -> int:
            calls.append(len(data))
            if len(calls) == 2:
                raise OSError(22, "Invalid argument")
            return write(handle, data)

        monkeypatch.setattr(os, "write", once)
    return request.param


@pytest.mark.skipif(not sink.DIRECT, reason="there is one way only")
@pytest.mark.parametrize("size", [0, 1, 4096, CHUNK, 2 * CHUNK + 19])
def test_what_is_written_in_pieces_is_there_and_summed(tmp_path: Path, way: str, size: int) -> None:
    data, at = os.urandom(size), 0
    with Sink(tmp_path / "file") as file:
        for piece in (1, 4095, 4096, CHUNK + 5, size):
            assert file.write(data[at : at + piece]) == len(data[at : at + piece])
            at += piece
    assert (tmp_path / "file").read_bytes() == data
    assert file.sum.hexdigest() == hashlib.sha256(data).hexdigest()


def test_what_a_disk_says_is_kept(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK - 1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"), Sink(tmp_path / "file") as file:
            file.write(bytes(CHUNK))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(file.error, OSError)
