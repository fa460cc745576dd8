"""What lies beside the images that judge: other labels of theirs, and the groups that they belong to."""

import csv
import json
import re
from collections import defaultdict
from pathlib import Path

from metaformer.data.splits import Encoded, Images

VALIDATION = 50_000
"""Images in ImageNet's validation set, which are called ILSVRC2012_val_00000001 and so on."""


def read_real(file: Path, split: Images | Encoded, classes: int) -> list[tuple[int, ...]]:
    """The labels of each image, none or several, from a JSON list of lists in the order of the numbers in the images' names.

    Beyer et al., Are we done with ImageNet?, 2020 (arXiv 2006.07159): its real.json. Raises ValueError with a sentence.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is damaged: it is no JSON ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, list) and set(map(type, row)) <= {int} for row in rows):
        raise ValueError(f"{file} is not a list of lists of class numbers, as ReaL's real.json is")
    found = []
    for i in range(len(split)):
        name = Path(split.name(i)).stem
        number = re.search(r"_(\d{8})(?:_n\d{8})?$", name)
        if number is None or not 1 <= int(number[1]) <= len(rows):
            raise ValueError(f"{name} is no image that {file} has labels for: those are ILSVRC2012_val_00000001 and so on")
        row = rows[int(number[1]) - 1]
        if not all(0 <= label < classes for label in row):
            raise ValueError(f"{file} has class {max(row)}, and the model knows {classes:,}")
        found.append(tuple(row))
    return found


def read_groups(file: Path, split: Images | Encoded) -> dict[str, list[int]]:
    """The images of each group, from a CSV with the columns image and group; one image may be in several groups.

    An image is called by its path, by the end of it, or by what stands for it where it has none (`row 17`). Raises
    ValueError with a sentence for a file of another kind, and for images that are not there or that a name does not tell.
    """
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.reader(lines))
    if not rows or rows[0] != ["image", "group"] or any(len(row) != 2 for row in rows):
        raise ValueError(f"{file} is not a list of groups: its first line is image,group and each other one has both")
    places: dict[str, list[int]] = defaultdict(list)
    for i in range(len(split)):
        parts = Path(split.name(i)).parts
        for start in range(len(parts)):
            places["/".join(parts[start:])].append(i)
        if len(parts) > 1 and parts[0] == "/":
            places[str(Path(*parts))].append(i)
    groups: dict[str, list[int]] = defaultdict(list)
    for image, group in rows[1:]:
        found = places.get(image, [])
        if len(found) != 1:
            many = f"{len(found):,} images are called so: give more of the path" if found else "no such image judges"
            raise ValueError(f"{file} names {image}: {many}, as {split.name(0)}")
        groups[group].append(found[0])
    return dict(groups)
