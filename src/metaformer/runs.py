"""The run directory: its layout, written by training, read by everyone."""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from metaformer.config import Recipe, read_json

SCORES = {"top1": "top-1", "map": "mAP", "mask_ap": "mask AP", "box_ap": "box AP", "miou": "mIoU"}
"""What the best weights are chosen by, in percent: its key in metrics.jsonl → what it is called."""


FILES = {
    "recipe.json": "every setting; metaformer train on it repeats the run",
    "metrics.jsonl": "a line per epoch",
    "best": "the best weights, with classes and preprocessing",
    "last": "the newest weights, and what is needed to go on",
    "last.before": "the same of the save before, should that be damaged",
    "epochs": "the weights of the last epochs, for metaformer soup",
    "report.html": "the whole story on one page: open it in a browser",
    "evaluation.json": "its figures",
    "curves.png": "losses, figures and learning rate by epoch",
    "confusion.png": "which class is called which",
    "predictions.png": "held-out images with the answers, the worst first",
    "results.json": "what was found in them, as COCO's results are written",
    "samples": "the digits predicted above",
    "tensorboard": "for TensorBoard; tensorboard --logdir and the folder of runs",
    "nonfinite.jsonl": "steps whose loss or gradient was no number, with their images",
    "teacher.json": "the sum of its teacher's weights: it goes on with no other",
    "split.csv": "which image learns and which judges",
    "bad_images.csv": "images that cannot be read, and why",
    "log.txt": "what was said",
}
"""What a run directory may hold, and what it is."""


def score_of(line: Mapping[str, Any]) -> str:
    """The key of SCORES that a line of metrics has."""
    return next(key for key in SCORES if key in line)


def score(line: Mapping[str, Any]) -> float:
    """What a line of metrics says by which the best is chosen, in percent."""
    return line[score_of(line)]


@dataclass(frozen=True)
class Run:
    """A folder: recipe.json, metrics.jsonl, best/ and last/ (weights and what they are), pictures, log.txt."""

    path: Path

    @property
    def title(self) -> str:
        """Its folder's name, after that of the search whose trial it is: `found-003`."""
        search = self.path.parent.parent
        return f"{search.name}-{self.path.name}" if (search / "tune.json").is_file() else self.path.name

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe; training it again repeats the run."""
        return Recipe.from_dict(read_json(self.path / "recipe.json"))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One record per finished epoch; a line that was cut short is none."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}\n")]

    @property
    def best(self) -> Path:
        """Folder of the weights with the highest top-1, or where images have several labels, mAP."""
        return _whole(self.path / "best")

    @property
    def last(self) -> Path:
        """Folder of the newest weights and all that is needed to go on."""
        return _whole(self.path / "last")

    @property
    def before(self) -> Path:
        """The same of the save before, should the newest be damaged."""
        return self.path / "last.before"

    @property
    def kept(self) -> list[Path]:
        """Folders of the weights of the last keep= epochs, the earliest first."""
        return sorted(folder for folder in (self.path / "epochs").glob("*") if folder.name.isdigit())

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done and saved, or patience= ended the run before."""
        saved = self._saved
        return saved.get("stopped", False) or saved.get("epoch", 0) >= self.epochs

    @property
    def epochs(self) -> int:
        """How many epochs it is to have: as the recipe says, or as hours= leaves time for, the last one perhaps a part."""
        return math.ceil(self._saved.get("planned", self.recipe.epochs))

    @property
    def _saved(self) -> dict[str, Any]:
        """What is known of the newest weights; nothing before the first save."""
        about = self.last / "model.json"
        return read_json(about) if about.is_file() else {}


def is_run(path: str | Path) -> bool:
    """Whether a folder is a run directory."""
    return (Path(path) / "recipe.json").is_file()


def open_run(path: str | Path) -> Run:
    """The run in a folder. Raises FileNotFoundError with a sentence if it is none."""
    if not is_run(path):
        raise no_run(path)
    return Run(Path(path))


def no_run(path: str | Path) -> FileNotFoundError:
    """What is wrong with a path that is no run directory, with the run beside it that is spelt alike."""
    path = Path(path)
    if path.exists():
        return FileNotFoundError(f"{path} is not a run directory: it has no recipe.json")
    names = [folder.name for folder in path.parent.glob("*") if is_run(folder)]
    close = get_close_matches(path.name, names, n=1, cutoff=0.6)
    return FileNotFoundError(f"no run '{path}'" + (f", did you mean {path.parent / close[0]}?" if close else ""))


def create_run(recipe: Recipe, root: str | Path, name: str | None) -> Run:
    """A new directory `root/name`, or the first free `root/<model>-<data>[-2 …]`.

    Raises FileExistsError if it is taken, ValueError if the name is more than one folder's.
    """
    check_name(name)
    kind = "smoke-" if recipe.smoke else ""
    stem = name or re.sub(r"[^\w.-]+", "-", f"{kind}{recipe.model}-{Path(recipe.data).name or recipe.data}")
    path, number = Path(root) / stem, 1
    while path.exists():
        if name is not None:
            raise _taken(path)
        number += 1
        path = Path(root) / f"{stem}-{number}"
    text = json.dumps(recipe.to_dict(), indent=2) + "\n"
    path.mkdir(parents=True)
    try:
        write_text(path / "recipe.json", text)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)  # else the name were taken by no run
        raise
    return Run(path)


def check_free(root: str | Path, name: str) -> None:
    """Raises FileExistsError where a new run's `root/name` is taken, ValueError where the name is more than one folder's."""
    check_name(name)
    if (path := Path(root) / name).exists():
        raise _taken(path)


def _taken(path: Path) -> FileExistsError:
    """That a new run's directory is there already, and what is in it where that can be read."""
    what = ""
    with suppress(OSError, ValueError):
        recipe = Run(path).recipe
        what = f" ({recipe.model}, data={recipe.data})"
    return FileExistsError(f"{path} exists{what}: choose another name=, or go on with it: metaformer train {path}")


def check_name(name: str | None) -> None:
    """Raises ValueError where a name is not one folder's."""
    if name is not None and (name in ("", "..") or name != Path(name).name):
        raise ValueError(f"name={name} is not the name of one folder; root= says where it goes")


def weights_of(source: str | Path) -> str | Path:
    """Where a run's best weights lie; what is no run stands for itself."""
    return open_run(source).best if is_run(source) else source


def write_text(path: Path, text: str) -> None:
    """Writes under a temporary name, then renames: a reader sees the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    _sync(temporary)
    temporary.replace(path)


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Adds a line of JSON, which is on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def replace_folder(folder: Path, write: Callable[[Path], None], *, keep: bool = False) -> None:
    """Fills a new folder by `write` and, when it is on the disk, puts it in the place of `folder`.

    Cut short anywhere, `folder` is the old or the new one, or away for a moment, and then `folder.old` is the old one; with
    `keep` it is `folder.before`, and stays. A disk that fails leaves the old one there, too.
    """
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + (".before" if keep else ".old"))
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir()
        write(new)
        for path in (*new.iterdir(), new):
            _sync(path)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        new.rename(folder)
        _sync(folder.parent)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)  # a full disk needs its place
        raise
    if not keep:
        shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Waits until a file or a folder is on the disk; Windows does not know that of folders."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _whole(folder: Path) -> Path:
    """A folder that `replace_folder` fills; the one before if that was cut short between its two renames."""
    befores = (folder.with_name(folder.name + end) for end in (".before", ".old"))
    return folder if folder.exists() else next((before for before in befores if before.exists()), folder)
