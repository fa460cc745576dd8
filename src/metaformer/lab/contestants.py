"""Who takes part in the bench: ours in every engine, and timm's models as an expert would run them. A line each in `FIELD`.

Ours are fed bytes, as the Predictor feeds them. Peers are spared that: their images are normalised floats, in their
precision and memory format, already where they are wanted. A runtime's peers know the batch when they are compiled.
"""

import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer.core.count import count
from metaformer.core.device import DTYPES, keep_memory
from metaformer.data.preprocess import Pixels, Preprocess
from metaformer.infer.choose import open_engine
from metaformer.infer.convert import pipeline, to_openvino, write_ir
from metaformer.infer.engines import Engine, OpenVinoEngine, Options, TorchEngine, compile_frozen, need, openvino_core
from metaformer.infer.sensitivity import all_quantized
from metaformer.lab.worker import Cell, Maker, Ready, holding, timed
from metaformer.weights.catalogue import MEAN, STD
from metaformer.weights.create import create_model
from metaformer.weights.peers import PREFIX, Peer, PeerConfig
from metaformer.weights.pretrained import Model

PRECISIONS = (*DTYPES, "int8")
ENGINES = ("torch", "compiled", "openvino", "onnxruntime")
CEILING = "ceiling"


@dataclass(frozen=True)
class Contestant:
    """A name and what builds it. The name is made of owner, engine and precision: `timm compiled bf16`."""

    owner: str
    """`ours`, `timm` (the model of the same name), `timm:NAME`, or `ceiling`."""
    engine: str
    precision: str
    make: Maker

    @property
    def name(self) -> str:
        return f"{self.owner} {self.engine} {self.precision}"


def enter(
    cell: Cell, engines: Sequence[str], precisions: Sequence[str], peers: Sequence[str], leave_out: Sequence[str] = ()
) -> list[Contestant]:
    """The contestants of a cell, and the machine's ceiling in each precision.

    `peers` are timm's names; `leave_out` are globs of contestants' names.
    """
    mine = not cell.model.startswith(PREFIX)
    models = [("ours", cell.model)] * mine + [("timm" if name == cell.model else PREFIX + name, name) for name in peers]
    entered = [
        Contestant(owner, engine, precision, partial(make, name=name, engine=engine, precision=precision))
        for precision, engine, (owner, name) in itertools.product(precisions, engines, models)
        if (make := _maker(cell, owner, engine, precision)) is not None
    ]
    ceilings = [Contestant(CEILING, "torch", p, partial(ceiling, precision=p)) for p in precisions if p in DTYPES]
    return [one for one in entered + ceilings if not any(fnmatchcase(one.name, glob) for glob in leave_out)]


def _maker(cell: Cell, owner: str, engine: str, precision: str) -> Callable[..., Ready] | None:
    """Who builds it, if that is done at all."""
    if cell.device == "cpu" and precision == "fp16":
        return None
    if cell.device != "cpu" and engine not in ("torch", "compiled"):
        return None
    make, known = FIELD.get((cell.job, owner.partition(":")[0], engine), (None, ()))
    return make if precision in known else None


# --- predicting -------------------------------------------------------------------------------------------------------


