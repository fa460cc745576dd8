"""`export`: convert, write under another name, reload, compare with torch, write what was found into it, rename."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from metaformer import __version__
from metaformer.data.preprocess import Pixels
from metaformer.export import dense, executorch, onnx, openvino, pt2, safetensors
from metaformer.export.compare import compare, reference
from metaformer.export.save import Format, Save
from metaformer.infer.about import is_dense_source, read_about
from metaformer.infer.convert import is_fixed
from metaformer.infer.dense import SHOWN
from metaformer.infer.engines import Logits, Options
from metaformer.infer.exported import is_exported, open_exported
from metaformer.infer.source import find_source, open_source
from metaformer.runs import is_run, open_run
from metaformer.weights.pretrained import Model, describe, read_dense, read_pretrained

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
    """The greatest difference that is let through; of objects and regions see `bounds`."""
    probabilities: bool = False
    """Whether the file gives probabilities, not logits."""
    bounds: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of objects and regions, for each thing that is compared: in `differences` it stands before what it was compared on."""


def export(
    source: str | Path,
    format: str,
    out: str | Path | None = None,
    *,
    precision: str = "fp32",
    probabilities: bool = False,
    image_size: tuple[int, int] | None = None,
    model: Model | None = None,
    force: bool = False,
) -> Exported:
    """Writes a model as a file that Predictor, `metaformer predict` and `metaformer eval` take like the model itself.

    `source` and `model` as in Predictor; `format` is onnx, openvino, torch-export, executorch or safetensors; `out` a file,
    or a folder for it, by default the current one. `precision` is fp32, or bf16 for openvino and torch-export. With
    `probabilities`, the graph ends in a softmax, of a model for several labels in a sigmoid. The file is reloaded and compared
    before it has its name. A model of objects or regions becomes a file for DensePredictor; `image_size` is the height and the
    width that it is for, multiples of 32, by default as the model was judged. Raises FileExistsError for a file that is there,
    without `force`; ValueError or OSError with a sentence, also where the file says anything else than the model.
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

    if is_dense_source(source):
        if precision != "fp32" or probabilities or model is not None:
            raise ValueError(f"{source} finds objects or regions: it is exported in fp32, without --probabilities or model=")
        return _export_dense(source, format, file, written, image_size)
    if image_size is not None:
        raise ValueError(f"{source} is a classifier, whose file knows its size: leave image_size out")
    net, about = open_source(source, model, "cpu")
    known = read_about(about, source, net.config.num_classes)
    free = not is_fixed(net) and format != "executorch"
    size = known.preprocess.size if not free else None
    output = "logits" if not probabilities else "sigmoid" if known.several else "softmax"
    told = f"logits; probabilities are their {'sigmoid' if known.several else 'softmax'}"
    said = about | describe(net) | _said(source, format, precision, size, told)
    if probabilities:
        said |= {"probabilities": True, "output": f"probabilities: the {output} of logits"}
    save = row.prepare(net, known.preprocess, precision, output)
    bound = row.bounds[precision] if output == "logits" else PROBABLE[precision]

    def compared(aside: Path) -> dict[str, float]:
        found = compare(net, known.preprocess, _reopened(aside, precision, model), free=free, output=output)
        _check(found, bound, format, file, output)
        return found

    found = _write(written, save, said, compared, {"bound": bound})
    return Exported(file, format, precision, _bytes(written), found, bound, probabilities)


def _export_dense(
    source: str | Path, format: str, file: Path, written: Sequence[Path], image_size: tuple[int, int] | None
) -> Exported:
    """The same of a model of objects or regions."""
    found = find_source(source)
    assert isinstance(found, Path)
    net, about = read_dense(found)
    size, within = dense.sides_of(about, image_size)
    save, bounds = dense.prepare(net.eval(), format, size), dense.bounds_of(net, format)
    said = about | describe(net) | _said(source, format, "fp32", list(size), dense.outputs_of(net))
    said["shown"] = about.get("shown", SHOWN) | {"within": list(within)}

    def compared(aside: Path) -> dict[str, float]:
        found = dense.compare_dense(net, dense.reopened(aside), size)
        dense.check(found, bounds, format, file)
        return found

    differences = _write(written, save, said, compared, {"bounds": bounds})
    return Exported(file, format, "fp32", _bytes(written), differences, max(bounds.values()), bounds=bounds)


def _write(
    written: Sequence[Path],
    save: Save,
    said: Mapping[str, Any],
    compared: Callable[[Path], Mapping[str, float]],
    allowed: Mapping[str, Any],
) -> Mapping[str, float]:
    """Writes a file under another name, has it compared, writes what was found into it, and gives it its name."""
    with tempfile.TemporaryDirectory(dir=written[0].parent, prefix=".export-") as folder:
        aside = Path(folder, written[0].name)
        save(aside, said)
        found = compared(aside)
        save(aside, {**said, "compared": {"with": "torch fp32", **allowed, "differences": found}})
        for path in written:
            aside.with_name(path.name).replace(path)
    return found


def _bytes(written: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in written)


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


def _said(source: str | Path, format: str, precision: str, size: int | list[int] | None, output: str) -> dict[str, Any]:
    """What a file says of itself beside what was known of the model. `size`: sides that it is fixed to."""
    named: dict[str, Any] = {"model": open_run(source).recipe.model} if is_run(source) else {}
    return named | {
        "output": output,
        "format": format,
        "precision": precision,
        "metaformer": __version__,
        "input": {"type": "uint8", "layout": "BCHW", "values": "0 to 255", "sides": size or "any"},
    }


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
