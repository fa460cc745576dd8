"""`probe`: what a model's features are worth as they are, to a linear classifier and to the nearest neighbours."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metaformer.config import parse
from metaformer.core.device import choose_device, memory_told
from metaformer.data.batch import generator
from metaformer.data.dataset import with_channels
from metaformer.data.loader import Loader, default_workers
from metaformer.data.sources import open_data
from metaformer.infer.about import read_about
from metaformer.infer.embed import pooled
from metaformer.infer.evaluate import own_data
from metaformer.lab.classifier import open_model
from metaformer.lab.tables import Rows, columns
from metaformer.tasks.metrics import wilson
from metaformer.weights.pretrained import Model

PENALTIES = tuple(10.0**power for power in range(1, -6, -1))
"""The L2 penalties that are tried, the strongest first."""
PART = 5
"""One in so many training images tells which penalty is best."""
AT_ONCE = 2**26
"""Cosines that are held in memory."""
TEMPERATURE = 0.07
"""Of the neighbours' votes, exp(cosine / this): Wu et al. 2018, arXiv 1805.01978, section 3.4."""


@dataclass(frozen=True)
class Probe:
    """Top-1 on the judging images, in percent, with its 95 % interval (Wilson)."""

    top1: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Probed:
    """What the features of a model are worth."""

    source: str
    data: str
    learnt: int
    """Images that the probes know."""
    judged: int
    features: int
    linear: Probe
    penalty: float
    """The L2 penalty of the linear probe."""
    knn: Probe
    k: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        rows: Rows = [("probe", "top-1", "95 % interval", f"{self.features:,} features of {self.source}")]
        said = f"{self.learnt:,} images of {self.data} known, {self.judged:,} judged"
        for name, probe, more in (("linear", self.linear, f"L2 {self.penalty:g}; {said}"), ("k-NN", self.knn, f"k {self.k}")):
            low, high = probe.interval
            rows.append((name, f"{probe.top1:.2f} %", f"{low:.2f} to {high:.2f}", more))
        return columns(rows, right=(1,))


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """What the command line says as key=value. Raises ValueError that says what is allowed."""
    settings = parse(pairs, ("k",))
    for key in settings:
        if key not in ALLOWED:
            raise ValueError(f"{key}= is no setting of a probe: allowed are {', '.join(ALLOWED)}")
    if "k" in settings and not settings["k"].isdecimal():
        raise ValueError(f"k={settings['k']} is not a whole number")
    if settings.get("batch") == "auto":
        raise ValueError("batch=auto is for training: say how many images a probe looks at together, such as batch=64")
    return settings | ({"k": int(settings["k"])} if "k" in settings else {})


ALLOWED = ("data", "k", "batch", "seed", "device")


def probe(
    source: str | Path,
    *,
    data: str | None = None,
    k: int = 20,
    batch: int = 64,
    seed: int = 0,
    device: str = "auto",
    model: Model | None = None,
) -> Probed:
    """Judges the pooled features of a model, which learns nothing, by two probes on a data set; a run's own unless given.

    `source` and `model` as in Predictor. One probe is multinomial logistic regression on standardised features, its L2 penalty
    chosen on a fifth of the training images that `seed` draws; the other the `k` nearest training images by cosine, weighted.
    Images are made ready as for prediction. Raises ValueError or OSError with a sentence.
    """
    if batch < 1:
        raise ValueError(f"batch={batch} is not at least 1")
    named, split, labelled = own_data(source, data)
    where = choose_device(device)
    made, about = open_model(source, model, device)
    preprocess = read_about(about, source, made.config.num_classes).preprocess
    shown = with_channels(open_data(named, seed=seed, split=split, labels=labelled), made.config.in_chans)
    if shown.multi:
        raise ValueError(f"images of {named} have several labels, and a probe is for one: train with learn=head instead")
    if not 1 <= k <= len(shown.train):
        raise ValueError(f"k={k} is not between 1 and {len(shown.train):,}, the training images of {named}")
    with memory_told(where, f"batch={max(1, batch // 2)} needs less"):
        known, judged = (
            features(made, Loader(part, batch, preprocess, where, workers=default_workers(part, None, where)))
            for part in (shown.train, shown.val)
        )
    classes, labels, right = len(shown.classes), shown.train.labels, shown.val.labels
    linear, penalty = linear_probe(known, labels, judged, classes, seed=seed)
    knn = neighbours(known, labels, judged, classes, k=k)
    return Probed(
        str(source), named, len(known), len(judged), known.shape[1], _scored(linear, right), penalty, _scored(knn, right), k
    )


def _scored(predicted: Tensor, labels: Tensor) -> Probe:
    part = (predicted == labels).double().mean().item()
    low, high = wilson(part, len(labels))
    return Probe(100 * part, (100 * low, 100 * high))


def features(model: Model, loader: Loader) -> Tensor:
    """(N, C) on the processor: what the classifier is given of each image, in the loader's order."""
    model.eval()
    with torch.no_grad():
        return torch.cat([pooled(model, batch.images).float().cpu() for batch in loader.epoch()])


# --- the two probes ---------------------------------------------------------------------------------------------------


def linear_probe(known: Tensor, labels: Tensor, judged: Tensor, classes: int, *, seed: int) -> tuple[Tensor, float]:
    """The classes (M,) that logistic regression on (N, C) features gives (M, C) others, and the L2 penalty it was fitted with.

    Features are standardised as the known ones are. Of PENALTIES the one is taken whose fit to the other images has the least
    cross entropy on one in PART of them.
    """
    mean, std = known.double().mean(0), known.double().std(0, correction=0)
    known, judged = ((part.double() - mean) / torch.where(std > 0, std, 1.0) for part in (known, judged))
    order = torch.randperm(len(known), generator=generator(seed, "probe"))
    held, rest = order[: max(1, len(order) // PART)], order[max(1, len(order) // PART) :]
    weights = torch.zeros(classes, known.shape[1] + 1, dtype=torch.float64)
    losses: list[float] = []
    for penalty in PENALTIES:
        weights = fit_logistic(known[rest], labels[rest], weights, penalty)
        losses.append(F.cross_entropy(logits(known[held], weights), labels[held]).item())
    best = PENALTIES[losses.index(min(losses))]
    weights = fit_logistic(known, labels, torch.zeros_like(weights), best)
    return logits(judged, weights).argmax(1), best


def logits(x: Tensor, weights: Tensor) -> Tensor:
    """(N, C) and (classes, C + 1), the last column the bias → (N, classes)."""
    return F.linear(x, weights[:, :-1], weights[:, -1])


def fit_logistic(x: Tensor, labels: Tensor, start: Tensor, penalty: float) -> Tensor:
    """The weights (classes, C + 1) of least mean cross entropy plus penalty / 2 times the sum of squares, biases not counted.

    By L-BFGS from `start`, in float64.
    """
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=500, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(logits(x, weights), labels) + penalty / 2 * weights[:, :-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weights.detach()


def neighbours(known: Tensor, labels: Tensor, judged: Tensor, classes: int, *, k: int) -> Tensor:
    """The classes (M,) that the k nearest of (N, C) known features give (M, C) others: by cosine, nearer ones count more."""
    known, judged = F.normalize(known), F.normalize(judged)
    predicted = []
    for part in judged.split(max(1, AT_ONCE // len(known))):
        near, place = (part @ known.T).topk(k)
        votes = part.new_zeros(len(part), classes).scatter_add_(1, labels[place], (near / TEMPERATURE).exp())
        predicted.append(votes.argmax(1))
    return torch.cat(predicted)
