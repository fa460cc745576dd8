"""docs/serve.md, executed: what it starts is a service on a free port, and what it asks is asked there."""

import json
import re
import shlex
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
import typer
from tests.pages import ROOT, SERVED, SHELL, blocks
from tests.serving import Served

from metaformer import Predictor
from metaformer.cli import app
from metaformer.serve.settings import Limits

(PAGE,) = SERVED
TEXT = PAGE.read_text()
CURL = shutil.which("curl")
STARTS = re.compile(r"^metaformer serve .*$", re.MULTILINE)
QUICK = ("--engine", "torch", "--batch", "4")
"""What is added to a line, for measuring engines takes longer than all else."""


def run(words: list[str], given: str, folder: Path, port: int | None) -> str:
    """What a script prints that asks at 8000 on the page, and at the service's port here."""
    text = given if port is None else given.replace(":8000", f":{port}")
    done = subprocess.run([*words, text], cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def scripts(code: str) -> Iterator[tuple[str, str | None]]:
    """Parts of a block of a shell, each with the service that is started after it, if one is."""
    before = 0
    for match in STARTS.finditer(code):
        yield code[before : match.start()], match[0]
        before = match.end()
    yield code[before:], None


def values(printed: str) -> list[Any]:
    """JSON, one behind the other."""
    found, at, decoder = [], 0, json.JSONDecoder()
    while printed[at:].strip():
        at += len(printed[at:]) - len(printed[at:].lstrip())
        value, at = decoder.raw_decode(printed, at)
        found.append(value)
    return found


def client() -> str:
    """The ten lines."""
    return next(block.code for block in blocks(PAGE) if "def ask(" in block.code)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_page_can_be_typed(shell: Path) -> None:
    """Each of its blocks, in order; an answer that is an error fails, since curl is told so."""
    if CURL is not None:
        wrapper = shell.parent / f"{shell.name}-bin" / "curl"
        wrapper.write_text(f'#!/bin/sh\nexec {CURL} --fail-with-body "$@"\n')
        wrapper.chmod(0o755)
    said: list[str] = []
    service: Served | None = None
    try:
        for block in blocks(PAGE):
            if block.language == "python" and block.code != client():
                assert service is not None
                said.append(run(["python", "-W", "error", "-c"], client() + block.code, shell, service.port))
            for script, starts in scripts(block.code) if block.language in SHELL else ():
                if CURL is not None or "curl" not in script:
                    code = re.sub(r"\bepochs=\d+", "epochs=1", script)
                    said.append(run(["bash", "-euo", "pipefail", "-c"], code, shell, service and service.port))
                if starts is not None:
                    assert service is None or service.close() == 0
                    service = Served([*shlex.split(starts, comments=True), *QUICK], shell)
    finally:
        code = None if service is None else service.close()
    assert code == 0
    check_answers(said, shell / "runs" / "first")


def check_answers(said: list[str], first: Path) -> None:
    """By what the run itself says of the images."""
    right = [answer.to_dict() for answer in Predictor(first)([first / "curves.png", first / "confusion.png"])]
    python = next(text for text in said if text.startswith("runs/first/curves.png"))
    assert python.splitlines()[0] == f"runs/first/curves.png {right[0]['label']} None"
    assert re.fullmatch(r"runs/first/recipe.json None not an image .*", python.splitlines()[1])
    if CURL is None:
        return
    one, two = values(next(text for text in said if '"b"' in text or '"name":"confusion.png"' in text))
    (answer,) = one["results"]
    assert (answer["name"], [guess["label"] for guess in answer["top"]]) == (
        None,
        [top["label"] for top in right[0]["top"][:3]],
    )
    chances = [guess["probability"] for guess in (right[0], *right[0]["top"][:3])]
    assert [guess["probability"] for guess in (answer, *answer["top"])] == pytest.approx(chances, abs=1e-5)
    assert [answer["name"] for answer in two["results"]] == ["curves.png", "confusion.png"]
    assert [answer["label"] for answer in two["results"]] == [answer["label"] for answer in right]
    bodies = next(text for text in said if '"embedding"' in text)
    from_json, word, *rest = bodies.split("\n", 1)[0], *bodies.split("\n", 1)[1:]
    assert str(right[0]["label"]) in from_json + word
    assert "metaformer_images_total{" in "".join(rest) + word
    keyed = values(said[-1])[0]
    assert (keyed["model"], keyed["results"][0]["label"]) == ("file", right[0]["label"])


class Busy(BaseHTTPRequestHandler):
    """Is busy as often as it is told to be, and says what came in."""

    refusals = 0
    seen: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).seen.append((self.headers["X-API-Key"], [image["name"] for image in body["images"]]))
        busy = len(self.seen) <= self.refusals
        content = b'{"results": [{"label": "3"}]}'
        self.send_response(503 if busy else 200)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize(("refusals", "asked"), [(0, 1), (3, 4), (9, 5)])
def test_the_client_asks_again_and_gives_up(refusals: int, asked: int, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Busy, "refusals", refusals)
    monkeypatch.setattr(Busy, "seen", [])
    (here / "a.png").write_bytes(b"a")
    names: dict[str, Any] = {}
    exec(compile(client(), "the client", "exec"), names)
    server = HTTPServer(("127.0.0.1", 0), Busy)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/predict"
        if asked == 5:
            with pytest.raises(urllib.error.HTTPError, match="503") as raised:
                names["ask"]("a.png", url=url, key="mine")
            raised.value.close()
        else:
            assert names["ask"]("a.png", url=url, key="mine") == [{"label": "3"}]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert Busy.seen == [("mine", ["a.png"])] * asked


def test_the_client_takes_ten_lines() -> None:
    assert len([line for line in client().splitlines() if line.strip()]) <= 10


def test_the_limits_are_those_of_the_command() -> None:
    """Options, defaults, and what has no option."""
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    defaults = {option: param.default for param in command.params for option in param.opts}
    table = TEXT.partition("| option | default |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`--[\w-]+`)? ?\| ([\d,]+) \|", table, re.MULTILINE)
    assert len(rows) == 7
    for option, default in rows:
        value = float(default.replace(",", ""))
        assert value == (defaults[option.strip("`")] if option else Limits().read), option


def test_each_reason_for_503_is_told() -> None:
    """All codes that the source answers it with."""
    source = "\n".join(file.read_text() for file in (ROOT / "src/metaformer/serve").glob("*.py"))
    codes = set(re.findall(r'Refusal\(\s*503,\s*"(\w+)"', source))
    rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", TEXT.partition("| `code` |")[2], re.MULTILINE)
    assert {code for row in rows for code in re.findall(r"\w+", row)} == codes
    assert len(codes) >= 5


def test_the_example_has_the_form_of_an_answer() -> None:
    """As Prediction writes it, with a name for a path."""
    from metaformer.infer.predictor import Prediction

    (example,) = [json.loads(block.code) for block in blocks(PAGE) if block.language == "json"]
    wanted = Prediction("", (("3", 0.512), ("8", 0.301), ("5", 0.104))).to_dict()
    del wanted["path"]
    assert example["results"] == [{"name": None, **wanted}]
    assert list(example) == ["model", "task", "seconds", "results"]
