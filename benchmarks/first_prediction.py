"""The first prediction of a new process from an exported file: interpreter, imports, reading, compiling, one image.

python benchmarks/first_prediction.py [--model caformer_s18] [--processes 5]
The formats take turns, a process each. Reported: medians and ranges of seconds from the start of the process to its end,
and of its parts as the process itself measures them; no process imports torch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import metaformer

FIRST = """
import sys, time
began = time.perf_counter()
from metaformer import Predictor
imported = time.perf_counter()
predictor = Predictor(sys.argv[1], engine=sys.argv[2])
opened = time.perf_counter()
answer, = predictor([sys.argv[3]])
done = time.perf_counter()
assert answer.label and "torch" not in sys.modules
print(imported - began, opened - imported, done - opened)
"""
WAYS = {"onnxruntime": ("onnx", ".onnx"), "openvino": ("openvino", ".xml"), "openvino, of .onnx": ("onnx", ".onnx")}


def first(file: Path, engine: str, image: Path) -> list[float]:
    """Seconds: the whole process, import, opening, the prediction."""
    started = time.perf_counter()
    command = [sys.executable, "-c", FIRST, str(file), engine, str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [time.perf_counter() - started, *map(float, done.stdout.split())]


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    """Prints a JSON record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="caformer_s18")
    parser.add_argument("--processes", type=int, default=5)
    args = parser.parse_args()

    taken: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        model = metaformer.create_model(args.model)
        size = 32 if args.model.endswith("_t6") else 224
        preprocess = {"size": size, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "fit": "squash"}
        about = {"classes": [str(i) for i in range(model.config.num_classes)], "preprocess": preprocess}
        metaformer.save_pretrained(model, Path(folder) / "model", about)
        for format in {format for format, _ in WAYS.values()}:
            metaformer.export(Path(folder) / "model", format, folder)
        image = Path(folder) / "image.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(image)
        for _ in range(args.processes):
            for way, (_, suffix) in WAYS.items():
                taken[way].append(first(Path(folder) / f"model{suffix}", way.partition(",")[0], image))
    parts = ("whole process", "import", "open", "predict")
    seconds = {
        way: {part: spread(list(values)) for part, values in zip(parts, zip(*rows, strict=True), strict=True)}
        for way, rows in taken.items()
    }
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(json.dumps({"model": args.model, "cores": cores, "processes": args.processes, "seconds": seconds}, indent=2))


if __name__ == "__main__":
    main()
