"""What runs a model: bytes of images in, logits out. Nothing is imported for a runtime that is not asked for, torch neither.

Every engine takes (B, C, H, W) of uint8, as `Preprocess.fitted` leaves them, and gives (B, classes) of float32.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metaformer.data.preprocess import Pixels

if TYPE_CHECKING:
    from torch import nn

Logits = NDArray[np.float32]

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
KEY = "metaformer"
"""The name under which a file says what it is: classes, preprocessing, figures, as JSON."""


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


class TorchEngine:
    """A module in torch, as it is or compiled."""

    def __init__(self, module: "nn.Module", options: Options, *, compiled: bool = False) -> None:
        import torch

        from metaformer.core.device import choose_device, keep_memory

        keep_memory()
        self.device = choose_device(options.device)
        self.precision = _torch_precision(options.precision, self.device)
        self.name = f"{'compiled' if compiled else 'torch'} {options.precision if options.precision != 'auto' else 'fp32'}"
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
        self.session = _opened(source, lambda: ort.InferenceSession(given, settings, providers=["CPUExecutionProvider"]))
        self.input = self.session.get_inputs()[0].name
        self.name = "onnxruntime fp32"

    def about(self) -> dict[str, Any]:
        """What the file says of itself."""
        return _about(self.session.get_modelmeta().custom_metadata_map.get(KEY))

    def __call__(self, pixels: Pixels) -> Logits:
        return self.session.run(None, {self.input: pixels})[0]


class OpenVinoEngine:
    """A file (.xml or .onnx), the bytes of an ONNX model, or an ov.Model, in OpenVINO."""

    def __init__(self, source: Any, options: Options) -> None:
        ov = need("openvino")
        need("openvino.passes")
        if options.precision == "fp16":
            raise ValueError("OpenVINO has no fast fp16 on processors: precision=bf16")
        core = ov.Core()
        self.model = source if isinstance(source, ov.Model) else _opened(source, lambda: core.read_model(source))
        stored = self.about().get("precision")
        is_int8 = stored == "int8"
        if stored == "int8-weights":  # OpenVINO 2026.4 computes wrong shapes where it leaves them integers itself
            folding = ov.passes.Manager()
            folding.register_pass(ov.passes.ConstantFolding())
            folding.run_passes(self.model)
        precision = options.precision
        if is_int8 and precision == "auto" and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            precision = "bf16"
        self.streams = options.streams or 1
        config = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": options.threads or cores(),
            "NUM_STREAMS": self.streams,
        }
        self.compiled = core.compile_model(self.model, "CPU", config)
        self.requests = [self.compiled.create_infer_request() for _ in range(self.streams)]
        self.name = f"openvino {'int8' if is_int8 else 'bf16' if precision == 'bf16' else 'fp32'}"

    def about(self) -> dict[str, Any]:
        """What the file says of itself."""
        info = self.model.get_rt_info()
        return _about(str(info[KEY].value) if KEY in info else None)

    def __call__(self, pixels: Pixels) -> Logits:
        parts = np.array_split(pixels, min(self.streams, len(pixels)))
        for request, part in zip(self.requests, parts, strict=False):
            request.start_async([np.ascontiguousarray(part)])
        out = []
        for request, _ in zip(self.requests, parts, strict=False):
            request.wait()
            out.append(request.get_output_tensor().data.astype(np.float32))
        return np.concatenate(out) if len(out) > 1 else out[0]


def compile_frozen(module: "nn.Module", device: Any) -> Callable[[Any], Any]:
    """The module compiled with its weights as constants; on a GPU with CUDA graphs. It is compiled at its first call."""
    import torch

    if device.type == "cuda":
        return torch.compile(module, mode="max-autotune")
    return torch.compile(module, options={"freezing": True})


def need(name: str) -> Any:
    """The runtime of that name. Raises ValueError with what to type where it is not installed."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"{name} is not installed: pip install 'metaformer[fast]'") from error


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _torch_precision(name: str, device: Any) -> Any:
    import torch

    from metaformer.core.device import choose_precision

    if name == "fp16":
        if device.type == "cpu":
            raise ValueError("fp16 is slow on processors: precision=bf16 or fp32")
        return torch.float16
    return choose_precision(name, device)


def _opened(source: Path | bytes, opened: Callable[[], Any]) -> Any:
    """What a runtime makes of a file. Raises ValueError with one line where it makes nothing."""
    called = "the model" if isinstance(source, bytes) else str(source)
    if isinstance(source, Path) and not source.is_file():
        raise FileNotFoundError(f"no file {source}")
    try:
        return opened()
    except Exception as error:
        raise ValueError(f"{called} is damaged, or no model for this runtime: {str(error).strip().splitlines()[0]}") from error


def _about(text: str | None) -> dict[str, Any]:
    try:
        said = json.loads(text or "{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
