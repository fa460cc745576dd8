"""What the front and a model's process say to each other: four bytes of length, then a message in msgpack."""

import socket
import struct
from typing import Any

import msgpack

_HEAD = struct.Struct("!I")


def framed(message: Any) -> tuple[bytes, bytes]:
    """The head and the body of a frame."""
    body = msgpack.packb(message)
    assert body is not None
    return _HEAD.pack(len(body)), body


def send(link: socket.socket, message: Any) -> None:
    """Waits until all of it is on its way. Raises OSError where nobody listens any more."""
    head, body = framed(message)
    link.sendall(head + body if len(body) < 2**16 else head)
    if len(body) >= 2**16:
        link.sendall(body)


def receive(link: socket.socket) -> Any:
    """The next message. Raises EOFError where there is none any more."""
    (length,) = _HEAD.unpack(_exactly(link, _HEAD.size))
    return msgpack.unpackb(_exactly(link, length))


def _exactly(link: socket.socket, count: int) -> bytearray:
    found = bytearray(count)
    place = 0
    while place < count:
        got = link.recv_into(memoryview(found)[place:])
        if not got:
            raise EOFError("the other side is gone")
        place += got
    return found


class Unframer:
    """Frames that come in pieces."""

    def __init__(self) -> None:
        self.held = bytearray()

    def feed(self, piece: bytes) -> list[Any]:
        """The messages that are whole now."""
        self.held += piece
        found: list[Any] = []
        place = 0
        while len(self.held) - place >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self.held, place)
            end = place + _HEAD.size + length
            if len(self.held) < end:
                break
            found.append(msgpack.unpackb(memoryview(self.held)[place + _HEAD.size : end]))
            place = end
        del self.held[:place]
        return found
