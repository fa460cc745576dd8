"""What was found in images, in files that others read: COCO's JSON, Pascal VOC's XML, YOLO's text, PNGs, records."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from torch import Tensor

from metaformer.data.decode import see
from metaformer.data.find import printable
from metaformer.infer.draw import draw_objects, draw_regions
from metaformer.infer.outline import one_polygon, polygons
from metaformer.infer.palette import VOID_COLOUR, palette
from metaformer.tasks.found import Found, Size, corner_and_sides, image_rows, rle_text, run_lengths


@dataclass(frozen=True, eq=False)
class DensePrediction:
    """The answer for one image: objects, or a region map (H, W) of uint8; or why there is none."""

    path: str
    size: Size = (0, 0)
    """Height and width of the image as it is shown."""
    found: Found | None = None
    regions: Tensor | None = None
    error: str | None = None
    image_id: int | str | None = None
    """What COCO's files call it; None for the name of its file, a whole number where that is one."""


Save = Callable[[DensePrediction], object]


@dataclass(frozen=True)
class Names:
    """What the files call things."""

    classes: tuple[str, ...]
    categories: tuple[int, ...] | None = None
    """COCO's number of each class, as the data has it, perhaps with gaps; None for 1 and up."""
    root: Path | None = None
    """The folder below which files keep their folders; None for names alone."""

    def file(self, image: str | Path, suffix: str) -> Path:
        """The file for an image, from the folder of all on."""
        path = Path(image)
        if self.root is not None and path.is_relative_to(self.root):
            return path.relative_to(self.root).with_suffix(suffix)
        return Path(path.name).with_suffix(suffix)

    def category(self, label: int) -> int:
        """COCO's number of a class."""
        return label + 1 if self.categories is None else self.categories[label]


@contextmanager
def saved_results(out: Path, kind: str, names: Names, images: Sequence[str | Path] = ()) -> Iterator[Save]:
    """Gives what writes an answer. A file has its name only when all is in it; in a folder that holds for each file.

    `kind` is one of FORMATS; `images` are all that will be asked about. Raises ValueError for another kind, for answers that
    it cannot hold (regions are label PNGs or records), for two images whose files would have one name, and for a file that
    would replace one of the images. What has an error is in records alone.
    """
    if kind not in FORMATS:
        raise ValueError(f"{kind!r} is no format: {', '.join(FORMATS)}")
    files = (out / names.file(image, SUFFIXES[kind]) for image in images) if kind in SUFFIXES else (out,)
    _spare(images, files)
    with FORMATS[kind](out, names) as save:
        yield save


def _spare(images: Iterable[str | Path], files: Iterable[Path]) -> None:
    """Raises ValueError where one of the files is an image, by whatever name."""
    own = {_which(image) for image in images} - {None}
    for file in files:
        if own and _which(file) in own:
            raise ValueError(f"{file} is one of the images, which would be lost: give another --out")


def _which(file: str | Path) -> tuple[int, int] | None:
    """What two names of one file have in common; None where there is none."""
    try:
        known = Path(file).stat()
    except (OSError, ValueError):
        return None
    return known.st_dev, known.st_ino


@contextmanager
def _whole(file: Path) -> Iterator[Path]:
    """A temporary name for a file, which has its own only when all went well."""
    temporary = file.with_name(f"{file.name}.tmp")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _objects(answer: DensePrediction, kind: str) -> Found:
    """What was found. Raises ValueError for regions."""
    if answer.found is None:
        raise ValueError(f"{answer.path} has regions, and {kind} files hold objects: write png, jsonl or csv")
    return answer.found


# --- COCO -------------------------------------------------------------------------------------------------------------


