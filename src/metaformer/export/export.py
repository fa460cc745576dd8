"""`export`: convert, write under another name, reload, compare with torch, write what was found into it, rename."""

import tempfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from metaformer import __version__
from metaformer.data.preprocess import Pixels
from metaformer.export import executorch, onnx, openvino, pt2, safetensors
from metaformer.export.compare import compare, reference
from metaformer.export.save import Format
from metaformer.infer.about import read_about
from metaformer.infer.convert import is_fixed
from metaformer.infer.engines import Logits, Options
from metaformer.infer.exported import is_exported, open_exported
from metaformer.infer.source import open_source
from metaformer.runs import is_run, open_run
from metaformer.weights.pretrained import Model, describe, read_pretrained

# fmt: off
FORMATS = {
    "onnx":         Format(".onnx", onnx.prepare, {"fp32": 1e-4}),
    "openvino":     Format(".xml", openvino.prepare, {"fp32": 1e-4, "bf16": 0.3}, beside=(".bin",)),
    "torch-export": Format(".pt2", pt2.prepare, {"fp32": 1e-4, "bf16": 0.3}),
    "executorch":   Format(".pte", executorch.prepare, {"fp32": 1e-4}),
    "safetensors":  Format(".safetensors", safetensors.prepare, {"fp32": 0.0}),
}
# fmt: on
"""What can be written, and how far off it may be: bounds in docs/export.md, where what was measured stands beside them."""

PROBABLE = {"fp32": 1e-4, "bf16": 0.3}
"""How far off a probability may be, by precision, over the greatest one."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    file: Path
    format: str
    precision: str
    bytes: int
    """Of the file and of what stands beside it."""
    differences: Mapping[str, float]
    """For each case the greatest difference from torch: of logits over their mean absolute value, of probabilities over
    the greatest."""
    bound: float
    probabilities: bool
    """Whether the file gives probabilities, not logits."""


def export(
    source: str | Path,
    format: str,
    out: str | Path | None = None,
    *,
    precision: str = "fp32",
    probabilities: bool = False,
    model: Model | None = None,
    force: bool = False,
) -> Exported:
    """Writes a model as a file that Predictor, `metaformer predict` and `metaformer eval` take like the model itself.

    `source` and `model` as in Predictor; `format` is onnx, openvino, torch-export, executorch or safetensors; `out` a file,
    or a folder for it, by default the current one. `precision` is fp32, or bf16 for openvino and torch-export. With
    `probabilities`, the graph ends in a softmax, of a model for several labels in a sigmoid. The file is reloaded and compared
    before it has its name. Raises FileExistsError for a file that is there, without `force`; ValueError or OSError with a
    sentence, also where the file says anything else than the model.
    """
    row = _row(format, precision)
    if is_exported(source):
        raise ValueError(f"{source} is exported already: export what it was made from")
    if probabilities and format == "safetensors":
        raise ValueError("a .safetensors is no graph that could give probabilities: leave --probabilities out, or choose onnx")
    file = _place(out, source, row)
    written = [file.with_suffix(suffix) for suffix in (row.suffix, *row.beside)]
    taken = [path for path in written if path.exists()]
    if taken and not force:
        raise FileExistsError(f"{taken[0]} exists: choose another name, or --force (force=True) to overwrite it")

    net, about = open_source(source, model, "cpu")
    known = read_about(about, source, net.config.num_classes)
    free = not is_fixed(net) and format != "executorch"
    size = known.preprocess.size if not free else None
    output = "logits" if not probabilities else "sigmoid" if known.several else "softmax"
    said = about | describe(net) | _said(source, format, precision, size, output, several=known.several)
    save = row.prepare(net, known.preprocess, precision, output)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".export-") as folder:
        aside = Path(folder, file.name)
        save(aside, said)
        found = compare(net, known.preprocess, _reopened(aside, precision, model), free=free, output=output)
        bound = row.bounds[precision] if output == "logits" else PROBABLE[precision]
        _check(found, bound, format, file, output)
        save(aside, said | {"compared": {"with": "torch fp32", "bound": bound, "differences": found}})
        for path in written:
            aside.with_name(path.name).replace(path)
    return Exported(file, format, precision, sum(path.stat().st_size for path in written), found, bound, probabilities)


def _row(format: str, precision: str) -> Format:
    if format not in FORMATS:
        near = get_close_matches(format, FORMATS, n=1, cutoff=0.6)
        hint = f", did you mean {near[0]}?" if near else f"; allowed: {', '.join(FORMATS)}"
        raise ValueError(f"no format {format!r}{hint}")
    row = FORMATS[format]
    if precision not in row.bounds:
        raise ValueError(f"no {format} in precision={precision!r}; allowed: {', '.join(row.bounds)}")
    return row


def _place(out: str | Path | None, source: str | Path, row: Format) -> Path:
    """The file to write. Raises ValueError for a wrong ending, FileNotFoundError where there is no folder for it."""
    name = Path(source).resolve().name if Path(source).exists() else str(source).rpartition("/")[2]
    name = f"{name.removesuffix('.safetensors')}{row.suffix}"
    file = Path(name) if out is None else Path(out).expanduser()
    if file.is_dir():
        file = file / name
    if file.suffix != row.suffix:
        raise ValueError(f"{file} is no name for this format: it ends in {row.suffix}")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent} to write {file.name} into")
    return file


def _said(source: str | Path, format: str, precision: str, size: int | None, output: str, *, several: bool) -> dict[str, Any]:
    """What a file says of itself beside what was known of the model. `size`: sides that it is fixed to."""
    named: dict[str, Any] = {"model": open_run(source).recipe.model} if is_run(source) else {}
    if output != "logits":
        given: dict[str, Any] = {"probabilities": True, "output": f"probabilities: the {output} of logits"}
    else:
        given = {"output": f"logits; probabilities are their {'sigmoid' if several else 'softmax'}"}
    return (
        named
        | given
        | {
            "format": format,
            "precision": precision,
            "metaformer": __version__,
            "input": {"type": "uint8", "layout": "BCHW", "values": "0 to 255", "sides": size or "any"},
        }
    )


def _reopened(file: Path, precision: str, model: Model | None) -> Callable[[Pixels], Logits]:
    """What runs the file in the precision that it is written for. Raises ValueError where this processor has not that."""
    if is_exported(file):
        return open_exported(file, "auto", Options(device="cpu", precision=precision))[0]
    net, about = read_pretrained(file, deepcopy(model))
    preprocess = read_about(about, file).preprocess
    return lambda pixels: reference(net.eval(), preprocess, pixels)


def _check(found: Mapping[str, float], bound: float, format: str, file: Path, output: str) -> None:
    """Raises ValueError where a difference is greater than the bound, or no number."""
    worst = max(found, key=lambda name: found[name])
    if found[worst] > bound:
        off = f"logits are off by {found[worst]:.2g} of their mean"
        if output != "logits":
            off = f"probabilities are off by {found[worst]:.2g} of the greatest"
        raise ValueError(
            f"{file} was not written: as {format} the model says something else: on {worst}, {off}, and {bound:g} is allowed"
        )
