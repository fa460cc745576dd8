"""YOLO's text files → images and their objects, boxes or polygons, in parts of width and height."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metaformer.data.annotations import Noted
from metaformer.data.find import is_image
from metaformer.data.flaws import Flaws
from metaformer.data.listed import Listed, Parts, folder_like, images_below, part_word
from metaformer.data.maps import CLASS_FILES

NAMES = (*CLASS_FILES, "obj.names", "coco.names", "labels/classes.txt")
PARTS = ("train", "val", "test")


def yolo_parts(place: str) -> Parts:
    """What `yolo:PLACE` names: a folder, its data.yaml, or a list of images in a .txt file, of which all is meant.

    Without data.yaml: images/ and labels/, with train/ and val/ in them or above them, or side by side; classes.txt names
    the classes. Raises ValueError or FileNotFoundError with a sentence.
    """
    path = Path(place).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; yolo: takes a folder, its data.yaml, or a .txt list of images")
    if path.is_file() and path.suffix.lower() not in (".yaml", ".yml"):
        return {"": partial(_read, path.parent, partial(_of_list, path), _classes_near(path.parent))}
    sheet = path if path.is_file() else _sheet(path)
    root = path if path.is_dir() else path.parent
    if sheet is None:
        return _without_sheet(root)
    told = _yaml(sheet)
    base = _base(sheet, told.get("path"))
    wanted = {part: told.get(part) or (told.get("valid") if part == "val" else None) for part in PARTS}
    classes = _told_classes(sheet, told)
    parts = {part: partial(_read, base, partial(_of_entries, base, entry), classes) for part, entry in wanted.items() if entry}
    if not parts:
        raise ValueError(f"{sheet} names no images: it needs train: and val:")
    return parts if len(parts) > 1 else {"": next(iter(parts.values()))}


# --- data.yaml --------------------------------------------------------------------------------------------------------


def _sheet(root: Path) -> Path | None:
    sheets = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    named = [sheet for sheet in sheets if sheet.stem in ("data", "dataset")]
    return named[0] if named else sheets[0] if len(sheets) == 1 else None


def _yaml(file: Path) -> dict[str, Any]:
    import yaml

    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{file} is no data.yaml: it holds no names with values")
    return told


def _base(sheet: Path, path: Any) -> Path:
    """Where paths start: at `path:`, which itself may start at the sheet; the sheet's folder where there is no such place."""
    places = [sheet.parent / path, Path(path).expanduser()] if isinstance(path, str) else []
    return next((place for place in places if place.is_dir()), sheet.parent)


def _told_classes(sheet: Path, told: Mapping[str, Any]) -> tuple[str, ...]:
    names = told.get("names")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise ValueError(f"the names of {sheet} are not numbered from 0 to {len(names) - 1}")
        names = [names[number] for number in range(len(names))]
    if isinstance(names, list) and names:
        return tuple(map(str, names))
    if isinstance(told.get("nc"), int) and 0 < told["nc"] < 2**16:
        return tuple(map(str, range(told["nc"])))
    raise ValueError(f"{sheet} names no classes: it needs names:")


def _of_entries(base: Path, entry: Any) -> list[str]:
    """The images of what train: or val: says: folders and .txt lists, one or several."""
    names: list[str] = []
    for one in entry if isinstance(entry, list) else [entry]:
        tail = str(one).replace("\\", "/")
        places = [base / tail, base / tail.removeprefix("../")]  # exported sheets often start one folder too high
        place = next((place for place in places if place.exists()), None)
        if place is None:
            raise FileNotFoundError(f"there is no {places[0]}, which data.yaml names")
        names += _of_list(place) if place.is_file() else _of_folder(place)
    return names


def _of_folder(folder: Path) -> list[str]:
    return [(folder / name).as_posix() for name in images_below(folder)]


def _of_list(file: Path) -> list[str]:
    """The images that a .txt file names, a line each, from its own folder on."""
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    return [(file.parent / line.removeprefix("./")).as_posix() for line in lines if line]


# --- without it -------------------------------------------------------------------------------------------------------


