"""`report.html`: one self-contained page of a run. What it shows is gathered here; how it looks is in page.html."""

import csv
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from metaformer.config import Recipe
from metaformer.core.count import count
from metaformer.data.dataset import Data
from metaformer.infer.predictor import Predictor
from metaformer.lab import charts
from metaformer.lab.cam import class_activation
from metaformer.lab.charts import Series
from metaformer.lab.doctor import examine
from metaformer.lab.frame import template
from metaformer.lab.pictures import matrix, overlay, pictures, thumbnail
from metaformer.runs import SCORES, Run, score_of
from metaformer.tasks import metrics
from metaformer.tasks.classification import Evaluation

MISTAKES, HARD, MISSED, FOUND, LOOKED = 20, 4, 4, 2, 6
"""Pictures on the page: the surest mistakes; the hardest classes and of each those missed and found; activation maps."""

CELLS = 30
"""Up to so many classes the confusion matrix is a table with numbers, above it a picture."""

PAIRS, CURVES = 10, 10
"""The most confused pairs of classes, and the ROC curves that are drawn."""


Verdict = TypeVar("Verdict")


@dataclass(frozen=True)
class Judged(Generic[Verdict]):
    """A run with its verdict: all that the page is made from."""

    run: Run
    data: Data
    predictor: Predictor
    evaluation: Verdict
    summary: dict[str, Any]


def page(judged: Judged[Evaluation]) -> str:
    """The HTML text; the same run gives the same text on the same machine."""
    told = {
        "several": False,
        "right": int(judged.evaluation.right.sum()),
        "sureness": judged.evaluation.confidence.mean().item() - judged.evaluation.top1 / 100,
        "confusion": _confusion(judged.evaluation),
        "roc": _roc(judged),
        "calibration": _calibration(judged.evaluation),
        "mistakes": _mistakes(judged),
        "hard": _hard(judged),
        "looked": _looked(judged),
    }
    return render(judged, told)


def render(judged: Judged[Any], told: dict[str, Any]) -> str:
    """The page of any run, with what is `told` of its kind."""
    recipe, summary = judged.run.recipe, judged.summary
    return template("page.html", {"percent": percent, "number": number}).render(
        title=f"{recipe.model} on {Path(recipe.data).name or recipe.data}",
        recipe=recipe,
        run=judged.run.path,
        figures=summary,
        digits=2 if summary["images"] >= 2000 else 1,
        trained_on=day_of(judged.run),
        best=best_epoch(judged.run),
        facts=_facts(judged),
        curves=epoch_curves(judged.run),
        chosen_by=SCORES[score_of(summary)],
        table=_table(judged),
        settings=settings_of(recipe),
        versions={name: value for name, value in examine().items() if not name.startswith("[")},
        repeat=repeat_command(judged.run, recipe),
        python=_python(judged.run, recipe),
        shell=shlex.quote(str(judged.run.path)),
        place=str(judged.run.path),
        epochs=judged.run.epochs,
        **told,
    )


# --- words ------------------------------------------------------------------------------------------------------------


def percent(part: float | None, digits: int = 1) -> str:
    """0.123 → 12.3 %; a dash where there is none."""
    return "–" if part is None else f"{100 * part:.{digits}f}\u00a0%"


def number(value: float | None, digits: int = 3) -> str:
    """A figure with that many decimals; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def large(value: float) -> str:
    """1,578,970 → 1.58 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def duration(seconds: float) -> str:
    """75 → 1 min 15 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def day_of(run: Run) -> str | None:
    """The day on which the run's log begins."""
    log = run.path / "log.txt"
    found = re.match(r"\d{4}-\d\d-\d\d", log.read_text()) if log.is_file() else None
    return found.group() if found else None


def best_epoch(run: Run) -> int | None:
    """The epoch whose weights were kept: the first with the highest score."""
    lines = run.metrics
    return max(lines, key=lambda line: line[score_of(line)])["epoch"] if lines else None


def settings_of(recipe: Recipe) -> list[tuple[str, str]]:
    """Every setting that is not empty, as text."""
    return [(key, "none" if value is None else str(value)) for key, value in recipe.to_dict().items() if value != {}]


def repeat_command(run: Run, recipe: Recipe) -> str | None:
    """The command; None where the model is code of the user's own, which no command can bring back."""
    return None if recipe.model == "custom" else f"metaformer train {shlex.quote(str(run.path / 'recipe.json'))}"


def _python(run: Run, recipe: Recipe) -> str:
    """The lines that classify an image."""
    own = ", model=model" if recipe.model == "custom" else ""
    opened = f"predictor = metaformer.Predictor({json.dumps(str(run.path), ensure_ascii=False)}{own})"
    return "\n".join(["import metaformer", opened, 'answer, = predictor(["image.jpg"])', "print(answer.label, answer.top)"])


