"""What tests of the service share: a client of an application, pictures, a server in a process of its own."""

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

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
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
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

    def __init__(self, process: subprocess.Popen[str], log: IO[str], port: int) -> None:
        self.process, self.log, self.port, self.url = process, log, port, f"http://127.0.0.1:{port}"
        self.connections: list[socket.socket] = []

    def raw(self, data: bytes = b"", timeout: float = 10.0) -> socket.socket:
        """A connection on which these bytes were sent; closed when the server is."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        self.connections.append(connection)
        connection.sendall(data)
        return connection

    def get(self, path: str) -> tuple[int, str]:
        """Status and text."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path)
            said = connection.getresponse()
            return said.status, said.read().decode()

    def post(self, path: str, body: bytes, kind: str = "image/png") -> tuple[int, dict[str, str], dict[str, Any]]:
        """Status, headers and JSON."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request("POST", path, body, {"content-type": kind})
            said = connection.getresponse()
            return said.status, {name.lower(): value for name, value in said.getheaders()}, json.loads(said.read())

    def told(self) -> str:
        """What it wrote to standard error so far."""
        self.log.seek(0)
        return self.log.read()

    def busy(self) -> bool:
        """Whether an image waits for the model digits."""
        return 'waiting_images{model="digits"} 1.0' in self.get("/metrics")[1]

    def memory(self) -> int:
        """Bytes that it has."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(*arguments: str, program: str = "tests.serve.fake") -> Iterator[Running]:
    """`python -m tests.serve.fake ARGUMENTS`, or `metaformer serve ARGUMENTS`, at a port of its own, until the block ends."""
    verb = ["serve"] if program == "metaformer" else []
    command = [sys.executable, "-m", program, *verb, "--port", "0", *arguments]
    with TemporaryFile("w+") as log:  # a pipe that nobody reads is full one day, and who writes to it waits
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        server = Running(process, log, int(line.partition(";")[0].rpartition(":")[2] or 0))
        assert server.port, server.told()
        try:
            yield server
        finally:
            for connection in server.connections:
                connection.close()
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
