"""The figures of `judge`, JSON-ready, each with its 95 % bootstrap interval over images; None is what is undefined."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from metaformer.data.corrupt import CORRUPTIONS, SEVERITIES
from metaformer.infer.ways import Answers
from metaformer.tasks import metrics, selective
from metaformer.tasks.bootstrap import Bootstrap, Drawn, around, interval
from metaformer.tasks.classification import Evaluation
from metaformer.tasks.paired import mcnemar

COMPARED = ("top1", "top5", "loss", "brier", "ece", "macro_f1", "macro_auc", "aurc", "eaurc")
"""Figures of which two models' difference is told."""
POINTS = 100
"""Of a risk-coverage curve that are drawn."""


def figures(evaluation: Evaluation, drawn: Drawn, boot: Bootstrap) -> dict[str, Any]:
    """`Evaluation.summary`, what `selective` says, and under `intervals` the interval of each figure by its name."""
    told = evaluation.summary()
    curve = selective.risk_coverage(evaluation.confidence, evaluation.right)
    told |= dict(zip(selective.NAMES, selective.figures(curve).tolist(), strict=True))
    intervals: dict[str, Any] = {name: interval(values) for name, values in drawn.items() if values.ndim == 1}
    intervals["ece"] = around(told["ece"], drawn["ece"])
    per_class = [name for name, values in drawn.items() if values.ndim == 2]
    intervals["per_class"] = {
        label: {name: interval(drawn[name][:, place]) for name in per_class} for place, label in enumerate(evaluation.classes)
    }
    told["intervals"] = intervals
    steps = torch.linspace(1, len(curve), min(POINTS, len(curve)), dtype=torch.float64).round().long()
    told["risk_coverage"] = [(k / len(curve), curve[k - 1].item()) for k in steps.tolist()]
    told["reliability"] = [asdict(b) for b in metrics.reliability(evaluation.confidence, evaluation.right)]
    if told["temperature"] is not None:
        told["temperature"]["intervals"] = _temperature(evaluation, told["temperature"]["temperature"], boot)
    return told


def _temperature(evaluation: Evaluation, temperature: float | None, boot: Bootstrap) -> dict[str, Any]:
    """Intervals over the half of the images that the temperature has not seen; what was fitted stays as it is."""
    _, unseen = metrics.halves(len(evaluation.labels))
    logits, labels = evaluation.logits[unseen].double(), evaluation.labels[unseen]
    half = Bootstrap(len(unseen), boot.times, boot.seed)
    found: dict[str, Any] = {}
    for when, scale in (("before", 1.0), ("after", temperature)):
        if scale is not None:
            answers = Answers.of(logits / scale, labels)
            found[f"nll_{when}"] = interval(half.means(answers.loss[:, None])[:, 0])
            found[f"ece_{when}"] = _ece(answers, half)[1]
    return found


Told = tuple[Evaluation, dict[str, Any], Drawn]
"""A model's answers, its `figures`, and what was drawn of them."""


def difference(first: Told, second: Told) -> dict[str, Any]:
    """McNemar's exact test, and of each of `figures` the second's minus the first's: both drawn on the same resamples."""
    differences = {}
    for name in COMPARED:
        one, other = first[1][name], second[1][name]
        if one is not None and other is not None:
            drawn = interval(second[2][name] - first[2][name]) if name in first[2] else None
            differences[name] = {"value": other - one, "interval": drawn}
    return {"mcnemar": asdict(mcnemar(first[0].right, second[0].right)), "differences": differences}


def of_groups(evaluation: Evaluation, groups: Mapping[str, list[int]], boot: Bootstrap) -> dict[str, Any]:
    """Of each group of images the figures of `_few`; and which group has the lowest top-1 (Sagawa et al. 2020, arXiv
    1911.08731)."""
    answers = Answers.of(evaluation.logits, evaluation.labels)
    each = {name: _few(_taken(answers, torch.tensor(own)), boot) for name, own in sorted(groups.items())}
    inside = {place for own in groups.values() for place in own}
    worst = min(each, key=lambda name: each[name]["top1"]) if each else None
    return {"each": each, "worst": worst, "without": len(evaluation.labels) - len(inside)}


def of_real(evaluation: Evaluation, real: list[tuple[int, ...]], boot: Bootstrap) -> dict[str, Any]:
    """Top-1 where any of an image's labels is right and images without any are left out (arXiv 2006.07159)."""
    called = evaluation.predicted.tolist()
    hits = [answer in labels for answer, labels in zip(called, real, strict=True) if labels]
    if not hits:
        raise ValueError("no image that judges has a label of ReaL's")
    values = 100 * torch.tensor(hits).double()
    band = interval(Bootstrap(len(hits), boot.times, boot.seed).means(values[:, None])[:, 0])
    return {"top1": values.mean().item(), "interval": band, "images": len(hits), "left_out": len(real) - len(hits)}


