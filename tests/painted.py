"""Data sets of painted rectangles: what is true of each image can be read off its pixels. In every form that is read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = ((250, 40, 40), (40, 250, 40), (40, 40, 250), (250, 250, 40), (250, 40, 250), (40, 250, 250))
GREY = 145
"""Of the background: half of it and half of a colour looks like no other colour."""
NAMES = ("red", "green", "blue", "yellow", "pink", "cyan")


@dataclass(frozen=True)
class Painted:
    """An image and its rectangles: class, left, top, right, bottom."""

    pixels: NDArray[np.uint8]
    rectangles: tuple[tuple[int, int, int, int, int], ...]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]


def paint(seed: int, size: tuple[int, int] = (96, 72), classes: tuple[int, ...] = (0, 1, 2)) -> Painted:
    """One rectangle of each of up to four classes, each in a quarter of its own; size is (width, height)."""
    random = np.random.RandomState(seed)
    width, height = size
    pixels = np.full((height, width, 3), GREY, np.uint8)
    rectangles = []
    for quarter, c in enumerate(classes):
        y, x = divmod(quarter, 2)
        wide, high = (random.randint(side // 5, side // 2 - 4) for side in size)
        left = x * (width // 2) + 2 + random.randint(0, width // 2 - 3 - wide)
        top = y * (height // 2) + 2 + random.randint(0, height // 2 - 3 - high)
        pixels[top : top + high, left : left + wide] = COLOURS[c]
        rectangles.append((c, left, top, left + wide, top + high))
    return Painted(pixels, tuple(rectangles))


def save(painted: Painted, file: Path) -> Path:
    """Writes its pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(painted.pixels).save(file)
    return file


def several(count: int, size: tuple[int, int] = (96, 72)) -> list[Painted]:
    """Different ones."""
    return [paint(i, size) for i in range(count)]


def coco(images: list[Painted], first: int = 0, gap: int = 3) -> dict[str, Any]:
    """COCO's JSON of images a0.png, a1.png ..., numbered from `first` on; classes are numbered 1, 4, 7 ..."""
    objects = [
        {
            "id": 100 * i + c, "image_id": first + gap * i, "category_id": 1 + 3 * c, "iscrowd": 0,
            "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
            "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
        }
        for i, image in enumerate(images)
        for c, left, top, right, bottom in image.rectangles
    ]  # fmt: skip
    return {
        "info": {"year": 2026, "nested": [{"images": [1]}]},
        "images": [
            {"id": first + gap * i, "file_name": f"a{i}.png", "width": image.width, "height": image.height}
            for i, image in enumerate(images)
        ],
        "annotations": objects,
        "categories": [{"id": 1 + 3 * c, "name": name} for c, name in enumerate(NAMES[:3])],
    }


def write_coco(root: Path, images: list[Painted], told: dict[str, Any] | None = None) -> str:
    """One annotation file beside a folder of images; returns what `data=` takes."""
    for i, image in enumerate(images):
        save(image, root / "images" / f"a{i}.png")
    (root / "all.json").write_text(json.dumps(coco(images) if told is None else told))
    return f"coco:{root}"


def write_yolo(root: Path, images: list[Painted], *, polygons: bool = False) -> str:
    """images/train, labels/train and so on, with data.yaml; every fourth image judges."""
    for i, image in enumerate(images):
        part = "train" if i % 4 else "val"
        save(image, root / "images" / part / f"a{i}.png")
        lines = []
        for c, left, top, right, bottom in image.rectangles:
            corners = np.array([left, top, right, bottom]) / (image.width, image.height, image.width, image.height)
            x1, y1, x2, y2 = corners.tolist()
            box = (x1, y1, x2, y1, x2, y2, x1, y2) if polygons else ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
            lines.append(" ".join(map(str, (c, *box))))
        labels = root / "labels" / part / f"a{i}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [red, green, blue]\n")
    return f"yolo:{root}"


def write_voc(root: Path, images: list[Painted], *, lists: bool = True) -> str:
    """Annotations/, JPEGImages/ and ImageSets/Main/; every fourth image judges. Pixels are counted from 1."""
    (root / "Annotations").mkdir(parents=True)
    parts: dict[str, list[str]] = {"train": [], "val": []}
    for i, image in enumerate(images):
        save(image, root / "JPEGImages" / f"a{i}.png")
        objects = "".join(
            f"<object><name>{NAMES[c]}</name><difficult>0</difficult><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
            f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
            for c, left, top, right, bottom in image.rectangles
        )
        size = f"<size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>"
        (root / "Annotations" / f"a{i}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
        parts["train" if i % 4 else "val"].append(f"a{i}")
    if lists:
        (root / "ImageSets/Main").mkdir(parents=True)
        for part, names in parts.items():
            (root / "ImageSets/Main" / f"{part}.txt").write_text("\n".join(names) + "\n")
    return f"voc:{root}"


def region_map(image: Painted, background: int = 3) -> NDArray[np.uint8]:
    """(H, W): the class of every pixel, one number for the background."""
    regions = np.full(image.pixels.shape[:2], background, np.uint8)
    for c, left, top, right, bottom in image.rectangles:
        regions[top:bottom, left:right] = c
    return regions


def write_masks(root: Path, images: list[Painted], *, classes: str = "red\ngreen\nblue\nground\n") -> str:
    """images/ and masks/ with train/ and val/ in them; every fourth image judges."""
    for i, image in enumerate(images):
        part = "train" if i % 4 else "val"
        save(image, root / "images" / part / f"a{i}.png")
        (root / "masks" / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(region_map(image)).save(root / "masks" / part / f"a{i}.png")
    (root / "classes.txt").write_text(classes)
    return f"masks:{root}"


def near(pixels: NDArray[np.uint8], c: int) -> NDArray[np.bool_]:
    """(3, H, W) → (H, W): where an image is painted in a class's colour."""
    colour = np.array(COLOURS[c]).reshape(3, 1, 1)
    return np.abs(pixels.astype(int) - colour).max(0) < 52


def box_of(where: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is true."""
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
