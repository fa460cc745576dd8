"""What `judge` measured, as tables for a screen and for a document."""

from collections.abc import Mapping, Sequence
from typing import Any

from metaformer.data.find import printable
from metaformer.lab.dense_text import dense_text
from metaformer.lab.judge_page import FIGURES, band, short, signed
from metaformer.lab.tables import Rows, columns, evaluation_text

Told = Mapping[str, Any]


def judged_text(told: Told) -> str:
    """All tables but the classes' of several models; of one model, what `evaluation_text` says, then the others."""
    if any(key in told.get("models", [{}])[0] for key in ("miou", "box")):
        return dense_text(told)
    if "models" not in told:
        return evaluation_text(told)
    models = told["models"]
    parts = [evaluation_text(models[0])] if len(models) == 1 else []
    tables = {"95 % of bootstrap resamples": figure_table(told), **_others(told)}
    parts += [f"{title}\n{columns(rows, right=tuple(range(1, len(rows[0]))))}" for title, rows in tables.items()]
    return "\n\n".join(parts)


def markdown_tables(told: Told) -> str:
    """The same tables for a document."""
    tables = {"": figure_table(told), **_others(told)}
    parts = []
    for title, (head, *rows) in tables.items():
        lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1), *(f"| {' | '.join(row)} |" for row in rows)]
        parts.append("\n".join([*([f"{title}:", ""] if title else []), *lines]))
    return "\n\n".join(parts)


def figure_table(told: Told) -> Rows:
    """A row for each figure, with its interval, a column for each model."""
    models = told["models"]
    rows: Rows = [("figure", *_names(models))]
    for name, called, unit, scale, digits in FIGURES:
        if models[0][name] is not None:
            cells = (_cell(scale * m[name], m["intervals"].get(name), digits, scale) for m in models)
            rows.append((f"{called}{', %' if unit else ''}", *cells))
    heats = [m["temperature"] for m in models]
    if all(heat is not None and heat["temperature"] is not None for heat in heats):
        after = (_cell(100 * heat["ece_after"], heat["intervals"]["ece_after"], 2, 100) for heat in heats)
        cells = (f"{cell} at {heat['temperature']:.2f}" for cell, heat in zip(after, heats, strict=True))
        rows.append(("ECE with a temperature, unseen half, %", *cells))
    if "real" in models[0]:
        rows.append(("Top-1 by ReaL's labels, %", *(_cell(m["real"]["top1"], m["real"]["interval"], 2) for m in models)))
    return rows


def _names(models: Sequence[Told]) -> list[str]:
    """What the columns are called."""
    return [printable(name) for name in short([model["name"] for model in models])] if len(models) > 1 else ["value"]


def _others(told: Told) -> dict[str, Rows]:
    """The tables of what was asked besides, by what they are."""
    names = _names(told["models"])
    found: dict[str, Rows] = {}
    if told["pairs"]:
        found[f"minus {names[0]}, on the same images"] = _pair_table(told, names)
    shown = told.get("shown", {"models": [], "images": 0})
    where = f"on {shown['images']:,} images"
    if shown["models"] and len(shown["models"][0]["ways"]) > 1:
        found[f"top-1, % {where}"] = _way_table(shown["models"], names)
    if shown["models"] and "corruptions" in shown["models"][0]:
        found[f"errors, % {where}, mean of five severities"] = _corruption_table(shown["models"], names)
    if "groups" in told["models"][0]:
        found["top-1 of groups, %"] = _group_table(told["models"], names)
    return found


def _cell(value: float, interval: list[float] | None, digits: int, scale: float = 1.0) -> str:
    return f"{value:.{digits}f} ({band(interval, digits, scale)})"


def _pair_table(told: Told, names: list[str]) -> Rows:
    pairs = told["pairs"]
    rows: Rows = [("figure", *names[1:])]
    for name, called, unit, scale, digits in FIGURES:
        if name in pairs[0]["differences"]:
            gaps = (pair["differences"][name] for pair in pairs)
            cells = (f"{signed(scale * gap['value'], digits)} ({band(gap['interval'], digits, scale)})" for gap in gaps)
            rows.append((f"{called}{', points' if unit else ''}", *cells))
    rows.append(("only the first right, only this one", *(_disagreements(pair["mcnemar"]) for pair in pairs)))
    rows.append(("McNemar's exact p", *(f"{pair['mcnemar']['p']:.2g}" for pair in pairs)))
    return rows


def _disagreements(counts: Told) -> str:
    return f"{counts['only_first']:,}, {counts['only_second']:,}"


def _way_table(models: list[dict[str, Any]], names: list[str]) -> Rows:
    rows: Rows = [("shown", *names)]
    for way in models[0]["ways"]:
        own = (model["ways"][way] for model in models)
        rows.append((way, *(_cell(one["top1"], one["intervals"]["top1"], 2) for one in own)))
    return rows


def _corruption_table(models: list[dict[str, Any]], names: list[str]) -> Rows:
    found = [model["corruptions"] for model in models]
    rows: Rows = [("corruption", *names), ("as they are", *(_mean(one, "clean_error") for one in found))]
    for name in found[0]["each"]:
        each = (one["each"][name] for one in found)
        rows.append((name.replace("_", " "), *(_cell(one["mean"], one["mean_interval"], 1) for one in each)))
    rows.append(("mean", *(_mean(one, "mean_error") for one in found)))
    if len(found) > 1:
        for key, called in (("mce", "mCE"), ("relative_mce", "relative mCE")):
            rest = (_mean(one, key) if one.get(key) is not None else "–" for one in found[1:])
            rows.append((f"{called}, % of {names[0]}", "100", *rest))
    eces = (one["ece"] for one in found)
    rows.append(("ECE, made worse, %", *(_cell(100 * one["value"], one["interval"], 1, 100) for one in eces)))
    return rows


def _mean(one: Told, key: str) -> str:
    return _cell(one[key]["value"], one[key]["interval"], 1)


def _group_table(models: list[dict[str, Any]], names: list[str]) -> Rows:
    rows: Rows = [("group", "images", *names)]
    for group, first in models[0]["groups"]["each"].items():
        own = (model["groups"]["each"][group] for model in models)
        cells = (_cell(one["top1"], one["intervals"]["top1"], 2) for one in own)
        rows.append((printable(group), f"{first['images']:,}", *cells))
    return rows