def _classes_near(root: Path) -> tuple[str, ...] | None:
    """Class names from a list in a folder or in one above it; None where there is none."""
    for place in (root, *list(root.parents)[:2]):
        sheet = _sheet(place)
        if sheet is not None:
            return _told_classes(sheet, _yaml(sheet))
        for name in NAMES:
            if (place / name).is_file():
                lines = (place / name).read_text(encoding="utf-8-sig").splitlines()
                return tuple(line.strip() for line in lines if line.strip())
    return None


def _without_sheet(root: Path) -> Parts:
    """images/train and labels/train, or train/images and train/labels, or all in one."""
    images = folder_like(root, ("images",)) or root
    inside = {
        part_word(folder.name): folder for folder in sorted(images.iterdir()) if folder.is_dir() and part_word(folder.name)
    }
    classes = _classes_near(root)
    if {"train", "val"} <= inside.keys() or {"train", "test"} <= inside.keys():
        return {part: partial(_read, root, partial(_of_folder, inside[part]), classes) for part in PARTS if part in inside}
    return {"": partial(_read, root, partial(_of_folder, images), classes)}


# --- labels -----------------------------------------------------------------------------------------------------------


def _read(root: Path, images: Callable[[], list[str]], classes: tuple[str, ...] | None, masks: bool) -> Listed:
    """The images with what is in their text files. Raises ValueError where there is none."""
    noted, flaws = Noted(masks=masks), Flaws()
    most = 0
    met: set[str] = set()
    for name in images():
        file = Path(name)
        if name in met:
            flaws.add("images that are listed twice, left out", name)
            continue
        met.add(name)
        if not is_image(file):
            flaws.add("listed files that are no images by their names, left out", name)
            continue
        image = Path(os.path.relpath(name, root)).as_posix() if file.stem in noted.numbers else file.stem
        noted.image(image, name)
        label = _label_file(file)
        if label is None:
            flaws.add("images without a text file, taken as images without objects", name)
            continue
        for line in label.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            most = max(most, _add_line(noted, image, line, label.name, classes, flaws))
    if not noted.names:
        raise ValueError(f"yolo:{root} has no image")
    names, annotations, _ = noted.done()
    called = classes or tuple(map(str, range(most)))
    if not called:
        raise ValueError(
            f"yolo:{root} has no object in its text files: they lie in labels/, beside images/, or beside the images"
        )
    here = [Path(name).relative_to(root).as_posix() if Path(name).is_relative_to(root) else name for name in names]
    return Listed(root, here, annotations, called, flaws, tuple(range(len(called))), relative=True)


def _label_file(image: Path) -> Path | None:
    """The text file of an image: in labels/ in the place of images/, else beside it."""
    steps = list(image.with_suffix(".txt").parts)
    last = next((i for i in reversed(range(len(steps))) if steps[i].lower() == "images"), None)
    beside = image.with_suffix(".txt")
    swapped = beside if last is None else Path(*steps[:last], "labels", *steps[last + 1 :])
    return next((file for file in (swapped, beside) if file.is_file()), None)


def _add_line(noted: Noted, image: int | str, line: str, file: str, classes: Sequence[str] | None, flaws: Flaws) -> int:
    """Adds a line's object; returns the number of classes that it needs."""
    words = line.split()
    if not words:
        return 0
    try:
        number, *values = map(float, words)
    except ValueError:
        flaws.add("lines that are no object, left out", file)
        return 0
    polygon = len(values) >= 6 and len(values) % 2 == 0
    if not np.isfinite([number, *values]).all() or number < 0 or number % 1 or not (len(values) == 4 or polygon):
        flaws.add("lines that are no object, left out", file)
        return 0
    if number >= (len(classes) if classes is not None else 2**16):
        flaws.add("objects of a class that is not listed, left out", file)
        return 0
    if polygon:
        points = np.array(values).reshape(-1, 2)
        noted.add(image, int(number), [*points.min(0).tolist(), *points.max(0).tolist()], rings=[values])
    else:
        x, y, width, height = values
        noted.add(image, int(number), (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return int(number) + 1
