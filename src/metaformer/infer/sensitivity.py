"""Which layers bear 8-bit integers: all, then without those that cost the most top-1, until the budget holds.

The search is NNCF's (`quantize_with_accuracy_control`): each layer alone is put back, and how much better the answers are then
is its rank. NNCF 3.4 could rank by the distance of logits too, but does it upside down: what leaves them furthest off is put
back first. It judges with the rest in fp32; bf16 would add a thousandth of the integers' own error (docs/LOG.md).
"""

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaformer.data.preprocess import Pixels
from metaformer.infer.convert import hushed
from metaformer.infer.engines import elsewhere, need

Labelled = tuple[Pixels, NDArray[np.int64]]
"""A batch as an engine takes it, and its labels."""

LINEAR = {"Convolution": (1,), "GroupConvolution": (1,), "MatMul": (0, 1)}
"""Operations, and the inputs at which their weights may be."""

BETWEEN = ("Convert", "FakeQuantize", "Multiply", "Reshape", "Subtract", "Transpose")
"""What stands between stored weights and the layer that multiplies by them."""

REST = (
    "Add", "AvgPool", "Divide", "GroupNormalization", "MVN", "Maximum", "Minimum", "Multiply", "Power", "ReduceMean",
    "ReduceSum", "ScaledDotProductAttention", "Sqrt", "Subtract",
)  # fmt: skip
"""What stays as it is: NNCF's defaults make integers of these too, which costs a pass over the map before and after each."""

SURE = 0.4
"""What it counts to be sure of all images, in images that are called right: less than half of one, so that top-1 decides."""


def quantized(
    model: Any, calibration: Sequence[Pixels], tuning: Sequence[Labelled], budget: float
) -> tuple[Any, tuple[str, ...]]:
    """An ov.Model whose linear layers multiply 8-bit integers, and the names of those that do not because they hurt.

    `budget` is what top-1 on `tuning` may lose, in points.
    """
    nncf = nncf_quietly()
    ranking = nncf.AdvancedAccuracyRestorerParameters(num_ranking_workers=1, ranking_subset_size=len(tuning))
    how = _how(nncf) | {"advanced_accuracy_restorer_parameters": ranking, "drop_type": nncf.DropType.ABSOLUTE}
    search = partial(nncf.quantize_with_accuracy_control, max_drop=_most(budget, tuning), **how)
    judged = nncf.Dataset(tuning, _pixels)
    with _told() as tell, _hushed():
        known = nncf.Dataset(calibration, partial(_learnt, tell))
        made = elsewhere(lambda: search(model, known, judged, partial(_judged, tell), subset_size=len(calibration)))
    done = int8_layers(made)
    return made, tuple(name for name in linear_layers(model) if name not in done)


def all_quantized(model: Any, calibration: Sequence[Pixels]) -> Any:
    """An ov.Model all of whose linear layers multiply 8-bit integers, whatever that costs."""
    nncf = nncf_quietly()
    with _told() as tell, _hushed():
        known = nncf.Dataset(calibration, partial(_learnt, tell))
        return elsewhere(lambda: nncf.quantize(model, known, subset_size=len(calibration), **_how(nncf)))


def _how(nncf: Any) -> dict[str, Any]:
    """Linear layers alone; activations with a zero point: half the error, and as fast."""
    scope = nncf.IgnoredScope(types=list(REST), validate=False)
    return {"preset": nncf.QuantizationPreset.MIXED, "ignored_scope": scope}


def compressed(model: Any) -> Any:
    """An ov.Model whose weights are stored as 8-bit integers, a scale for each output channel.

    OpenVinoEngine makes floats of them before it compiles, for OpenVINO 2026.4 computes wrong shapes, or crashes, for some
    models whose convolutions it leaves compressed (caformer_t6); it does so too with what NNCF's `compress_weights` makes.
    """
    ops = need("openvino").opset13
    made = model.clone()
    for _, weight in list(_weights(made)):
        values = weight.get_data().astype(np.float32)
        largest = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
        scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        stored = ops.constant(np.round(values / scale).astype(np.int8))
        restored = ops.multiply(ops.convert(stored, "f32"), ops.constant(scale))
        for target in weight.output(0).get_target_inputs():
            target.replace_source_output(restored.output(0))
    return made


def linear_layers(model: Any) -> dict[str, int]:
    """The layers with weights, by name and in order, each with how many weights it has."""
    return {op.get_friendly_name(): weight.get_data().size for op, weight in _weights(model)}


def int8_layers(model: Any) -> tuple[str, ...]:
    """Names of those whose weights are integers."""
    return tuple(op.get_friendly_name() for op, weight in _weights(model) if weight.get_element_type().size == 1)


def _weights(model: Any) -> Iterator[tuple[Any, Any]]:
    """Linear layers, each with the constant that it multiplies by; the product of two maps has none."""
    for op in model.get_ordered_ops():
        for place in LINEAR.get(op.get_type_name(), ()):
            node = op.input_value(place).get_node()
            while node.get_type_name() in BETWEEN:
                node = node.input_value(0).get_node()
            if node.get_type_name() == "Constant":
                yield op, node


def _pixels(batch: Labelled) -> Pixels:
    return batch[0]


def _learnt(tell: Callable[[str], None], pixels: Pixels) -> Pixels:
    tell("learning ranges, image")
    return pixels


def _judged(tell: Callable[[str], None], run: Any, batches: Iterable[Labelled]) -> tuple[float, list[float]]:
    """What a compiled model is worth, in percent: top-1, and among equals how sure it is of what is right; for each batch, how
    many are right."""
    tell("trying what bears integers, judging model")
    right: list[int] = []
    sure, count = 0.0, 0
    for pixels, labels in batches:
        logits = run(pixels)[0].astype(np.float64)
        exponents = np.exp(logits - logits.max(1, keepdims=True))
        sure += (exponents[np.arange(len(labels)), labels] / exponents.sum(1)).sum()
        right.append(int((logits.argmax(1) == labels).sum()))
        count += len(labels)
    return 100 * (sum(right) + SURE * sure / count) / count, [float(one) for one in right]


def _most(budget: float, batches: Sequence[Labelled]) -> float:
    """How much less a model may be worth within a budget in points of top-1: halfway to one image too many."""
    images = sum(len(labels) for _, labels in batches)
    return 100 * (np.floor(budget * images / 100 + 1e-6) + 0.5) / images


def nncf_quietly() -> Any:
    """NNCF, which on import decides whether each use of it is reported to its makers: it is not."""
    os.environ.setdefault("NNCF_CI", "1")
    with _hushed():
        nncf = need("nncf")
    for handler in logging.getLogger("nncf").handlers:
        if type(handler) is logging.StreamHandler:  # NNCF's own; a test's, which keeps what is logged, is none of ours
            handler.setStream(sys.stderr)  # it took the standard output of the moment
    return nncf


@contextmanager
def _told() -> Iterator[Callable[[str], None]]:
    """Shows in a terminal what is done and for which time; on standard error, for it is no part of an answer."""
    from rich.console import Console  # the bench does without it

    counts: Counter[str] = Counter()
    with Console(stderr=True).status("quantizing") as status:

        def tell(what: str) -> None:
            counts[what] += 1
            status.update(f"quantizing: {what} {counts[what]:,}")

        yield tell


@contextmanager
def _hushed() -> Iterator[None]:
    """Without what NNCF says but errors, and without standard output, on which it draws bars."""
    with hushed(), redirect_stdout(StringIO()):
        yield
