"""COCO's JSON → images and their objects: one file or several, with gaps in the numbers, crowds, and images without objects."""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from metaformer.data.annotations import Noted
from metaformer.data.find import subfolders
from metaformer.data.flaws import Flaws
from metaformer.data.json_arrays import elements
from metaformer.data.listed import Listed, Parts, part_word, without_part
from metaformer.data.outlines import coco_masks, compressed

OTHERS = ("panoptic", "captions", "person_keypoints", "image_info", "stuff")
"""What COCO's own files of other tasks start with."""
TRIED = 50
"""Images that are looked for where a folder of images has to be found."""


def coco_parts(place: str) -> Parts:
    """What `coco:PLACE` names: a folder, an annotation file, or two with a comma between, to learn from and to judge by.

    Raises ValueError or FileNotFoundError with a sentence.
    """
    files = [Path(name).expanduser() for name in ([place] if Path(place).expanduser().exists() else place.split(","))]
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"there is no {file}; coco: takes a folder, an annotation file, or TRAIN.json,VAL.json")
    if len(files) > 2 or (len(files) == 2 and any(file.is_dir() for file in files)):
        raise ValueError(f"coco:{place} is not one or two annotation files, such as coco:TRAIN.json,VAL.json")
    if len(files) == 2:
        return {"train": partial(read_coco, files[0]), "val": partial(read_coco, files[1])}
    found = _annotation_files(files[0]) if files[0].is_dir() else {"": files[0]}
    return {part: partial(read_coco, file) for part, file in found.items()}


def _annotation_files(root: Path) -> dict[str, Path]:
    """The annotation file of each part: of those alike but for their part the first that can both teach and judge."""
    places = [root, *subfolders(root)]
    files = [file for place in places for file in sorted(place.glob("*.json")) if not file.stem.startswith(OTHERS)]
    groups: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
    for file in files:
        word, above = part_word(file.stem), part_word(file.parent.name) if file.parent != root else None
        groups[without_part(file.stem), "" if above else str(file.parent)].setdefault(word or above or "", file)
    judged = [group for group in groups.values() if "train" in group and len(group) > 1]
    judged.sort(key=lambda group: not group["train"].stem.startswith("instances"))
    if judged:
        return judged[0]
    if len(files) == 1:
        return {"": files[0]}
    alone = [group["train"] for group in groups.values() if list(group) == ["train"]]
    if len(alone) == 1:
        return {"": alone[0]}
    if not files:
        raise FileNotFoundError(f"{root} has no annotation file, such as annotations/instances_train2017.json")
    some = ", ".join(str(file.relative_to(root)) for file in files[:4])
    raise ValueError(f"{root} has several annotation files ({some}): name one, or two as coco:TRAIN.json,VAL.json")


@dataclass
class _Read:
    """What is gathered from a file while it is read."""

    noted: Noted
    flaws: Flaws = field(default_factory=Flaws)
    named: dict[int, str] = field(default_factory=dict)
    """Classes by their numbers in the file."""
    met: dict[Any, int] = field(default_factory=dict)
    """Numbers of classes, as objects have them, by their first occurrence."""
    files: set[str] = field(default_factory=set)
    late: list[tuple[str, Any]] = field(default_factory=list)
    """Flaws of objects whose image may not be known yet."""


def read_coco(file: Path, masks: bool) -> Listed:
    """The images of an annotation file with their objects. Raises ValueError where it is no such file."""
    read = _Read(Noted(masks=masks))
    for name, element in elements(file, ("images", "annotations", "categories")):
        if not isinstance(element, dict):
            raise ValueError(f"{file} is no COCO file of objects: its {name} are not what they should be")
        if name == "images":
            _add_image(read, element, file)
        elif name == "categories":
            _add_class(read, element, file)
        else:
            _add_object(read, element, masks=masks)
    if not read.noted.names or not read.named:
        raise ValueError(f"{file} is no COCO file of objects: it lacks {'categories' if read.noted.names else 'images'}")
    names, annotations, strays = read.noted.done()
    if strays:
        read.flaws.add("objects of images that are not listed, left out", file.name, strays)
    place = dict(zip(annotations.ids, names, strict=True))
    for what, image_id in read.late:
        read.flaws.add(what, place.get(image_id, file.name))
    classes = list(dict.fromkeys(read.named[number] for number in sorted(read.named)))
    if len(classes) < len(read.named):
        read.flaws.add("classes of one name, taken as one", file.name, len(read.named) - len(classes))
    labels = [classes.index(read.named[number]) if number in read.named else -1 for number in read.met]
    annotations = annotations.relabelled(labels or [-1])
    for i in annotations.owners[annotations.labels < 0].tolist():
        read.flaws.add("objects of a class that is not listed, left out", names[i])
    first = {name: number for number, name in sorted(read.named.items(), reverse=True)}
    root, names = _located(file, names)
    return Listed(
        root,
        names,
        annotations.keep(annotations.labels >= 0),
        tuple(classes),
        read.flaws,
        tuple(first[name] for name in classes),
    )


