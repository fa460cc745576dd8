"""The lines of a mixer's contract that turn it into something else: compiled, torch.export's graph, ONNX."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.layers import Scale
from metaformer.core.model import MetaFormer
from metaformer.data.preprocess import Preprocess
from metaformer.infer.convert import hushed, pipeline, to_exported, to_onnx
from metaformer.infer.engines import OnnxEngine, Options
from metaformer.lab.mixer_case import CLOSE, SIDE, BrokenError, Case, LeftOutError, expect, far, first

STRIDE = 4
"""Pixels of an image for a place."""
SIZES = ((3, 64, 96), (1, 48, 32))
"""Images, height and width for which an exported file is asked, other ones than it was made from."""
ROUNDED = 1e-3
"""Greatest difference of another runtime, over the greatest value."""
VISIBLE = 0.2
"""What is added to the parameters of the model that is exported."""


def compiles(case: Case) -> str:
    """torch.compile takes it as one graph, without breaks."""
    module, x = case.module(), case.map()
    right = module(x)
    torch.compiler.reset()
    backend = "aot_eager" if case.quick else "inductor"
    made: Any = torch.compile(module, fullgraph=True, backend=backend)
    try:
        with hushed():
            y = made(x.requires_grad_())
    except RuntimeError as error:
        raise BrokenError(f"torch.compile cannot make one graph of it: {_reason(error)}") from None
    finally:
        torch.compiler.reset()
    off = far(y, right)
    expect(off <= 10 * CLOSE, f"compiled it gives something else, off by {off:.1e}")
    return "one graph, the same result" + (f" (as {backend} runs it)" if case.quick else "")


def _reason(error: Exception) -> str:
    """What a graph broke at, without the headline and the advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith("Explanation:")), lines[0] if lines else type(error).__name__)
    return said.removeprefix("Explanation: ")[:200]


def exports(case: Case) -> str:
    """torch.export's graph takes any batch and any sides."""
    module = _pipeline(case)
    try:
        program = to_exported(module, 3, STRIDE * case.side)
    except ValueError as error:
        raise _refused(case, error) from None
    graph = program.module()
    return _compared(module, lambda images: graph(images), "torch.export's graph")


def onnx(case: Case) -> str:
    """So does a file for ONNX Runtime."""
    module = _pipeline(case)
    try:
        engine = OnnxEngine(to_onnx(module, 3, STRIDE * case.side).SerializeToString(), Options(device="cpu"))
    except ValueError as error:
        if "is not installed" in str(error):
            raise LeftOutError(str(error)) from None
        raise _refused(case, error) from None
    return _compared(module, lambda images: torch.from_numpy(np.array(engine(images.numpy()))), "ONNX Runtime")


def _refused(case: Case, error: ValueError) -> Exception:
    """Why there is no such form: that the sides are fixed is no fault of a mixer that is made for one grid."""
    if case.grid is not None and case.grid != SIDE and "grid" in str(error):
        return LeftOutError(f"made for a grid of {case.grid}, it refuses the images that are followed: {first(error)}")
    return BrokenError(first(error))


def _pipeline(case: Case) -> nn.Module:
    """Bytes to logits through a single block with the mixer, as metaformer export has it."""
    torch.manual_seed(0)
    config = MetaFormerConfig(
        depths=(1,), dims=(case.dim,), mixers=(case.mixer,), scales=(Scale(),), mlp_ratio=1, num_classes=8
    )
    model, spread = MetaFormer(config).eval(), (0.5,) * 3
    with torch.no_grad():
        for p in model.parameters():  # as drawn, all but the shortcut is so small that no difference would show
            p.add_(VISIBLE * torch.randn(p.shape))
    return pipeline(model, Preprocess(STRIDE * case.side, spread, spread))


def _compared(module: nn.Module, run: Callable[[Tensor], Tensor], what: str) -> str:
    worst = 0.0
    for batch, height, width in SIZES:
        images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            worst = max(worst, far(run(images), module(images)))
    expect(worst <= ROUNDED, f"{what} gives something else, off by {worst:.1e} of the greatest value")
    return f"any batch and sides, off by {worst:.0e}"
