"""`compare`: what sets runs apart, and how far each got."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metaformer.lab import plots
from metaformer.runs import SCORES, Run, open_run, score, score_of

FIGURES = (
    "epochs", "best_epoch", "best_score", "last_score", "last_val_loss", "last_train_loss", "seconds", "images_per_second",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Runs side by side: every tuple has a value for each of them, in their order."""

    paths: tuple[Path, ...]
    settings: dict[str, tuple[Any, ...]]
    """Settings that are not the same in all, by name."""
    figures: dict[str, tuple[float | None, ...]]
    """None where no epoch has ended yet; seconds of all epochs, images per second of the last."""
    picture: Path | None
    """Their curves; None where no epoch of any has ended yet."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        picture = None if self.picture is None else str(self.picture)
        return asdict(self) | {"paths": [str(path) for path in self.paths], "picture": picture}


def compare(*runs: str | Path, root: str | Path = "runs", out: str | Path = "compared.png") -> Comparison:
    """Compares two runs or more, which are paths, or names under `root`; draws their curves as the PNG `out`.

    Raises ValueError for fewer than two, two that are one, or scores of two kinds; FileNotFoundError with a sentence for what
    is no run.
    """
    opened = [_opened(run, Path(root)) for run in runs]
    if len({run.path.resolve() for run in opened}) < max(2, len(opened)):
        raise ValueError(f"two runs or more can be compared, each named once; given: {', '.join(map(str, runs)) or 'none'}")
    flat = [run.recipe.flat() for run in opened]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    values = {key: tuple(settings.get(key) for settings in flat) for key in keys}
    metrics = [run.metrics for run in opened]
    kinds = {score_of(lines[0]): run.path for run, lines in zip(opened, metrics, strict=True) if lines}
    if len(kinds) > 1:
        told = ", ".join(f"{path} is judged by {SCORES[key]}" for key, path in kinds.items())
        raise ValueError(f"{told}: they cannot be compared")
    figures = [_figures(lines) for lines in metrics]
    curves = {str(run.path): lines for run, lines in zip(opened, metrics, strict=True) if lines}
    if curves:
        plots.overlaid(curves, Path(out))
    return Comparison(
        paths=tuple(run.path for run in opened),
        settings={key: row for key, row in values.items() if any(value != row[0] for value in row)},
        figures={key: tuple(row[key] for row in figures) for key in FIGURES},
        picture=Path(out) if curves else None,
    )


def _opened(run: str | Path, root: Path) -> Run:
    """A run by its path, or by its name."""
    is_name = Path(run).name == str(run) and not Path(run).exists()
    return open_run(root / run if is_name else run)


def _figures(lines: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """The best and the last of a run's metrics."""
    if not lines:
        return dict.fromkeys(FIGURES) | {"epochs": 0}
    best, last = max(lines, key=score), lines[-1]
    return {
        "epochs": len(lines),
        "best_epoch": best["epoch"],
        "best_score": score(best),
        "last_score": score(last),
        "last_val_loss": last.get("val_loss"),
        "last_train_loss": last["train_loss"],
        "seconds": sum(line["seconds"] for line in lines),
        "images_per_second": last["images_per_second"],
    }
