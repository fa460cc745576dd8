"""Detectors and segmenters as files: for which formats, of which size, and how far off they are from the model in torch."""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metaformer.config import ABOUT
from metaformer.data.preprocess import Pixels, Preprocess
from metaformer.dense.make import make_graph
from metaformer.dense.model import Dense, Size, rounded_up
from metaformer.export.compare import PHOTOGRAPH, drawn, noise, photographs
from metaformer.export.onnx import saver
from metaformer.export.save import Save
from metaformer.infer.convert import hushed, write_ir
from metaformer.infer.dense import SHOWN
from metaformer.infer.dense_file import DenseFile, onnx_of, openvino_of, program_of
from metaformer.infer.engines import Options
from metaformer.weights.pretrained import read_dense, save_file

Arrays = list[NDArray[Any]]
Answer = Callable[[Pixels], Arrays]
"""Images (B, C, H, W) of bytes → what a graph of the model gives."""
REGION_BOUNDS = {"logits": 1e-4, "pixels of another class": 1e-3}
"""Of logits the greatest difference over their mean absolute value; of pixels the part of them."""
OBJECT_BOUNDS = {"boxes without their like": 0.05, "corners in pixels": 0.05, "scores": 1e-3}
"""The part of the 100 best boxes that have none of their class within 0.5 pixels; of the others the greatest differences."""
MASK_BOUNDS = {"masks": 1e-2}
"""The greatest difference of a probability, of boxes that have their like."""
LIKE = 0.5
"""Pixels by which the corners of a box may lie elsewhere that is the same."""
WIDE = 5 / 3
"""The width that a file is for over its height, at most, unless told otherwise."""


def prepare(model: Dense, format: str, size: Size) -> Save:
    """Converts, and gives what writes the file. Raises ValueError where that format has no form for it."""
    if format == "safetensors":
        return partial(save_file, model)
    if format == "executorch":
        raise ValueError(f"executorch is for classifiers, and this is {model.config.head}: onnx, openvino or torch-export")
    graph = make_graph(model, size)
    if format == "openvino":
        made = openvino_of(graph)
        return lambda file, about: write_ir(made, file, about)
    if format == "onnx":
        return saver(onnx_of(graph))
    program = program_of(graph)
    program.example_inputs = None  # they would be pickled

    def save(file: Path, about: Mapping[str, Any]) -> None:
        with hushed():
            torch.export.save(program, file, extra_files={ABOUT: json.dumps(about)})

    return save


def outputs_of(model: Dense) -> str:
    """What a file gives, as it says itself."""
    if model.config.task == "segmentation":
        return "logits at a quarter of the sides"
    masks = ", masks (100, 28, 28) of the boxes' insides" if model.config.task == "instances" else ""
    return f"boxes (100, 4) x1 y1 x2 y2 in pixels, scores (100), labels (100){masks}; the surest first"


def sides_of(about: Mapping[str, Any], wanted: Size | None) -> tuple[Size, Size]:
    """The height and width of a file's images, and those that an image is fitted into: as the model was judged, or as wanted.

    By default the height is the short side, and the width the long one, but at most 5/3 of that.
    """
    if wanted is not None:
        return wanted, wanted
    shown = about.get("shown", SHOWN)
    short, long = int(shown["short"]), int(shown["long"])
    within = short, max(short, min(long, int(short * WIDE)))
    return (rounded_up(within[0]), rounded_up(within[1])), within


def reopened(file: Path) -> Answer:
    """What runs the file that was written."""
    if file.suffix == ".safetensors":
        return reference(read_dense(file)[0].eval())
    return DenseFile(file, "auto", Options(device="cpu", precision="fp32")).arrays


def reference(model: Dense) -> Answer:
    """What the model itself says: of objects the 100 best, whatever their scores."""
    regions = model.config.task == "segmentation"
    asked: Any = deepcopy(model)
    if not regions:
        asked.least = 0.0

    def answer(pixels: Pixels) -> Arrays:
        with torch.inference_mode():
            found = asked(torch.from_numpy(pixels))
        if regions:
            return [found.logits.numpy()]
        (one,) = found
        return [each.numpy() for each in (one.boxes, one.scores, one.labels, one.masks) if each is not None]

    return answer


