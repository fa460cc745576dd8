"""Tables for people: the models, the recipes, the settings, the runs."""

import ast
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from metaformer.config import CHOICES, KEYS, LIMITS, Recipe, check_key
from metaformer.core.count import count
from metaformer.core.model import MetaFormer
from metaformer.data.find import printable
from metaformer.dense.config import get_dense_config
from metaformer.dense.make import make_dense
from metaformer.recipes import ROWS, SMALL, Row, no_recipe
from metaformer.runs import FILES, SCORES, is_run, open_run, score_of
from metaformer.weights.catalogue import Published, list_weights
from metaformer.weights.verify import Verified
from metaformer.zoo import DENSE_SCORES, TOP1, ZOO, list_models

if TYPE_CHECKING:
    from metaformer.export.export import Exported
    from metaformer.infer.quantize import Quantized
    from metaformer.lab.compare import Comparison
    from metaformer.lab.trials import Search

Rows = list[tuple[str, ...]]
"""Texts by row and column; the first row says what the columns are."""


def columns(rows: Rows, right: tuple[int, ...] = ()) -> str:
    """Aligned columns for a screen, those in `right` to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    sides = [str.rjust if i in right else str.ljust for i in range(len(widths))]
    aligned = ([side(text, width) for side, text, width in zip(sides, row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in aligned)


def markdown(rows: Rows) -> str:
    """The table for a document: the first column is code, the others are numbers."""
    lines = [f"| {' | '.join(rows[0])} |", "|---|" + "---:|" * (len(rows[0]) - 1)]
    return "\n".join([*lines, *(f"| `{row[0]}` | {' | '.join(row[1:])} |" for row in rows[1:])])


def model_table(pattern: str = "*") -> Rows:
    """Name, parameters, multiply-accumulates, published top-1. Raises ValueError if nothing matches."""
    names = list_models(pattern)
    if not names:
        raise ValueError(f"no model matches {pattern!r}; metaformer models lists all")
    if "/" in pattern:
        return _dense_table(names)
    rows: Rows = [("model", "parameters", "MACs", "at", "published top-1 (at 384)")]
    for name in names:
        size = 32 if name.endswith("_t6") else 224
        with torch.device("meta"):
            cost = count(MetaFormer(ZOO[name]), size)
        top1, large = TOP1.get(name, (None, None))
        published = "–" if top1 is None else f"{top1:.1f}" + (f" ({large:.1f})" if large else "")
        rows.append((name, f"{cost.parameters / 1e6:.1f} M", f"{cost.macs / 1e9:.2f} G", str(size), published))
    return rows


def _dense_table(names: list[str]) -> Rows:
    """The same of detectors, for 80 classes at 800×1280, and of segmenters, for 150 at 512; published AP or mIoU."""
    rows: Rows = [("model", "parameters", "MACs", "at", "published AP (of masks) or mIoU")]
    for name in names:
        usual = get_dense_config(name, num_classes=80)
        regions = usual.task == "segmentation"
        height, width = (512, 512) if regions else (800, 1280)
        with torch.device("meta"):
            cost = count(make_dense(replace(usual, num_classes=150) if regions else usual), (height, width))
        score, *masks = DENSE_SCORES.get(name, (None,))
        published = "–" if score is None else f"{score:.1f}" + "".join(f" ({mask:.1f})" for mask in masks)
        rows.append((name, f"{cost.parameters / 1e6:.2f} M", f"{cost.macs / 1e9:.1f} G", f"{height}×{width}", published))
    return rows


def settings_table(pattern: str = "*") -> Rows:
    """The keys of a recipe with their defaults, what they may be, and what they are for; those that match.

    Raises ValueError where none does.
    """
    purpose = _purposes()
    rows: Rows = [
        ("setting", "default", ""), ("name", "", "of the run's directory"), ("root", "runs", "where they go"),
        ("devices", "1", "processes of this machine that train together; no part of the recipe, see docs/many.md"),
    ]  # fmt: skip
    for key in KEYS:
        low, high = LIMITS.get(key, (None, None))
        limits = "" if low is None else f" At least {low}." if high == float("inf") else f" {low} to {high}."
        choices = f" {', '.join(CHOICES[key])}." if key in CHOICES and CHOICES[key][0] not in purpose.get(key, "") else ""
        default = getattr(SMALL, key)
        rows.append((key, "none" if default is None else str(default).lower(), purpose.get(key, "") + choices + limits))
    rows.append(
        ("model.<field>", "", "any field of the model's config: model.norm='BatchNorm()' model.mixers='Pooling(window=5)'")
    )
    found = [rows[0], *(row for row in rows[1:] if fnmatchcase(row[0], "model.<field>" if "." in pattern else pattern))]
    if len(found) == 1:
        check_key(pattern, ("name", "root", "devices"))
    return [(name, default, text.strip()) for name, default, text in found]


def _purposes() -> dict[str, str]:
    """What stands under each field of Recipe."""
    body = ast.parse(inspect.getsource(Recipe)).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for before, node in zip(body.body, body.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(node, ast.Expr):
            found[before.target.id] = str(ast.literal_eval(node.value)).replace("`", "")
    return found


def recipes_text(pattern: str = "*") -> str:
    """A line for each recipe that matches; of one named in full, every setting. Raises ValueError if none matches."""
    if pattern in ROWS:
        return columns(recipe_column(pattern))
    return columns(recipe_table(pattern), right=tuple(range(2, 11)))


def recipe_table(pattern: str = "*") -> Rows:
    """A row for each recipe, as the papers' tables have them."""
    names = [name for name in ROWS if fnmatchcase(name, pattern)]
    if not names:
        raise no_recipe(pattern)
    head = ("recipe", "optimizer", "lr", "batch", "epochs", "warm-up", "drop path", "dropout", "EMA", "pixels", _reached(names))
    rows: Rows = [(*head, "starts from", "source")]
    for name in names:
        row, recipe = ROWS[name], ROWS[name].recipe
        keys = ("optimizer", "lr", "batch", "epochs", "warmup_epochs", "drop_path", "head_dropout", "ema", "image_size")
        shown = (_shown(recipe, key).replace("none", "–") for key in keys)
        rows.append((name, *shown, _expected(row), recipe.weights or "–", row.source))
    return rows


