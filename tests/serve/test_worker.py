"""The process of a real model: the awkward images, being killed, and memory that does not grow."""

import asyncio
import csv
import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.fill import filled_model
from tests.tiny import one_core

from metaformer import Predictor, export, save_pretrained
from metaformer.data.preprocess import Preprocess
from metaformer.serve.frames import Unframer, framed, receive, send
from metaformer.serve.jobs import Job
from metaformer.serve.pool import Pool
from metaformer.serve.settings import Limits, Running

AWKWARD = Path(os.environ.get("METAFORMER_TEST_DATA", "")) / "awkward-images"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model of 32 pixels."""
    folder = tmp_path_factory.mktemp("served")
    with one_core():
        model = filled_model("caformer_t6", depths=(1, 1, 1, 1), dims=(8, 8, 16, 32), num_classes=5)
        preprocess = Preprocess(32, (0.5,) * 3, (0.25,) * 3)
        save_pretrained(model, folder / "tiny", {"classes": list("abcde"), "preprocess": preprocess.to_dict()})
        export(folder / "tiny", "onnx", folder)
    return folder / "tiny.onnx"


def photo(seed: int, side: int = 64) -> bytes:
    made = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(made, "jpeg")
    return made.getvalue()


def asked(file: Path, jobs: list[Job], *, limits: Limits | None = None, kill: bool = False) -> list[Any]:
    """What a pool of this model answers to jobs that are asked one after another; with `kill` the worker is, before each."""

    async def main() -> list[Any]:
        pool = Pool({"m": str(file)}, Running(threads=1), limits or Limits())
        await pool.start()
        found = []
        try:
            for job in jobs:
                if kill:
                    os.kill(worker(pool), signal.SIGKILL)
                    await asyncio.sleep(0.2)
                found.append(await pool.ask("m", job, time.monotonic() + 60))
        finally:
            await pool.stop(1.0)
        return found

    return asyncio.run(main())


def worker(pool: Pool) -> int:
    process = pool.lanes["m"].process
    assert process is not None
    assert process.child is not None
    return process.child.pid


def test_records_are_those_of_predictor(file: Path) -> None:
    images = tuple(photo(seed) for seed in range(40))
    (records,) = asked(file, [Job("predict", images, top=3)])
    expected = [one.to_dict() for one in Predictor(file)(images, top=3, batch=1)]
    assert [one["label"] for one in records] == [one["label"] for one in expected]
    for one, other in zip(records, expected, strict=True):
        assert [each["probability"] for each in one["top"]] == pytest.approx([e["probability"] for e in other["top"]], abs=2e-5)


@pytest.mark.skipif(not AWKWARD.is_dir(), reason="the awkward images are not there")
def test_awkward_images_are_records(file: Path) -> None:
    """Sixty files that crash some decoders, by one process: thirteen give no picture, and say why."""
    rows = list(csv.DictReader((AWKWARD / "TABLE.tsv").read_text().splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    images = tuple((AWKWARD / "files" / row["file"]).read_bytes() for row in rows)
    assert len(images) == 60
    records, again = asked(file, [Job("predict", images), Job("predict", (photo(0),))])
    fails = {row["file"] for row in rows if not row["pil_default"].startswith("ok")}
    assert {row["file"] for row, record in zip(rows, records, strict=True) if "error" in record} == fails
    assert all(record["error"] and "\n" not in record["error"] for record in records if "error" in record)
    assert again[0]["label"] in "abcde"


def test_a_killed_worker_is_soon_replaced(file: Path) -> None:
    start = time.monotonic()
    found = asked(file, [Job("predict", (photo(0),))] * 2, kill=True)
    assert time.monotonic() - start < 20
    assert found[0] == found[1]


def test_ctrl_c_and_sigterm_are_the_fronts(file: Path) -> None:
    async def main() -> None:
        pool = Pool({"m": str(file)}, Running(threads=1), Limits())
        await pool.start()
        for ending in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker(pool), ending)
        await asyncio.sleep(0.2)
        assert len(await pool.ask("m", Job("predict", (photo(0),)), time.monotonic() + 20)) == 1
        assert pool.stats("m")["restarts"] == 0
        await pool.stop(1.0)

    asyncio.run(main())


def test_the_worker_of_a_file_needs_no_torch(file: Path) -> None:
    code = (
        "import sys\n"
        "from metaformer.serve.answer import open_answerer\n"
        "from metaformer.serve.jobs import Asked\n"
        "from metaformer.serve.settings import Running\n"
        f"opened = open_answerer('m', {str(file)!r}, Running())\n"
        f"records = opened.answer(opened.read([{photo(0)!r}]), [Asked()])\n"
        "print(records[0]['label'] in 'abcde', *{'torch', 'torchvision', 'timm', 'scipy', 'matplotlib'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.slow
def test_memory_does_not_grow(file: Path) -> None:
    """3,000 photographs of one megapixel, after 600 have been seen."""

    async def main() -> None:
        pool = Pool({"m": str(file)}, Running(threads=1), Limits())
        await pool.start()
        images = [photo(seed, 1000) for seed in range(8)]

        async def round_of(count: int) -> int:
            for start in range(0, count, 24):
                job = Job("predict", tuple(images[(start + i) % 8] for i in range(24)))
                await pool.ask("m", job, time.monotonic() + 60)
            return resident(worker(pool))

        before = await round_of(600)
        after = await round_of(3_000)
        assert after < before * 1.05 + 4e6, (before, after)
        assert pool.stats("m")["restarts"] == 0
        await pool.stop(1.0)

    asyncio.run(main())


def resident(process: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_front_that_is_killed_at_once_leaves_none_behind(file: Path) -> None:
    """Its socket closes while the model is being opened."""
    own, theirs = socket.socketpair()
    command = [sys.executable, "-m", "metaformer.serve.worker", str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE) as process:
        theirs.close()
        send(own, {"name": "m", "source": str(file), "running": {"threads": 1}, "pixels": 1000})
        own.close()
        assert process.wait(60) == 0
        assert process.stdout is not None
        assert process.stdout.read() == b""


# --- frames -----------------------------------------------------------------------------------------------------------


def test_frames_come_as_they_were_sent_in_any_pieces() -> None:
    messages = [["done", [{"label": "ü", "png": bytes(range(256)) * 3}], 0.5], {"a": None}, [], b"x" * 70_000]
    stream = b"".join(part for message in messages for part in framed(message))
    for size in (1, 7, 1000, len(stream)):
        pieces = Unframer()
        found = [one for start in range(0, len(stream), size) for one in pieces.feed(stream[start : start + size])]
        assert found == messages
        assert not pieces.held
    one, other = socket.socketpair()
    with one, other:
        for message in messages:
            send(one, message)
            assert receive(other) == message
        one.close()
        with pytest.raises(EOFError):
            receive(other)
