"""Files that `export` wrote, opened by their suffix in the runtime that they are for. No torch where none is needed."""

from pathlib import Path
from typing import TYPE_CHECKING

from metaformer.infer.about import Known, read_about
from metaformer.infer.engines import Engine, OnnxEngine, OpenVinoEngine, Options

if TYPE_CHECKING:
    from metaformer.infer.torch_files import ExecuTorchEngine, ProgramEngine

    Runtime = OnnxEngine | OpenVinoEngine | ProgramEngine | ExecuTorchEngine

ENGINES: dict[str, tuple[str, ...]] = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".pt2": ("torch", "compiled"),
    ".pte": ("executorch",),
}
"""Which engines run a file, the first by default. A .safetensors holds weights, which are a model in torch like any other."""


def is_exported(source: str | Path) -> bool:
    """Whether this names a file that a runtime reads."""
    return Path(source).suffix.lower() in ENGINES and not Path(source).is_dir()


def open_exported(file: Path, engine: str, options: Options) -> tuple[Engine, Known]:
    """The engine for a classifier's file, and what is to know of it. Raises ValueError or OSError with a sentence."""
    runtime = open_runtime(file, engine, options)
    form = runtime.form()
    known = read_about(runtime.about(), file, form.classes)
    size = known.preprocess.size
    wanted = (None, len(known.preprocess.mean), size, size)
    fits = len(form.shape) == 4 and all(side in (None, right) for side, right in zip(form.shape, wanted, strict=True))
    if not form.bytes or not fits or not form.of_classifier:
        raise ValueError(f"{file} does not take the images that it says it takes: bytes, {wanted[1]} × {size} × {size}")
    return runtime, known


def open_runtime(file: Path, engine: str, options: Options) -> "Runtime":
    """What runs a file, whatever is in it. Raises ValueError or OSError with a sentence."""
    names = ENGINES[file.suffix.lower()]
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    if engine != "auto" and engine not in names:
        raise ValueError(f"{file.name} is not for engine={engine}; allowed: auto, {', '.join(names)}")
    name = names[0] if engine == "auto" else engine
    if name not in ("torch", "compiled") and options.device not in ("auto", "cpu"):
        raise ValueError(f"{file.name} runs on processors: device=cpu")
    if name == "onnxruntime":
        return OnnxEngine(file, options)
    if name == "openvino":
        return OpenVinoEngine(file, options)
    from metaformer.infer.torch_files import ExecuTorchEngine, ProgramEngine

    if name == "executorch":
        return ExecuTorchEngine(file, options)
    return ProgramEngine(file, options, compiled=name == "compiled")
