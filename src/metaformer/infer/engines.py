"""What runs a model: bytes of images in, logits out. Nothing is imported for a runtime that is not asked for, torch neither.

Every engine takes (B, C, H, W) of uint8, as `Preprocess.fitted` leaves them, and gives (B, classes) of float32.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from metaformer.config import ABOUT
from metaformer.data.preprocess import Pixels

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")
Logits = NDArray[np.float32]

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
PART = 224 * 224
"""Pixels that are worth a call of their own."""


@dataclass(frozen=True)
class Options:
    """How an engine runs."""

    device: str = "auto"
    precision: str = "auto"
    """What is multiplied in: fp32, bf16, fp16 (GPUs only), or auto: fp32 on a processor, bf16 on a GPU that has it.

    In a file of 8-bit integers, what the rest is multiplied in; auto is then bf16 where the processor has it."""
    threads: int | None = None
    """Threads of a processor; by default as many as there are cores."""
    streams: int | None = None
    """Parts of a batch that run at the same time, each with its share of the threads; OpenVINO's alone."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r} is not one of {', '.join(PRECISIONS)}")
        for name in ("threads", "streams"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name}={value!r} is not a whole number of at least 1")


class Engine(Protocol):
    """Runs a model."""

    @property
    def name(self) -> str:
        """What runs it, and in which precision: `openvino fp32`."""
        ...

    def __call__(self, pixels: Pixels) -> Logits: ...


@dataclass(frozen=True)
class Form:
    """What a file takes and gives; None for a side that is free."""

    bytes: bool
    shape: tuple[int | None, ...]
    classes: int | None


class FileEngine(Engine, Protocol):
    """Runs a file that `export` wrote."""

    def about(self) -> dict[str, Any]:
        """What the file says of itself."""
        ...

    def form(self) -> Form: ...


class TorchEngine:
    """A module in torch, as it is or compiled."""

    def __init__(self, module: "nn.Module", options: Options, *, compiled: bool = False) -> None:
        import torch

        from metaformer.core.device import choose_device, choose_precision, keep_memory, precision_name

        keep_memory()
        self.device = choose_device(options.device)
        if options.precision == "fp16" and self.device.type == "cpu":
            raise ValueError("fp16 is slow on processors: precision=bf16 or fp32")
        self.precision = choose_precision(options.precision, self.device)
        self.name = f"{'compiled' if compiled else 'torch'} {precision_name(self.precision)}"
        self.torch = torch
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        module = module.eval().to(self.device, self.precision)
        self.run: Callable[[Any], Any] = compile_frozen(module, self.device) if compiled else module

    def __call__(self, pixels: Pixels) -> Logits:
        with self.torch.inference_mode():
            logits = self.run(self.torch.from_numpy(pixels).to(self.device, non_blocking=True))
            return logits.float().cpu().numpy()


class OnnxEngine:
    """A file or the bytes of an ONNX model in ONNX Runtime."""

    def __init__(self, source: Path | bytes, options: Options) -> None:
        ort = need("onnxruntime")
        if options.precision not in ("auto", "fp32"):
            raise ValueError(f"ONNX Runtime has no fast {options.precision} on processors: precision=fp32, or engine=openvino")
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = options.threads or cores()
        if options.streams is not None:
            raise ValueError("ONNX Runtime has no streams: leave streams out, or engine=openvino")
        given = source if isinstance(source, bytes) else str(source)
        reader = ort.capi.onnxruntime_pybind11_state
        errors = tuple(kind for kind in vars(reader).values() if isinstance(kind, type) and issubclass(kind, Exception))
        self.session = opened(
            source, lambda: ort.InferenceSession(given, settings, providers=["CPUExecutionProvider"]), (*errors, RuntimeError)
        )
        self.input = self.session.get_inputs()[0].name
        self.name = "onnxruntime fp32"

    def about(self) -> dict[str, Any]:
        """What the file says of itself."""
        return said_of(self.session.get_modelmeta().custom_metadata_map.get(ABOUT))

    def form(self) -> Form:
        given, found = self.session.get_inputs()[0], self.session.get_outputs()[0]
        return Form(given.type == "tensor(uint8)", tuple(map(_known, given.shape)), _known(found.shape[-1]))

    def __call__(self, pixels: Pixels) -> Logits:
        return self.session.run(None, {self.input: pixels})[0]


