"""Files that `export` wrote, opened by their suffix in the runtime that they are for. No torch where none is needed."""

from pathlib import Path
from typing import Any

from metaformer.infer.engines import Engine, OnnxEngine, OpenVinoEngine, Options

ENGINES: dict[str, tuple[str, ...]] = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".pt2": ("torch", "compiled"),
    ".pte": ("executorch",),
    ".safetensors": ("torch", "compiled", "openvino", "onnxruntime"),
}
"""Which engines run a file, the first by default."""


def is_exported(source: str | Path) -> bool:
    """Whether this names a file that a runtime reads; weights (.safetensors) are a model in torch."""
    return Path(source).suffix.lower() in ENGINES and Path(source).suffix.lower() != ".safetensors"


def open_exported(file: Path, engine: str, options: Options) -> tuple[Engine, dict[str, Any]]:
    """The engine for a file, and what the file says of itself. Raises ValueError or OSError with a sentence."""
    suffix = file.suffix.lower()
    names = ENGINES[suffix]
    if engine != "auto" and engine not in names:
        raise ValueError(f"{file.name} is not for engine={engine}; allowed: auto, {', '.join(names)}")
    name = names[0] if engine == "auto" else engine
    if name == "onnxruntime":
        runtime: Any = OnnxEngine(file, options)
    elif name == "openvino":
        runtime = OpenVinoEngine(file, options)
    elif name == "executorch":
        from metaformer.infer.torch_files import ExecuTorchEngine

        runtime = ExecuTorchEngine(file, options)
    else:
        from metaformer.infer.torch_files import open_pt2

        runtime = open_pt2(file, options, compiled=name == "compiled")
    return runtime, runtime.about()