def bounds_of(model: Dense, format: str) -> dict[str, float]:
    """How far off a file may be: of weights not at all."""
    masks = MASK_BOUNDS if model.config.task == "instances" else {}
    bounds = REGION_BOUNDS if model.config.task == "segmentation" else OBJECT_BOUNDS | masks
    return dict.fromkeys(bounds, 0.0) if format == "safetensors" else bounds


def compare_dense(model: Dense, found: Answer, size: Size) -> dict[str, float]:
    """How far a file is off from the model, by what is compared and on what."""
    wanted = reference(model)
    differ = region_differences if model.config.task == "segmentation" else object_differences
    told = {name: differ(wanted(pixels), found(pixels)) for name, pixels in cases(model, size).items()}
    return {f"{what}, {name}": values[what] for what in next(iter(told.values())) for name, values in told.items()}


def check(found: Mapping[str, float], bounds: Mapping[str, float], format: str, file: Path) -> None:
    """Raises ValueError where a difference is greater than its bound, or no number."""
    for name, value in found.items():
        bound = bounds[name.partition(", ")[0]]
        if not value <= bound:
            raise ValueError(
                f"{file} was not written: as {format} the model says something else: {name}, {value:.2g}; allowed is {bound:g}"
            )


def cases(model: Dense, size: Size) -> dict[str, Pixels]:
    """Images (B, C, H, W) of bytes by what they are; for detectors, which look at one at a time, a single one."""
    channels, (height, width) = len(model.mean), size
    many = 2 if model.config.task == "segmentation" else 1
    made = {
        "noise": noise(1, channels, height, width),
        "hard borders" + (", batch of 2" if many > 1 else ""): drawn(many, channels, height, width),
    }
    if PHOTOGRAPH.is_file() and channels in (1, 3):
        shown = photographs(Preprocess(max(size), model.config.mean, model.config.std, "crop"))
        made["photograph"] = np.ascontiguousarray(shown[:1, :, :height, :width])
    return made


def region_differences(wanted: Arrays, found: Arrays) -> dict[str, float]:
    """Of logits (B, classes, H, W); infinite where anything is not a number, or of another shape."""
    (one,), (other,) = wanted, found
    if one.shape != other.shape or not np.isfinite(other).all():
        return dict.fromkeys(REGION_BOUNDS, float("inf"))
    off = float(np.abs(one - other).max() / max(np.abs(one).mean(), np.finfo(np.float32).tiny))
    return dict(zip(REGION_BOUNDS, (off, float((one.argmax(1) != other.argmax(1)).mean())), strict=True))


def object_differences(wanted: Arrays, found: Arrays) -> dict[str, float]:
    """Of boxes (N, 4), scores (N,), labels (N,) and perhaps masks (N, M, M): each box beside the nearest of its class.

    Infinite where anything is not a number, or of another shape; rows beyond what the model finds are not looked at.
    """
    bounds = OBJECT_BOUNDS | (MASK_BOUNDS if len(wanted) > 3 else {})
    boxes, scores, labels, *masks = wanted
    right = len(found) == len(wanted) and len(found[0]) >= len(boxes)
    if not right or not len(boxes) or not all(np.isfinite(array).all() for array in found):
        return dict.fromkeys(bounds, float("inf"))
    apart = np.abs(boxes[:, None] - found[0][None]).max(2)
    apart[labels[:, None] != found[2][None]] = np.inf
    nearest, least = apart.argmin(1), apart.min(1)
    like = least <= LIKE
    pairs = zip((scores, *masks), (found[1], *found[3:]), strict=True)
    off = [least, *(np.abs(one - other[nearest]).reshape(len(one), -1).max(1) for one, other in pairs)]
    told = [float(1 - like.mean()), *(float(each[like].max(initial=0.0)) for each in off)]
    return dict(zip(bounds, told, strict=True))