@contextmanager
def _coco(out: Path, names: Names) -> Iterator[Save]:
    """One file, a list of objects, as pycocotools' loadRes takes it."""
    with _whole(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        between = "\n"
        whose: dict[int | str, str] = {}

        def save(answer: DensePrediction) -> None:
            nonlocal between
            if answer.error is not None:
                return
            other = whose.setdefault(coco_image(answer), answer.path)
            if other != answer.path:
                raise ValueError(
                    f"{other} and {answer.path} would both be image {coco_image(answer)}: write them into two files"
                )
            for row in coco_rows(answer, names):
                file.write(between + json.dumps(row))
                between = ",\n"

        yield save
        file.write("\n]\n")


def coco_image(answer: DensePrediction) -> int | str:
    """What COCO's files call an image: as the answer says, else a whole number where its file is called one, else that name."""
    if answer.image_id is not None:
        return answer.image_id
    stem = Path(answer.path).stem
    return int(stem) if stem.isascii() and stem.isdigit() else stem


def coco_rows(answer: DensePrediction, names: Names) -> list[dict[str, Any]]:
    """An image's objects as COCO's results: corner and sides not rounded, so that they are judged as they were found."""
    found = _objects(answer, "COCO")
    numbers = [names.category(label) for label in found.labels.tolist()]
    masks = None if found.masks is None else run_lengths(found.masks)
    return image_rows(coco_image(answer), numbers, corner_and_sides(found.boxes).tolist(), found.scores.tolist(), masks)


# --- a file for each image --------------------------------------------------------------------------------------------


SUFFIXES = {"voc": ".xml", "yolo": ".txt", "png": ".png", "pictures": ".png"}
"""Of the kinds that are a folder, how the files in it end."""
LISTED = "classes.txt"
"""The file with the classes' names."""


def _folder(kind: str, write: Callable[[DensePrediction, Path, Names], None], *, listed: bool = False) -> "Writer":
    """What writes a file for each image into a folder, and beside them, where the files have numbers, the classes' names."""
    suffix = SUFFIXES[kind]

    @contextmanager
    def writer(out: Path, names: Names) -> Iterator[Save]:
        told = "".join(f"{name}\n" for name in names.classes)
        if listed:
            _check_listed(out / LISTED, told)
        out.mkdir(parents=True, exist_ok=True)
        whose: dict[Path, str] = {}

        def save(answer: DensePrediction) -> None:
            if answer.error is not None:
                return
            file = out / names.file(answer.path, suffix)
            _spare([answer.path], [file])
            other = whose.setdefault(file, answer.path)
            if other != answer.path:
                raise ValueError(f"{other} and {answer.path} would both be {file}: write them into two folders")
            file.parent.mkdir(parents=True, exist_ok=True)
            with _whole(file) as temporary:
                write(answer, temporary, names)

        yield save
        if listed:
            with _whole(out / LISTED) as temporary:
                temporary.write_text(told, encoding="utf-8")

    return writer


def _check_listed(file: Path, told: str) -> None:
    """Raises ValueError where a file says other classes, or says more of them."""
    if file.exists() and file.read_bytes().split() != told.encode().split():
        raise ValueError(f"{file} is there already and says something else than this model's classes: give another --out")


def _voc(answer: DensePrediction, file: Path, names: Names) -> None:
    """Pascal VOC's XML: whole pixels from 1 on, the last one included, so that a box of pixels is exact."""
    found, (height, width) = _objects(answer, "VOC"), answer.size
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = printable(Path(answer.path).name)
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", width), ("height", height), ("depth", 3)):
        ElementTree.SubElement(size, name).text = str(value)
    ElementTree.SubElement(root, "segmented").text = "0"
    for box, label, score in zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True):
        thing = ElementTree.SubElement(root, "object")
        for name, text in (("name", names.classes[label]), ("truncated", "0"), ("difficult", "0"), ("score", f"{score:.6g}")):
            ElementTree.SubElement(thing, name).text = text
        place = ElementTree.SubElement(thing, "bndbox")
        corners = (round(box[0]) + 1, round(box[1]) + 1, round(box[2]), round(box[3]))
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            ElementTree.SubElement(place, name).text = str(value)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(file, encoding="utf-8")


def _yolo(answer: DensePrediction, file: Path, names: Names) -> None:
    """YOLO's text: a line for each object, in parts of the image: its class and box, or its class and a polygon."""
    found, (height, width) = _objects(answer, "YOLO"), answer.size
    lines: list[str] = []
    for place, label in enumerate(found.labels.tolist()):
        x1, y1, x2, y2 = found.boxes[place].tolist()
        values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        if found.masks is not None:
            parts = polygons(found.masks[place].numpy().astype(bool))
            if not parts:
                continue
            values = (one_polygon(parts) / (width, height)).clip(0, 1).flatten().tolist()
        lines.append(" ".join([str(label), *(f"{value:.6f}" for value in values)]) + "\n")
    file.write_text("".join(lines), encoding="utf-8")


