"""What `metaformer predict` shows of objects and regions: pictures, files that others read, or lines on the screen."""

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

from rich.console import Console
from rich.progress import track

from metaformer.data.find import printable
from metaformer.infer.dense import THRESHOLD, Asking, DensePredictor
from metaformer.infer.output import summary
from metaformer.infer.results import FORMATS, DensePrediction, Names, Save, record, saved_results

ENDS = {".jsonl": "jsonl", ".csv": "csv", ".json": "coco"}
"""The kind of file that a name's end says; a name without one is a folder for pictures."""
FILES = ("coco", "jsonl", "csv")
OBJECTS, REGIONS = ("coco", "voc", "yolo"), ("png",)


@dataclass(frozen=True)
class Wanted:
    """What a person asked for."""

    out: str | None = None
    to: str | None = None
    """One of `results.FORMATS`; None for what the name of `out` says."""
    threshold: float | None = None
    """None for 0.5, but for COCO's results, which hold all that was found."""
    tile: int | None = None
    overlap: int = 128
    tta: str = ""
    json_lines: bool = False

    @property
    def kind(self) -> str | None:
        """What is written. Raises ValueError for what is no kind, or has no place."""
        if self.to is not None and self.to not in FORMATS:
            raise ValueError(f"--to {self.to} is not one of {', '.join(FORMATS)}")
        if self.out is None:
            if self.to is not None:
                raise ValueError(f"--to {self.to} needs --out, a {'file' if self.to in FILES else 'folder'} to write")
            return None
        suffix = Path(self.out).suffix.lower()
        if self.to is None and suffix and suffix not in ENDS:
            raise ValueError(
                f"--out {self.out} does not say a format by its suffix: {', '.join(ENDS)}; or a folder for pictures"
            )
        return self.to or ENDS.get(suffix, "pictures")

    @property
    def asking(self) -> Asking:
        """How images are looked at."""
        usual = 0.0 if self.kind == "coco" else THRESHOLD
        return Asking(usual if self.threshold is None else self.threshold, self.tile, self.overlap, self.tta)


def show_found(predictor: DensePredictor, images: Sequence[Path], wanted: Wanted) -> int:
    """Writes what is found, or shows it as lines; all else goes to the errors. How many images failed.

    Raises ValueError with a sentence for what cannot be written.
    """
    kind, asking = wanted.kind, wanted.asking
    unfit = OBJECTS if predictor.regions else REGIONS
    if kind in unfit:
        finds = "regions" if predictor.regions else "objects"
        rest = ", ".join(k for k in FORMATS if k not in unfit)
        raise ValueError(f"--to {kind} does not hold {finds}, which {predictor.source} finds: {rest}")
    names = Names(predictor.classes, predictor.numbers, _root(images))
    out = None if wanted.out is None else _place(wanted.out, file=kind in FILES)
    screen, aside = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)
    answers, failed = predictor.stream(images, asking), 0
    hidden = out is None or wanted.json_lines or not aside.is_terminal
    with _saved(out, kind, names, images) as save:
        for answer in track(answers, "predicting", len(images), console=aside, transient=True, disable=hidden):
            save(answer)
            if answer.error is not None:
                failed += 1
                aside.print(printable(answer.error), markup=False)
            if wanted.json_lines:
                sys.stdout.write(json.dumps(record(answer, names)) + "\n")
            elif out is None and answer.error is None:
                screen.print(_line(answer, names), markup=False)
    aside.print(summary(len(images), failed, out), markup=False)
    return failed


def _saved(out: Path | None, kind: str | None, names: Names, images: Sequence[Path]) -> AbstractContextManager[Save]:
    """What writes an answer, if anything."""
    return nullcontext(_unsaved) if out is None or kind is None else saved_results(out, kind, names, images)


def _unsaved(answer: DensePrediction) -> None:
    """Writes nothing."""


def _place(out: str, *, file: bool) -> Path:
    """The file or folder to write. Raises FileNotFoundError where there is no folder for it."""
    place = Path(out).expanduser()
    if file and not place.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {place.parent} to write {place.name} into")
    return place


def _root(images: Sequence[Path]) -> Path | None:
    """The folder that all images lie in, at any depth."""
    return Path(commonpath([image.parent for image in images])) if images else None


def _line(answer: DensePrediction, names: Names) -> str:
    """A line for the screen: how many objects of which class, or the largest regions."""
    told = record(answer, names)
    if "parts" in told:
        return f"{told['path']}  " + "  ".join(f"{name} {part:.1%}" for name, part in list(told["parts"].items())[:5])
    counts: dict[str, int] = {}
    for row in told["objects"]:
        counts[row["label"]] = counts.get(row["label"], 0) + 1
    some = "  ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))
    return f"{told['path']}  {some or 'nothing found'}"