def ours(cell: Cell, *, name: str, engine: str, precision: str) -> Ready:
    """Our model through `open_engine`: arrays of bytes in and logits out; on a GPU the bytes are there already."""
    torch.set_num_threads(cell.threads)
    torch.manual_seed(0)
    model, preprocess = create_model(name).eval(), Preprocess(cell.size, MEAN, STD)
    macs, parameters = cost(model, cell.size)
    options = Options(cell.device, "auto" if precision == "int8" else precision, cell.threads)
    if engine == "openvino":
        run: Engine = OpenVinoEngine(_graph(cell, model, preprocess, name, precision), options)
    else:
        run = open_engine(model, preprocess, engine, options)
    pixels = _pixels(cell.batch, cell.size)
    if cell.device == "cpu":
        ready = Ready(lambda: run(pixels), cell.batch, macs, parameters)
    else:
        assert isinstance(run, TorchEngine)
        inner, there = run.run, torch.from_numpy(pixels).to(cell.device)
        loaded = parameters * DTYPES[precision].itemsize
        ready = Ready(_inferring(lambda: inner(there)), cell.batch, macs, parameters, cell.device, loaded)
    if engine == "compiled":
        ready.go()  # it is compiled at the first call
    elif cell.device == "cpu":
        less = max(32, cell.size // 2)
        run(np.ascontiguousarray(pixels[:1, :, :less, :less]))  # a runtime packs its weights at the first call: that is loading
        itemsize = 1 if precision == "int8" else DTYPES[precision].itemsize
        return holding(ready, parameters * itemsize if engine == "openvino" else 0)
    return ready


def _graph(cell: Cell, model: Model, preprocess: Preprocess, name: str, precision: str) -> Path:
    """Our model as OpenVINO reads it, converted once for all precisions and batches; for int8 all layers quantized."""

    def write(folder: Path) -> None:
        write_ir(to_openvino(pipeline(model, preprocess), len(MEAN), cell.size), folder / "model.xml", {})

    def quantize(folder: Path) -> None:
        made = all_quantized(openvino_core().read_model(file), [_pixels(1, cell.size, seed) for seed in range(SAMPLES)])
        write_ir(made, folder / "model.xml", {"precision": "int8"})

    file = kept(cell.folder / f"ours-{name}-{cell.size}", write) / "model.xml"
    return file if precision != "int8" else kept(cell.folder / f"ours-{name}-{cell.size}-int8", quantize) / "model.xml"


def _pixels(batch: int, size: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (batch, len(MEAN), size, size), dtype=np.uint8)


def timm_torch(cell: Cell, *, name: str, engine: str, precision: str) -> Ready:
    """timm's model in torch, eager or compiled as ours is; eager in the memory format in which it is faster."""
    torch.set_num_threads(cell.threads)
    model = make_peer(name, cell.size).eval()
    macs, parameters = cost(model, cell.size)
    dtype = DTYPES[precision]
    model = model.to(cell.device, dtype)
    images = torch.randn(cell.batch, 3, cell.size, cell.size, device=cell.device, dtype=dtype)

    def ready(layout: torch.memory_format) -> Ready:
        laid = images.to(memory_format=layout)
        placed = deepcopy(model).to(memory_format=layout)
        run = compile_frozen(placed, torch.device(cell.device)) if engine == "compiled" else placed

        def go() -> object:
            with torch.inference_mode():
                return run(laid)

        go()
        return Ready(go, cell.batch, macs, parameters, cell.device, parameters * images.itemsize)

    if engine == "compiled":
        return ready(torch.channels_last)
    return fastest([ready(layout) for layout in (torch.channels_last, torch.contiguous_format)])


def timm_onnx(cell: Cell, *, name: str, engine: str, precision: str) -> Ready:
    """torch.onnx.export of timm's model in ONNX Runtime."""
    ort = need("onnxruntime")
    need("onnxscript")
    model = make_peer(name, cell.size).eval()
    macs, parameters = cost(model, cell.size)

    def write(folder: Path) -> None:
        example = torch.zeros(2, 3, cell.size, cell.size)
        free = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(model, (example,), folder / "model.onnx", dynamo=True, dynamic_shapes=free, verbose=False)

    file = kept(cell.folder / f"{name}-{cell.size}-onnx", write) / "model.onnx"
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = cell.threads
    settings.add_free_dimension_override_by_name("batch", cell.batch)
    session = ort.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
    images = {session.get_inputs()[0].name: _images(cell)}
    return Ready(lambda: session.run(None, images), cell.batch, macs, parameters)


def timm_openvino(cell: Cell, *, name: str, engine: str, precision: str) -> Ready:
    """ov.convert_model of timm's model, for int8 quantized by NNCF, in OpenVINO: the faster of a batch at once and an image a
    stream."""
    ov = need("openvino")
    model = make_peer(name, cell.size).eval()
    macs, parameters = cost(model, cell.size)
    sides = [3, cell.size, cell.size]

    def write(folder: Path) -> None:
        made = ov.convert_model(model, example_input=torch.zeros(2, *sides), input=[-1, *sides])
        ov.save_model(made, folder / "model.xml", compress_to_fp16=False)

    def quantize(folder: Path) -> None:
        nncf = need("nncf")
        random = np.random.default_rng(0)
        few = nncf.Dataset([random.standard_normal((1, *sides), np.float32) for _ in range(SAMPLES)])
        ov.save_model(nncf.quantize(core.read_model(file), few, subset_size=SAMPLES), folder / "model.xml")

    core = openvino_core()
    file = kept(cell.folder / f"{name}-{cell.size}-openvino", write) / "model.xml"
    if precision == "int8":
        file = kept(cell.folder / f"{name}-{cell.size}-openvino-int8", quantize) / "model.xml"
    read, images = core.read_model(file), _images(cell)
    hint = "f32" if precision == "fp32" else "bf16"

    def compiled(batch: int, streams: int) -> Any:
        read.reshape([batch, *sides])
        config = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": cell.threads, "NUM_STREAMS": streams}
        return core.compile_model(read, "CPU", config)

    def at_once() -> Ready:
        request = compiled(cell.batch, 1).create_infer_request()
        return Ready(lambda: request.infer([images], share_inputs=True, share_outputs=True), cell.batch, macs, parameters)

    def in_streams() -> Ready:
        queue = ov.AsyncInferQueue(compiled(1, cell.threads), cell.threads)

        def go() -> None:
            for image in images:
                queue.start_async({0: image[None]})
            queue.wait_all()

        return Ready(go, cell.batch, macs, parameters)

    return at_once() if cell.batch == 1 or cell.threads == 1 else fastest([at_once(), in_streams()])


SAMPLES = 8
"""Images to quantize with: which ranges they give does not change the speed."""


# --- training ---------------------------------------------------------------------------------------------------------


def training(cell: Cell, *, name: str, engine: str, precision: str, mine: bool) -> Ready:
    """Forward, backward and a step of fused AdamW, weights in fp32, autocast to `precision`. The same loop for both.

    Ours also keeps the memory that it frees, as `metaformer train` does.
    """
    torch.set_num_threads(cell.threads)
    torch.manual_seed(0)
    if mine:
        keep_memory()
    model: nn.Module = create_model(name) if mine else make_peer(name, cell.size)
    macs, parameters = cost(model, cell.size)
    model = model.train().to(cell.device).to(memory_format=torch.channels_last)
    run: Callable[[Tensor], Any] = torch.compile(model) if engine == "compiled" else model
    images = torch.randn(cell.batch, 3, cell.size, cell.size, device=cell.device).to(memory_format=torch.channels_last)
    labels = torch.arange(cell.batch, device=cell.device) % 1000
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def go() -> None:
        with torch.autocast(cell.device, DTYPES[precision], enabled=precision != "fp32"):
            loss = F.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    go()  # compiles, and makes the optimizer's state
    return Ready(go, cell.batch, macs, parameters, cell.device, 3 * 4 * parameters)


# --- the machine ------------------------------------------------------------------------------------------------------


def ceiling(cell: Cell, *, precision: str) -> Ready:
    """The fastest of some large matrix products: on a processor channels-last 1×1 convolutions; an image is one product."""
    torch.set_num_threads(cell.threads)
    shapes = PRODUCTS if cell.device == "cpu" else PRODUCTS_GPU
    products = [one for shape in shapes for one in _products(cell, precision, *shape)]
    return min(products, key=lambda one: timed(one, 2) / (one.macs or 1))


PRODUCTS = ((4096, 1024, 1024), (3136, 256, 1024), (1024, 1024, 1024))
"""Places × channels in × channels out."""
PRODUCTS_GPU = ((8192, 8192, 8192), (16384, 4096, 4096))


def _products(cell: Cell, precision: str, places: int, channels: int, out: int) -> list[Ready]:
    """As eager torch does it, and on a processor with weights that oneDNN has packed, which was twice as fast in fp32."""
    dtype, side = DTYPES[precision], round(places**0.5)
    x = torch.randn(1, channels, side, places // side, device=cell.device, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(out, channels, 1, 1, device=cell.device, dtype=dtype)
    flat, matrix = x.permute(0, 2, 3, 1).flatten(0, 2), weight.flatten(1).t().contiguous()
    ways = [lambda: F.conv2d(x, weight)] if cell.device == "cpu" else [lambda: flat @ matrix]
    onednn = torch.ops.mkldnn
    if cell.device == "cpu" and hasattr(onednn, "_reorder_convolution_weight"):
        geometry: tuple[Any, ...] = ([0, 0], [1, 1], [1, 1], 1)
        packed = onednn._reorder_convolution_weight(weight, *geometry, list(x.shape))
        ways.append(lambda: onednn._convolution_pointwise(x, packed, None, *geometry, "none", [], ""))
    return [Ready(_inferring(way), 1, len(flat) * channels * out, device=cell.device) for way in ways]


def fastest(ways: Sequence[Ready]) -> Ready:
    """Whichever is quickest, found out at the first call, when it is this contestant's turn and nobody builds."""
    found: list[Ready] = []

    def go() -> object:
        if not found:
            for way in ways:
                way.go()  # weights are packed at the first call
            found.append(min(ways, key=lambda way: timed(way, 2)))
        return found[0].go()

    return replace(ways[0], go=go)


def _inferring(way: Callable[[], object]) -> Callable[[], object]:
    def go() -> object:
        with torch.inference_mode():
            return way()

    return go


# --- what several need ------------------------------------------------------------------------------------------------

ANY, WIDE = ("fp32", "bf16", "fp16"), ("fp32", "bf16", "int8")
FIELD: dict[tuple[str, str, str], tuple[Callable[..., Ready], tuple[str, ...]]] = {
    ("predict", "ours", "torch"): (ours, ANY),
    ("predict", "ours", "compiled"): (ours, ANY),
    ("predict", "ours", "openvino"): (ours, WIDE),
    ("predict", "ours", "onnxruntime"): (ours, ("fp32",)),
    ("predict", "timm", "torch"): (timm_torch, ANY),
    ("predict", "timm", "compiled"): (timm_torch, ANY),
    ("predict", "timm", "openvino"): (timm_openvino, WIDE),
    ("predict", "timm", "onnxruntime"): (timm_onnx, ("fp32",)),
    ("train", "ours", "torch"): (partial(training, mine=True), ANY),
    ("train", "ours", "compiled"): (partial(training, mine=True), ANY),
    ("train", "timm", "torch"): (partial(training, mine=False), ANY),
    ("train", "timm", "compiled"): (partial(training, mine=False), ANY),
}
"""By job, owner and engine: who builds it, in which precisions."""


def make_peer(name: str, size: int) -> nn.Module:
    """timm's model. Raises ValueError where it has none."""
    torch.manual_seed(0)
    return Peer(PeerConfig(name=name, num_classes=1000, in_chans=3, image_size=size)).model


def cost(model: nn.Module, size: int) -> tuple[int | None, int]:
    """Multiply-accumulates, unless a model of others cannot be counted, and parameters."""
    parameters = sum(p.numel() for p in model.parameters())
    try:
        return count(model, size).macs, parameters
    except (RuntimeError, StopIteration):
        return None, parameters


def kept(folder: Path, write: Callable[[Path], None]) -> Path:
    """A folder that another process may want too: written under a name of this process, then renamed."""
    if not folder.exists():
        own = folder.with_name(f"{folder.name}.{os.getpid()}")
        own.mkdir(parents=True)
        write(own)
        try:
            own.rename(folder)
        except OSError:  # the other one was faster
            shutil.rmtree(own)
    return folder


def _images(cell: Cell) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((cell.batch, 3, cell.size, cell.size), np.float32)
