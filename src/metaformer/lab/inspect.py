"""`inspect`: what each part of a model is, costs, keeps and takes; and a drawing of the whole."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.count import count
from metaformer.core.device import choose_device, memory_told
from metaformer.core.model import MetaFormer
from metaformer.dense.model import Dense
from metaformer.infer.about import is_dense_source, read_about
from metaformer.infer.exported import is_exported
from metaformer.infer.source import find_source, open_source
from metaformer.lab.inspect_bars import draw_bars
from metaformer.lab.inspect_drawing import draw
from metaformer.lab.inspect_measure import Subject, kept_bytes, peaks, shapes, times
from metaformer.lab.inspect_parts import parts
from metaformer.lab.plots import check_ours, remove_all
from metaformer.lab.tables import Rows, columns
from metaformer.runs import write_text
from metaformer.weights.create import create_dense, create_model
from metaformer.weights.peers import PREFIX, Peer, PeerConfig, peer_size
from metaformer.weights.pretrained import read_dense
from metaformer.zoo import HEADS, ZOO

REST = "the rest"
"""The row of what lies or happens outside of all parts."""


@dataclass(frozen=True)
class PartFigures:
    """A row: one part of the model, all figures for a batch of `Inspection.batch`, but MACs for one image."""

    name: str
    kind: str
    shape: tuple[int, ...] | None
    """Of what it gives, without the batch; None where it is not asked."""
    parameters: int
    macs: int | None
    """None where the model's cannot be counted."""
    kept: int
    """Bytes kept for the backward pass in training, each storage once, by the part that keeps it first; without weights."""
    peak: int
    """Bytes of all that is alive at once in inference while the part runs, other maps and images too; without weights."""
    seconds: float | None = None
    """Median of the rounds; None where time was not asked."""
    low: float | None = None
    high: float | None = None
    """The quartiles."""


@dataclass(frozen=True)
class Inspection:
    """What a model is, part by part."""

    model: str
    image_size: int
    batch: int
    device: str
    parts: tuple[PartFigures, ...]
    """In the order in which they run; last, where there is such, what is outside of them."""
    whole: PartFigures
    """The model: the sums of parameters, MACs and bytes kept; the peak and the seconds of all."""
    config: MetaFormerConfig | None = None
    """What is drawn; None for models that are no MetaFormers."""
    dense: bool = False
    """Whether that is the backbone of a detector or segmenter."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        told = {name: value for name, value in asdict(self).items() if name != "config"}
        return told | {"config": None if self.config is None else self.config.to_dict()}

    def write(self, folder: str | Path) -> Path:
        """Writes inspect.json, parts.png and .pdf, and of a MetaFormer architecture.svg, .png and .pdf; what an earlier call
        drew there is removed. Raises ValueError where a picture of such a name is not ours."""
        folder = Path(folder)
        check_ours(folder, "inspect.json", ("parts", "architecture"))
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "inspect.json", json.dumps(self.to_dict(), indent=1) + "\n")
        draw_bars(self.to_dict(), folder / "parts")
        remove_all(folder / "architecture")
        if self.config is not None:
            title = f"the backbone of {self.model}" if self.dense else self.model
            draw(self.config, self.image_size, folder / "architecture", title, backbone=self.dense)
        return folder


def inspect(
    source: str | Path | nn.Module,
    *,
    image_size: int | None = None,
    batch: int = 1,
    time: bool = True,
    rounds: int = 15,
    device: str = "auto",
) -> Inspection:
    """Looks into a model: a run, a folder, hf:USER/NAME, a name such as caformer_s18, timm:resnet18 or retinanet/poolformer_s12
    (of names no weights are fetched), or a module, which is left as it was.

    Counted are parameters, multiply-accumulates, what a training step keeps for its backward pass and what is alive at once in
    inference, of `batch` random images of `image_size`, by default the model's own. Unless `time=False`, each part is measured
    alone, in turns, in `rounds`, in evaluation mode. Raises ValueError or OSError with a sentence.
    """
    for name, value in (("batch", batch), ("rounds", rounds), ("image_size", 1 if image_size is None else image_size)):
        if value < 1:
            raise ValueError(f"{name}={value} is not at least 1")
    model, usual = (source, 224) if isinstance(source, nn.Module) else _open(source, image_size)
    where, side = choose_device(device), image_size or usual
    called = type(model).__name__ if isinstance(source, nn.Module) else str(source)
    with memory_told(where, f"batch={max(1, batch // 2)} needs less"):
        subject = Subject(model, side, batch, where)
        rows, whole = _figures(subject, called, _macs(model, side), rounds if time else 0)
    body = model.backbone.body if isinstance(model, Dense) else model
    config = body.config if isinstance(body, MetaFormer) else None
    return Inspection(called, side, batch, str(where), tuple(rows), whole, config, isinstance(model, Dense))


def _figures(subject: Subject, called: str, macs: dict[str, int] | None, rounds: int) -> tuple[list[PartFigures], PartFigures]:
    """A row for each part, at the end one for what is outside of them if there is any; and the whole model's."""
    found = parts(subject.model)
    kept, alive, given = kept_bytes(subject, found), peaks(subject, found), shapes(subject, found)
    took = times(subject, found, rounds) if rounds else {}
    counted: set[int] = set()
    rows = []
    for part in found:
        own = [p for p in part.module.parameters() if id(p) not in counted]
        counted |= {id(p) for p in own}
        cost = None if macs is None else macs.get(part.name, 0)
        figures = (sum(p.numel() for p in own), cost, kept.get(part.name, 0), alive.get(part.name, 0), *took.get(part.name, ()))
        rows.append(PartFigures(part.name, part.kind, given.get(part.name), *figures))
    parameters, every = sum(p.numel() for p in subject.model.parameters()), None if macs is None else macs[""]
    whole = (parameters, every, sum(kept.values()), max(alive.values()), *took.get("", ()))
    outside = None if every is None else every - sum(row.macs or 0 for row in rows)
    rest = (parameters - sum(row.parameters for row in rows), outside, kept.get("", 0), alive.get("", 0))
    if any(rest[:3]):
        rows.append(PartFigures(REST, "", None, *rest))
    return rows, PartFigures(called, "", given.get(""), *whole)