class OpenVinoEngine:
    """A file (.xml or .onnx), the bytes of an ONNX model, or an ov.Model, in OpenVINO.

    Its graphs are much faster for shapes that are known beforehand, so one is compiled for each shape of an image: for a
    single image with all threads; for more of them with one stream a thread, which take the images in turns and never wait
    for each other. Images of few pixels go in parts of several.
    """

    def __init__(self, source: Any, options: Options) -> None:
        ov = need("openvino")
        if options.precision == "fp16":
            raise ValueError("OpenVINO has no fast fp16 on processors: precision=bf16")
        self.core = openvino_core()
        self.model = (
            source if isinstance(source, ov.Model) else opened(source, lambda: self.core.read_model(source), (RuntimeError,))
        )
        stored = self.about().get("precision", "fp32")
        if stored == "int8-weights":  # OpenVINO 2026.4 computes wrong shapes where it leaves them integers itself
            passes = need("openvino.passes")
            folding = passes.Manager()
            folding.register_pass(passes.ConstantFolding())
            folding.run_passes(self.model)
        wanted = options.precision
        if wanted == "auto":
            halves = stored in ("bf16", "int8") and "BF16" in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            wanted = "bf16" if halves else "fp32"
        self.precision = wanted
        self.threads = options.threads or cores()
        self.streams = options.streams or self.threads
        self.queues: dict[tuple[int, ...], Any] = {}
        self.name = f"openvino {'int8' if stored == 'int8' else wanted}"

    def about(self) -> dict[str, Any]:
        """What the file says of itself."""
        of_xml, of_onnx = [ABOUT], ["framework", ABOUT]
        found = next((path for path in (of_xml, of_onnx) if self.model.has_rt_info(path)), None)
        return said_of(None if found is None else str(self.model.get_rt_info(found).value))

    def form(self) -> Form:
        given, found = self.model.input(0), self.model.output(0)
        sides = tuple(side.get_length() if side.is_static else None for side in given.partial_shape)
        last = found.partial_shape[-1]
        return Form(given.element_type.to_dtype() == np.uint8, sides, last.get_length() if last.is_static else None)

    def __call__(self, pixels: Pixels) -> Logits:
        count, most = len(pixels), max(1, PART // pixels[0, 0].size)
        part = min(most, 2 ** (count - 1).bit_length())
        streams = min(self.streams, -(-count // part))
        queue = self._queue((part, *pixels.shape[1:]), streams)
        logits: list[Any] = [None] * -(-count // part)

        def keep(request: Any, place: int) -> None:
            logits[place] = request.get_output_tensor().data.astype(np.float32)

        queue.set_callback(keep)
        for place in range(len(logits)):
            fed = pixels[place * part : (place + 1) * part]
            if len(fed) < part:
                fed = np.concatenate([fed, np.zeros((part - len(fed), *fed.shape[1:]), np.uint8)])
            queue.start_async({0: fed}, place)
        queue.wait_all()
        return np.concatenate(logits)[:count]

    def _queue(self, shape: tuple[int, ...], streams: int) -> Any:
        """What runs images of this shape, compiled at the first call."""
        key = (*shape, streams)
        if key not in self.queues:
            ov = need("openvino")
            model = self.model.clone()
            model.reshape(list(shape))
            config = {
                "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
                "INFERENCE_NUM_THREADS": self.threads,
                "NUM_STREAMS": streams,
            }
            self.queues[key] = ov.AsyncInferQueue(self.core.compile_model(model, "CPU", config), streams)
        return self.queues[key]


def compile_frozen(module: "nn.Module", device: Any) -> Callable[[Any], Any]:
    """The module compiled with its weights as constants; on a GPU with CUDA graphs. It is compiled at its first call."""
    import torch

    if device.type == "cuda":
        return torch.compile(module, mode="max-autotune")
    return torch.compile(module, options={"freezing": True})


def need(name: str) -> Any:
    """The runtime of that name. Raises ValueError with what to type where it is not installed."""
    from importlib import import_module

    loaded: dict[str, Any] = sys.modules
    loaded.setdefault("openvino_telemetry", None)  # OpenVINO reports its use to its makers, unasked
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a package thinks of its own age is nothing to our users
            return import_module(name)
    except ImportError as error:
        raise ValueError(f"{name.partition('.')[0]} is not installed: pip install 'metaformer[fast]'") from error


@lru_cache(maxsize=1)
def openvino_core() -> Any:
    """OpenVINO's Core, one for all engines of the process."""
    core = elsewhere(need("openvino").Core)
    elsewhere(lambda: core.get_property("CPU", "FULL_DEVICE_NAME"))  # which loads what is described below
    return core


def elsewhere(work: Callable[[], T]) -> T:
    """What `work` gives, from a thread of its own that then ends.

    OpenVINO 2026.4 gives the thread in which a Core first meets the processor a stack for signals, and frees it with that
    Core, in whatever order they go: where a freed one is left behind, the next Ctrl-C is a segmentation fault.
    """
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work).result()
    finally:
        pool.shutdown(wait=False)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def opened(source: Path | bytes, read: Callable[[], Any], errors: tuple[type[Exception], ...]) -> Any:
    """What a runtime makes of a file. Raises ValueError with one line where it makes nothing."""
    called = "the model" if isinstance(source, bytes) else str(source)
    try:
        return read()
    except errors as error:
        raise ValueError(f"{called} is damaged, or no model for this runtime: {str(error).strip().splitlines()[0]}") from error


def _known(side: Any) -> int | None:
    """A side that is given as a number; others are named."""
    return side if isinstance(side, int) else None


def said_of(text: str | None) -> dict[str, Any]:
    """What stands in a file about itself; nothing where that is no JSON of names and values."""
    try:
        said = json.loads(text or "{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
