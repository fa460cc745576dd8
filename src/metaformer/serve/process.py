"""The front's end of a worker: starts the process, passes messages, and sees it end. Needs a running event loop."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from metaformer.serve.frames import Unframer, framed

COMMAND = (sys.executable, "-m", "metaformer.serve.worker")
"""What runs a worker; the number of its socket comes after it."""
SECRET = ("METAFORMER_KEYS",)
"""Variables that are the front's alone."""


class Process(asyncio.Protocol):
    """One worker. `take` is given every message that comes from it."""

    def __init__(self, take: Callable[[Any], None]) -> None:
        self.take = take
        self.pieces = Unframer()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when nothing comes from it any more."""
        self.link: Any = None
        self.child: subprocess.Popen[bytes] | None = None

    @classmethod
    async def start(cls, command: Sequence[str], take: Callable[[Any], None]) -> "Process":
        """Raises ValueError where the system starts none."""
        try:
            own, theirs = socket.socketpair()
        except OSError as error:  # such as too many open files, which passes
            raise ValueError(f"no process can be started for a model: {error}") from error
        environment = {name: value for name, value in os.environ.items() if name not in SECRET}
        made = cls(take)
        try:
            made.child = subprocess.Popen(
                [*command, str(theirs.fileno())], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment
            )
        except OSError as error:
            own.close()
            raise ValueError(f"no process can be started for a model: {error}") from error
        finally:
            theirs.close()
        own.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: made, sock=own)
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link = transport

    def data_received(self, data: bytes) -> None:
        for message in self.pieces.feed(data):
            self.take(message)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)

    def send(self, message: Any) -> None:
        """Does not wait; what the socket does not take at once is held here."""
        self.link.writelines(framed(message))

    def kill(self) -> None:
        """At once, in whatever it does."""
        assert self.child is not None
        self.child.kill()

    async def end(self, patience: float = 0.0) -> str:
        """Closes the socket, at which it ends, and kills it after `patience` seconds. Returns how it ended."""
        assert self.child is not None
        self.link.abort()
        return await asyncio.to_thread(_ended, self.child, patience)


def _ended(child: subprocess.Popen[bytes], patience: float) -> str:
    try:
        code = child.wait(patience)
    except subprocess.TimeoutExpired:
        child.kill()
        code = child.wait()
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
