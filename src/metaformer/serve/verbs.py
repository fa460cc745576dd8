"""The three verbs that take images, predict, embed and explain: a body in, a job for the pool, an answer out."""

import asyncio
import base64
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol

import msgpack
from pydantic_core import to_json

from metaformer.serve.bodies import Gone, Image, Receive, Send, take_apart
from metaformer.serve.exchange import Exchange, answer
from metaformer.serve.jobs import Job, Kind, Model, Record, RefusedError
from metaformer.serve.queries import Query, read_query
from metaformer.serve.refusals import from_pool
from metaformer.serve.settings import Limits

PICTURES = ("png", "heat")
"""What is bytes in a record, and base64 in JSON."""


class Asks(Protocol):
    """What the front knows of a pool."""

    @property
    def models(self) -> Mapping[str, Model]: ...
    @property
    def ready(self) -> bool: ...
    async def start(self) -> None: ...
    async def stop(self, drain: float) -> None: ...
    async def ask(self, model: str, job: Job, deadline: float) -> list[Record]: ...
    def waiting(self, model: str) -> int: ...
    def stats(self, model: str) -> Mapping[str, Any]: ...


async def ask(kind: Kind, query: bytes, exchange: Exchange, send: Send, pool: Asks, limits: Limits) -> None:
    """Reads, asks, answers. Raises Refusal, and Gone where the client hung up, whose places are then free again."""
    wanted = read_query(kind, query, pool.models)
    exchange.model = wanted.model.name
    body = await exchange.body.read(exchange.headers, limits)
    came = time.monotonic()
    images = take_apart(body, exchange.headers, limits)
    exchange.images = len(images)
    job = _job(kind, [image for image in images if not image.wrong], wanted)
    del body
    try:
        asked = pool.ask(wanted.model.name, job, came + limits.deadline) if job else _nothing()
        records = iter(await _unless_gone(exchange.body.receive, asked))
    except RefusedError as error:
        raise from_pool(error) from None
    results = [{"name": image.name, **({"error": image.wrong} if image.wrong else next(records))} for image in images]
    said = _said(kind, wanted.model, time.monotonic() - came)
    if b"msgpack" in exchange.headers.get(b"accept", b""):
        packed = msgpack.packb({**said, "results": results})
        assert packed is not None  # as it is with a packer's own buffer alone
        await answer(send, packed, b"application/msgpack")
    else:
        await answer(send, to_json({**said, "results": _texts(results)}, inf_nan_mode="null"))


async def _nothing() -> list[Record]:
    return []


def _job(kind: Kind, images: Sequence[Image], wanted: Query) -> Job | None:
    """None where there is no image to ask about."""
    if not images:
        return None
    return Job(
        kind=kind,
        images=tuple(image.data for image in images),
        top=wanted.top,
        threshold=wanted.threshold,
        masks=wanted.masks,
        label=wanted.label,
    )


def _said(kind: Kind, model: Model, seconds: float) -> Record:
    more = {"predict": {"task": model.task}, "embed": {"dimensions": model.embeds}, "explain": {}}[kind]
    return {"model": model.name, **more, "seconds": round(seconds, 6)}


def _texts(records: list[Record]) -> list[Record]:
    for record in records:
        for name in PICTURES:
            if name in record:
                record[name] = base64.b64encode(record[name]).decode("ascii")
    return records


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, list[Record]]) -> list[Record]:
    """The work's result; when the client hangs up, this task is cancelled within the work, and Gone raised."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            continue
        gone = True
        task.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise Gone from None
        raise
    finally:
        watching.cancel()
