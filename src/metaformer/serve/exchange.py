"""One request and its answer: the id, what is logged of it, and every way in which it can end."""

import asyncio
import re
import time
from collections.abc import MutableMapping
from typing import Any

from pydantic_core import to_json

from metaformer.serve.bodies import Body, Held, Message, Receive, Send
from metaformer.serve.logs import request_id
from metaformer.serve.refusals import Refusal

Scope = MutableMapping[str, Any]
GONE = 499
"""What is logged of a client that hung up; nobody is answered with it."""
LINGER = 1.0
"""Seconds in which what a refused client still sends is thrown away, so that it comes to read why."""
LINGER_BYTES = 16 << 20


class Exchange:
    """An ASGI request. `scope["exchange"]` is it, wherever the request is led."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, held: Held) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.id = request_id(self.headers.get(b"x-request-id"))
        self.started = time.monotonic()
        self.status = 0
        self.images = 0
        self.model: str | None = None
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.body = Body(receive, held)
        self._send = send
        self._own = [(b"x-request-id", self.id.encode()), (b"x-content-type-options", b"nosniff")]
        scope["exchange"] = self

    async def send(self, message: Message) -> None:
        """What every answer goes through."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._own]
        await self._send(message)

    def line(self) -> dict[str, object]:
        """What is logged."""
        return {
            "request_id": self.id,
            "method": self.method,
            "path": self.path[:200],
            "status": self.status,
            "seconds": round(time.monotonic() - self.started, 6),
            "images": self.images,
            "bytes": self.body.size,
            "model": self.model,
        }


async def answer(send: Send, content: bytes, kind: bytes = b"application/json") -> None:
    """Status 200 and a body."""
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(content)), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def refused(exchange: Exchange, refusal: Refusal) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The body and headers of a refusal."""
    content = to_json({"error": {"code": refusal.code, "message": _sentence(refusal.message), "request_id": exchange.id}})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        (b"cache-control", b"no-store"),
    ]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after))
    if refusal.allow:
        headers.append((b"allow", refusal.allow.encode()))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return content, headers


async def refuse(exchange: Exchange, send: Send, refusal: Refusal) -> None:
    """Says it. Where the body was not read to its end the connection is closed, after a moment for the client."""
    content, headers = refused(exchange, refusal)
    unread = exchange.body.left and _has_body(exchange.headers)
    if unread or refusal.status == 408:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": unread})
    if unread:
        await _linger(exchange)
        await send({"type": "http.response.body", "body": b""})


def _sentence(message: str) -> str:
    """With a capital, unless it begins with something of the request's own, and with an end."""
    begun = message[:1].upper() + message[1:] if re.match(r"[a-z]+,? ", message) else message
    return begun if begun.endswith((".", "?", "!")) else f"{begun}."


def _has_body(headers: dict[bytes, bytes]) -> bool:
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


async def _linger(exchange: Exchange) -> None:
    """Closing while bytes arrive resets the connection, and the answer is lost with it."""
    if b"expect" in exchange.headers:  # such a client sends nothing before it is told to
        return
    thrown = 0
    try:
        async with asyncio.timeout(LINGER):
            while thrown < LINGER_BYTES:
                message = await exchange.body.receive()
                thrown += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
