"""Time and memory of a mixer against tokens, and of whole models with it beside models with the built-in ones.

Each is measured in a process of its own, whose peak memory is then its own; there the places, or the models, take turns, so
that what drifts in the machine hits all alike.
"""

import math
import random
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from scipy.stats import t as student
from torch import nn

from metaformer.core.architecture import SPECS, MetaFormerConfig
from metaformer.core.count import count
from metaformer.core.device import keep_memory
from metaformer.core.layers import Scale
from metaformer.core.mixers import (
    Attention,
    DepthwiseConv,
    Fourier,
    Identity,
    MaxPooling,
    Mixer,
    Pooling,
    Random,
    SepConv,
    SpatialFC,
)
from metaformer.core.model import MetaFormer
from metaformer.core.spec import from_text, to_text
from metaformer.lab.mixer_case import at_grid, mixers_in
from metaformer.lab.turns import Ratio, ratio
from metaformer.lab.widths import check_equal, nearest_dims
from metaformer.lab.worker import Ready, peak, timed
from metaformer.own import ask, load
from metaformer.zoo import get_config

BUILT_IN: tuple[Mixer, ...] = (
    Identity(), Pooling(), MaxPooling(), DepthwiseConv(), SepConv(), Attention(), Random(grid=14), SpatialFC(grid=14),
    Fourier(),
)  # fmt: skip
FRAME = "poolformerv2_t6"
"""The model in which mixers are compared: one mixer in all blocks."""
SIZE = 32
"""Its images' side in pixels."""
CLASSES = 10
BATCH = 16
"""Images at a time in a comparison."""


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    sides: tuple[int, ...] = (14, 20, 28, 40, 56)
    """Places of a side of the maps."""
    tokens: int = 4 * 56**2
    """Of a batch, whatever the sides: as many as fit, of one image at least."""
    rounds: int = 9
    seconds: float = 0.1
    """What a turn takes at least."""


QUICK = Effort(sides=(8, 12, 16, 24), tokens=24**2, rounds=6, seconds=0.02)


@dataclass(frozen=True)
class Place:
    """What a map of so many tokens takes: the median over the rounds, of one image."""

    tokens: int
    batch: int
    seconds: dict[str, float]
    """By job, predict or train: forward, or forward and backward."""
    bytes: dict[str, float | None]
    """Above the loaded module and its gradients, which a batch has once; None where the system does not tell."""


