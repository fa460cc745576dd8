"""`quantize`: a model as an OpenVINO file of 8-bit integers, with what that costs in accuracy measured and written into it."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from metaformer.core.model import MetaFormer
from metaformer.data.batch import generator
from metaformer.data.dataset import Data, with_channels
from metaformer.data.loader import Loader, default_workers
from metaformer.data.preprocess import Pixels, Preprocess
from metaformer.data.sources import open_data
from metaformer.data.splits import Encoded, Images, subset
from metaformer.infer.convert import write_ir
from metaformer.infer.engines import OpenVinoEngine, need
from metaformer.infer.evaluate import evaluate_split, own_data
from metaformer.infer.predictor import Predictor
from metaformer.infer.sensitivity import Labelled, compressed, int8_layers, linear_layers, nncf_quietly, quantized
from metaformer.runs import is_run
from metaformer.tasks.classification import Evaluation
from metaformer.tasks.metrics import paired_drop, wilson
from metaformer.weights.pretrained import Model

SCHEMA = 1
BATCH = 16
"""Of tuning: what is searched for is the same at any."""


@dataclass(frozen=True)
class Accuracy:
    """Top-1 in percent on held-out images, by which nothing was chosen; intervals of 95 %."""

    data: str
    images: int
    top1: float
    top1_interval: tuple[float, float]
    fp32_top1: float
    """Of the model before, in the same engine on the same images."""
    fp32_interval: tuple[float, float]
    drop_interval: tuple[float, float]
    """Of fp32_top1 − top1: narrower than the two intervals would make it, because both answered the same images."""

    @property
    def drop(self) -> float:
        """Points of top-1 lost; below 0 where it gained."""
        return self.fp32_top1 - self.top1


@dataclass(frozen=True)
class Quantized:
    """A file of 8-bit integers, and what it is worth."""

    file: Path
    """The graph; its weights are beside it, called `.bin`."""
    bytes: int
    """Of both."""
    accuracy: Accuracy
    layers: tuple[str, ...]
    """Those that multiply integers; of a weight-only file, those whose weights are stored as integers."""
    kept: tuple[str, ...]
    """Those that were left as they are because the budget would not hold."""


def quantize(
    source: str | Path,
    data: str | None = None,
    *,
    images: int = 300,
    tuning: int = 1000,
    budget: float = 0.5,
    weight_only: bool = False,
    out: str | Path | None = None,
    force: bool = False,
    model: Model | None = None,
) -> Quantized:
    """Writes `out` (.xml, and .bin beside it) for `Predictor(out)`: 8-bit multiplications, the rest in bf16 where that is fast.

    `source` is what Predictor takes: a run, published weights, an exported .onnx or .xml file. Ranges are learnt from
    `images` training images of the run's own data, or of `data`. Where top-1 of `tuning` other training images falls by more
    than `budget` points, the layers that cost the most stay as they are, until it does not; training images are
    easier than new ones, so what the file is worth is measured on all held-out images, by which nothing was chosen.

    With `weight_only`, the weights are stored as integers, in a quarter of the bytes, and multiplied as before.
    `out` is by default int8.xml in the run's folder, or the model's name with -int8.xml here. Raises ValueError or OSError
    with a sentence.
    """
    if budget < 0 or images < 1 or tuning < 1:
        raise ValueError(f"budget={budget}, images={images}, tuning={tuning}: points of top-1 from 0, and at least one image")
    need("openvino")
    nncf_quietly()
    precision = "int8-weights" if weight_only else "int8"
    file = _free(source, out, precision, force=force)
    named, recorded, _ = own_data(source, data)
    before = Predictor(source, "openvino", device="cpu", precision="fp32", model=model)
    if before.probabilities:
        raise ValueError(f"{source} gives probabilities: quantize what it was exported from")
    if before.several:
        raise ValueError(
            f"{source} gives an image several labels, and quantizing is measured by top-1: export it in bf16 instead"
        )
    assert isinstance(before.engine, OpenVinoEngine)
    if "int8" in str(before.engine.about().get("precision")):
        raise ValueError(f"{source} is quantized already: quantize what it was made from")
    known = _known(open_data(named, split=recorded, labels="single"), named, before)
    if weight_only:
        made, left = compressed(before.engine.model), ()
    else:
        made, left = quantized(before.engine.model, *_drawn(known.train, before.preprocess, images, tuning), budget)
    names = _names(before, linear_layers(before.engine.model))
    layers, kept = (tuple(names[name] for name in found) for found in (int8_layers(made), left))
    about = _about(before, precision)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".quantize-") as folder:
        draft, final = Path(folder, "draft.xml"), Path(folder, "final.xml")
        write_ir(made, draft, about)
        accuracy = _compared(named, _judged(before, known.val), _judged(Predictor(draft), known.val))
        search: dict[str, Any] = {} if weight_only else {"budget": budget, "kept": kept}
        write_ir(made, final, about | {"accuracy": asdict(accuracy) | search})
        size = final.stat().st_size + final.with_suffix(".bin").stat().st_size
        final.with_suffix(".bin").replace(file.with_suffix(".bin"))
        final.replace(file)
    return Quantized(file, size, accuracy, layers, kept)


def _free(source: str | Path, out: str | Path | None, precision: str, *, force: bool) -> Path:
    """Where to write. Raises ValueError or FileExistsError where that is no place for it."""
    stem = Path(source).stem if Path(source).is_file() else Path(source).resolve().name  # caformer_s18.in1k_384 has no ending
    name = f"{precision}.xml" if is_run(source) else f"{stem}-{precision}.xml"
    file = Path(out) if out is not None else (Path(source) / name if is_run(source) else Path(name))
    if file.suffix != ".xml":
        raise ValueError(f"{file}: what is written is OpenVINO's, so its name ends in .xml")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent} to write {file.name} into")
    taken = [path for path in (file, file.with_suffix(".bin")) if path.exists()]
    if taken and not force:
        raise FileExistsError(f"{taken[0]} exists: force=True (--force) overwrites it")
    return file


def _known(data: Data, named: str, predictor: Predictor) -> Data:
    """The data as the model takes it. Raises ValueError where its classes are others."""
    if data.classes not in (predictor.classes, predictor.synsets):
        raise ValueError(f"the classes of {named} are not the model's: quantize by what it learnt from, or by more of the same")
    return with_channels(data, len(predictor.preprocess.mean))


def _drawn(split: Images | Encoded, preprocess: Preprocess, images: int, tuning: int) -> tuple[list[Pixels], list[Labelled]]:
    """What calibrates, one by one, and what is tuned by: drawn, always alike, other images unless there are too few."""
    order = torch.randperm(len(split), generator=generator("quantize"))
    calibration = [pixels for pixels, _ in _fed(subset(split, order[:images]), preprocess, 1)]
    return calibration, list(_fed(subset(split, order.flip(0)[:tuning]), preprocess, BATCH))


def _fed(split: Images | Encoded, preprocess: Preprocess, batch: int) -> Iterator[Labelled]:
    """Batches as an engine takes them, with their labels."""
    device = torch.device("cpu")
    loader = Loader(split, batch, preprocess, device, workers=default_workers(split, None, device))
    for pixels, index in loader.pixels():
        yield np.ascontiguousarray(pixels.numpy()), split.labels[index].numpy()


def _about(predictor: Predictor, precision: str) -> dict[str, Any]:
    """What Predictor reads from the file, and what a person would ask of it."""
    about: dict[str, Any] = {
        "schema": SCHEMA,
        "format": "openvino",
        "precision": precision,
        "classes": predictor.classes,
        "preprocess": predictor.preprocess.to_dict(),
        "model": str(predictor.source),
    }
    if predictor.synsets:
        about["synsets"] = predictor.synsets
    if isinstance(predictor.model, MetaFormer):
        about["config"] = predictor.model.config.to_dict()
    return about


def _names(predictor: Predictor, layers: Mapping[str, int]) -> dict[str, str]:
    """What to call the layers of a graph: as the model's own are called, where both agree in order and sizes."""
    found = [] if predictor.model is None else list(predictor.model.named_modules())
    own = {name: part.weight.numel() for name, part in found if isinstance(part, nn.Conv2d | nn.Linear)}
    return dict(zip(layers, own if list(own.values()) == list(layers.values()) else layers, strict=True))


def _judged(predictor: Predictor, split: Images | Encoded) -> Evaluation:
    found = evaluate_split(predictor, split)
    assert isinstance(found, Evaluation)
    return found


def _compared(named: str, before: Evaluation, after: Evaluation) -> Accuracy:
    """What two evaluations of the same images say of each other."""
    images = len(after.labels)
    intervals = [wilson(found.top1 / 100, images) for found in (after, before)]
    lost, gained = ((one.right & ~other.right).sum().item() for one, other in ((before, after), (after, before)))
    return Accuracy(
        data=named,
        images=images,
        top1=after.top1,
        top1_interval=_percent(intervals[0]),
        fp32_top1=before.top1,
        fp32_interval=_percent(intervals[1]),
        drop_interval=_percent(paired_drop(int(lost), int(gained), images)),
    )


def _percent(interval: tuple[float, float]) -> tuple[float, float]:
    return 100 * interval[0], 100 * interval[1]
