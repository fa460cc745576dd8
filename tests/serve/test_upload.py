"""Uploads that are damaged: whatever comes, the answer is 200, 4xx or 503, and nothing grows. Images by the real process."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from tests.serve.client import Running, png, running
from tests.serve.fake import MODELS

from metaformer import Run
from metaformer.export.export import export

DATA = os.environ.get("METAFORMER_TEST_DATA")
BOUNDARY = b"----a-boundary"
FORM = b"multipart/form-data; boundary=" + BOUNDARY
Sent = tuple[bytes, str]


@pytest.fixture(scope="module")
def served(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The exported model of the test run, as `metaformer serve` serves it."""
    file = tmp_path_factory.mktemp("served") / "tiny.onnx"
    export(run.path, "onnx", file)
    with running(str(file), "--threads", "1", "--max-images", "8", program="metaformer") as server:
        end = time.monotonic() + 60
        while server.get("/readyz")[0] != 200:
            assert time.monotonic() < end
            time.sleep(0.1)
        yield server


def form(images: list[bytes]) -> bytes:
    """A multipart body."""
    head = b'\r\nContent-Disposition: form-data; name="images"; filename="%d.png"\r\nContent-Type: image/png\r\n\r\n'
    parts = [b"--" + BOUNDARY + head % i + image for i, image in enumerate(images)]
    return b"\r\n".join([*parts, b"--" + BOUNDARY + b"--\r\n"])


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut off, cut out, put in or doubled, once or a few times."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 64))
        kind = rng.randrange(6)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[at : at + size]
        elif kind == 2:
            data[at:at] = rng.randbytes(size)
        elif kind == 3:
            data[at:at] = data[at : at + 64 * size]
        elif kind == 4:
            data[at : at + size] = rng.choice((b"\0", b"\xff", b"\r\n", b"--", BOUNDARY, b'"', b"{")) * size
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


def uploads(count: int, images: list[bytes], seed: int) -> Iterator[Sent]:
    """Damaged images, forms and JSON, the same ones for the same seed."""
    rng = random.Random(seed)
    text = b'{"images": [{"name": "a.png", "data": "iVBORw0KGgo="}, "iVBORw0KGgo="]}'
    for i in range(count):
        if i % 4 == 3:
            yield mutated(text, rng), "application/json"
        elif i % 4 == 2:
            yield mutated(form(rng.sample(images, 2)), rng), FORM.decode()
        else:
            yield mutated(rng.choice(images), rng), "image/png"


def ask(connection: HTTPConnection, body: bytes, kind: str) -> HTTPResponse:
    """The answer, read to its end; on another connection where the last answer closed this one."""
    connection.request("POST", "/predict", body, {"content-type": kind})
    said = connection.getresponse()
    said.read()
    return said


def statuses(server: Running, sent: Iterator[Sent], watch: Callable[[int], None] = lambda count: None) -> Counter[int]:
    """How often there was which status."""
    found: Counter[int] = Counter()
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    for body, kind in sent:
        found[ask(connection, body, kind).status] += 1
        watch(found.total())
    connection.close()
    return found


def small_images() -> list[bytes]:
    """Real ones where there are any, of up to 60 kB and of several formats; else drawn ones."""
    drawn = [png(i, (40, 30)) for i in range(8)]
    if not DATA:
        return drawn
    files = sorted(path for path in (Path(DATA) / "awkward-images" / "files").rglob("*") if path.is_file())
    return [*drawn, *(path.read_bytes() for path in files if 0 < path.stat().st_size < 60_000)]


def check(found: Counter[int], count: int) -> None:
    """Only what may be answered, and all of it."""
    assert found.total() == count
    assert {status for status in found if not 400 <= status < 500} <= {200, 503}, found
    assert found[200] > count / 3
    assert found[400] + found[422] > count / 10
    assert found[503] <= count / 100


def test_damaged_uploads_are_answered(served: Running) -> None:
    count = 400
    check(statuses(served, uploads(count, small_images(), 1)), count)
    assert served.get("/readyz")[0] == 200


@pytest.mark.slow
def test_ten_thousand_damaged_uploads_are_answered_and_nothing_grows(served: Running) -> None:
    count, memory = 10_000, dict[int, int]()

    def watch(done: int) -> None:
        if done in (3000, count):
            memory[done] = served.memory()

    check(statuses(served, uploads(count, small_images(), 2), watch), count)
    assert memory[count] < memory[3000] * 1.05 + (4 << 20)


@pytest.mark.skipif(not DATA, reason="METAFORMER_TEST_DATA has no images")
def test_awkward_images_are_answered(served: Running) -> None:
    assert DATA is not None
    files = sorted(path for path in (Path(DATA) / "awkward-images" / "files").rglob("*") if path.is_file())
    assert len(files) >= 60
    for path in files:
        status, _, said = served.post("/predict", path.read_bytes(), "application/octet-stream")
        if path.stat().st_size == 0:
            assert status == 400
        else:
            assert status == 200, (path.name, said)
            assert set(said["results"][0]) in ({"name", "error"}, {"name", "label", "probability", "top"})
    assert served.get("/readyz")[0] == 200
    assert 'metaformer_restarts_total{model="tiny"} 0.0' in served.get("/metrics")[1]


def test_a_served_file_answers_as_it_predicts(served: Running, run: Run) -> None:
    picture = (run.path / "predictions.png").read_bytes()
    status, _, said = served.post("/predict?top=3", form([picture, b"no image"]), FORM.decode())
    assert status == 200
    from metaformer import Predictor

    expected = Predictor(run.path)([picture])[0].to_dict()["top"][:3]
    first, second = said["results"]
    assert [one["label"] for one in first["top"]] == [one["label"] for one in expected]
    assert first["probability"] == pytest.approx(expected[0]["probability"], abs=1e-3)
    assert (first["name"], second["name"]) == ("0.png", "1.png")
    assert "error" in second


def test_the_fake_knows_every_task() -> None:
    assert {model.task for model in MODELS} == {"classification", "detection", "instances", "segmentation"}
