"""What tests of the service share: a client of an application, pictures, a server in a process of its own."""

import asyncio
import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

from metaformer.serve.app import Service

ROOT = Path(__file__).parents[2]


def png(shade: int = 7, size: tuple[int, int] = (8, 8)) -> bytes:
    """The bytes of a small picture."""
    file = io.BytesIO()
    Image.new("RGB", size, (shade % 256, shade // 256 % 256, 30)).save(file, "png")
    return file.getvalue()


class Client:
    """Asks an application in this process: `Client(service).post("/predict", content=png())`."""

    def __init__(self, service: Service, *, ready: bool = True) -> None:
        self.service = service
        if ready:
            asyncio.run(service.start())

    def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """One request."""
        return self.requests([(method, path, options)])[0]

    def requests(self, asked: list[tuple[str, str, dict[str, Any]]]) -> list[httpx2.Response]:
        """Several at once."""

        async def all_of_them() -> list[httpx2.Response]:
            transport = httpx2.ASGITransport(app=self.service)  # type: ignore[arg-type]
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
                return list(await asyncio.gather(*(client.request(method, path, **options) for method, path, options in asked)))

        return asyncio.run(all_of_them())

    def get(self, path: str, **options: Any) -> httpx2.Response:
        """A GET."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx2.Response:
        """A POST."""
        return self.request("POST", path, **options)


class Running:
    """A server in another process."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port, self.url = process, port, f"http://127.0.0.1:{port}"

    def raw(self, data: bytes = b"", timeout: float = 10.0) -> socket.socket:
        """A connection on which these bytes were sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        connection.sendall(data)
        return connection

    def memory(self) -> int:
        """Bytes that it has."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(*arguments: str) -> Iterator[Running]:
    """`python -m tests.serve.fake ARGUMENTS` at a port of its own, until the end of the block. Its log is kept in a file."""
    command = [sys.executable, "-m", "tests.serve.fake", "--port", "0", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "Serving at http://" in line, process.communicate()[1]
        yield Running(process, int(line.split(";")[0].rpartition(":")[2]))
    finally:
        process.kill()
        process.communicate()


def environment() -> dict[str, str]:
    """Of a process that imports what this one tests."""
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"}


def answer(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    connection.close()
    return b"".join(parts)


def within(seconds: float, check: Any) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.02)
    return False
