"""Downloads, from a server on this machine that is slow, cuts off, fails, or sends something else."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from metaformer import download
from metaformer.data.download import Remote, fetch
from metaformer.download import cache_folder, hash_of

CONTENT = bytes(range(256)) * 4000
NAME = "set/data.bin"


class Server(ThreadingHTTPServer):
    """Serves CONTENT under /set/data.bin; `plan` says what goes wrong with each request in turn."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[str] = []
        self.asked: list[str | None] = []
        """The Range header of each request."""
        self.content = CONTENT

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers as the plan says, and well when it is at its end."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        what = self.server.plan.pop(0) if self.server.plan else "well"
        if what.isdigit() or self.path != f"/{NAME}":
            self.send_error(int(what) if what.isdigit() else 404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and what != "no ranges" else 0
        if start and start >= len(self.server.content):
            self.send_error(416)
            return
        rest = self.server.content[start:]
        self.send_response(206 if wanted and what != "no ranges" else 200)
        if what != "no length":
            self.send_header("Content-Length", str(len(rest)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if what == "cut":
            rest = rest[: len(rest) // 2]
        elif what == "silent":
            self.wfile.write(rest[:1000])
            self.wfile.flush()
            time.sleep(2)
            return
        self.wfile.write(rest)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that is the mirror, an empty cache, and no waiting."""
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("METAFORMER_MIRROR", made.address + "/")
        monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(download, "PAUSE", 0.0)
        yield made
        made.shutdown()
        thread.join()


def remote(digest: str = hashlib.sha256(CONTENT).hexdigest(), base: str = "https://nowhere.invalid") -> Remote:
    return Remote("set", "data.bin", base, "sha256", digest)


def cached() -> dict[str, int]:
    """Sizes of the files in the cache, but for locks."""
    return {file.name: file.stat().st_size for file in (cache_folder() / "set").iterdir() if file.suffix != ".lock"}


def test_what_is_there_is_not_fetched(server: Server) -> None:
    told: list[tuple[str, int, int]] = []
    file = fetch(remote(), progress=lambda *what: told.append(what))
    assert file == cache_folder() / "set/data.bin"
    assert file.read_bytes() == CONTENT
    assert told[-1] == ("downloading data.bin", len(CONTENT), len(CONTENT))
    assert fetch(remote()) == file
    assert server.asked == [None]


def test_the_address_without_a_mirror(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METAFORMER_MIRROR")
    assert fetch(remote(base=f"{server.address}/set/")).read_bytes() == CONTENT


def test_cut_off_twice_goes_on_where_it_was(server: Server) -> None:
    server.plan = ["cut", "cut"]
    assert fetch(remote()).read_bytes() == CONTENT
    half, three = len(CONTENT) // 2, len(CONTENT) * 3 // 4
    assert server.asked == [None, f"bytes={half}-", f"bytes={three}-"]


def test_another_day_goes_on_where_it_was(server: Server) -> None:
    server.plan = ["cut"] + ["503"] * 4
    with pytest.raises(ValueError, match=r"503 Service Unavailable, 5 times; try again later; you may put the file at"):
        fetch(remote())
    assert cached() == {"data.bin.part": len(CONTENT) // 2}
    assert fetch(remote()).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={len(CONTENT) // 2}-"
    assert cached() == {"data.bin": len(CONTENT)}


@pytest.mark.parametrize("plan", [["500"], ["503", "429"], ["no length"], ["cut", "no ranges"], ["408", "502", "504", "500"]])
def test_what_passes_is_tried_again(server: Server, plan: list[str]) -> None:
    server.plan = plan
    assert fetch(remote()).read_bytes() == CONTENT


def test_a_silent_server_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setattr(download, "TRIES", 2)
    server.plan = ["silent", "silent"]
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"^cannot download http://127\.0\.0\.1:\d+/set/data\.bin: .*timed out, 2 times"):
        fetch(remote())
    assert time.monotonic() - start < 2
    assert cached() == {"data.bin.part": 2000}


@pytest.mark.parametrize("code", ["404", "403", "410"])
def test_refused_at_once(server: Server, code: str) -> None:
    server.plan = [code]
    with pytest.raises(ValueError, match=rf"the server says {code} .*; you may put the file at .*data\.bin yourself$"):
        fetch(remote())
    assert server.asked == [None]
    assert cached() == {}


@pytest.mark.parametrize("content", [b"<html>Sign in to this network</html>", CONTENT[:-1] + b"x", CONTENT + b"more", b""])
def test_something_else_is_thrown_away(server: Server, content: bytes) -> None:
    server.content = content
    with pytest.raises(ValueError, match=r"what came from \S+ is not the published file|answers with a web page"):
        fetch(remote())
    assert cached() == {}
    server.content = CONTENT
    assert fetch(remote()).read_bytes() == CONTENT


def test_a_rest_of_something_else_is_thrown_away(server: Server) -> None:
    part = cache_folder() / "set/data.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match=r"what came from \S+ is not the published file"):
        fetch(remote())
    assert cached() == {}
    part.write_bytes(CONTENT + b"more")  # which the server cannot go on from
    assert fetch(remote()).read_bytes() == CONTENT


def test_whole_but_not_renamed(server: Server) -> None:
    part = cache_folder() / "set/data.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert fetch(remote()).read_bytes() == CONTENT


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path))
    monkeypatch.setenv("METAFORMER_MIRROR", "http://127.0.0.1:9")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with pytest.raises(ValueError, match=r"^cannot download http://127\.0\.0\.1:9/set/data\.bin: .*refused, 5 times") as caught:
        fetch(remote())
    assert "\n" not in str(caught.value)


def test_two_at_once_download_once(server: Server) -> None:
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(fetch(remote()).read_bytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [CONTENT] * 4
    assert server.asked == [None]


def test_pauses_double(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download, "PAUSE", 1.0)
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    server.plan = ["500"] * 4
    fetch(remote())
    assert pauses == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"METAFORMER_CACHE": "~/own"}, "HOME/own"),
        ({"METAFORMER_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/metaformer"),
        ({}, "HOME/.cache/metaformer"),
    ],
)
def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str) -> None:
    for name in ("METAFORMER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache_folder()) == folder.replace("HOME", str(tmp_path))


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    hashes: list[tuple[str, Callable[[bytes], hashlib._Hash]]] = [("md5", hashlib.md5), ("sha256", hashlib.sha256)]
    for name, algorithm in hashes:
        assert hash_of(tmp_path / "a", name) == algorithm(CONTENT).hexdigest()


def test_offline_asks_nobody(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFORMER_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"data\.bin is not on this machine, and METAFORMER_OFFLINE .* forbids to fetch it"):
        fetch(remote())
    assert server.asked == []
    monkeypatch.delenv("METAFORMER_OFFLINE")
    file = fetch(remote())
    monkeypatch.setenv("METAFORMER_OFFLINE", "1")
    assert fetch(remote()) == file
