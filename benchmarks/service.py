"""The service against `Predictor`, on the same JPEG images in memory: images a second, waiting, overload, a killed worker.

python benchmarks/service.py [--model caformer_s18] [--engine auto] [--each 1] [--overload 180]
`metaformer serve` runs in processes of its own, the client in another. Rounds take turns: so many seconds of `Predictor`,
so many of the service with as many clients as fill its batches. A table goes to stderr, a JSON record to stdout.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
from PIL import Image

import metaformer

PAGE = os.sysconf("SC_PAGE_SIZE")


def prepare(args: argparse.Namespace, folder: Path) -> tuple[Path, list[bytes], int]:
    """A model with weights from its initialisation, and images that are as hard to decode as photographs."""
    size = args.size or (32 if args.model.endswith("_t6") else 224)
    model = metaformer.create_model(args.model)
    preprocess = {"size": size, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "fit": "crop"}
    about = {"classes": [str(i) for i in range(model.config.num_classes)], "preprocess": preprocess}
    metaformer.save_pretrained(model, folder / "model", about)
    source = folder / "model"
    if args.format:
        source = metaformer.export(source, args.format, folder).file
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    side = args.side or size * 5 // 4
    images = []
    for number in range(64):
        coarse = Image.fromarray(random.integers(0, 256, (side // 8 + 1, side // 8 + 1, 3), dtype=np.uint8))
        file = BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(file, "jpeg", quality=85)
        images.append(file.getvalue())
        (folder / "images" / f"{number:02}.jpg").write_bytes(file.getvalue())
    return source, images, side


def from_predictor(predictor: metaformer.Predictor, images: list[bytes], seconds: float, batch: int) -> float:
    """Images a second."""
    began, done = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds:
        predictor(images, batch=batch, top=1)
        done += len(images)
    return done / took


@contextmanager
def served(source: Path, args: argparse.Namespace, log: Path) -> Iterator[tuple[int, int]]:
    """`metaformer serve` in a process of its own: its number and port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "metaformer", "serve", f"bench={source}", "--port", str(port)]
    command += ["--engine", args.engine, "--batch", str(args.batch), "--wait", str(args.wait)]
    command += ["--threads", str(args.threads)] if args.threads else []
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            while not is_ready(port):
                if process.poll() is not None:
                    raise SystemExit(log.read_text())
                time.sleep(0.05)
            yield process.pid, port
        finally:
            process.terminate()
            process.wait(60)


