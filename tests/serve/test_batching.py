"""Which images make the next batch: turns of large and small requests, kinds, bytes."""

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest

from metaformer.serve import batching
from metaformer.serve.batching import Line, Request
from metaformer.serve.jobs import Asked


def request(count: int, kind: Any = "predict") -> Request:
    return Request(Asked(kind), Mock(spec=asyncio.Future), [{}] * count, count)


def put(line: Line, *counts: int) -> list[Request]:
    made = [request(count) for count in counts]
    for one in made:
        line.put(one, [b"12"] * one.left, now=0.0)
    return made


def taken(line: Line, most: int, made: list[Request]) -> list[tuple[int, int]]:
    """Of the next batch which request each image is of, and which of its images it is."""
    return [(made.index(item.request), item.place) for item in line.take(most)]


def test_requests_share_a_batch_and_a_large_one_is_split() -> None:
    line = Line()
    made = put(line, 1, 6)
    assert (len(line), line.bytes, line.full(7), line.full(8)) == (7, 14, True, False)
    assert taken(line, 4, made) == [(0, 0), (1, 0), (1, 1), (1, 2)]
    assert (len(line), line.bytes, line.full(3)) == (3, 6, True)
    assert taken(line, 4, made) == [(1, 3), (1, 4), (1, 5)]
    assert (len(line), line.bytes, line.full(1)) == (0, 0, False)
    assert line.take(4) == []


def test_a_small_request_goes_before_the_rest_of_a_large_one() -> None:
    line = Line()
    made = put(line, 64)
    assert taken(line, 16, made) == [(0, place) for place in range(16)]
    made += put(line, 1, 1)
    assert taken(line, 16, made)[:2] == [(1, 0), (2, 0)]
    assert len(line) == 64 - 16 - 14


def test_a_large_request_is_not_starved_by_small_ones() -> None:
    """Of 64 images the last is served after at most the first 16 of the requests that came later."""
    line = Line()
    made = put(line, 64)
    served = 0
    while any(item.request is made[0] for item in line.items):
        made += put(line, *[1] * 8)  # for every batch of 4 twice as many come in
        served += 4
        line.take(4)
    assert served == 64 + 16


def test_what_is_dropped_gives_its_places() -> None:
    line = Line()
    made = put(line, 5, 2)
    assert line.drop(made[0]) == 5
    assert (len(line), line.bytes, line.full(2), line.full(3)) == (2, 4, True, False)
    assert line.drop(made[0]) == 0
    assert taken(line, 4, made) == [(1, 0), (1, 1)]


def test_a_batch_asks_one_kind_of_question() -> None:
    line = Line()
    made = [request(2), request(3, "embed"), request(2)]
    for one in made:
        line.put(one, [b""] * one.left, now=0.0)
    assert not line.full(5)
    assert line.full(4)
    assert taken(line, 16, made) == [(0, 0), (0, 1), (2, 0), (2, 1)]
    assert taken(line, 16, made) == [(1, 0), (1, 1), (1, 2)]


def test_a_batch_has_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "BYTES", 5)
    line = Line()
    made = put(line, 4)
    large = request(1)
    line.put(large, [b"0123456789"], now=0.0)
    made.append(large)
    assert taken(line, 16, made) == [(0, 0), (0, 1)]
    assert taken(line, 16, made) == [(0, 2), (0, 3)]
    assert taken(line, 16, made) == [(1, 0)]


def test_an_answer_is_there_with_the_last_record() -> None:
    async def main() -> None:
        answer = asyncio.get_running_loop().create_future()
        asked = Request(Asked(), answer, [{}] * 2, 2)
        asked.fill(1, {"b": 1})
        assert not answer.done()
        asked.fill(0, {"a": 1})
        assert await answer == [{"a": 1}, {"b": 1}]
        asked.fail(ValueError("too late"))

    asyncio.run(main())
