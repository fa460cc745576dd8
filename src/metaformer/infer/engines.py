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
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
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
"""Pixels by which parts of a call are measured: in fp32 two such images are the fastest, of smaller numbers four."""
KEPT = 8
"""Graphs that OpenVinoEngine keeps, each with the weights packed for it."""


@dataclass(frozen=True)
class Options:
    """How an engine runs."""

    device: str = "auto"
    precision: str = "auto"
    """What is multiplied in: fp32, bf16, fp16 (GPUs only), or auto: fp32 on a processor, bf16 on a GPU that has it.

    In a file of 8-bit integers, what the rest is multiplied in; auto is then bf16 where the processor has it."""
    threads: int | None = None
    """Threads of a processor; by default as many as there are cores, in torch as many as it has.

    Torch's and ExecuTorch's are the whole process's. Torch's are set for each call and put back; ExecuTorch's stay."""
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
    found: tuple[tuple[int | None, ...], ...]

    @property
    def classes(self) -> int | None:
        """How many a classifier's file gives logits of, where it says so."""
        return self.found[0][-1] if self.of_classifier else None

    @property
    def of_classifier(self) -> bool:
        """Whether it gives (B, classes), and nothing else."""
        return [len(shape) for shape in self.found] == [2]


NO_FORM = Form(bytes=False, shape=(), found=())
"""Not one tensor in: no file that `export` wrote."""


class TorchEngine:
    """A module in torch, as it is or compiled. From the first one on the process keeps memory that it frees (`keep_memory`)."""

    def __init__(self, module: "nn.Module", options: Options, *, compiled: bool = False) -> None:
        import torch

        from metaformer.core.device import choose_device, choose_precision, keep_memory, precision_name, with_threads

        if options.streams is not None:
            raise ValueError("torch has no streams: leave streams out, or engine=openvino")
        keep_memory()
        self.device = choose_device(options.device)
        if options.precision == "fp16" and self.device.type == "cpu":
            raise ValueError("fp16 is slow on processors: precision=bf16 or fp32")
        self.precision = choose_precision(options.precision, self.device)
        self.name = f"{'compiled' if compiled else 'torch'} {precision_name(self.precision)}"
        self.torch = torch
        self.with_threads = partial(with_threads, options.threads)
        module = module.eval().to(self.device, self.precision)
        self.run: Callable[[Any], Any] = compile_frozen(module, self.device) if compiled else module

    def __call__(self, pixels: Pixels) -> Logits:
        with self.with_threads(), self.torch.inference_mode():
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
        self.inputs, self.outputs = self.session.get_inputs(), self.session.get_outputs()
        self.name = "onnxruntime fp32"

    def about(self) -> dict[str, Any]:
        """What the file says of itself."""
        return said_of(self.session.get_modelmeta().custom_metadata_map.get(ABOUT))

    def form(self) -> Form:
        if len(self.inputs) != 1:
            return NO_FORM
        given, *found = (tuple(map(_known, one.shape or ())) for one in (*self.inputs, *self.outputs))
        return Form(self.inputs[0].type == "tensor(uint8)", given, tuple(found))

    def __call__(self, pixels: Pixels) -> Logits:
        return self.arrays(pixels)[0]

    def arrays(self, pixels: Pixels) -> list[NDArray[Any]]:
        """All that comes out."""
        return self.session.run(None, {self.inputs[0].name: pixels})