def _facts(judged: Judged[Any]) -> dict[str, list[tuple[str, str]]]:
    """What was trained, on what, how."""
    recipe, data, lines = judged.run.recipe, judged.data, judged.run.metrics
    pre, net = judged.predictor.preprocess, judged.predictor.model
    assert net is not None  # a run's model is in torch
    changes = ", ".join(f"{key}={value}" for key, value in recipe.changes.items())
    support = _learnt(data)
    least, most = int(support.min()), int(support.max())
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    seconds = sum(line["seconds"] for line in lines)
    speed = sum(line["images_per_second"] * line["seconds"] for line in lines) / seconds if seconds else 0.0
    model = [
        ("Model", recipe.model + (f" with {changes}" if changes else "")),
        *_cost(net, pre.size),
        ("Trained", f"{len(lines)} epochs of {judged.run.epochs}, {recipe.batch} images a step"),
        ("Time", f"{duration(seconds)}, {speed:,.0f} images/s"),
    ]
    shown = [
        ("Data", recipe.data),
        ("Images", f"{len(data.train):,} to learn from, {len(data.val):,} held out"),
        ("Classes", f"{len(data.classes)}, with {each} images each to learn from"),
        ("Unreadable", unreadable_in(judged.run)),
        ("Fed as", f"{pre.size} × {pre.size} pixels, {'grey' if data.channels == 1 else 'colour'}, fit={pre.fit}"),
        ("Normalised by", f"mean {_row(pre.mean)}, standard deviation {_row(pre.std)}"),
    ]
    return {"Model": model, "Data": shown}


def _learnt(data: Data) -> Tensor:
    """(classes,): images to learn from."""
    labels = data.train.labels
    return labels.long().sum(0) if data.multi else labels.bincount(minlength=len(data.classes))


def _cost(model: nn.Module, size: int) -> list[tuple[str, str]]:
    """Parameters and multiply-accumulates."""
    parameters = list(model.parameters())
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    try:
        cost = f"{large(count(model, size).macs)} multiply-accumulates"
    except RuntimeError:  # code of the user's own whose shapes depend on values
        cost = "cannot be counted"
    total = large(sum(p.numel() for p in parameters))
    return [("Parameters", total + (f", {large(frozen)} of them frozen" if frozen else "")), ("Cost per image", cost)]