def _macs(model: nn.Module, side: int) -> dict[str, int] | None:
    """By module, the model as ""; None where its shapes depend on values."""
    try:
        counted = count(model, side)
    except RuntimeError:  # code of the user's own
        return None
    return counted.macs_by_name | {"": counted.macs}


def _open(source: str | Path, image_size: int | None) -> tuple[nn.Module, int]:
    """The model, and the side of its images."""
    name = str(source).partition(".")[0]
    if str(source).startswith(PREFIX):
        peer = str(source).removeprefix(PREFIX)
        side = image_size or peer_size(peer)
        return Peer(PeerConfig(name=peer, num_classes=1000, in_chans=3, image_size=side)), side
    if is_exported(source):
        raise ValueError(f"{source} is for a runtime: inspect the run or model that it was exported from")
    if not Path(source).exists() and name in ZOO:
        return create_model(name), 32 if name.endswith("_t6") else 224
    if not Path(source).exists() and str(source).partition("/")[0] in HEADS:
        return create_dense(str(source)), 512
    if is_dense_source(source):
        found = find_source(source)
        assert isinstance(found, Path)
        model, about = read_dense(found)
        return model, int(about.get("shown", {"short": 512})["short"])
    model, about = open_source(source, device="cpu")
    return model, read_about(about, source, model.config.num_classes).preprocess.size


# --- a screen ---------------------------------------------------------------------------------------------------------


def inspected_text(found: Inspection) -> str:
    """A row for each part, then the whole."""
    timed = found.whole.seconds is not None
    rows: Rows = [
        ("part", "what", "gives", "parameters", "MACs", "kept, MB", "peak, MB", *(("ms", "quartiles") if timed else ()))
    ]
    rows += [_row(part, timed=timed) for part in (*found.parts, found.whole)]
    images = f"{found.batch} image{'s' if found.batch > 1 else ''} of {found.image_size} × {found.image_size}"
    said = f"{images} on {found.device}; kept: for the backward pass; peak: alive at once in inference; both without weights"
    return f"{columns(rows, right=(3, 4, 5, 6, 7, 8))}\n\n{said}"


def _row(part: PartFigures, *, timed: bool) -> tuple[str, ...]:
    shape = "" if part.shape is None else " × ".join(map(str, part.shape))
    macs = "–" if part.macs is None else f"{part.macs:,}"
    row = (part.name, part.kind, shape, f"{part.parameters:,}", macs, f"{part.kept / 1e6:.2f}", f"{part.peak / 1e6:.2f}")
    if not timed:
        return row
    if part.seconds is None or part.low is None or part.high is None:
        return (*row, "", "")
    return (*row, f"{1e3 * part.seconds:.2f}", f"{1e3 * part.low:.2f}–{1e3 * part.high:.2f}")