class OpenVinoEngine:
    """A file (.xml or .onnx), the bytes of an ONNX model, or an ov.Model, in OpenVINO.

    Its graphs are much faster for shapes that are known beforehand, so one is compiled for each shape of an image: for a
    single image with all threads; for more of them with one stream a thread, which take parts of a few images in turns and
    never wait for each other: so weights are read once a part, and its maps still fit the caches. The last few graphs are
    kept; threads of the caller's wait for each other.
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
            wanted = "bf16" if stored in ("bf16", "int8") and self._has_bf16() else "fp32"
        elif wanted == "bf16" and not self._has_bf16():
            raise ValueError("this processor has no bf16: precision=fp32")
        self.precision = wanted
        self.threads = options.threads or cores()
        self.streams = options.streams or self.threads
        self.queues: dict[tuple[int, ...], Any] = {}
        """What was compiled, by shape and streams, the last one used at the end."""
        self.lock = Lock()
        self.name = f"openvino {'int8' if stored == 'int8' else wanted}"

    def about(self) -> dict[str, Any]:
        """What the file says of itself."""
        of_xml, of_onnx = [ABOUT], ["framework", ABOUT]
        found = next((path for path in (of_xml, of_onnx) if self.model.has_rt_info(path)), None)
        return said_of(None if found is None else str(self.model.get_rt_info(found).value))

    def form(self) -> Form:
        given, found = ([_sides(end.partial_shape) for end in ends] for ends in (self.model.inputs, self.model.outputs))
        if len(given) != 1:
            return NO_FORM
        return Form(self.model.input(0).element_type.get_type_name() == "u8", given[0], tuple(found))

    def arrays(self, pixels: Pixels) -> list[NDArray[Any]]:
        """All that comes out, of the images at once."""
        with self.lock:
            request = self._queue(pixels.shape, 1)[0]
            request.infer({0: pixels})
            return [tensor.data.copy() for tensor in request.output_tensors]

    def __call__(self, pixels: Pixels) -> Logits:
        with self.lock:
            return self._run(pixels)

    def _run(self, pixels: Pixels) -> Logits:
        count, most = len(pixels), max(1, (2 if self.precision == "fp32" else 4) * PART // pixels[0, 0].size)
        part = min(most, 2 ** ((-(-count // self.streams)).bit_length() - 1))
        streams = min(self.streams, -(-count // part))
        queue = self._queue((part, *pixels.shape[1:]), streams)
        if part == count:  # to hand it to another thread takes a while
            queue[0].infer({0: pixels}, share_inputs=True, share_outputs=True)
            return _logits(queue[0])
        logits: list[Any] = [None] * -(-count // part)
        for place in range(len(logits)):
            fed = pixels[place * part : (place + 1) * part]
            if len(fed) < part:
                fed = np.concatenate([fed, np.zeros((part - len(fed), *fed.shape[1:]), np.uint8)])
            queue.start_async({0: fed}, (logits, place))
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
            queue = ov.AsyncInferQueue(self.core.compile_model(model, "CPU", config), streams)
            queue.set_callback(_keep)
            self.queues[key] = queue
            if len(self.queues) > KEPT:
                del self.queues[next(iter(self.queues))]
        self.queues[key] = self.queues.pop(key)  # the newest stands last
        return self.queues[key]

    def _has_bf16(self) -> bool:
        return "BF16" in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _sides(shape: Any) -> tuple[int | None, ...]:
    """Of an ov.PartialShape; none where not even their number is known."""
    return tuple(side.get_length() if side.is_static else None for side in shape) if shape.rank.is_static else ()


def _keep(request: Any, given: tuple[list[Any], int]) -> None:
    """Puts a part's logits where the call that asked for them looks."""
    logits, place = given
    logits[place] = _logits(request)


def _logits(request: Any) -> Logits:
    return request.get_output_tensor().data.astype(np.float32)


def compile_frozen(module: "nn.Module", device: Any) -> Callable[[Any], Any]:
    """The module compiled with its weights as constants; on a GPU with CUDA graphs. It is compiled at its first call."""
    import torch

    if device.type == "cuda":
        return Filled(torch.compile(module, mode="max-autotune"))
    return Filled(torch.compile(module, options={"freezing": True}))


class Filled:
    """What is compiled for each size of a batch: one that is smaller than the one before, as the last is, is filled up to it.

    Only the first such one: where small ones follow each other, they are worth being compiled for.
    """

    def __init__(self, run: Callable[[Any], Any]) -> None:
        self.run = run
        self.before: tuple[int, ...] = (0,)

    def __call__(self, x: Any) -> Any:
        full, *sides = self.before
        if sides != [*x.shape[1:]] or len(x) >= full:
            self.before = tuple(x.shape)
            return self.run(x)
        self.before = (0,)
        filled = x.new_zeros((full, *sides))
        filled[: len(x)] = x
        return self.run(filled)[: len(x)]


def need(name: str) -> Any:
    """The runtime of that name. Raises ValueError with what to type where it is not installed."""
    from importlib import import_module
    from importlib.util import find_spec

    loaded: dict[str, Any] = sys.modules
    loaded.setdefault("openvino_telemetry", None)  # OpenVINO reports its use to its makers, unasked
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a package thinks of its own age is nothing to our users
            return import_module(name)
    except ImportError as error:
        extra = "'.[fast]'" if find_spec("torch") else "'./slim[openvino]'"  # without torch this is metaformer-slim
        raise ValueError(f"{name.partition('.')[0]} is not installed: pip install {extra}") from error


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


class DamagedError(ValueError):
    """A file of which a runtime makes nothing."""


def opened(source: Path | bytes, read: Callable[[], Any], errors: tuple[type[Exception], ...]) -> Any:
    """What a runtime makes of a file. Raises DamagedError with one line where it makes nothing."""
    called = "the model" if isinstance(source, bytes) else str(source)
    try:
        return read()
    except errors as error:
        said = str(error).strip().splitlines()[0]
        raise DamagedError(f"{called} is damaged, or no model for this runtime: {said}") from error


def _known(side: Any) -> int | None:
    """A side that is given as a number; others are named."""
    return side if isinstance(side, int) else None


def said_of(text: str | None) -> dict[str, Any]:
    """What stands in a file about itself; nothing where that is no JSON of names and values."""
    try:
        said = json.loads(text or "{}")
    except (ValueError, RecursionError):  # no JSON, or brackets in brackets
        return {}
    return said if isinstance(said, dict) else {}
