"""The process: a port, uvicorn on it within bounds, and signals that let what was taken be answered."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from metaformer.serve.app import Service
from metaformer.serve.logs import take_over

HEAD = 64 << 10
"""Bytes of a request's head, at most."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
Say = Callable[[str], None]


def serve(service: Service, host: str, port: int, say: Say) -> None:
    """Serves until SIGTERM or SIGINT, answers what was taken, and returns. Raises ValueError with a sentence."""
    bound = bind(host, port)
    try:
        config = uvicorn.Config(
            service,
            http=protocol(service.limits.read),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        take_over(service.log)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(_Server(config), service, bound, say))
    finally:
        bound.close()


def bind(host: str, port: int) -> socket.socket:
    """A socket of the address; port 0 is any that is free. Raises ValueError with a sentence."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, number)
    except OSError as error:
        raise ValueError(f"--host {host} is no address of this machine: {error.strerror}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(2048)
    except OSError as error:
        bound.close()
        raise ValueError(
            f"port {port} of {host} cannot be had ({os.strerror(error.errno or 0)}): choose another with --port"
        ) from error
    return bound


def address(bound: socket.socket) -> str:
    """What to type in a browser."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again when it is done, and the exit code would be a signal's."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def _serve(server: _Server, service: Service, bound: socket.socket, say: Say) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, _stop, told, number)
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    starting = asyncio.create_task(_start(service, bound, say))
    stopping = asyncio.create_task(told.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
        await stopping
    finally:
        starting.cancel()
        stopping.cancel()
        await service.stop(service.limits.drain)
        server.should_exit = True
        await serving


async def _start(service: Service, bound: socket.socket, say: Say) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    say(f"Serving at {address(bound)}; opening the models ...")
    await service.start()
    models = ", ".join(f"{model.name} ({model.engine} {model.precision})" for model in service.pool.models.values())
    say(f"Ready after {loop.time() - began:.1f} s: {models}")


def _stop(told: asyncio.Event, number: int) -> None:
    """The first signal lets what was taken be answered; the second one ends at once, and the workers with it."""
    if told.is_set():
        os._exit(128 + number)
    told.set()


def protocol(seconds: float) -> type[HttpToolsProtocol]:
    """uvicorn's, with bounds that it has not: on the bytes of a request's head and the seconds in which it must come."""

    class Bounded(HttpToolsProtocol):
        """One connection."""

        head: int | None = 0
        """Bytes of the head that is coming; None while none is."""
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.timer = self.loop.call_later(seconds, transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._in_time()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_time()
            self.head, self.timer = 0, self.loop.call_later(seconds, self.transport.close)

        def on_headers_complete(self) -> None:
            self._in_time()
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.head is not None and self.transport is not None and not self.transport.is_closing():
                self._more(len(data))

        def _more(self, count: int) -> None:
            self.head = (self.head or 0) + count
            if self.head > HEAD:
                self.send_400_response("The head of a request has up to 64 KiB.")

        def _in_time(self) -> None:
            self.head = None
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

    return Bounded
