"""`metaformer serve`: every option comes where it belongs, and every slip is one sentence."""

from pathlib import Path
from typing import Any

import pytest
from tests.tiny import command

from metaformer import cli_serve
from metaformer.serve import pool, server
from metaformer.serve.app import Service
from metaformer.serve.settings import Limits, Running


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What would have been served, and where."""
    found: dict[str, Any] = {}

    class Noted:
        def __init__(self, sources: dict[str, str], running: Running, limits: Limits) -> None:
            self.models: dict[str, Any] = {}
            found.update(sources=sources, running=running, limits=limits)

    def serve(service: Service, host: str, port: int, say: Any) -> None:
        found.update(service=service, host=host, port=port)

    monkeypatch.setattr(pool, "Pool", Noted)
    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.delenv("METAFORMER_KEYS", raising=False)
    return found


def test_without_options(asked: dict[str, Any]) -> None:
    assert command("serve", "runs/first", "other=x.onnx") == (0, "", "")
    assert asked["sources"] == {"first": "runs/first", "other": "x.onnx"}
    assert asked["running"] == Running()
    assert asked["limits"] == Limits(image=Limits().body)
    assert (asked["host"], asked["port"], asked["service"].locked) == ("127.0.0.1", 8000, False)


def test_every_option_arrives(asked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one\n")
    code, _, err = command(
        "serve", "a", "--host", "0.0.0.0", "--port", 81, "--engine", "openvino", "--device", "cpu", "--precision", "bf16",
        "--threads", 3, "--streams", 2, "--batch", 5, "--wait", 0.25, "--queue", 99, "--deadline", 7, "--max-mb", 1.5,
        "--max-pixels", 1234, "--max-images", 6, "--keys", tmp_path / "keys", "--allow-origin", "https://a.org",
        "--allow-origin", "https://b.org", "--drain", 2,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert asked["running"] == Running("openvino", "cpu", "bf16", 3, 2, 5, 0.25)
    size = 3 << 19
    assert asked["limits"] == Limits(size, size, 1234, 6, 99, deadline=7.0, drain=2.0)
    assert (asked["host"], asked["port"], asked["service"].locked) == ("0.0.0.0", 81, True)
    assert asked["service"].origins.named == ["https://a.org", "https://b.org"]


def test_keys_of_the_environment(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFORMER_KEYS", "one,two")
    assert command("serve", "a", "--host", "0.0.0.0")[0] == 0
    assert asked["service"].locked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "serve needs MODEL: metaformer serve MODEL..."),
        (("a", "--host", "0.0.0.0"), "--host 0.0.0.0 can be reached from elsewhere, and there is no key: set METAFORMER_KEYS"),
        (("a", "b/a.onnx"), "a and b/a.onnx are both called a: say NAME=SOURCE, such as other=b/a.onnx"),
        (("a", "--prot", "1"), "serve has no option '--prot', did you mean --port?\n  metaformer serve a --port 1"),
        (("a", "--queue", "3"), "queue=3 has no room for a request of images=64"),
        (("a", "--allow-origin", "a.org"), "--allow-origin 'a.org' is not an origin such as https://example.org"),
        (("a", "--keys", "nowhere"), "nowhere: No such file or directory"),
        (("a", "--max-mb", "0"), "body=0 is not a whole number of 1 or more"),
    ],
)
@pytest.mark.usefixtures("asked")
def test_slips(words: tuple[str, ...], said: str) -> None:
    code, out, err = command("serve", *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"metaformer: {said}")


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cli_serve.find_spec
    monkeypatch.setattr(cli_serve, "find_spec", lambda name: None if name == "fastapi" else found(name))
    assert command("serve", "a") == (2, "", "metaformer: serving needs fastapi: pip install 'metaformer[serve]'\n")
