"""A hub on this machine: enough of Hugging Face's protocol to download and to push, and other files beside it.

It can be told what goes wrong with each request in turn.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 1000
"""Bytes from which on a file is kept by its SHA-256, elsewhere than the repository; below, git keeps it."""


class Hub(ThreadingHTTPServer):
    """Files by path: `user/name/file` in repositories, `/v1.0/file` and the like elsewhere."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.plan: list[str] = []
        """What happens with each GET in turn: a status, cut, silent, html, no ranges; then all goes well."""
        self.heads: list[str] = []
        """The same for each HEAD; `smaller`, `larger`, `hash` lie; `no repo` denies."""
        self.asked: list[tuple[str, str, str | None]] = []
        """Method, path and Range of each request."""
        self.tokens: list[tuple[str, str | None]] = []
        self.repos: set[str] = set()
        self.created: list[dict[str, Any]] = []
        """What was asked for when a repository was made."""
        self.commits: list[dict[str, Any]] = []
        self.uploaded: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def gets(self) -> list[str | None]:
        """The Range of each GET."""
        return [wanted for method, _, wanted in self.asked if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    """Answers as the plan says, and well when it is at its end."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        what = self._next(self.server.heads)
        if what.isdigit():
            self._error(int(what))
            return
        found = self._repo_file()
        if found is None or what == "no repo":  # a repository that is not there is one that you may not see
            self._error(*((401, "RepoNotFound") if what == "no repo" else (404, "EntryNotFound")))
            return
        path, content = found
        size = len(content) + {"smaller": -1, "larger": 1}.get(what, 0)
        digest = hashlib.sha256(content).hexdigest()
        self.send_response(302 if len(content) >= LARGE else 200)
        self.send_header("X-Repo-Commit", self._state(path))
        if len(content) >= LARGE:
            self.send_header("Location", f"http://localhost:{self.server.server_port}/bytes/{path}")
            self.send_header("X-Linked-Etag", f'"{"0" * 64 if what == "hash" else digest}"')
            self.send_header("X-Linked-Size", str(size))
            self.send_header("Content-Length", "0")
        else:
            git = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
            self.send_header("ETag", f'"{git}"')
            self.send_header("Content-Length", str(size))
        self.end_headers()

    def do_GET(self) -> None:
        if self.path.startswith("/api/"):
            self._json({"id": "user/name", "sha": "0" * 40, "type": "user", "name": "user", "orgs": [], "siblings": []})
            return
        what = self._next(self.server.plan)
        if what.isdigit():
            self._error(int(what))
            return
        if what == "moved":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/elsewhere{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        found = self._repo_file()
        content = found[1] if found else self.server.files.get(unquote(self.path).removeprefix("/elsewhere"))
        if content is None:
            self._error(404)
            return
        wanted = self.headers.get("Range") if what != "no ranges" else None
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        rest = content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8" if what == "html" else "application/octet-stream")
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if what == "silent":
            self.wfile.write(rest[:100])
            self.wfile.flush()
            time.sleep(1)
        else:
            self.wfile.write(rest[: len(rest) // 2] if what == "cut" else rest)

    # --- pushing ---

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        what = self._next(self.server.heads)
        if what.isdigit():
            self._error(int(what))
        elif self.path == "/api/repos/create":
            wanted = json.loads(body)
            self.server.created.append(wanted)
            self.server.repos.add(f"{wanted.get('organization') or 'user'}/{wanted['name']}")
            self._json({"url": f"{self.server.address}/user/{wanted['name']}", "name": f"user/{wanted['name']}"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith((".safetensors", ".png")) else "regular"}
                for f in files
            ]
            self._json({"files": [mode | {"shouldIgnore": False, "oid": None} for mode in modes]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            put = [(o, f"{self.server.address}/put/{o['oid']}") for o in json.loads(body)["objects"]]
            self._json(
                {"transfer": "basic", "objects": [{**o, "actions": {"upload": {"href": url, "header": {}}}} for o, url in put]}
            )
        elif "/commit/" in self.path:
            self._commit(self.path.removeprefix("/api/models/").split("/commit/")[0], body)
        else:
            self._json({})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(("PUT", self.path, None))
        self.server.uploaded[self.path.removeprefix("/put/")] = content
        self._json({})

    def _commit(self, repo: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        self.server.commits.append(next(line["value"] for line in lines if line["key"] == "header"))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[f"{repo}/{value['path']}"] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[f"{repo}/{value['path']}"] = self.server.uploaded[value["oid"]]
        self._json(
            {
                "commitUrl": f"{self.server.address}/{repo}/commit/{self._state(repo)}",
                "commitOid": self._state(repo),
                "success": True,
            }
        )

    # --- parts ---

    def _next(self, plan: list[str]) -> str:
        self.server.asked.append((self.command, urlsplit(self.path).path, self.headers.get("Range")))
        self.server.tokens.append((f"{self.command} {self.path}", self.headers.get("Authorization")))
        return plan.pop(0) if plan else "well"

    def _repo_file(self) -> tuple[str, bytes] | None:
        """Of /user/name/resolve/main/file, and of where that sends large files."""
        path = unquote(self.path).lstrip("/").removeprefix("elsewhere/").removeprefix("bytes/")
        path = re.sub(r"/resolve/[^/]+/", "/", path, count=1)
        return (path, self.server.files[path]) if path in self.server.files else None

    def _state(self, path: str) -> str:
        """The commit of a path's repository: another one when a file is."""
        repo = "/".join(path.split("/")[:2])
        files = sorted((name, content) for name, content in self.server.files.items() if name.startswith(f"{repo}/"))
        return hashlib.sha1(repr(files).encode(), usedforsecurity=False).hexdigest()

    def _error(self, code: int, kind: str = "") -> None:
        self.send_response(code)
        if kind:
            self.send_header("X-Error-Code", kind)
            self.send_header("X-Repo-Commit", "0" * 40)
        self._json({"error": "so it was planned"}, None)

    def _json(self, value: Any, code: int | None = 200) -> None:
        text = json.dumps(value).encode() if self.command != "HEAD" else b""
        if code is not None:
            self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that runs."""
    with Hub() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()
