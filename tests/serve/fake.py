"""A pool without models, for tests of the front and of the page; `python -m tests.serve.fake --port 8123` serves it.

Answers hang on the images' bytes alone. What is no image is an answer that says so, as of a real pool.
"""

import argparse
import asyncio
import hashlib
import io
import time
from collections.abc import Mapping
from typing import Any

import typer
from PIL import Image

from metaformer.serve.jobs import Full, Job, Late, Lost, Model, Opening, Unable
from metaformer.serve.settings import Limits

DIGITS = tuple(f"digit {i}" for i in range(10))
MODELS = (
    Model("digits", "first", "classification", DIGITS, 32, "torch", "fp32", embeds=8, explains=True),
    Model("other", "second.onnx", "classification", DIGITS, 32, "onnxruntime", "fp32", embeds=4),
    Model("nuts", "nuts", "instances", ("date", "fig", "nut"), None, "torch", "fp32"),
    Model("boxes", "boxes", "detection", ("date", "fig", "nut"), None, "torch", "fp32"),
    Model("streets", "streets", "segmentation", ("road", "sky", "tree"), None, "torch", "fp32"),
)


class FakePool:
    """`seconds` for each job; `mood` full, opening, late or lost raises that; `places` bounds the images that wait."""

    def __init__(
        self, models: tuple[Model, ...] = MODELS, *, seconds: float = 0.0, mood: str = "", places: int = 256, start: float = 0.0
    ) -> None:
        self.all = {model.name: model for model in models}
        self.models: Mapping[str, Model] = {}
        self.seconds, self.mood, self.places, self.starting = seconds, mood, places, start
        self.ready = False
        self.busy = 0
        self.jobs: list[Job] = []
        self.cancelled = 0
        self.stopped: float | None = None
        self.images = 0

    async def start(self) -> None:
        await asyncio.sleep(self.starting)
        if self.mood == "broken":
            raise ValueError("there is no model in runs/first")
        self.models, self.ready = self.all, True

    async def stop(self, drain: float) -> None:
        self.ready, self.stopped = False, drain
        end = time.monotonic() + drain
        while self.busy and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def waiting(self, model: str) -> int:
        return self.busy

    def stats(self, model: str) -> dict[str, Any]:
        counts = {"batches": self.images, "images": self.images, "restarts": 0, "seconds": 0.0, "sizes": {1: self.images}}
        reasons = {"full": 0, "late": 0, "lost": 0, "cancelled": self.cancelled}
        return counts | reasons | {"waiting": self.busy, "working": 0, "up": self.ready}

    async def ask(self, model: str, job: Job, deadline: float) -> list[dict[str, Any]]:
        if self.mood == "full" or self.busy + len(job.images) > self.places:
            raise Full("as many images wait as may", 2)
        if self.mood == "opening":
            raise Opening("the model is being opened again", 3)
        if self.mood == "late":
            raise Late("there was no answer in time")
        if self.mood == "lost":
            raise Lost("the process that worked on it is gone")
        if self.mood == "unable":
            raise Unable("this cannot be done")
        self.jobs = [*self.jobs[-9:], job]
        self.busy += len(job.images)
        try:
            await asyncio.sleep(min(self.seconds, max(0.0, deadline - time.monotonic())))
            if time.monotonic() >= deadline:
                raise Late("there was no answer in time")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.busy -= len(job.images)
        self.images += len(job.images)
        return [_record(self.models[model], job, image) for image in job.images]


def _record(model: Model, job: Job, image: bytes) -> dict[str, Any]:
    try:
        with Image.open(io.BytesIO(image)) as opened:
            width, height = opened.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return {"error": "cannot be read as an image"}
    first = hashlib.sha256(image).digest()[0]
    if job.kind == "embed":
        return {"embedding": [((first + i) % 7) / 7 for i in range(model.embeds)]}
    if job.kind == "explain":
        label = job.label or model.classes[first % len(model.classes)]
        heat = _png(Image.linear_gradient("L").resize((32, 32)))
        return {
            "label": label,
            "probability": 0.75,
            "width": width,
            "height": height,
            "box": [0, 0, width, height],
            "heat": heat,
        }
    if model.task == "classification":
        return _classes(model, first, job.top)
    if model.task == "segmentation":
        regions = [{"label": label, "index": i, "share": round(1 / 3, 6)} for i, label in enumerate(model.classes)]
        stripes = Image.linear_gradient("L").resize((width, height)).point(lambda value: value * 3 // 256)
        return {"width": width, "height": height, "png": _png(stripes), "regions": regions}
    return {"width": width, "height": height, "objects": _objects(model, job, width, height)}


def _classes(model: Model, first: int, top: int) -> dict[str, Any]:
    names = [model.classes[(first + i) % len(model.classes)] for i in range(len(model.classes))]
    guesses = [{"label": name, "probability": round(0.6 / 2**i, 6)} for i, name in enumerate(names)][:top]
    return {**guesses[0], "top": guesses}


def _objects(model: Model, job: Job, width: int, height: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for i, score in enumerate((0.9, 0.6, 0.3)):
        if score < job.threshold:
            continue
        left, top, right, bottom = width * i / 4, height * i / 4, width * (i + 2) / 4, height * (i + 2) / 4
        thing: dict[str, Any] = {"label": model.classes[i], "score": score, "box": [left, top, right, bottom]}
        if model.task == "instances" and job.masks == "polygons":
            thing["polygons"] = [[left, top, right, top, (left + right) / 2, bottom]]
        elif model.task == "instances":
            thing["rle"] = {"size": [height, width], "counts": "0"}
        found.append(thing)
    return found


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def main() -> None:
    """Serves a fake pool until it is told to stop."""
    from metaformer.serve.app import Service
    from metaformer.serve.server import serve

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--seconds", type=float, default=0.0, help="how long each job takes")
    parser.add_argument("--start", type=float, default=0.0, help="how long it takes to be ready")
    parser.add_argument("--mood", default="", help="full, opening, late, lost, unable or broken")
    parser.add_argument("--places", type=int, default=256, help="images that may wait")
    parser.add_argument("--models", default="", help="names with commas; else all")
    parser.add_argument("--keys", default="", help="keys with commas")
    parser.add_argument("--limits", default="", help="such as read=1,drain=2,body=100000")
    given = parser.parse_args()
    names = given.models.split(",") if given.models else [model.name for model in MODELS]
    models = tuple(model for name in names for model in MODELS if model.name == name)
    pairs = [pair.split("=") for pair in given.limits.split(",") if pair]
    whole = ("body", "image", "pixels", "images", "queue")
    limits = Limits(**{name: int(value) if name in whole else float(value) for name, value in pairs})  # type: ignore[arg-type]
    pool = FakePool(models, seconds=given.seconds, mood=given.mood, places=given.places, start=given.start)
    service = Service(pool, limits, keys=tuple(key for key in given.keys.split(",") if key))
    serve(service, given.host, given.port, typer.echo)


if __name__ == "__main__":
    main()