def shown(answers: Mapping[str, Answers], boot: Bootstrap) -> dict[str, Any]:
    """The figures of answers to images shown in several ways; beside the plain way, the gain in top-1 on the same resamples."""
    plain = 100 * answers["plain"].right.double()
    told = {}
    for name, own in answers.items():
        gain = (100 * own.right.double() - plain)[:, None]
        told[name] = _few(own, boot) | {"gain": gain.mean().item(), "gain_interval": interval(boot.means(gain)[:, 0])}
    return told


def _few(answers: Answers, boot: Bootstrap) -> dict[str, Any]:
    """Top-1 in percent, loss and ECE, each with its interval, and of how many images."""
    count = len(answers.right)
    own = Bootstrap(count, boot.times, boot.seed)
    right, loss = own.means(torch.stack([100 * answers.right.double(), answers.loss], 1)).unbind(1)
    ece, band = _ece(answers, own)
    return {
        "images": count,
        "top1": 100 * answers.right.double().mean().item(),
        "loss": answers.loss.mean().item(),
        "ece": ece,
        "intervals": {"top1": interval(right), "loss": interval(loss), "ece": band},
    }


def _ece(answers: Answers, boot: Bootstrap) -> tuple[float, tuple[float, float]]:
    value = metrics.ece(answers.confidence, answers.right)
    return value, around(value, boot.eces(answers.confidence[:, None], answers.right[:, None])[:, 0])


def _taken(answers: Answers, keep: Tensor) -> Answers:
    return Answers(answers.right[keep], answers.confidence[keep], answers.loss[keep])


def corrupted(
    plain: Answers, worse: Mapping[str, Answers], baseline: Mapping[str, Answers] | None, boot: Bootstrap
) -> dict[str, Any]:
    """Errors in percent of images made worse: of each corruption at each severity, their means, and all of it in short.

    With the answers of a `baseline`, mCE and relative mCE in percent of its errors (Hendrycks and Dietterich 2019, section
    4.2, where the baseline is AlexNet). ECE under corruption is the mean over corruptions and severities (Ovadia et al. 2019).
    """
    names = [name for name in CORRUPTIONS if f"{name} 1" in worse]
    keys = [f"{name} {severity}" for name in names for severity in SEVERITIES]
    wrong = torch.stack([100 * (~worse[key].right).double() for key in keys] + [100 * (~plain.right).double()], 1)
    errors, drawn = wrong.mean(0), boot.means(wrong)
    eces = torch.tensor([metrics.ece(worse[key].confidence, worse[key].right) for key in keys])
    spread = boot.eces(*(torch.stack([getattr(worse[key], what) for key in keys], 1) for what in ("confidence", "right")))
    each = {}
    for place, name in enumerate(names):
        own = slice(len(SEVERITIES) * place, len(SEVERITIES) * (place + 1))
        each[name] = {
            "kind": CORRUPTIONS[name].kind,
            "errors": errors[own].tolist(),
            "intervals": [interval(drawn[:, k]) for k in range(own.start, own.stop)],
            "mean": errors[own].mean().item(),
            "mean_interval": interval(drawn[:, own].mean(1)),
        }
    told: dict[str, Any] = {
        "each": each,
        "clean_error": {"value": errors[-1].item(), "interval": interval(drawn[:, -1])},
        "mean_error": {"value": errors[:-1].mean().item(), "interval": interval(drawn[:, :-1].mean(1))},
        "ece": {"value": eces.mean().item(), "interval": around(eces.mean().item(), spread.mean(1))},
    }
    if baseline is not None:
        other = torch.stack([100 * (~baseline[key].right).double() for key in [*keys, "plain"]], 1)
        ours, theirs = (errors[None], drawn), (other.mean(0)[None], boot.means(other))
        for key, ratio in (("mce", _mce), ("relative_mce", _relative_mce)):
            value = ratio(ours[0], theirs[0]).item()
            band = interval(ratio(ours[1], theirs[1]))
            told[key] = {"value": value, "interval": band} if torch.tensor(value).isfinite() else None
    return told


def _mce(errors: Tensor, baseline: Tensor) -> Tensor:
    """(...,): the mean over corruptions of Σ errors / Σ the baseline's, sums over severities, in percent."""
    ours, theirs = (e[:, :-1].unflatten(1, (-1, len(SEVERITIES))).sum(2) for e in (errors, baseline))
    return 100 * (ours / theirs).mean(1)


def _relative_mce(errors: Tensor, baseline: Tensor) -> Tensor:
    """The same of what errors are above those of images as they are; NaN where the baseline's do not rise."""
    ours, theirs = ((e[:, :-1].unflatten(1, (-1, len(SEVERITIES))) - e[:, -1, None, None]).sum(2) for e in (errors, baseline))
    return 100 * torch.where(theirs > 0, ours / theirs, torch.nan).mean(1)