def _png(answer: DensePrediction, file: Path, names: Names) -> None:
    """A PNG with a palette, whose numbers are the classes; 255 is no class."""
    if answer.regions is None:
        raise ValueError(f"{answer.path} has objects, and label PNGs hold regions: write coco, voc, yolo, jsonl or csv")
    if len(names.classes) > 255:
        raise ValueError(f"a label PNG holds 255 classes and no more, these are {len(names.classes)}: write jsonl or csv")
    picture = Image.fromarray(answer.regions.numpy().astype(np.uint8))
    colours = np.full((256, 3), VOID_COLOUR, np.uint8)
    colours[: len(names.classes)] = palette(len(names.classes))
    picture.putpalette(colours.tobytes())  # which makes numbers of a palette of what were greys
    picture.save(file, format="png", optimize=True)


def _picture(answer: DensePrediction, file: Path, names: Names) -> None:
    try:
        image = see(answer.path)
    except ValueError as error:
        raise ValueError(f"{answer.path}: {error}") from error
    drawn(answer, image, names.classes).save(file, format="png")


def drawn(answer: DensePrediction, image: Image.Image, classes: Sequence[str]) -> Image.Image:
    """The image with what was found in it, at the size that the image has."""
    if answer.regions is not None:
        return draw_regions(image, answer.regions.numpy(), classes)
    found = _objects(answer, "pictures").resized(answer.size, (image.height, image.width))
    masks = None if found.masks is None else found.masks.numpy()
    return draw_objects(image, found.boxes.numpy(), found.labels.numpy(), classes, scores=found.scores.numpy(), masks=masks)


# --- records ----------------------------------------------------------------------------------------------------------


@contextmanager
def _jsonl(out: Path, names: Names) -> Iterator[Save]:
    with _whole(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield lambda answer: file.write(json.dumps(record(answer, names)) + "\n")


def record(answer: DensePrediction, names: Names) -> dict[str, Any]:
    """An answer, JSON-ready: path, size and objects, or the part of the image that each class has; or path and error."""
    known: dict[str, Any] = {"path": printable(answer.path)}
    if answer.error is not None:
        return known | {"error": printable(answer.error.removeprefix(f"{answer.path}: "))}
    known |= {"height": answer.size[0], "width": answer.size[1]}
    if answer.found is None:
        return known | {"parts": _parts(answer, names)}
    found = answer.found
    rows = [
        {"label": names.classes[label], "score": round(score, 6), "box": [round(side, 2) for side in box]}
        for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    ]
    if found.masks is not None:
        rows = [row | {"mask": rle_text(rle)} for row, rle in zip(rows, run_lengths(found.masks), strict=True)]
    return known | {"objects": rows}


def _parts(answer: DensePrediction, names: Names) -> dict[str, float]:
    """Of the image's pixels, the part that each class has, the largest first; 255 has none."""
    assert answer.regions is not None
    counts = np.bincount(answer.regions.numpy().ravel(), minlength=256)[: len(names.classes)]
    order = [c for c in np.argsort(-counts, kind="stable").tolist() if counts[c]]
    return {names.classes[c]: round(int(counts[c]) / answer.regions.numel(), 6) for c in order}


COLUMNS = ("path", "label", "score", "x1", "y1", "x2", "y2", "part", "error")
"""Of a table: a row for each object, or for each class of an image's regions with the part it has; or for an error."""


@contextmanager
def _csv(out: Path, names: Names) -> Iterator[Save]:
    with _whole(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        yield lambda answer: writer.writerows(rows(answer, names))


def rows(answer: DensePrediction, names: Names) -> list[dict[str, Any]]:
    """An answer's rows of a table; one with the path alone where nothing was found."""
    known = record(answer, names)
    path = {"path": known["path"]}
    if "error" in known:
        return [path | {"error": known["error"]}]
    if "parts" in known:
        return [path | {"label": name, "part": part} for name, part in known["parts"].items()]
    corners = ("x1", "y1", "x2", "y2")
    return [
        path | {"label": row["label"], "score": row["score"]} | dict(zip(corners, row["box"], strict=True))
        for row in known["objects"]
    ] or [path]


Writer = Callable[[Path, Names], AbstractContextManager[Save]]

FORMATS: dict[str, Writer] = {
    "coco": _coco, "voc": _folder("voc", _voc), "yolo": _folder("yolo", _yolo, listed=True),
    "png": _folder("png", _png, listed=True), "pictures": _folder("pictures", _picture),
    "jsonl": _jsonl, "csv": _csv,
}  # fmt: skip