def recipe_column(name: str) -> Rows:
    """Every setting of a recipe, what it is to reach and where it is from."""
    row = ROWS[name]
    settings = [(key, _shown(row.recipe, key)) for key in ("model", *KEYS) if key not in NO_PART]
    return [("setting", name), *settings, (f"expected {_reached([row.recipe.model])}", _expected(row)), ("source", row.source)]


def _reached(names: Iterable[str]) -> str:
    """What the figures of recipes, or models, of these names are."""
    kinds = {"AP, mIoU" if "/" in name else "top-1" for name in names}
    return " or ".join(sorted(kinds, reverse=True))


def _expected(row: Row) -> str:
    return "–" if row.expected is None else f"{row.expected:.1f}"


NO_PART = (
    "recipe", "device", "precision", "compile", "workers", "accumulate", "seed", "smoke", "deterministic", "nonfinite",
    "patience", "hours", "keep", "log",
)  # fmt: skip
"""Settings that recipes leave to the user and the machine."""


def _shown(recipe: Recipe, key: str) -> str:
    value = getattr(recipe, key)
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def run_table(root: str | Path = "runs") -> Rows:
    """The runs under a folder: model, data, epochs done, best top-1. Raises FileNotFoundError if there is none."""
    folders = sorted(folder for folder in Path(root).glob("*") if is_run(folder))
    if not folders:
        raise FileNotFoundError(f"{root} holds no run; metaformer train makes one")
    rows: Rows = [("run", "model", "data", "epochs", "best top-1")]
    for folder in folders:
        run = open_run(folder)
        try:
            recipe, metrics, epochs = run.recipe, run.metrics, run.epochs
        except ValueError as error:
            rows.append((str(folder), "–", str(error), "–", "–"))
            continue
        best = _best(metrics) if metrics else "–"
        rows.append((str(folder), recipe.model, recipe.data, f"{len(metrics)}/{epochs}", best))
    return rows


