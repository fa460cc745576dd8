"""Which engine runs a model: the one asked for, or the fastest that was measured for this model on this machine."""

import hashlib
import json
import platform
import statistics
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from metaformer.config import read_json
from metaformer.core.device import choose_device
from metaformer.core.spec import nearest
from metaformer.data.preprocess import Pixels, Preprocess
from metaformer.download import cache_folder
from metaformer.infer.convert import pipeline, to_onnx, to_openvino, write_ir
from metaformer.infer.engines import Engine, OnnxEngine, OpenVinoEngine, Options, TorchEngine, cores
from metaformer.infer.graphs import kept, versions
from metaformer.runs import write_text
from metaformer.weights.pretrained import Model

NAMES = ("torch", "compiled", "openvino", "onnxruntime")
SECONDS = 0.4
"""What a turn of a measurement takes at least."""
TURNS = 5


@dataclass(frozen=True)
class Measured:
    """How fast an engine was."""

    engine: str
    images_per_second: float
    """Median over the turns."""
    low: float
    high: float


def open_engine(model: Model, preprocess: Preprocess, name: str, options: Options) -> Engine:
    """The model in that engine. Raises ValueError where there is none of that name, or where it is not installed."""
    if name not in NAMES:
        raise ValueError(f"no engine {name!r}{nearest(name, ['auto', *NAMES])}")
    if name in ("openvino", "onnxruntime") and choose_device(options.device).type != "cpu" and options.device != "auto":
        raise ValueError(f"engine={name} is for processors here: device=cpu, or engine=compiled")
    if name in ("torch", "compiled"):
        return TorchEngine(pipeline(model, preprocess), options, compiled=name == "compiled")
    channels, size = len(preprocess.mean), preprocess.size
    if name == "openvino":
        return kept(
            model, preprocess, "model.xml", lambda: to_openvino(pipeline(model, preprocess).cpu(), channels, size),
            lambda graph, file: write_ir(graph, file, {}), lambda graph: OpenVinoEngine(graph, options), ("torch", "openvino"),
        )  # fmt: skip
    return kept(
        model, preprocess, "model.onnx", lambda: to_onnx(pipeline(model, preprocess).cpu(), channels, size).SerializeToString(),
        _write, lambda proto: OnnxEngine(proto, options), ("torch", "onnxscript", "onnx", "onnx_ir"),
    )  # fmt: skip


def _write(proto: bytes, file: Path) -> None:
    file.write_bytes(proto)


def choose(model: Model, preprocess: Preprocess, name: str, options: Options) -> tuple[Engine, str]:
    """The engine, and why: `auto` takes what was measured to be the fastest, and torch where nothing was."""
    if name != "auto":
        return open_engine(model, preprocess, name, options), f"{name}, as was asked for"
    found = _remembered().get(_key(model, preprocess, options))
    if not isinstance(found, dict) or found.get("engine") not in candidates(options):
        return open_engine(model, preprocess, "torch", options), "torch: nothing else was tried yet"
    return open_engine(model, preprocess, found["engine"], options), str(found.get("why"))


def candidates(options: Options) -> list[str]:
    """The engines worth measuring here. Compiling takes a minute on a processor, where others are faster: not by itself."""
    if choose_device(options.device).type != "cpu":
        return ["torch", "compiled"]
    installed = {"openvino": find_spec("openvino"), "onnxruntime": find_spec("onnxruntime") and find_spec("onnxscript")}
    usable = [name for name, found in installed.items() if found]
    return ["torch", *(name for name in usable if name != "onnxruntime" or options.precision in ("auto", "fp32"))]


def tune(model: Model, preprocess: Preprocess, options: Options, batch: int) -> tuple[Engine, str, list[Measured]]:
    """Measures the candidates, which take turns: the fastest one, why, and all figures, the fastest first.

    The choice is remembered for the next time, at any batch: what was fastest at another is the best guess there is.
    """
    pixels = np.random.default_rng(0).integers(
        0, 256, (batch, len(preprocess.mean), preprocess.size, preprocess.size), dtype=np.uint8
    )
    engines = _running(model, preprocess, options, pixels)
    calls = {name: max(1, round(SECONDS / _seconds(engine, pixels, 1))) for name, engine in engines.items()}
    speeds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(TURNS):
        for name, engine in engines.items():
            speeds[name].append(batch / _seconds(engine, pixels, calls[name]))
    found = [Measured(name, statistics.median(values), min(values), max(values)) for name, values in speeds.items()]
    found.sort(key=lambda one: -one.images_per_second)
    best = found[0]
    said = ", ".join(f"{one.engine} {one.images_per_second:.0f} ({one.low:.0f} to {one.high:.0f})" for one in found)
    why = f"{best.engine}: measured on {time.strftime('%Y-%m-%d')} in batches of {batch}, images/s: {said}"
    with suppress(OSError):  # it is only a memory
        _remember(_key(model, preprocess, options), asdict(best) | {"why": why})
    return engines[best.engine], why, found


def _running(model: Model, preprocess: Preprocess, options: Options, pixels: Pixels) -> dict[str, Engine]:
    """The candidates that run this model. Raises ValueError where none does."""
    engines: dict[str, Engine] = {}
    reasons = []
    for name in candidates(options):
        try:
            engine = open_engine(model, preprocess, name, options)
            engine(pixels)  # the first call allocates and compiles
            engines[name] = engine
        except (ValueError, RuntimeError) as error:
            reasons.append(f"{name}: {error}")
    if not engines:
        raise ValueError(f"no engine runs this model: {'; '.join(reasons)}")
    return engines


def _seconds(engine: Engine, pixels: Any, calls: int) -> float:
    """Per call."""
    began = time.perf_counter()
    for _ in range(calls):
        engine(pixels)
    return (time.perf_counter() - began) / calls


def _key(model: Model, preprocess: Preprocess, options: Options) -> str:
    """What a measurement holds for: architecture, size, options, machine, versions; not the weights."""
    config = model.config
    described = repr(config) if not hasattr(config, "to_dict") else json.dumps(config.to_dict(), default=str)
    installed = versions("metaformer", "torch", "openvino", "onnxruntime")
    parts = (described, preprocess.size, asdict(options), platform.node(), platform.processor(), cores(), installed)
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def _remember(key: str, choice: dict[str, Any]) -> None:
    """Beside what other processes remember. Raises OSError where nothing can be written."""
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        write_text(file, json.dumps(_remembered() | {key: choice}, indent=2) + "\n")


def _file() -> Path:
    return cache_folder() / "engines.json"


def _remembered() -> dict[str, Any]:
    """What was measured before; nothing where the file is missing or damaged, for it is only a memory."""
    try:
        return read_json(_file())
    except (OSError, ValueError):
        return {}