def _add_image(read: _Read, image: dict[str, Any], file: Path) -> None:
    image_id, name = image.get("id"), image.get("file_name")
    if not isinstance(image_id, int | str) or not isinstance(name, str):
        raise ValueError(f"{file} has an image without id or file_name")
    if read.noted.number(image_id) in read.noted.names or name in read.files:
        read.flaws.add("images whose number or file was given before, left out", name)
        return
    read.files.add(name)
    width, height = (
        side if isinstance(side, int) and 0 < side < 2**31 else 0 for side in (image.get("width"), image.get("height"))
    )
    read.noted.image(image_id, name, *((width, height) if width and height else (0, 0)))


def _add_class(read: _Read, category: dict[str, Any], file: Path) -> None:
    number, name = category.get("id"), category.get("name")
    if not isinstance(number, int) or not isinstance(name, str):
        raise ValueError(f"{file} has a category without id or name")
    read.named[number] = name


def _add_object(read: _Read, found: dict[str, Any], *, masks: bool) -> None:
    image_id, number, box, area = (found.get(key) for key in ("image_id", "category_id", "bbox", "area"))
    if not isinstance(image_id, int | str) or not isinstance(number, int):
        read.late.append(
            ("objects without an image or a class, left out", image_id if isinstance(image_id, int | str) else None)
        )
        return
    sides = _numbers(box)
    shaped = masks or len(sides) != 4
    rings, code = _outline(read, image_id, found.get("segmentation")) if shaped else ([], None)
    if len(sides) == 4:
        left, top, width, height = sides
    elif rings or code:
        left, top, width, height = _around(rings, code)
    else:
        read.late.append(("objects without a box, left out", image_id))
        return
    read.noted.add(
        image_id,
        read.met.setdefault(number, len(read.met)),
        (left, top, left + width, top + height),
        crowd=bool(found.get("iscrowd", 0)),
        area=next(iter(_numbers([area])), float("nan")),
        rings=rings,
        code=code,
    )


def _outline(read: _Read, image_id: int | str, shape: Any) -> tuple[list[list[float]], tuple[bytes, tuple[int, int]] | None]:
    """Polygons, or run lengths; neither where there are none that can be drawn."""
    if isinstance(shape, dict):
        try:
            return [], compressed(shape)
        except ValueError as error:
            read.late.append((f"{error}, left out", image_id))
            return [], None
    if not isinstance(shape, list) or not shape:
        return [], None
    rings = [shape] if isinstance(shape[0], int | float) else shape
    good = [ring for ring in map(_numbers, rings) if len(ring) >= 6 and len(ring) % 2 == 0]
    read.late += [("polygons of under three points, left out", image_id)] * (len(rings) - len(good))
    return good, None


def _around(rings: list[list[float]], code: tuple[bytes, tuple[int, int]] | None) -> list[float]:
    """Left, top, width and height of an outline."""
    if code is not None:
        return coco_masks().toBbox({"counts": code[0], "size": list(code[1])}).tolist()
    points = np.concatenate([np.array(ring).reshape(-1, 2) for ring in rings])
    return [*points.min(0).tolist(), *np.ptp(points, axis=0).tolist()]


def _numbers(values: Any) -> list[float]:
    """A list of numbers; an empty one for anything else."""
    try:
        return array("d", values).tolist() if isinstance(values, list) else []
    except (TypeError, OverflowError):
        return []


def _located(file: Path, names: Sequence[str]) -> tuple[Path, list[str]]:
    """The folder that the images' names start from, and the names; by the last part of each where none else is found."""
    tail, above = file.stem.rpartition("_")[2], (file.parent, file.parent.parent)
    inner = (tail, f"images/{tail}", "images", f"images/{part_word(tail) or ''}", "JPEGImages", "data", "")
    places = dict.fromkeys(
        [place / name for place in above for name in inner] + [f for place in above for f in subfolders(place)]
    )
    whole = [name.replace("\\", "/") for name in names]
    for called in (whole, [PurePosixPath(name).name for name in whole]):
        some = called[:: max(1, len(called) // TRIED)]
        hits = {place: sum((place / name).is_file() for name in some) for place in places}
        best = max(hits, key=hits.__getitem__)
        if hits[best]:
            return best, called
    raise FileNotFoundError(
        f"none of the images of {file}, such as {names[0]}, is beside it or in a folder there: put the images beside it"
    )
