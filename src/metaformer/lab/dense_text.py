"""What was measured of detectors and segmenters, as tables for a screen."""

from collections.abc import Mapping
from typing import Any

from metaformer.data.find import printable
from metaformer.lab.judge_page import short
from metaformer.lab.tables import Rows, columns

# fmt: off
OBJECT_FIGURES = {
    "ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "AP small", "ap_medium": "AP medium", "ap_large": "AP large",
    "ar1": "AR1", "ar10": "AR10", "ar100": "AR100",
}
# fmt: on
REGION_FIGURES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "boundary_f": "boundary F",
}  # fmt: skip
Entry = tuple[str, Mapping[str, Any]]
"""What a column is called, and its figures."""


def dense_text(told: Mapping[str, Any]) -> str:
    """All tables: figures, classes, speed and memory; a column for each model, and for each way of showing it images."""
    entries = _entries(told["models"])
    regions = "miou" in told["models"][0]
    tables = [*(_region_tables(entries) if regions else _object_tables(entries)), _cost_table(entries)]
    files = [f"what was found: {one['results']}" for one in told["models"] if "results" in one]
    texts = [columns(table, right=tuple(range(1, len(table[0])))) for table in tables]
    return "\n\n".join([f"{told['images']:,} images of {told['data']}", *texts, *(["\n".join(files)] if files else [])])


def _entries(models: list[dict[str, Any]]) -> list[Entry]:
    """A model, and itself with test-time augmentation; nothing is called by a name where there is but one."""
    names = [printable(name) for name in short([model["name"] for model in models])] if len(models) > 1 else [""]
    found: list[Entry] = []
    for name, model in zip(names, models, strict=True):
        found.append((name, model))
        if "tta" in model:
            found.append((f"{name} {model['tta']['ways']}".strip(), model["tta"]))
    return found


def _region_tables(entries: list[Entry]) -> list[Rows]:
    head: Rows = [("figure", *(f"{name} %".strip() for name, _ in entries))]
    head += [(called, *(_percent(one[key]) for _, one in entries)) for key, called in REGION_FIGURES.items()]
    figures = {"iou": "IoU", "accuracy": "accuracy", "boundary": "boundary F"}
    if len(entries) > 1:
        figures = {"iou": "IoU"}
    rows: Rows = [("class", *(f"{name} {called} %".strip() for name, _ in entries for called in figures.values()), "pixels")]
    for name, first in entries[0][1]["per_class"].items():
        cells = (_percent(one["per_class"][name][key]) for _, one in entries for key in figures)
        rows.append((printable(name), *cells, f"{first['pixels']:,}"))
    return [head, rows]


def _object_tables(entries: list[Entry]) -> list[Rows]:
    kinds = [(name, one, kind) for name, one in entries for kind in ("mask", "box") if kind in one]
    head: Rows = [("figure", *(f"{name} {kind} %".strip() for name, _, kind in kinds))]
    head += [(called, *(_percent(one[kind][key]) for _, one, kind in kinds)) for key, called in OBJECT_FIGURES.items()]
    figures = {"ap": "AP"} if len(entries) > 1 else {"ap": "AP", "ap50": "AP50"}
    cells = (f"{name} {kind} {called} %".strip() for name, _, kind in kinds for called in figures.values())
    rows: Rows = [("class", *cells, "objects")]
    for name, first in entries[0][1]["per_class"].items():
        own = (_percent(one["per_class"][name][kind][key]) for _, one, kind in kinds for key in figures)
        rows.append((printable(name), *own, f"{first['box']['objects']:,}"))
    return [head, rows]


def _cost_table(entries: list[Entry]) -> Rows:
    """Images are judged one at a time."""
    names = [name or "value" for name, _ in entries]
    device = entries[0][1]["device"]
    rates = {
        "images_per_second": f"images/s on {device}, reading included",
        "model_images_per_second": "images/s, the model alone",
    }
    rows: Rows = [("speed and memory", *names)]
    rows += [(called, *(f"{one[key]:,.3g}" for _, one in entries)) for key, called in rates.items()]
    return [*rows, ("peak memory, MB above the model's own", *(megabytes(one["peak_bytes"]) for _, one in entries))]


def megabytes(count: int | None) -> str:
    """Whole ones; a dash where nobody told."""
    return "–" if count is None else f"{count / 1e6:,.0f}"


def _percent(part: float | None) -> str:
    return "–" if part is None else f"{100 * part:.2f}"