@dataclass(frozen=True)
class Power:
    """What something grows with: tokens to the power of this, and its 95 % interval over the places (Student's t)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


JOBS = ("predict", "train")


def power(x: Sequence[float], y: Sequence[float | None]) -> Power | None:
    """The slope of a line through the logarithms, by least squares; None of fewer than three places."""
    points = [(math.log(a), math.log(b)) for a, b in zip(x, y, strict=True) if b]
    if len({a for a, _ in points}) < 3:
        return None
    across, up = (statistics.fmean(values) for values in zip(*points, strict=True))
    spread = sum((a - across) ** 2 for a, _ in points)
    slope = sum((a - across) * (b - up) for a, b in points) / spread
    rest = sum((b - up - slope * (a - across)) ** 2 for a, b in points)
    off = float(student.ppf(0.975, len(points) - 2)) * math.sqrt(rest / (len(points) - 2) / spread)
    return Power(slope, slope - off, slope + off)


def read_mixer(text: str) -> Mixer:
    """The mixer that a person's word names: Pooling, `Pooling(window=5)`, `mine.py:Shift`, `package.mixers:Shift`.

    Code that it names is imported. Raises ValueError with a sentence.
    """
    if text.endswith(".py"):
        names = mixers_in(load(text))
        if not names:
            raise ValueError(f"{text} has no class of a module or frozen dataclass: name what makes the mixer, {text}:NAME")
        raise ValueError(f"{text} is a file, did you mean {text}:{names[0]}?")
    ask([text])
    made = from_text(text, SPECS)
    if isinstance(made, tuple):
        raise ValueError(f"{text} is several mixers: name one")
    return MetaFormerConfig(depths=(1,), dims=(32,), mixers=(made,), scales=(Scale(),)).mixers[0]


def apart(function: Callable[..., Any], *arguments: object) -> Any:
    """What a function at the top of a module gives in a process of its own. Raises ValueError where that is killed."""
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            return process.submit(function, *arguments).result()
    except BrokenProcessPool as error:
        raise ValueError("the process that measures was killed, perhaps for want of memory: --quick takes less") from error


# --- against tokens ---------------------------------------------------------------------------------------------------


def grow(text: str, dim: int, device: str, effort: Effort) -> list[Place]:
    """What one mixer takes on each side of `effort`."""
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())  # a short call on two waits for the slower
    mixer = read_mixer(text)
    places = [(side, max(1, round(effort.tokens / side**2))) for side in effort.sides]
    ready = [{job: _ready(mixer, dim, side, images, device, job) for job in JOBS} for side, images in places]
    peaks = [{job: most(each[job]) for job in JOBS} for each in ready]
    keep_memory()
    taken = _in_turns([each[job] for each in ready for job in JOBS], effort)
    found = []
    for n, (side, images) in enumerate(places):
        seconds = {job: statistics.median(taken[n * len(JOBS) + k]) / images for k, job in enumerate(JOBS)}
        once = {"predict": 0, "train": _bytes(at_grid(mixer, side)(dim), learnt=True)}
        held = {job: None if most is None else max(0, most - once[job]) / images for job, most in peaks[n].items()}
        found.append(Place(side**2, images, seconds, held))
    return found


def _ready(mixer: Mixer, dim: int, side: int, images: int, device: str, job: str) -> Ready:
    """A mixer on a random map."""
    torch.manual_seed(0)
    module = at_grid(mixer, side)(dim).to(device).to(memory_format=torch.channels_last)
    x = torch.randn(images, dim, side, side, device=device).contiguous(memory_format=torch.channels_last)
    go = _predicting(module, x) if job == "predict" else _learning(module, x.requires_grad_())
    go()
    return Ready(go, images, device=device, loaded=_bytes(module))


def _predicting(module: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    module.eval()

    def go() -> object:
        with torch.inference_mode():
            return module(x)

    return go


def _learning(module: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    module.train()
    inputs = [p for p in (x, *module.parameters()) if p.requires_grad]

    def go() -> object:
        y = module(x)
        return torch.autograd.grad(y, inputs, torch.ones_like(y), allow_unused=True)

    return go


def _bytes(module: nn.Module, *, learnt: bool = False) -> int:
    """Of its parameters, or of those that learn."""
    return sum(p.nbytes for p in module.parameters() if p.requires_grad or not learnt)


def most(ready: Ready) -> int | None:
    """Bytes that a call takes at most above all that is there: others are loaded beside it, which on a GPU `peak` takes for
    its own. None where the system does not tell."""
    if ready.device != "cuda":
        return peak(ready)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    ready.go()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _in_turns(ready: Sequence[Ready], effort: Effort) -> list[list[float]]:
    """Seconds of a call of each, by round; in a round each has its turn, in an order that is drawn anew."""
    calls = [max(1, math.ceil(effort.seconds / max(timed(one, 1), 1e-6))) for one in ready]
    taken: list[list[float]] = [[] for _ in ready]
    order = random.Random(0)
    for _ in range(effort.rounds):
        for n in order.sample(range(len(ready)), len(ready)):
            taken[n].append(timed(ready[n], calls[n]) / calls[n])
    return taken


# --- beside the built-in ones -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A model with one mixer in all blocks, and what it costs."""

    mixer: str
    """Its text, as model.mixers= takes it."""
    dims: tuple[int, ...]
    parameters: int
    """Those that learn."""
    macs: int
    """Of an image."""
    predict: float = 0.0
    """Images/s: the median over the rounds."""
    train: float = 0.0
    bytes: int | None = None
    """What a training step takes above the model."""
    ratios: dict[str, Ratio] | None = None
    """How many times as fast as the first one, by job."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def enter(text: str, equal: str) -> list[Entry]:
    """The models: with the mixer of `text` in the frame as it is, and with each built-in one, by `equal`.

    With parameters, dims are those whose model comes nearest to the first one's parameters; with width, they are the same.
    """
    check_equal(equal)
    usual = get_config(FRAME).dims
    mine = _entry(text, usual)
    others = [to_text(mixer) for mixer in BUILT_IN]
    texts = [each for each in others if each != to_text(read_mixer(text))]
    wide = {each: usual if equal == "width" else nearest_dims(partial(framed, each), usual, mine.parameters) for each in texts}
    return [mine, *(_entry(each, dims) for each, dims in wide.items())]


def _entry(text: str, dims: tuple[int, ...]) -> Entry:
    config = framed(text, dims)
    with torch.device("meta"):
        cost = count(MetaFormer(config), SIZE)
    mixers = {to_text(mixer) for mixer in config.mixers}
    told = mixers.pop() if len(mixers) == 1 else f"({', '.join(to_text(mixer) for mixer in config.mixers)})"
    return Entry(told, dims, cost.parameters - cost.frozen, cost.macs)


def framed(text: str, dims: tuple[int, ...]) -> MetaFormerConfig:
    """The frame with one mixer in all blocks, each for its stage's grid where it needs one."""
    frame, mixer = get_config(FRAME), read_mixer(text)
    grids = [SIZE // frame.stem_stride // 2**stage for stage in range(len(dims))]
    return replace(frame, dims=dims, mixers=tuple(at_grid(mixer, grid) for grid in grids), num_classes=CLASSES)


def race(entries: Sequence[Entry], device: str, effort: Effort) -> list[Entry]:
    """The same with speed and memory; the first one is what ratios are to."""
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    models = [_model(entry, device) for entry in entries]
    ready = [{job: _image_ready(model, device, job) for job in JOBS} for model in models]
    peaks = [most(each["train"]) for each in ready]
    keep_memory()
    taken = _in_turns([each[job] for each in ready for job in JOBS], effort)
    found = []
    for n, entry in enumerate(entries):
        rates: dict[str, float] = {}
        ratios: dict[str, Ratio] = {}
        for k, job in enumerate(JOBS):
            mine, its = ([BATCH / seconds for seconds in taken[m * len(JOBS) + k]] for m in (0, n))
            rates[job], ratios[job] = statistics.median(its), ratio(its, mine)
        found.append(replace(entry, predict=rates["predict"], train=rates["train"], bytes=peaks[n], ratios=ratios))
    return found


def _model(entry: Entry, device: str) -> MetaFormer:
    torch.manual_seed(0)
    changes: dict[str, Any] = {"dims": entry.dims, "mixers": entry.mixer, "num_classes": CLASSES}
    ask([entry.mixer])
    return MetaFormer(get_config(FRAME, **changes)).to(device)


def _image_ready(model: MetaFormer, device: str, job: str) -> Ready:
    images = torch.randn(BATCH, 3, SIZE, SIZE, device=device)

    def go() -> object:
        model.train(job == "train")  # the same model does both
        if job == "predict":
            with torch.inference_mode():
                return model(images)
        loss = model(images).square().mean()
        return torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)

    go()
    return Ready(go, BATCH, device=device, loaded=_bytes(model))
