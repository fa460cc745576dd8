"""Bodies: every form that is taken, and every one that is refused, before it costs anything."""

import asyncio
import base64
import json
import re
import time
from collections.abc import Iterable
from typing import Any

import pytest

from metaformer.serve.bodies import Body, Gone, Held, Image, take_apart
from metaformer.serve.refusals import Refusal
from metaformer.serve.settings import Limits

LIMITS = Limits(body=100_000, image=50_000, images=4, queue=8, read=0.2)
FORM = b'--XX\r\nContent-Disposition: form-data; name="images"; filename="%s"\r\nContent-Type: image/png\r\n\r\n%s\r\n'


def apart(body: bytes, kind: str = "image/png", limits: Limits = LIMITS, **headers: str) -> list[Image]:
    """As of a request with this content type."""
    rest = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return take_apart(body, {b"content-type": kind.encode(), **rest}, limits)


def refused(status: int, code: str, body: bytes, kind: str = "image/png", **headers: str) -> str:
    """The sentence of a refusal."""
    with pytest.raises(Refusal) as caught:
        apart(body, kind, **headers)
    assert (caught.value.status, caught.value.code) == (status, code)
    return caught.value.message


def form(*files: tuple[bytes, bytes]) -> bytes:
    """A multipart body with the boundary XX."""
    return b"".join(FORM % file for file in files) + b"--XX--\r\n"


MULTIPART = "multipart/form-data; boundary=XX"


# --- what is taken ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["image/png", "IMAGE/JPEG", "image/svg+xml", "application/octet-stream", "image/png; q=1"])
def test_one_image(kind: str) -> None:
    assert apart(b"bytes", kind) == [Image(None, b"bytes")]


def test_without_a_type_it_is_bytes() -> None:
    assert take_apart(b"bytes", {}, LIMITS) == [Image(None, b"bytes")]


def test_multipart() -> None:
    body = form((b"a.png", b"one\r\n--X"), (b"\xc3\xa9.png", b""), (b"c", b"\r\n\r\n"))
    expected = [Image("a.png", b"one\r\n--X"), Image("é.png", b""), Image("c", b"\r\n\r\n")]
    assert apart(body, MULTIPART) == expected
    assert apart(b"\r\n" + body + b"and more", 'multipart/form-data; boundary="XX"') == expected


def test_json() -> None:
    one, other = base64.b64encode(b"\xfb\xff\xbf").decode(), base64.b64encode(b"other").decode()
    body = json.dumps({"images": [one, {"name": "o.png", "data": other}, {"data": other}, "-_-_"]}).encode()
    expected = [Image(None, b"\xfb\xff\xbf"), Image("o.png", b"other"), Image(None, b"other"), Image(None, b"\xfb\xff\xbf")]
    assert apart(body, "application/json; charset=utf-8") == expected


@pytest.mark.parametrize("text", ["Y", "?", "YQ==YQ==", "YQ= =", "=", "é", "data:", "data:image/png;base64,", "data:YQ=="])
def test_what_is_not_base64_is_that_images_error(text: str) -> None:
    body = json.dumps({"images": ["YQ==", {"name": "a.png", "data": text}]}).encode()
    assert apart(body, "application/json") == [Image(None, b"a"), Image("a.png", b"", "is not base64")]


@pytest.mark.parametrize("text", ["YQ==", "YQ", "data:image/png;base64,YQ==", "data:;base64,YQ"])
def test_base64_as_it_may_come(text: str) -> None:
    assert apart(json.dumps({"images": [text]}).encode(), "application/json") == [Image(None, b"a")]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/mixed; boundary=XX", "", "image/"]
)
def test_other_types(kind: str) -> None:
    assert "is not one of image/*, application/octet-stream" in refused(415, "wrong_type", b"bytes", kind)


def test_encodings() -> None:
    assert "without Content-Encoding" in refused(415, "encoded", b"bytes", content_encoding="gzip")
    assert apart(b"bytes", content_encoding="identity")


@pytest.mark.parametrize(("body", "kind"), [(b"", "image/png"), (b"--XX--\r\n", MULTIPART)])
def test_nothing(body: bytes, kind: str) -> None:
    assert "no image in the body" in refused(400, "no_image", body, kind)


def test_too_many_and_too_large() -> None:
    assert (
        refused(413, "too_many", form(*[(b"a", b"x")] * 5), MULTIPART) == "a request has up to 4 images: send them in several"
    )
    refused(413, "too_many", json.dumps({"images": ["YQ=="] * 5}).encode(), "application/json")
    refused(413, "too_many", json.dumps({"images": [[1] * 9999]}).encode(), "application/json")
    assert "image 2 has more than 50000 bytes" in refused(
        413, "image_too_large", form((b"a", b"x"), (b"b", b"x" * 50_001)), MULTIPART
    )
    assert apart(b"x" * 50_000)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"nothing", b"--XX",
        form((b"a", b"x"))[:-4], form((b"a", b"x"))[:-30], form((b"a", b"x")).replace(b": ", b""),
        form((b"a", b"x")).replace(b"\r\n", b"\n"),
        FORM % (b"a", b"x") + b"--XX" + b" " * 5000 + form((b"b", b"y"))[4:],
        b"--XX\r\n" + b"a: b\r\n" * 9 + b"\r\nx\r\n--XX--\r\n", b"--XX\r\na: " + b"b" * 5000 + b"\r\n\r\nx\r\n--XX--\r\n",
    ],
)  # fmt: skip
def test_broken_multipart(body: bytes) -> None:
    assert refused(400, "bad_multipart", body, MULTIPART)


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'x' * 71}"]
)
def test_multipart_without_a_boundary(kind: str) -> None:
    assert "names no boundary" in refused(400, "bad_multipart", form((b"a", b"x")), kind)


