"""What became of the rows of a study: a line of results.jsonl each, and beside it which images were called right."""

import json
import shutil
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaformer.lab.doctor import examine
from metaformer.runs import append_line

FILE = "results.jsonl"
FINISHED, DIVERGED, FAILED = "finished", "diverged", "failed"
"""What becomes of a row: it diverged where its loss became no number, and would again; what failed is tried again."""
VERSIONS = ("metaformer", "python", "torch", "torchvision", "timm", "numpy")
MACHINE = ("system", "processor", "cuda")


@dataclass(frozen=True, kw_only=True)
class Result:
    """A row with a seed, when it is done."""

    key: str
    """Of all that decides it."""
    study: str
    """The one that it was trained for."""
    row: str
    seed: int
    state: str
    why: str = ""
    """What went wrong where it did not finish."""
    top1: float | None = None
    """Percent of the held-out images that the weights of the last epoch call right; nothing was chosen on these images."""
    images: int = 0
    """Held-out images."""
    classes: int = 0
    parameters: int | None = None
    frozen: int | None = None
    macs: int | None = None
    activation_flops: int | None = None
    """By the papers' count; None where they give none."""
    peak: int | None = None
    """Bytes that training held at most: on a GPU what torch allocated, elsewhere what was resident beyond the idle process."""
    seconds: float = 0.0
    """Of training, without judging."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    """Epoch, losses and top-1 of every epoch."""
    recipe: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    precision: str = ""
    threads: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    date: str = ""

    @property
    def final(self) -> bool:
        """Whether there is no point in training it again."""
        return self.state in (FINISHED, DIVERGED)


def stamped(result: Result) -> Result:
    """With versions, machine and time."""
    known = examine()
    return replace(
        result,
        versions={name: known[name] for name in VERSIONS},
        machine={name: known[name] for name in MACHINE},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def read_results(folder: Path) -> dict[str, Result]:
    """By key what is known of each: what is final stays, else the last line counts.

    Raises ValueError where the file is damaged.
    """
    return {one.key: one for one in _standing((one.key, one) for one in _lines(folder))}


def read_rows(folder: Path) -> list[Result]:
    """The same by the names of rows, of which several may have one key, and which may have had others: the last line last."""
    return _standing(((one.key, one.row, one.seed), one) for one in _lines(folder))


def _standing(lines: Iterable[tuple[Hashable, Result]]) -> list[Result]:
    found = dict[Hashable, Result]()
    for what, one in lines:
        if what not in found or one.final or not found[what].final:
            found.pop(what, None)
            found[what] = one
    return [*found.values()]


def _lines(folder: Path) -> Iterator[Result]:
    """Of all lines but one that was cut short. Raises ValueError where the file is damaged otherwise."""
    file, names = folder / FILE, {f.name for f in fields(Result)}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else (), 1):
        if not line.endswith("\n"):
            break
        try:
            told = json.loads(line)
            one = Result(**{name: value for name, value in told.items() if name in names})
        except (ValueError, TypeError, AttributeError) as error:
            to_do = "delete that line, and its row is trained again where no other line has it"
            raise ValueError(f"{file} is damaged in line {number} ({error}): {to_do}") from error
        yield one


def mend(folder: Path) -> None:
    """Takes away the line that a kill cut short."""
    file = folder / FILE
    if file.is_file():
        with file.open("r+b") as lines:
            lines.truncate(lines.read().rfind(b"\n") + 1)


def keep(folder: Path, result: Result, right: NDArray[np.bool_] | None) -> None:
    """Writes which images (N,) it called right, then its line; cut short before the line, there is no result yet."""
    if right is not None:
        file = _right(folder, result.key)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp")
        with temporary.open("wb") as opened:
            np.save(opened, np.packbits(right))
        temporary.replace(file)
    append_line(folder / FILE, asdict(result))


def name_rows(folder: Path, named: Iterable[tuple[str, str]]) -> None:
    """Writes a line more for each row (its key and name) of which the last line is another's, as that is what the file tells
    of a row: where it was done under another name, or where what decides it was changed, and then changed back."""
    known, last = read_results(folder), {(one.row, one.seed): one.key for one in read_rows(folder)}
    for key, row in dict.fromkeys(named):
        if (one := known.get(key)) is not None and one.final and last.get((row, one.seed)) != key:
            append_line(folder / FILE, asdict(replace(one, row=row)))


def read_right(folder: Path, result: Result) -> Tensor:
    """(N,): which images it called right. Raises ValueError where that is not known, or FileNotFoundError."""
    file, again = _right(folder, result.key), f"the row {result.row} is trained again with seed {result.seed}"
    try:
        packed = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is missing: start the study once more, and {again}") from None
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file} is damaged: delete it, start the study once more, and {again}") from error
    if packed.dtype != np.uint8 or packed.shape != (-(-result.images // 8),):
        raise ValueError(f"{file} is not of {result.images} images: delete it, start the study once more, and {again}")
    return torch.from_numpy(np.unpackbits(packed, count=result.images)).bool()


def done(folder: Path) -> dict[str, Result]:
    """By key what need not be trained again: what is final, and where it finished also which images it called right."""
    known = read_results(folder)
    return {key: one for key, one in known.items() if one.final and (one.state != FINISHED or _right(folder, key).is_file())}


def borrow(folder: Path, wanted: Mapping[str, str]) -> list[Result]:
    """Takes over from the studies beside it what is final there of the rows by key, with their names here; what was taken."""
    taken = list[Result]()
    for other in sorted(file.parent for file in folder.parent.glob("*/study.json") if file.parent != folder):
        missing = wanted.keys() - {one.key for one in taken}
        for key, one in done(other).items() if missing else ():
            source = _right(other, key)
            if key not in missing:
                continue
            if source.is_file():
                _right(folder, key).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, _right(folder, key).with_suffix(".tmp"))
                _right(folder, key).with_suffix(".tmp").replace(_right(folder, key))
            taken.append(replace(one, row=wanted[key]))
            append_line(folder / FILE, asdict(taken[-1]))
    return taken


def _right(folder: Path, key: str) -> Path:
    return folder / "right" / f"{key}.npy"
