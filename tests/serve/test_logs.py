"""Logs: one line of JSON a request, with what happened and nothing of what was sent."""

import io
import json
import logging
import re

import pytest
from tests.serve.client import Client, png
from tests.serve.fake import FakePool

from metaformer.serve.app import Service
from metaformer.serve.logs import Log, LogHandler, request_id, take_over


def test_request_ids() -> None:
    assert request_id(b"mine.1-2_3") == "mine.1-2_3"
    for bad in (None, b"", b"x" * 65, b"a b", b"a\nb", b"\xff"):
        assert re.fullmatch(r"[0-9a-f]{16}", request_id(bad))
    assert request_id(None) != request_id(None)


def test_a_line_for_each_request_and_nothing_that_was_sent() -> None:
    stream = io.StringIO()
    client = Client(Service(FakePool(), keys=("a-secret",), log=Log(stream)))
    headers = {"x-api-key": "a-secret", "x-request-id": "mine"}
    files = {"images": ("private-name.png", png(3), "image/png")}
    assert client.post("/predict?model=digits&top=2", files=files, headers=headers).status_code == 200
    assert client.post("/predict?model=nobody", content=b"private", headers=headers).status_code == 404
    assert client.get("/models?private=1").status_code == 401
    done, wrong, locked = (json.loads(line) for line in stream.getvalue().splitlines())
    assert {key: done[key] for key in ("request_id", "method", "path", "status", "images", "model")} == {
        "request_id": "mine", "method": "POST", "path": "/predict", "status": 200, "images": 1, "model": "digits",
    }  # fmt: skip
    assert done["bytes"] > len(png(3))
    assert 0 <= done["seconds"] < 5
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", done["time"])
    assert (wrong["status"], wrong["model"]) == (404, None)
    assert (locked["status"], locked["path"]) == (401, "/models")
    assert not re.search("secret|private|nobody", stream.getvalue())


def test_libraries_tell_in_lines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    logger = logging.getLogger("metaformer.serve.test")
    monkeypatch.setattr(logger, "handlers", [LogHandler(Log(stream))])
    monkeypatch.setattr(logger, "propagate", False)
    logger.info("not told")
    try:
        raise ValueError("a reason")
    except ValueError:
        logger.exception("the process of %s ended", "first")
    line = json.loads(stream.getvalue())
    assert (line["level"], line["logger"], line["message"]) == ("error", "metaformer.serve.test", "the process of first ended")
    assert "ValueError: a reason" in line["exception"]


def test_the_log_tells_what_opens_and_what_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is measured first is a minute in which nobody knows why nothing comes."""
    stream = io.StringIO()
    for name in ("uvicorn", "asyncio", "metaformer", "metaformer.serve", "python_multipart", "python_multipart.multipart"):
        for key in ("handlers", "propagate", "level"):
            monkeypatch.setattr(logging.getLogger(name), key, getattr(logging.getLogger(name), key))
    take_over(Log(stream))
    for name, level, told in (
        ("metaformer.serve", logging.INFO, "first is run by torch"),
        ("metaformer.train", logging.INFO, "no"),
        ("uvicorn.error", logging.INFO, "no"),
        ("uvicorn.error", logging.WARNING, "Invalid HTTP request received."),
        ("python_multipart.multipart", logging.WARNING, "no"),
    ):
        logging.getLogger(name).log(level, told)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["first is run by torch", "Invalid HTTP request received."]


def test_a_reader_that_went_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()

    def broken(text: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(stream, "write", broken)
    Log(stream).write({"status": 200})