def test_a_field_of_a_form_is_no_file() -> None:
    field = b'--XX\r\nContent-Disposition: form-data; name="top"\r\n\r\n5\r\n--XX--\r\n'
    assert "after the ? of the address" in refused(422, "not_a_file", field, MULTIPART)
    refused(422, "not_a_file", b"--XX\r\n\r\n5\r\n--XX--\r\n", MULTIPART)


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        (b"", 400, "bad_json", "is not JSON"),
        (b"\xff\xfe", 400, "bad_json", "is not JSON"),
        (b'{"images": [', 400, "bad_json", "is not JSON"),
        (b'{"images": [{"name": "\\ud800", "data": "YQ=="}]}', 400, "bad_json", "is not JSON"),
        (b'{"images":' + b"[" * 50_000, 400, "bad_json", "is not JSON"),
        (b'{"a":' * 9_000, 400, "bad_json", "is not JSON"),
        (b"1" * 90_000, 400, "bad_json", "is not JSON"),
        (b"[]", 422, "bad_value", "the JSON is not"),
        (b"null", 422, "bad_value", "the JSON is not"),
        (b'{"images": []}', 422, "bad_value", r"`images` is not"),
        (b'{"images": [""]}', 422, "bad_value", r"`images\[0\]` is not"),
        (b'{"images": ["YQ==", 1]}', 422, "bad_value", r"`images\[1\]` is not"),
        (b'{"images": [{"nme": "a", "data": "YQ=="}]}', 422, "bad_value", "there is no 'nme' in this JSON"),
        (b'{"images": ["YQ=="], "top": 3}', 422, "bad_value", "there is no 'top' in this JSON"),
    ],
)
def test_broken_json(body: bytes, status: int, code: str, said: str) -> None:
    began = time.monotonic()
    message = refused(status, code, body, "application/json")
    assert re.search(said, message)
    assert time.monotonic() - began < 1


def test_long_names() -> None:
    refused(422, "bad_value", json.dumps({"images": [{"name": "x" * 256, "data": "YQ=="}]}).encode(), "application/json")
    refused(422, "bad_value", form((b"x" * 256, b"x")), MULTIPART)
    assert apart(form((b"x" * 255, b"x")), MULTIPART)


# --- reading ----------------------------------------------------------------------------------------------------------


def read(messages: Iterable[Any], headers: dict[bytes, bytes] | None = None, held: Held | None = None) -> tuple[bytes, int]:
    """What is read of these messages, and how many of them were looked at; after them nothing comes."""
    left, looked = list(messages), 0

    async def receive() -> Any:
        nonlocal looked
        if not left:
            await asyncio.sleep(60)
        looked += 1
        return left.pop(0)

    async def reading() -> bytes:
        body = Body(receive, held or Held(1_000_000))
        try:
            return await body.read(headers or {}, LIMITS)
        finally:
            body.done()

    return asyncio.run(reading()), looked


def part(size: int, *, more: bool = True) -> dict[str, Any]:
    """A message."""
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


def test_parts_are_joined() -> None:
    assert read([part(3), part(0), part(4, more=False)]) == (b"x" * 7, 3)
    assert read([part(0, more=False)]) == (b"", 1)


def test_too_many_bytes_are_refused_before_they_came() -> None:
    with pytest.raises(Refusal) as caught:
        read([], {b"content-length": b"100001"})
    assert caught.value.status == 413
    with pytest.raises(Refusal) as caught:
        read([], {b"content-length": b"9" * 5000})
    assert caught.value.status == 413
    looked = iter([part(60_000), part(60_000)])  # the third is never asked for
    with pytest.raises(Refusal) as caught:
        read(looked)
    assert (caught.value.status, caught.value.code) == (413, "too_large")


def test_a_slow_body_is_given_up() -> None:
    began = time.monotonic()
    with pytest.raises(Refusal, match=r"did not come within 0.2 s: 5 bytes did") as caught:
        read([part(5)])
    assert caught.value.status == 408
    assert 0.15 < time.monotonic() - began < 2


def test_a_client_that_hangs_up() -> None:
    with pytest.raises(Gone):
        read([part(5), {"type": "http.disconnect"}])


def test_bodies_of_all_clients_are_bounded_and_given_back() -> None:
    held = Held(10_000, size=5_000)
    with pytest.raises(Refusal) as caught:
        read([part(3_000), part(3_000)], held=held)
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "busy", 1)
    assert held.size == 5_000
    read([part(5_000, more=False)], held=held)
    assert held.size == 5_000