def _row(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def unreadable_in(run: Run) -> str:
    """How many images were left out, in words."""
    file = run.path / "bad_images.csv"
    if not file.is_file():
        return "none"
    with file.open(newline="") as rows:
        return f"{sum(1 for _ in csv.DictReader(rows)):,} left out, listed in bad_images.csv"


# --- charts and tables ------------------------------------------------------------------------------------------------


def epoch_curves(run: Run) -> list[tuple[str, str, list[Series]]]:
    """Title, drawing and legend of each chart."""

    def line(key: str, name: str, colour: int) -> Series:
        return Series(name, [(record["epoch"], record[key]) for record in run.metrics], colour)

    best = best_epoch(run)
    if best is None:
        return []
    loss = [line("train_loss", "training, augmented", 1)]
    if "val_loss" in run.metrics[0]:  # a detector has none
        loss.append(line("val_loss", "held out", 0))
    key = score_of(run.metrics[0])
    score = SCORES[key].replace("top", "Top")
    rows = [("Loss", loss), (f"{score}, %", [line(key, "held out", 0)]), ("Learning rate", [line("lr", "last step", 7)])]
    return [(title, charts.by_epoch(series, best, title), series) for title, series in rows]


def _confusion(evaluation: Evaluation) -> dict[str, Any]:
    """Rows of cells, or a picture of them for many classes; and the most confused pairs."""
    counts, names = evaluation.confusion(), evaluation.classes
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    wrong = counts.clone().fill_diagonal_(0).flatten()
    order = wrong.argsort(descending=True, stable=True)[:PAIRS].tolist()
    pairs = [divmod(place, len(names)) for place in order if wrong[place]]
    small = len(names) <= CELLS
    return {
        "rows": list(zip(names, counts.tolist(), shares.double().tolist(), strict=True)) if small else None,
        "long": max(map(len, names)) > 3,
        "picture": None if small else matrix(shares),
        "pairs": [(names[i], names[j], int(counts[i, j]), shares[i, j].item()) for i, j in pairs],
    }


def _table(judged: Judged[Any]) -> list[dict[str, Any]]:
    learnt = _learnt(judged.data).tolist()
    rows = judged.summary["per_class"].items()
    return [{"name": name, "learnt": seen, **figures} for (name, figures), seen in zip(rows, learnt, strict=True)]


def _roc(judged: Judged[Evaluation]) -> dict[str, Any]:
    """Both drawings and their legend: all curves of up to ten classes, else the ten lowest."""
    evaluation = judged.evaluation
    known = [(row["auc"], place) for place, row in enumerate(judged.summary["per_class"].values()) if row["auc"] is not None]
    if len(evaluation.classes) == 2:
        known = known[1:]  # the other one is its mirror image
    lowest = sorted(known)[:CURVES]
    lines = []
    for colour, (area, place) in enumerate(sorted(lowest, key=lambda pair: pair[1])):
        curve = metrics.roc(evaluation.probabilities[:, place], evaluation.labels == place)
        if curve is not None:
            points = list(zip(curve[0].tolist(), curve[1].tolist(), strict=True))
            lines.append(Series(f"{evaluation.classes[place]} · {area:.4f}", points, colour))
    whole, left = (charts.roc(lines), charts.roc_left(lines)) if lines else ("", "")
    return {"lines": lines, "whole": whole, "left": left, "some": len(known) > CURVES}


def _calibration(evaluation: Evaluation) -> dict[str, Any]:
    bins = metrics.reliability(evaluation.confidence, evaluation.right)
    return {"diagram": charts.reliability(bins), "sureness": charts.sureness(bins)}


# --- pictures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tile:
    """A held-out image with what it was called and what it is."""

    source: str
    title: str
    called: str
    sure: float
    truth: str
    right: bool
    tiny: bool
    """Whether its pixels are to be shown as squares."""


def _tiles(judged: Judged[Evaluation], index: Tensor) -> list[Tile]:
    evaluation, split = judged.evaluation, judged.data.val
    names = evaluation.classes
    return [
        Tile(
            source=thumbnail(pixels),
            title=split.name(i),
            called=names[int(evaluation.predicted[i])],
            sure=evaluation.confidence[i].item(),
            truth=names[int(evaluation.labels[i])],
            right=bool(evaluation.right[i]),
            tiny=max(pixels.shape[1:]) < 96,
        )
        for i, pixels in zip(index.tolist(), pictures(split, index.tolist()), strict=True)
    ]


def _surest(evaluation: Evaluation, among: Tensor) -> Tensor:
    """The images of a mask (N,), the surest answers first."""
    index = among.nonzero().flatten()
    return index[evaluation.confidence[index].argsort(descending=True, stable=True)]


def _mistakes(judged: Judged[Evaluation]) -> list[Tile]:
    return _tiles(judged, _surest(judged.evaluation, ~judged.evaluation.right)[:MISTAKES])


def _hard(judged: Judged[Evaluation]) -> list[dict[str, Any]]:
    """The classes that are found least often, with images that were missed and that were found."""
    evaluation, rows = judged.evaluation, list(judged.summary["per_class"].items())
    known = [place for place, (_, row) in enumerate(rows) if row["recall"] is not None and row["recall"] < 1]
    hardest = sorted(known, key=lambda place: rows[place][1]["recall"])[:HARD]
    found = []
    for place in hardest:
        own = evaluation.labels == place
        missed = _tiles(judged, _surest(evaluation, own & ~evaluation.right)[:MISSED])
        right = _tiles(judged, _surest(evaluation, own & evaluation.right)[:FOUND])
        found.append({"name": rows[place][0], "recall": rows[place][1]["recall"],
                      "support": rows[place][1]["support"], "tiles": missed + right})  # fmt: skip
    return found


def _looked(judged: Judged[Evaluation]) -> dict[str, Any]:
    """Activation maps of right answers and of the surest mistakes, for two classes each; or why there are none."""
    evaluation, predictor = judged.evaluation, judged.predictor
    wrong = _surest(evaluation, ~evaluation.right)[: LOOKED // 2]
    right = evaluation.right.nonzero().flatten()
    spread = torch.linspace(0, max(0, len(right) - 1), min(len(right), LOOKED - len(wrong))).long()
    index = torch.cat([right[spread], wrong])
    shown: list[tuple[Tile, list[tuple[str, str]]]] = []
    grid = ""
    for tile, i, pixels in zip(_tiles(judged, index), index.tolist(), pictures(judged.data.val, index.tolist()), strict=True):
        assert predictor.model is not None
        device = next(predictor.model.parameters()).device
        fed = predictor.preprocess.fitted(pixels[None])
        first, second = evaluation.logits[i].topk(2).indices
        asked = torch.stack([first, second if tile.right else evaluation.labels[i]])
        try:
            images = predictor.preprocess.normalise(fed.to(device)).expand(len(asked), -1, -1, -1)
            heat = class_activation(predictor.model, images, asked)
        except (ValueError, RuntimeError) as error:  # no map, or code of the user's own that has no gradient
            return {"tiles": [], "why": str(error).partition("\n")[0].rstrip("."), "grid": ""}
        grid = f"{heat.shape[1]} × {heat.shape[2]}"
        maps = [(evaluation.classes[int(name)], overlay(fed[0], one)) for name, one in zip(asked, heat, strict=True)]
        shown.append((tile, maps))
    return {"tiles": shown, "why": None, "grid": grid}
