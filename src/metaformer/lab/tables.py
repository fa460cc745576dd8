"""Tables for people: the models, the recipes, the settings, the runs."""

import ast
import inspect
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from metaformer.config import CHOICES, KEYS, LIMITS, Recipe
from metaformer.core.count import count
from metaformer.core.model import MetaFormer
from metaformer.recipes import RECIPES, SMALL
from metaformer.runs import is_run, open_run
from metaformer.zoo import TOP1, ZOO, list_models


def model_table(pattern: str = "*") -> str:
    """Markdown: name, parameters, multiply-accumulates, published top-1. Raises ValueError if nothing matches."""
    names = list_models(pattern)
    if not names:
        raise ValueError(f"no model matches {pattern!r}; metaformer models lists all")
    rows = ["| model | parameters | MACs | at | published top-1 (at 384) |", "|---|---:|---:|---:|---:|"]
    for name in names:
        size = 32 if name.endswith("_t6") else 224
        with torch.device("meta"):
            cost = count(MetaFormer(ZOO[name]), size)
        top1, large = TOP1.get(name, (None, None))
        published = "–" if top1 is None else f"{top1:.1f}" + (f" ({large:.1f})" if large else "")
        rows.append(f"| `{name}` | {cost.parameters / 1e6:.1f} M | {cost.macs / 1e9:.2f} G | {size} | {published} |")
    return "\n".join(rows)


def settings_table() -> str:
    """The keys of a recipe with their defaults, what they may be, and what they are for."""
    purpose = _purposes()
    rows = [("name", "", "of the run's directory"), ("root", "runs", "where run directories go")]
    for key in KEYS:
        low, high = LIMITS.get(key, (None, None))
        limits = "" if low is None else f" At least {low}." if high == float("inf") else f" {low} to {high}."
        choices = f" {', '.join(CHOICES[key])}." if key in CHOICES and CHOICES[key][0] not in purpose.get(key, "") else ""
        default = getattr(SMALL, key)
        rows.append((key, "none" if default is None else str(default).lower(), purpose.get(key, "") + choices + limits))
    rows.append(
        ("model.<field>", "", "any field of the model's config: model.norm='BatchNorm()' model.mixers='Pooling(window=5)'")
    )
    return "\n".join(f"{name:16s} {default:8s} {text.strip()}" for name, default, text in rows)


def _purposes() -> dict[str, str]:
    """What stands under each field of Recipe."""
    body = ast.parse(inspect.getsource(Recipe)).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for before, node in zip(body.body, body.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(node, ast.Expr):
            found[before.target.id] = str(ast.literal_eval(node.value)).replace("`", "")
    return found


def recipe_table(pattern: str = "*") -> str:
    """Every recipe's settings that differ from the first's. Raises ValueError if nothing matches."""
    names = [name for name in RECIPES if fnmatchcase(name, pattern)]
    if not names:
        raise ValueError(f"no recipe matches {pattern!r}; there are {', '.join(RECIPES)}")
    lines = []
    for name in names:
        recipe = RECIPES[name]
        shown = [key for key in KEYS if recipe is SMALL or getattr(recipe, key) != getattr(SMALL, key)]
        lines.append(f"{name}: " + " ".join(f"{key}={getattr(recipe, key)}" for key in shown).replace("None", "none"))
    return "\n".join(lines)


def run_table(root: str | Path = "runs") -> str:
    """The runs under a folder: model, data, epochs done, best top-1. Raises FileNotFoundError if there is none."""
    folders = sorted(folder for folder in Path(root).glob("*") if is_run(folder))
    if not folders:
        raise FileNotFoundError(f"{root} holds no run; metaformer train makes one")
    rows = [("run", "model", "data", "epochs", "best top-1")]
    for folder in folders:
        run = open_run(folder)
        recipe, metrics = run.recipe, run.metrics
        best = f"{max(line['top1'] for line in metrics):.2f} %" if metrics else "–"
        rows.append((str(folder), recipe.model, recipe.data, f"{len(metrics)}/{recipe.epochs}", best))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
