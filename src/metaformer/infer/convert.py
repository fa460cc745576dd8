"""From a model in torch to what runtimes read; the one place where that is done.

What is converted is `pipeline(model, preprocess)`: bytes in, logits or probabilities out, of any batch and any sides.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from metaformer.config import ABOUT
from metaformer.core.layers import ChannelNorm
from metaformer.core.model import MetaFormer
from metaformer.data.preprocess import Preprocess
from metaformer.infer.engines import need
from metaformer.infer.folding import MixedResidual, Standardise
from metaformer.infer.fuse import fuse
from metaformer.weights.peers import Peer
from metaformer.weights.pretrained import Model

OPSET = 20
EXAMPLE = (160, 96)
"""Sides of the image that is followed: unequal, and no map has a side of 1, lest a graph holds for such images alone."""
Adapted = TypeVar("Adapted", bound=nn.Module)
TALKERS = ("torch.onnx", "torch.utils._pytree", "torch.utils.cpp_extension", "onnx_ir", "nncf")
TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")
"""What torch notes beside every operation: whose file it came from, on which machine. No runtime needs it."""


class Normalised(nn.Module):
    """A model that takes bytes, for those that cannot be fused."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.model = model
        scale = 1 / (255 * torch.tensor(preprocess.std, dtype=torch.float64))
        self.register_buffer("scale", scale.float().view(1, -1, 1, 1))
        self.register_buffer(
            "shift", -(255 * torch.tensor(preprocess.mean, dtype=torch.float64) * scale).float().view(1, -1, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.to(self.scale.dtype) * self.scale + self.shift)


class Probabilities(nn.Module):
    """A pipeline that gives probabilities: of a model for several labels each label's own. In fp32, whatever comes before."""

    def __init__(self, pipeline: nn.Module, *, several: bool) -> None:
        super().__init__()
        self.pipeline, self.several = pipeline, several

    def forward(self, x: Tensor) -> Tensor:
        logits = self.pipeline(x).float()
        return logits.sigmoid() if self.several else logits.softmax(1)


def pipeline(model: Model, preprocess: Preprocess, output: str = "logits") -> nn.Module:
    """(B, C, H, W) of bytes → (B, classes), fused where the model is a MetaFormer: a copy, for engines cast and move it.

    `output` is logits, their softmax or their sigmoid. Raises ValueError for a model in training mode.
    """
    if isinstance(model, MetaFormer):
        made: nn.Module = fuse(model, preprocess)
    elif model.training:
        raise ValueError("a pipeline is for inference: call model.eval() first")
    else:
        made = Normalised(deepcopy(model), preprocess)
    return made if output == "logits" else Probabilities(made, several=output == "sigmoid")


def called(module: nn.Module) -> str:
    """What a graph calls that which it gives."""
    return "probabilities" if isinstance(module, Probabilities) else "logits"


def is_fixed(module: nn.Module) -> bool:
    """Whether it only takes images of the size it was made for: timm's, of which many do."""
    if isinstance(module, Probabilities):
        return is_fixed(module.pipeline)
    return isinstance(module, Peer) or (isinstance(module, Normalised) and isinstance(module.model, Peer))


def to_exported(
    module: nn.Module, channels: int, size: int, *, fixed: bool = False, batch: int | None = None
) -> ExportedProgram:
    """The graph of a pipeline, with free sides, or `fixed` ones; of any number of images, or of `batch`.

    Raises ValueError for a model that torch.export cannot follow.
    """
    device = next(module.parameters()).device
    sides = (size, size) if fixed else EXAMPLE
    example = torch.zeros(batch or 2, channels, *sides, dtype=torch.uint8, device=device)
    free: dict[int, Any] = {0: Dim.DYNAMIC} if batch is None else {}
    free |= {} if fixed else {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = follow(module, example, free, (called(module),))
    for symbol in program.range_constraints:  # where the image followed was larger than it need be, so is the lower limit
        program.range_constraints[symbol] = ValueRanges(1, int_oo)
    return program


def follow(module: nn.Module, example: Tensor, free: dict[int, Any], names: Sequence[str]) -> ExportedProgram:
    """The graph of a module, by an example of what it takes, the sides in `free` any; what it gives is called `names`.

    Nothing in it tells where it was made. Raises ValueError for a module that torch.export cannot follow.
    """
    try:
        with torch.no_grad(), hushed(), redirect_stderr(StringIO()):  # it prints what it followed so far
            program = torch.export.export(module, (example,), dynamic_shapes=(free,))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"torch.export cannot follow this model: {_first(error)}") from error
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            for trace in TRACES:
                node.meta.pop(trace, None)
    program._guards_code = []
    signature = program.graph_signature
    for given, wanted in zip(signature.user_outputs, names, strict=True):
        next(node for node in program.graph.nodes if node.name == given).name = wanted
        signature.replace_all_uses(str(given), wanted)
    return program


def to_onnx(module: nn.Module, channels: int, size: int) -> Any:
    """An onnx.ModelProto. Raises ValueError where an operator has no counterpart."""
    return proto_of(to_exported(module, channels, size, fixed=is_fixed(module)), (called(module),))


def proto_of(program: ExportedProgram, names: Sequence[str]) -> Any:
    """An onnx.ModelProto of a graph. Raises ValueError where an operator has no counterpart."""
    need("onnxscript")
    try:
        with hushed():
            made = torch.onnx.export(program, opset_version=OPSET, dynamo=True, verbose=False, output_names=list(names))
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(f"this model has no form in ONNX: {_first(error)}") from error
    assert made is not None
    proto = made.model_proto
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del part.metadata_props[:]
    return proto


def to_openvino(module: nn.Module, channels: int, size: int) -> Any:
    """An ov.Model. Raises ValueError where an operator has no counterpart."""
    ov, failure = need("openvino"), need("openvino.frontend").OpConversionFailure
    program = to_exported(for_openvino(module), channels, size, fixed=is_fixed(module))
    with hushed():
        try:
            graph = ov.convert_model(program)
        except failure as error:
            raise ValueError(f"this model has no form in OpenVINO: {_first(error)}") from error
        graph.reshape([-1, channels, *((size, size) if is_fixed(module) else (-1, -1))])
    for node in graph.get_ops():
        if node.get_type_name() == "Interpolate":  # OpenVINO's rule for torch takes a corner where one place is left
            node.set_attribute("coordinate_transformation_mode", "half_pixel")
    graph.output(0).tensor.set_names({called(module)})
    return graph


def write_ir(graph: Any, file: Path, about: Mapping[str, Any]) -> None:
    """An ov.Model as `file` (.xml), with the .bin beside it and what is to know of it inside."""
    graph.set_rt_info(json.dumps(about), ABOUT)
    need("openvino").save_model(graph, file, compress_to_fp16=False)


class OverChannels(nn.Module):
    """A norm at each place that leaves the channels where they are: moving them to the end costs OpenVINO two copies."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, norm: ChannelNorm | Standardise) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias"):
            value = getattr(norm, name, None)
            self.register_buffer(name, None if value is None else value.detach().view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        x = centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps)
        x = x if self.weight is None else x * self.weight
        return x if self.bias is None else x + self.bias


class PooledResidual(nn.Module):
    """MixedResidual as OpenVINO likes it: z = gain ⊙ n(x), t ⊙ x + pool(z) − z, with σ inside one operation."""

    def __init__(self, mixed: MixedResidual) -> None:
        super().__init__()
        self.mixed = mixed

    def forward(self, x: Tensor) -> Tensor:
        z = F.group_norm(x, 1, eps=self.mixed.eps) * self.mixed.gain
        y = self.mixed.pool(z) - z
        if not self.mixed.residual:
            return y
        return y + (x if self.mixed.shortcut is None else x * self.mixed.shortcut)


def for_openvino(module: Adapted) -> Adapted:
    """A copy with what runs faster there (docs/LOG.md) in the place of norms over channels and of mixed residuals."""
    module = deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is ChannelNorm or (type(child) is Standardise and child.places):
                setattr(parent, name, OverChannels(child))
            elif type(child) is MixedResidual:
                setattr(parent, name, PooledResidual(child))
    return module


def to_executorch(module: nn.Module, channels: int, size: int, texts: Mapping[str, str]) -> bytes:
    """A program for XNNPACK, of one image of that size; `texts` become methods that return them."""
    with hushed():
        exir = need("executorch.exir")
        xnnpack = need("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        module = module.to(memory_format=torch.contiguous_format)  # XNNPACK's passes lay weights out themselves
        program = to_exported(module, channels, size, fixed=True, batch=1)
        program = program.run_decompositions({torch.ops.aten.group_norm.default: _over_the_map})
        lowered = exir.to_edge_transform_and_lower(
            program, partitioner=[xnnpack.XnnpackPartitioner()], constant_methods=dict(texts)
        )
        return lowered.to_executorch().buffer


def _over_the_map(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, cudnn: bool = True
) -> Tensor:
    """A group norm of one group in steps of its own: ExecuTorch's refuses maps whose channels come last, as XNNPACK's do."""
    assert groups == 1
    centred = x - x.mean((1, 2, 3), keepdim=True)
    x = centred * torch.rsqrt(centred.square().mean((1, 2, 3), keepdim=True) + eps)
    x = x if weight is None else x * weight.view(-1, 1, 1)
    return x if bias is None else x + bias.view(-1, 1, 1)


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def hushed() -> Iterator[None]:
    """Without what converters, and what they load of torch, say but errors."""
    loggers = [logging.getLogger(name) for name in TALKERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
