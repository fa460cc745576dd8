"""The slim distribution: what it weighs when it is installed, and how long it takes to be ready.

python benchmarks/slim.py [--models caformer_t6 caformer_s18] [--starts 5]
Needs uv and a package registry: the wheel is built and installed at the versions of requirements.lock, with ONNX Runtime, in an
environment with nothing else. Reported: megabytes of everything installed and of its largest parts; for each model, exported
with random weights, medians and ranges of seconds from the start of the process until /readyz says 200, of the first answer
(a photograph of 640 × 480 pixels), and megabytes of memory of its processes then (proportional set sizes, Linux).
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

import metaformer

ROOT = Path(__file__).parents[1]
PORT = 8765
CLASSES = 1000


def installed(folder: Path) -> Path:
    """The environment."""
    environment, wheel = folder / "environment", folder / "metaformer_slim-0.1.0-py3-none-any.whl"
    for words in (
        ["build", "--quiet", "--wheel", "--out-dir", folder, ROOT / "slim"],
        ["venv", "--quiet", "--python", sys.executable, environment],
        ["pip", "install", "--quiet", "--constraints", ROOT / "requirements.lock", wheel],
    ):  # fmt: skip
        subprocess.run(["uv", *map(str, words)], check=True, env=os.environ | {"VIRTUAL_ENV": str(environment)})
    return environment


def megabytes(folder: Path) -> float:
    """Of all files in it."""
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6, 1)


def exported(model: str, folder: Path) -> Path:
    """An ONNX file of 1000 classes."""
    made = metaformer.create_model(model, num_classes=CLASSES)
    size = 32 if model.endswith("_t6") else 224
    preprocess = {"size": size, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "fit": "squash"}
    about = {"classes": [f"class {number}" for number in range(CLASSES)], "preprocess": preprocess}
    metaformer.save_pretrained(made, folder / model, about)
    return metaformer.export(folder / model, "onnx", folder / f"{model}.onnx").file


def photograph() -> bytes:
    """A JPEG."""
    rows, columns = np.mgrid[0:480, 0:640]
    pixels = np.stack([rows % 256, columns % 256, (rows + columns) % 256], 2).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def answered(path: str, body: bytes | None = None) -> bool:
    """Whether the service says 200."""
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", body, {"Content-Type": "image/jpeg"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bool(answer.read())
    except (urllib.error.URLError, ConnectionError):
        return False


def memory(process: int) -> float:
    """Megabytes of a process and of those that it started."""
    rolled = Path(f"/proc/{process}/smaps_rollup").read_text()
    own = next(int(line.split()[1]) for line in rolled.splitlines() if line.startswith("Pss:")) / 1e3
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return round(own + sum(memory(int(child)) for child in children), 1)


def start(command: Path, file: Path, image: bytes) -> dict[str, float]:
    """One start, one answer."""
    began = time.perf_counter()
    with subprocess.Popen(
        [command, file, "--port", str(PORT)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while not answered("/readyz"):
                if process.poll() is not None:
                    raise SystemExit(f"{command} {file} ended with {process.returncode}")
                time.sleep(0.01)
            ready = time.perf_counter() - began
            asked = time.perf_counter()
            if not answered("/predict", image):
                raise SystemExit(f"{file} gave no answer")
            return {"ready": ready, "first answer": time.perf_counter() - asked, "memory": memory(process.pid)}
        finally:
            process.terminate()


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def main() -> None:
    """Prints a JSON record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["caformer_t6", "caformer_s18"])
    parser.add_argument("--starts", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = installed(Path(folder))
        (packages,) = environment.glob("lib/python*/site-packages")
        parts = sorted(((megabytes(path), path.name) for path in packages.iterdir() if path.is_dir()), reverse=True)
        found: dict[str, object] = {"installed": megabytes(packages), "largest": {name: size for size, name in parts[:6]}}
        for model in args.models:
            file = exported(model, Path(folder))
            starts = [start(environment / "bin" / "metaformer-slim", file, photograph()) for _ in range(args.starts)]
            found[model] = {what: spread([one[what] for one in starts]) for what in starts[0]}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
