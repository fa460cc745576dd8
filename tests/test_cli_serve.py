"""`metaformer serve`: every option comes to where it counts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import command

from metaformer.serve.app import Service
from metaformer.serve.keys import VARIABLE
from metaformer.serve.pool import Pool
from metaformer.serve.settings import Limits, Running

Started = list[tuple[Service, str, int]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """What would be served, and where."""
    found: Started = []
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("metaformer.serve.server.serve", lambda service, host, port, say: found.append((service, host, port)))
    return found


def limits(**changes: Any) -> Limits:
    """The command's own, with changes."""
    return Limits(**{"image": Limits.body} | changes)


def test_defaults(started: Started) -> None:
    assert command("serve", "runs/first", "other=second.onnx") == (0, "", "")
    ((service, host, port),) = started
    assert (host, port, service.limits, service.locked) == ("127.0.0.1", 8000, limits(), False)
    assert isinstance(service.pool, Pool)
    assert {name: lane.source for name, lane in service.pool.lanes.items()} == {"first": "runs/first", "other": "second.onnx"}
    assert [(lane.running, lane.limits) for lane in service.pool.lanes.values()] == [(Running(), limits())] * 2


@pytest.mark.parametrize(
    ("words", "bounds", "running"),
    [
        ("--max-mb 0.5", {"body": 1 << 19, "image": 1 << 19}, {}),
        ("--max-pixels 1000", {"pixels": 1000}, {}),
        ("--max-images 7", {"images": 7}, {}),
        ("--queue 99", {"queue": 99}, {}),
        ("--deadline 3.5", {"deadline": 3.5}, {}),
        ("--drain 4.5", {"drain": 4.5}, {}),
        ("--batch 3", {}, {"batch": 3}),
        ("--wait 0.25", {}, {"wait": 0.25}),
        ("--engine torch", {}, {"engine": "torch"}),
        ("--device cpu", {}, {"device": "cpu"}),
        ("--precision bf16", {}, {"precision": "bf16"}),
        ("--threads 2", {}, {"threads": 2}),
        ("--streams 2", {}, {"streams": 2}),
    ],
)
def test_options(words: str, bounds: dict[str, Any], running: dict[str, Any], started: Started) -> None:
    assert command("serve", "m.onnx", *words.split()) == (0, "", "")
    ((service, _, _),) = started
    assert service.limits == limits(**bounds)
    assert isinstance(service.pool, Pool)
    assert service.pool.lanes["m"].running == Running(**running)
    assert service.pool.lanes["m"].limits == service.limits


def test_who_may_ask(started: Started, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("keys.txt").write_text("mine\n")
    where = ["--host", "0.0.0.0", "--port", "81"]
    code, _, err = command("serve", "m.onnx", *where)
    assert (code, err.startswith("metaformer: --host 0.0.0.0 can be reached from elsewhere, and there is no key")) == (2, True)
    assert command("serve", "m.onnx", *where, "--keys", "keys.txt", "--allow-origin", "https://example.org") == (0, "", "")
    monkeypatch.setenv(VARIABLE, "theirs")
    assert command("serve", "m.onnx", *where) == (0, "", "")
    (one, *place), (other, *_) = started
    assert place == ["0.0.0.0", 81]
    assert [service._keys.let_in([(b"x-api-key", b"mine")]) for service in (one, other)] == [True, False]
    assert [service._keys.let_in([(b"x-api-key", b"theirs")]) for service in (one, other)] == [False, True]
    assert [service._origins.named for service in (one, other)] == [["https://example.org"], []]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("m.onnx runs/m", "m.onnx and runs/m are both called m: say NAME=SOURCE, such as other=runs/m"),
        ("m.onnx --queue 9", "queue=9 has no room for a request of images=64"),
        ("m.onnx --wait 2", "wait=2.0 is longer than a person waits"),
        ("m.onnx --allow-origin example.org", "--allow-origin 'example.org' is not an origin such as"),
    ],
)
def test_slips(words: str, said: str, started: Started) -> None:
    code, out, err = command("serve", *words.split())
    assert (code, out, err.startswith(f"metaformer: {said}"), started) == (2, "", True, [])
