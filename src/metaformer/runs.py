"""The run directory: its layout, written by training, read by everyone."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaformer.config import Recipe


@dataclass(frozen=True)
class Run:
    """A folder: recipe.json, metrics.jsonl, best/ and last/ (weights and what they are), pictures, log.txt."""

    path: Path

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe; training it again repeats the run."""
        return Recipe.from_dict(json.loads((self.path / "recipe.json").read_text()))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One record per finished epoch."""
        file = self.path / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def best(self) -> Path:
        """Folder of the weights with the highest top-1."""
        return self.path / "best"

    @property
    def last(self) -> Path:
        """Folder of the newest weights and all that is needed to go on; the one before if a save was cut short."""
        kept = self.path / "last.old"
        return kept if kept.exists() and not (self.path / "last").exists() else self.path / "last"

    @property
    def finished(self) -> bool:
        """Whether every epoch of the recipe is done."""
        return len(self.metrics) >= self.recipe.epochs


def is_run(path: str | Path) -> bool:
    """Whether a folder is a run directory."""
    return (Path(path) / "recipe.json").is_file()


def open_run(path: str | Path) -> Run:
    """The run in a folder. Raises FileNotFoundError with a sentence if it is none."""
    if not is_run(path):
        raise FileNotFoundError(f"{path} is not a run directory: it has no recipe.json")
    return Run(Path(path))


def create_run(recipe: Recipe, root: str | Path, name: str | None) -> Run:
    """A new directory `root/name`, or the first free `root/<model>-<data>[-2 …]`. Raises FileExistsError if it is taken."""
    stem = name or re.sub(r"[^\w.-]+", "-", f"{recipe.model}-{Path(recipe.data).name or recipe.data}")
    path, number = Path(root) / stem, 1
    while path.exists():
        if name is not None:
            raise FileExistsError(f"{path} exists: choose another name=, or go on with it: metaformer train {path}")
        number += 1
        path = Path(root) / f"{stem}-{number}"
    path.mkdir(parents=True)
    write_text(path / "recipe.json", json.dumps(recipe.to_dict(), indent=2) + "\n")
    return Run(path)


def write_text(path: Path, text: str) -> None:
    """Writes under a temporary name, then renames: a reader sees the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fills a new folder by `write` and puts it in the place of `folder`; cut short anywhere, the old or new one is whole."""
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    write(new)
    for file in new.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
