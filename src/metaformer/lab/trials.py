"""What a search was asked, and what it found, as data."""

import json
import shlex
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from metaformer.config import read_json

SCHEMA = 1
"""Version of `tune.json`."""
TRIALS = 20
"""How many there are to be where nobody says."""


@dataclass(frozen=True)
class Plan:
    """What is searched: what `tune.json` holds."""

    model: str
    settings: dict[str, Any]
    """The same in every trial."""
    space: dict[str, str]
    """What each trial chooses from, as it was typed."""
    prune: bool = True
    """Whether trials end early that are worse than the median."""
    trials: int = field(default=TRIALS, compare=False)
    """How many are wanted, as was said last: a search with more is the same search."""

    def to_json(self) -> str:
        """The text of `tune.json`."""
        return json.dumps({"schema": SCHEMA} | asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class Tried:
    """A trial: the run in `path`."""

    number: int
    settings: dict[str, str]
    """What it chose, as a command line has it."""
    state: str
    """finished, pruned, failed, or stopped: that one goes on when the search does."""
    score: float | None
    """The best of its epochs, in percent of the held-out images; None before the first."""
    epochs: int
    path: Path
    why: str | None = None
    """What went wrong where it failed."""


@dataclass(frozen=True)
class Search:
    """A search, as far as it went; `path` holds tune.json, study.jsonl, search.png, log.txt and trials/."""

    path: Path
    plan: Plan
    trials: tuple[Tried, ...]
    importances: dict[str, float]
    """Of each setting the part of the variance between finished trials that it explains (fANOVA); empty of few trials."""

    @property
    def best(self) -> Tried | None:
        """The finished trial with the highest score. It was chosen on those very images: on others expect less."""
        whole = (trial for trial in self.trials if trial.state == "finished")
        return max(whole, key=lambda trial: trial.score or 0.0, default=None)

    @property
    def command(self) -> str | None:
        """The command that trains the best trial again, or longer with another epochs=."""
        if self.best is None:
            return None
        fixed = {key: value for key, value in self.plan.settings.items() if key != "changes"}
        fixed |= {f"model.{key}": text for key, text in self.plan.settings.get("changes", {}).items()}
        pairs = [f"{key}={'none' if value is None else value}" for key, value in (fixed | self.best.settings).items()]
        return shlex.join(["metaformer", "train", self.plan.model, *pairs])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        trials = [asdict(trial) | {"path": str(trial.path)} for trial in self.trials]
        best = None if self.best is None else self.best.number
        told = {"path": str(self.path), **asdict(self.plan), "best": best, "command": self.command}
        return told | {"importances": self.importances, "trials": trials}


def read_plan(path: Path) -> Plan:
    """What was searched in a folder. Raises ValueError where that cannot be read."""
    kept: dict[str, Any] = {"prune": True, "trials": TRIALS} | read_json(path / "tune.json")  # the first had none of these
    if kept.pop("schema", None) != SCHEMA or kept.keys() != {key.name for key in fields(Plan)}:
        raise ValueError(f"{path / 'tune.json'} is not of schema {SCHEMA}, the one this version reads and writes")
    return Plan(**kept)
