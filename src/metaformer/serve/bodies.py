"""Bodies of requests: read within limits of bytes and time, and taken apart into named images. Nothing touches a disk."""

import asyncio
import binascii
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from metaformer.serve.refusals import Refusal, quoted
from metaformer.serve.schemas import MOST_NAME, NamedImage, Upload
from metaformer.serve.settings import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
TAKEN = "image/*, application/octet-stream, multipart/form-data or application/json"
HEADERS = 8
"""Most headers of a part; each has up to 4 KiB."""


class Gone(Exception):  # noqa: N818 -- a client that hung up, not a fault
    """The client is not there any more."""


@dataclass(frozen=True)
class Image:
    """The bytes of a file, and what the client calls it."""

    name: str | None
    data: bytes
    wrong: str = ""
    """Why there are no such bytes."""


@dataclass
class Held:
    """Bytes of bodies that the front holds at once, of all clients; what is over `most` is refused until others are done."""

    most: int
    size: int = 0

    def take(self, count: int) -> None:
        """Raises Refusal where there is no room."""
        if self.size + count > self.most:
            raise Refusal(503, "busy", "too many large requests at once: send it again in a moment", retry_after=1)
        self.size += count

    def give_back(self, count: int) -> None:
        """Another body is done with."""
        self.size -= count


@dataclass
class Body:
    """A body as it comes. `left` is whether there may be more of it that nobody has read."""

    receive: Receive
    held: Held
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    left: bool = True

    async def read(self, headers: Mapping[bytes, bytes], limits: Limits) -> bytes:
        """All of it. Raises Refusal (413 as soon as it is too large, 408 when it is too slow) and Gone."""
        _check_length(headers.get(b"content-length"), limits.body)
        try:
            async with asyncio.timeout(limits.read):
                while self.left:
                    await self._next(limits.body)
        except TimeoutError:
            self.left = False  # nobody waits for the rest of it either
            said = f"the body did not come within {limits.read:g} s: {self.size} bytes did"
            raise Refusal(408, "slow_body", said) from None
        parts = self.parts
        self.parts = []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _next(self, most: int) -> None:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part = message.get("body", b"")
        if self.size + len(part) > most:
            raise _too_large(most)
        self.held.take(len(part))
        self.size += len(part)
        self.parts.append(part)
        self.left = message.get("more_body", False)

    def done(self) -> None:
        """Its bytes are not held any more."""
        self.held.give_back(self.size)
        self.parts = []


def _check_length(length: bytes | None, most: int) -> None:
    if length is not None and length.isdigit() and (len(length) > 18 or int(length) > most):
        raise _too_large(most)


def _too_large(most: int) -> Refusal:
    return Refusal(413, "too_large", f"a request has up to {_size(most)}: send fewer or smaller images at once")


def _size(count: int) -> str:
    return f"{count / (1 << 20):g} MiB" if count >= 1 << 20 else f"{count} bytes"


def take_apart(body: bytes, headers: Mapping[bytes, bytes], limits: Limits) -> list[Image]:
    """The images of a body, by its content type. Raises Refusal: 400, 413, 415 or 422."""
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"", b"identity"):
        raise Refusal(415, "encoded", "send the body as it is, without Content-Encoding")
    kind = headers.get(b"content-type", b"application/octet-stream").partition(b";")[0].strip().lower()
    if kind == b"multipart/form-data":
        images = _multipart(body, headers[b"content-type"], limits)
    elif kind == b"application/json":
        images = _json(body, limits)
    elif kind == b"application/octet-stream" or re.fullmatch(rb"image/[\w.+-]{1,64}", kind):
        images = [Image(None, body)] if body else []
    else:
        said = quoted(kind.decode("latin-1"))
        raise Refusal(415, "wrong_type", f"Content-Type {said} is not one of {TAKEN}")
    if not images:
        raise Refusal(400, "no_image", f"there is no image in the body: send one as {TAKEN}")
    _check_images(images, limits)
    return images


def _check_images(images: Iterable[Image], limits: Limits) -> None:
    for number, image in enumerate(images, 1):
        if len(image.data) > limits.image:
            said = f"image {number} has more than {_size(limits.image)}: send it smaller"
            raise Refusal(413, "image_too_large", said)
        if image.name is not None and len(image.name) > MOST_NAME:
            raise Refusal(422, "bad_value", f"the name of image {number} has more than {MOST_NAME} characters")