def folder_text(folder: Path) -> str:
    """What there is in a run's directory, and what can be done with it."""
    lines = [f"  {name:18s} {what}" for name, what in FILES.items() if (folder / name).exists()]
    return "\n".join(["", f"Everything is in {folder}:", *lines, f"Next: metaformer predict {folder} IMAGE..."])


def _best(metrics: list[dict[str, Any]]) -> str:
    key = score_of(metrics[0])
    return f"{'' if key == 'top1' else f'{SCORES[key]} '}{max(line[key] for line in metrics):.2f} %"


def compared_text(found: "Comparison") -> str:
    """The settings that differ, and the figures, a column for each run."""
    names = [str(path) for path in found.paths]
    settings: Rows = [("setting", *names)]
    for key, values in found.settings.items():
        settings.append((key, *("none" if value is None else str(value) for value in values)))
    figures: Rows = [("figure", *names)]
    for key, figure in found.figures.items():
        figures.append((key, *("–" if value is None else f"{value:.5g}" for value in figure)))
    shown = columns(settings) if found.settings else "the recipes are the same"
    return f"{shown}\n\n{columns(figures, right=tuple(range(1, len(names) + 1)))}"


def tuned_text(found: "Search", most: int = 10) -> str:
    """The best trials of a search, what became of the others, and how the best one is trained again."""
    order = ("finished", "pruned", "stopped", "failed")
    trials = sorted(found.trials, key=lambda trial: (order.index(trial.state), -(trial.score or 0.0)))
    keys = list(found.plan.space)
    rows: Rows = [("trial", "score", "epochs", *keys, "")]
    for trial in trials[:most]:
        best = "–" if trial.score is None else f"{trial.score:.2f} %"
        chosen = (trial.settings.get(key, "–") for key in keys)
        rows.append((f"{trial.number:03d}", best, str(trial.epochs), *chosen, trial.state))
    counts = ((state, sum(trial.state == state for trial in trials)) for state in order)
    lines = [columns(rows, right=(1, 2)), "", ", ".join(f"{count} {state}" for state, count in counts if count)]
    lines.append(f"{found.path / 'search.png'} shows them all; {found.path / 'trials'} holds their runs")
    if found.best is None:
        return "\n".join([*lines, "no trial has come to its end yet"])
    lines.append(
        f"the best is {found.best.path}: it was chosen by the very images that judge it, so its score is optimistic; "
        "only images that no trial saw tell how good it is"
    )
    return "\n".join([*lines, f"to train it again, or longer with more epochs=: {found.command}"])


def evaluation_text(figures: Mapping[str, Any]) -> str:
    """What an evaluation's `summary` says, for a screen; classes with the lowest F1 first."""
    if "map" in figures:
        return _several_text(figures)
    low, high = figures["top1_interval"]
    lines: Rows = [("top-1", f"{figures['top1']:.2f} %  ({low:.1f} to {high:.1f}) on {figures['images']:,} images")]
    lines += [("top-5", f"{figures['top5']:.2f} %")] if figures["top5"] is not None else []
    lines += [("loss", f"{figures['loss']:.4f}"), ("calibration", f"ECE {figures['ece']:.3f}, Brier {figures['brier']:.3f}")]
    lines += [("macro F1, AUC", f"{_digits(figures['macro_f1'])}, {_digits(figures['macro_auc'])}")]
    classes = sorted(figures["per_class"].items(), key=lambda item: item[1]["f1"] if item[1]["f1"] is not None else -1.0)
    table: Rows = [("class", "precision", "recall", "F1", "AUC", "images")]
    for name, row in classes:
        measured = (_digits(row[key]) for key in ("precision", "recall", "f1", "auc"))
        table.append((printable(name), *measured, f"{row['support']:,}"))
    return columns(lines) + "\n\n" + columns(table, right=(1, 2, 3, 4, 5))


