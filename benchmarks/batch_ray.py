"""How much faster two workers of Ray Data are than one: JPEG files in, parts of Parquet out, decoding inside the workers.

python benchmarks/batch_ray.py --images 5000 --rounds 3
The ways take turns; a round is each way once, with Ray started anew and a folder of its own. Reported: images per second of
the whole command, Ray's start counted, and of the steady state, from when each worker has done its first part on, with their
ratio in each round. A worker has one thread; the model has random weights and is an exported .onnx, unless --model names one.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from metaformer import create_model, export, save_pretrained
from metaformer.serve.batch.job import Job, run_job
from metaformer.serve.batch.on_ray import Cluster
from metaformer.serve.batch.work import Work, source_sha256


def write_images(folder: Path, count: int, side: int) -> None:
    """JPEGs of slopes, rectangles and noise."""
    random = np.random.default_rng(0)
    slope = np.linspace(0, 160, side)[:, None, None] * np.ones((1, side, 3))
    for i in range(count):
        pixels = slope + random.normal(0, 12, (side, side, 3))
        for top, left, high, wide in random.integers(0, side, (6, 4)):
            pixels[top : top + high // 2, left : left + wide // 2] += random.integers(-120, 120, 3)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06d}.jpg", quality=85)


def write_model(folder: Path, name: str) -> str:
    """A model of that name with random weights, as an ONNX file."""
    preprocess = {"size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "fit": "crop", "crop_fraction": 0.9}
    model = create_model(name, num_classes=1000).eval()
    save_pretrained(model, folder / "saved", {"classes": [f"class {i}" for i in range(1000)], "preprocess": preprocess})
    return str(export(folder / "saved", "onnx", folder / "model.onnx").file)


def speeds(source: str, photos: Path, out: Path, workers: int, size: int) -> tuple[float, float]:
    """Images per second of the whole job, and of what came after each worker's first part."""
    work = Work("predict", source, threads=1, sha256=source_sha256(source))
    seen: set[int] = set()
    began, warm, total = time.perf_counter(), None, 0
    for state in run_job(Job(work, (str(photos),), str(out), Cluster(workers), size)):
        total = state.images + state.errors
        seen |= {one.process for one in state.done}
        if warm is None and len(seen) == workers:
            warm = (time.perf_counter(), total)
    ended = time.perf_counter()
    assert warm is not None
    return total / (ended - began), (total - warm[1]) / (ended - warm[0])


def main() -> None:
    """Prints a line for each run, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=256, help="of an image, in pixels")
    parser.add_argument("--part", type=int, default=100, help="images of a part")
    parser.add_argument("--model", default="poolformerv2_s12", help="a name, for random weights, or an exported file")
    asked = parser.parse_args()
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's workers give way to all others, at 15
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "photos").mkdir()
        write_images(folder / "photos", asked.images, asked.side)
        source = asked.model if Path(asked.model).is_file() else write_model(folder, asked.model)
        ratios: list[tuple[float, float]] = []
        for i in range(asked.rounds):
            found: dict[int, tuple[float, float]] = {}
            for workers in (1, 2) if i % 2 == 0 else (2, 1):
                found[workers] = speeds(source, folder / "photos", folder / f"out-{i}-{workers}", workers, asked.part)
                whole, steady = found[workers]
                print(f"round {i + 1}, {workers} worker(s): {steady:7.1f} images/s steady, {whole:7.1f} of the whole command")
            ratios.append((found[2][1] / found[1][1], found[2][0] / found[1][0]))
        for name, values in zip(("steady", "whole command"), zip(*ratios, strict=True), strict=True):
            low, middle, high = min(values), statistics.median(values), max(values)
            print(f"2 workers over 1, {name}: {middle:.2f} × ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