def _too_many(limits: Limits) -> Refusal:
    return Refusal(413, "too_many", f"a request has up to {limits.images} images: send them in several")


# --- JSON -------------------------------------------------------------------------------------------------------------


def _json(body: bytes, limits: Limits) -> list[Image]:
    """`{"images": [BASE64 or {"name", "data"}, …]}`. Commas bound what is made of it before it is looked at."""
    if body.count(b",") > 1000 + 300 * limits.images:
        raise Refusal(413, "too_many", f"this JSON has more parts than {limits.images} images have")
    try:
        upload = Upload.model_validate_json(body)
    except ValidationError as error:
        raise _not_upload(error) from None
    if len(upload.images) > limits.images:
        raise _too_many(limits)
    return [_decoded(one.name, one.data) if isinstance(one, NamedImage) else _decoded(None, one) for one in upload.images]


def _decoded(name: str | None, text: str) -> Image:
    """Base64 of either alphabet, with its padding or without, and as a page has it, after `data:image/png;base64,`."""
    if text.startswith("data:"):
        text = text[text.find(",", 0, 200) + 1 :]
    if "-" in text or "_" in text:
        text = text.replace("-", "+").replace("_", "/")
    try:
        data = binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        data = b""
    return Image(name, data, "" if data else "is not base64")


def _not_upload(error: ValidationError) -> Refusal:
    """Of what pydantic found the one mistake that tells most, without what was sent."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    shape = 'it is {"images": ["<base64>", …]} or {"images": [{"name": "a.png", "data": "<base64>"}, …]}'
    if found[0]["type"] == "json_invalid":
        return Refusal(400, "bad_json", f"the body is not JSON that can be read: {shape}")
    at = found[0]["loc"][:2]
    where = "".join(f"[{step}]" if isinstance(step, int) else step[:40] for step in at)
    if found[-1]["type"] == "extra_forbidden":
        name = quoted(str(found[-1]["loc"][-1]))
        said = f"there is no {name} in this JSON: {shape}, and all else goes after the ? of the address"
        return Refusal(422, "bad_value", said)
    return Refusal(422, "bad_value", f"{f'`{where}`' if where else 'the JSON'} is not what it should be: {shape}")


# --- multipart --------------------------------------------------------------------------------------------------------


class _Parts:
    """Collects files from what the parser finds; a part that is no file, and one too many, end it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.images: list[Image] = []
        self.ended = False
        self._header = b""
        self._value = b""
        self._name: str | None = None
        self._data: list[bytes] = []

    def callbacks(self) -> dict[str, Callable[..., None]]:
        """As the parser wants them."""
        return {
            "on_part_begin": self._begin, "on_header_field": self._field, "on_header_value": self._text,
            "on_header_end": self._head, "on_headers_finished": self._check, "on_part_data": self._add,
            "on_part_end": self._end, "on_end": self._all,
        }  # fmt: skip

    def _begin(self) -> None:
        if len(self.images) >= self.limits.images:
            raise _too_many(self.limits)
        self._name, self._header, self._value = None, b"", b""
        self._data = []

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _text(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _head(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            file = options.get(b"filename")
            self._name = None if file is None else file.decode("utf-8", "replace")
        self._header = self._value = b""

    def _check(self) -> None:
        if self._name is None:
            said = "a part of the form has no filename: each is an image file, and all else goes after the ? of the address"
            raise Refusal(422, "not_a_file", said)

    def _add(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end(self) -> None:
        self.images.append(Image(self._name, self._data[0] if len(self._data) == 1 else b"".join(self._data)))

    def _all(self) -> None:
        self.ended = True


def _multipart(body: bytes, content_type: bytes, limits: Limits) -> list[Image]:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise Refusal(400, "bad_multipart", "Content-Type names no boundary of 1 to 70 characters: let your client write it")
    if re.search(re.escape(boundary) + rb"[ \t]{64}", body):  # blanks after a boundary are allowed, and read one by one
        raise Refusal(400, "bad_multipart", "a boundary has more blanks after it than any client writes")
    parts = _Parts(limits)
    try:
        parser = MultipartParser(boundary, parts.callbacks(), max_header_count=HEADERS)  # pyrefly: ignore[bad-argument-type]
        parser.write(body)
    except FormParserError:
        raise Refusal(400, "bad_multipart", "the body is not the multipart/form-data that its Content-Type says") from None
    if not parts.ended:
        raise Refusal(400, "bad_multipart", "the multipart/form-data ends before its last boundary")
    return parts.images