def _several_text(figures: Mapping[str, Any]) -> str:
    """Of images with several labels; classes with the lowest average precision first."""
    lines: Rows = [
        ("mAP", f"{figures['map']:.2f} % on {figures['images']:,} images of {figures['labels_per_image']:.2f} labels"),
        ("micro, macro F1", f"{_digits(figures['micro_f1'])}, {_digits(figures['macro_f1'])} at a threshold of 0.5"),
        ("all labels right", f"{100 * figures['exact']:.2f} % of the images"),
        ("macro AUC", _digits(figures["macro_auc"])),
        ("loss", f"{figures['loss']:.4f}"),
    ]
    classes = sorted(figures["per_class"].items(), key=lambda item: item[1]["ap"] if item[1]["ap"] is not None else -1.0)
    table: Rows = [("class", "AP", "precision", "recall", "F1", "AUC", "images")]
    for name, row in classes:
        measured = (_digits(row[key]) for key in ("ap", "precision", "recall", "f1", "auc"))
        table.append((printable(name), *measured, f"{row['support']:,}"))
    return columns(lines) + "\n\n" + columns(table, right=(1, 2, 3, 4, 5, 6))


def quantized_text(done: "Quantized") -> str:
    """What `quantize` measured, for a screen."""
    found = done.accuracy
    low, high = found.drop_interval
    layers = f"{len(done.layers)} of {len(done.layers) + len(done.kept)} linear layers"
    lines: Rows = [("file", f"{done.file}, {done.bytes / 1e6:.1f} MB with its .bin"), ("8 bits", layers)]
    lines += [("kept as was", name) for name in done.kept]
    judged = {"top-1": (found.top1, found.top1_interval), "before": (found.fp32_top1, found.fp32_interval)}
    for name, (top1, (least, most)) in judged.items():
        lines.append((name, f"{top1:.2f} %  ({least:.1f} to {most:.1f}) on {found.images:,} images of {found.data}"))
    lines.append(("lost", f"{found.drop:.2f} points  ({low:.2f} to {high:.2f})"))
    return columns(lines)


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def weights_table(pattern: str = "*") -> Rows:
    """Published weights whose model or `model.tag` matches a glob, a row for each set. Raises ValueError if none does."""
    sets: dict[str, list[Published]] = {}
    for row in list_weights(pattern):
        sets.setdefault(row.name, []).append(row)
    lines: Rows = [("model", "weights", "pixels", "classes", "top-1", "licence", "formats", "first of them is")]
    for rows in sets.values():
        row = rows[0]
        top1 = "–" if row.top1 is None else f"{row.top1:.1f}"
        formats, where = ", ".join(same.format for same in rows), f"{row.where}/{row.file}" if row.on_hub else row.file
        lines.append((row.model, row.tag, str(row.size), f"{row.num_classes:,}", top1, row.licence, formats, where))
    return lines


def exported_table(done: "Exported") -> Rows:
    """What an exported file was compared on, and how far off it is."""
    if done.bounds:
        dense: Rows = [("compared", "difference")]
        for what, bound in done.bounds.items():
            dense += [(name, f"{value:.1e}") for name, value in done.differences.items() if name.startswith(f"{what}, ")]
            dense.append(("    allowed", f"{bound:.1e}"))
        return dense
    rows: Rows = [("compared on", f"greatest difference / {'greatest probability' if done.probabilities else 'mean logit'}")]
    rows += [(name, f"{value:.1e}") for name, value in done.differences.items()]
    return [*rows, ("allowed", f"{done.bound:.1e}")]


def verified_table(found: Verified) -> Rows:
    """What `verify` found, a row for each thing."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.dtypes.items())
    spoilt = "none" if not (found.nan or found.inf) else f"{found.nan:,} NaN, {found.inf:,} infinite"
    return [
        ("format", (found.format or "none that is known") + (f" ({found.part})" if found.part else "")),
        ("model", " or ".join(found.models) or "none that is published"),
        ("weights", found.tag or "not called as published ones are"),
        ("classes", "–" if found.num_classes is None else f"{found.num_classes:,}"),
        ("values", f"{found.parameters:,} in {sum(found.dtypes.values())} tensors ({kinds})"),
        ("spoilt", spoilt),
        *(("sha256", f"{digest}  {name}") for name, digest in found.sha256.items()),
    ]