def is_ready(port: int) -> bool:
    """Whether it answers."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False


class Client:
    """The other process."""

    def __init__(self, port: int, images: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("service_client.py")), str(port), str(images)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def do(self, name: str, **options: object) -> dict[str, Any]:
        """Runs a command there."""
        self.begin(name, **options)
        return self.end()

    def begin(self, name: str, **options: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, options]) + "\n")
        self.process.stdin.flush()

    def end(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def worker_of(front: int) -> int:
    """The process of the model."""
    return int(Path(f"/proc/{front}/task/{front}/children").read_text().split()[0])


def resident(process: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE


def spread(values: Sequence[float]) -> dict[str, float]:
    """Over rounds."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def saturation(
    predictor: metaformer.Predictor, images: list[bytes], client: Client, args: argparse.Namespace
) -> dict[str, Any]:
    """Rounds in turns; the first of each is thrown away."""
    rows = []
    clients = max(2, -(-args.batch * 4 // args.each))
    for _ in range(args.rounds + 1):
        plain = from_predictor(predictor, images, args.seconds, args.predictor_batch)
        found = client.do("closed", clients=clients, seconds=args.seconds, each=args.each)
        rows.append((plain, found["images_per_second"], found["images_per_second"] / plain))
    names = ("predictor", "service", "ratio")
    columns = {name: spread(column) for name, column in zip(names, zip(*rows[1:], strict=True), strict=True)}
    return columns | {"clients": clients, "each": args.each, "last": found}


def waiting(client: Client, args: argparse.Namespace) -> dict[str, Any]:
    """In rounds: requests a quarter of a second apart, each alone, their median; what the service answers with one image a
    request; 60 % of that, evenly spaced and at random, of which the 99th percentile. Seconds."""
    client.do("closed", clients=1, seconds=2, each=1)
    rows = []
    for _ in range(args.rounds):
        lone = client.do("paced", rate=4, seconds=args.seconds * 2, poisson=False)["200"]["p50"]
        capacity = client.do("closed", clients=args.batch * 4, seconds=args.seconds, each=1)["images_per_second"]
        row = {"capacity": capacity, "lone": lone}
        for name in ("even", "poisson"):
            load = client.do("paced", rate=0.6 * capacity, seconds=args.seconds * 3, poisson=name == "poisson")
            row |= {name: load["200"]["p99"], f"{name}_ratio": load["200"]["p99"] / lone}
        rows.append(row)
    return {name: spread([row[name] for row in rows]) for name in rows[0]}


def overloaded(client: Client, front: int, capacity: float, seconds: float) -> dict[str, Any]:
    """Twice what it can; memory after each tenth of the time."""
    client.begin("paced", rate=2 * capacity, seconds=seconds, poisson=True)
    worker = worker_of(front)
    memory: dict[str, list[int]] = {"front": [], "worker": [], "both": []}
    for _ in range(10):
        time.sleep(seconds / 10)
        sizes = resident(front), resident(worker)
        for name, size in zip(memory, (*sizes, sum(sizes)), strict=True):
            memory[name].append(size)
    found = client.end()
    grown = {name: sizes[-1] / sizes[0] - 1 for name, sizes in memory.items()}
    return {"answers": found, "memory": memory, "grown": grown, "same_worker": worker_of(front) == worker}


def killed(client: Client, front: int, seconds: float) -> dict[str, Any]:
    """How long what waits is not answered once the worker is killed under load; failures of what was asked meanwhile."""
    client.begin("closed", clients=8, seconds=seconds, each=1)
    time.sleep(5)
    worker, began = worker_of(front), time.monotonic()
    os.kill(worker, signal.SIGKILL)
    under_load = client.end()
    back = client.do("until", each=1)
    return {"under_load": under_load, "back": back | {"since_kill": time.monotonic() - began}, "slowest": under_load["most"]}


def main() -> None:
    """Prints a JSON record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="caformer_s18")
    parser.add_argument("--format", help="export it first: onnx, openvino ...")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--predictor-batch", type=int, default=32)
    parser.add_argument("--wait", type=float, default=0.0)
    parser.add_argument("--each", type=int, default=1, help="images of a request at saturation")
    parser.add_argument("--size", type=int, help="pixels a side that the model sees")
    parser.add_argument("--side", type=int, help="pixels a side of the JPEG images")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--overload", type=float, default=0.0, help="seconds at twice the capacity")
    parser.add_argument("--only", choices=["saturation", "waiting", "killed"], help="this part alone")
    args = parser.parse_args()

    parts: dict[str, Any] = {"model": args.model, "engine": args.engine, "batch": args.batch, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, images, parts["jpeg_side"] = prepare(args, folder)
        predictor = metaformer.Predictor(source, args.engine, threads=args.threads)
        if predictor.tunes:
            predictor.tune(args.batch)
        parts["run_by"] = predictor.choice
        with served(source, args, folder / "log") as (front, port):
            client = Client(port, folder / "images")
            try:
                if args.only in (None, "saturation"):
                    parts["saturation"] = saturation(predictor, images, client, args)
                if args.only in (None, "waiting") or args.overload:
                    parts["waiting"] = waiting(client, args)
                if args.overload:
                    parts["overload"] = overloaded(client, front, parts["waiting"]["capacity"]["median"], args.overload)
                if args.only in (None, "killed"):
                    parts["killed"] = killed(client, front, max(40.0, args.seconds))
            finally:
                client.close()
    table(parts)
    print(json.dumps(parts, indent=2))


def figures(one: dict[str, float]) -> str:
    """A median and its spread."""
    return f"{one['median']:.3g} ({one['low']:.3g} to {one['high']:.3g})"


def table(parts: dict[str, Any]) -> None:
    """For people."""
    rows: list[tuple[str, str]] = [("run by", parts["run_by"])]
    if "saturation" in parts:
        for name, one in list(parts["saturation"].items())[:3]:
            unit = "" if name == "ratio" else " images/s"
            rows.append((name, f"{figures(one)}{unit}"))
    if "waiting" in parts:
        one = parts["waiting"]
        rows.append(("alone", f"{1e3 * one['lone']['median']:.1f} ms"))
        for kind in ("even", "poisson"):
            share = f"60 % of {one['capacity']['median']:.3g}/s, {kind}"
            rows.append((share, f"p99 {1e3 * one[kind]['median']:.1f} ms, {figures(one[f'{kind}_ratio'])} ×"))
    if "overload" in parts:
        one = parts["overload"]
        told = [f"{key}: {value['requests']}, p99 {1e3 * value['p99']:.0f} ms" for key, value in sorted(one["answers"].items())]
        grown = ", ".join(f"{name} {100 * value:+.1f} %" for name, value in one["grown"].items())
        rows.append(("overload", f"{'; '.join(told)}; memory {grown}"))
    if "killed" in parts:
        one = parts["killed"]
        rows.append(("worker killed", f"slowest {one['slowest']:.1f} s, statuses {one['under_load']['statuses']}"))
    for name, text in rows:
        print(f"{name:32} {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
