"""Tables for people: the models, the settings."""

import torch

from metaformer.config import KEYS, LIMITS
from metaformer.core.count import count
from metaformer.core.model import MetaFormer
from metaformer.recipes import SMALL
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
    """The keys of a recipe with their defaults and limits."""
    rows = []
    for key in KEYS:
        low, high = LIMITS.get(key, (None, None))
        limits = "" if low is None else f"at least {low}" if high == float("inf") else f"{low} to {high}"
        rows.append(f"{key:16s} {getattr(SMALL, key)!s:12s} {limits}".rstrip())
    fields = "model.<field>    e.g. model.norm='BatchNorm()' model.mixers='Pooling(window=5)'"
    return "\n".join(["name             of the run", "root             runs", *rows, fields])
