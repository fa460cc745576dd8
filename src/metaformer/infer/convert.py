"""From a model in torch to what runtimes read; the one place where that is done.

What is converted is `pipeline(model, preprocess)`: bytes in, logits out, of any batch and any sides.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from metaformer.core.layers import ChannelNorm
from metaformer.core.model import MetaFormer
from metaformer.data.preprocess import Preprocess
from metaformer.infer.engines import need
from metaformer.infer.folding import Standardise
from metaformer.infer.fuse import fuse
from metaformer.weights.peers import Peer
from metaformer.weights.pretrained import Model

OPSET = 20


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


def pipeline(model: Model, preprocess: Preprocess) -> nn.Module:
    """(B, C, H, W) of bytes → (B, classes): fused where the model is a MetaFormer. The model itself is left as it is."""
    return fuse(model.eval(), preprocess) if isinstance(model, MetaFormer) else Normalised(model.eval(), preprocess)


def to_exported(module: nn.Module, channels: int, size: int, *, fixed: bool = False) -> ExportedProgram:
    """The graph of a pipeline, with free batch and sides, or `fixed` sides for what cannot be resized."""
    device = next(module.parameters()).device
    example = torch.zeros(2, channels, size, size, dtype=torch.uint8, device=device)
    sides: dict[int, Any] = {} if fixed else {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad(), _hushed():
        return torch.export.export(module, (example,), dynamic_shapes=({0: Dim.DYNAMIC, **sides},))


def to_onnx(module: nn.Module, channels: int, size: int, about: dict[str, str] | None = None) -> Any:
    """An onnx.ModelProto; `about` becomes its metadata."""
    need("onnxscript")
    fixed = isinstance(module, Normalised) and isinstance(module.model, Peer)
    with _hushed():
        made = torch.onnx.export(
            to_exported(module, channels, size, fixed=fixed), opset_version=OPSET, dynamo=True, verbose=False
        )
    assert made is not None
    proto = made.model_proto
    for key, value in (about or {}).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    return proto


def to_openvino(module: nn.Module, channels: int, size: int) -> Any:
    """An ov.Model."""
    ov = need("openvino")
    fixed = isinstance(module, Normalised) and isinstance(module.model, Peer)
    with _hushed():
        return ov.convert_model(to_exported(norms_over_channels(module), channels, size, fixed=fixed))


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


def norms_over_channels(module: nn.Module) -> nn.Module:
    """A copy with OverChannels in the place of every norm over the channels of a map."""
    module = deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is ChannelNorm or (type(child) is Standardise and child.places):
                setattr(parent, name, OverChannels(child))
    return module


@contextmanager
def _hushed() -> Iterator[None]:
    """Without what converters say of themselves."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(before)
