"""Folders of images and label PNGs → lists of pairs: CamVid, ADE20K, Pascal VOC's regions, and anybody's own."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from metaformer.data.find import SUFFIXES
from metaformer.data.flaws import Flaws
from metaformer.data.listed import Listed, Parts, folder_like, images_below, part_word
from metaformer.data.maps import CLASS_FILES, Coding, Maps, read_classes
from metaformer.data.truth import VOID

LABELS = ("masks", "labels", "annotations", "annots", "gt", "segmentationclass")
"""Folders of label files, in any case of letters."""
IMAGES = ("images", "imgs", "jpegimages", "img")
MARKS = ("_mask", "_masks", "_label", "_labels", "_seg", "_gt", "_L")
"""What a label file's name may have after its image's."""
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
Pairs = list[tuple[str, str]]
"""Image and label, from the root on."""


def _listed(root: Path, pairs: Pairs, coding: Coding, flaws: Flaws, masks: bool) -> Listed:
    return Listed(root, [i for i, _ in pairs], Maps(root, [m for _, m in pairs], coding), coding.classes, flaws)


def _parts(root: Path, pairs: Mapping[str, Pairs], coding: Coding, flaws: Flaws) -> Parts:
    """The parts that have pairs; what is wrong is told with the first."""
    some = {part: own for part, own in pairs.items() if own}
    if not some:
        raise ValueError(f"{root} has no image with a label PNG beside it: docs/data.md shows how they may lie")
    first = next(iter(some))
    return {part: partial(_listed, root, own, coding, flaws if part == first else Flaws()) for part, own in some.items()}


def _root(place: str, name: str) -> Path:
    root = Path(place).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"there is no {root}; {name}: takes the folder of the data set")
    return root


def _class_file(root: Path, form: str) -> Path:
    found = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{root} has no class list: {form}: needs classes.txt there, a class a line in the labels' order"
        )
    return found


# --- CamVid -----------------------------------------------------------------------------------------------------------


def camvid_parts(place: str) -> Parts:
    """CamVid as SegNet lays it out: train/, trainannot/ and so on, or train.txt with an image and a label a line.

    Or one such list, of which all is meant. Raises ValueError or FileNotFoundError with a sentence.
    """
    path = _root(place, "camvid")
    root = path.parent if path.is_file() else path
    coding, flaws = read_classes(_class_file(root, "camvid")), Flaws()
    if path.is_file():
        return _parts(root, {"": _read_pairs(path, flaws)}, coding, flaws)
    pairs: dict[str, Pairs] = {}
    for part in ("train", "val", "test"):
        if (root / f"{part}.txt").is_file():
            pairs[part] = _read_pairs(root / f"{part}.txt", flaws)
        elif (root / part).is_dir():
            pairs[part] = _beside(root, root / part, root / f"{part}annot", flaws)
    return _parts(root, pairs, coding, flaws)


def _read_pairs(file: Path, flaws: Flaws) -> Pairs:
    """Pairs by a list; of paths that start elsewhere as much is taken as there is below the list's folder."""
    pairs: Pairs = []
    for line in file.read_text(encoding="utf-8-sig").splitlines():
        words = line.split()
        if len(words) == 2:
            pairs.append((_below(file.parent, words[0]), _below(file.parent, words[1])))
        elif words:
            flaws.add(f"lines of {file.name} that are not an image and a label, left out", line.strip())
    return pairs


def _below(root: Path, name: str) -> str:
    steps = Path(name).parts
    return next((tail for i in range(len(steps)) if (root / (tail := Path(*steps[i:]).as_posix())).is_file()), name)


# --- ADE20K -----------------------------------------------------------------------------------------------------------


def ade20k_parts(place: str) -> Parts:
    """ADE20K's scene parsing: images/training and annotations/training, 0 for void and 1 to 150 for the classes.

    Raises ValueError or FileNotFoundError with a sentence.
    """
    root, flaws = _root(place, "ade20k"), Flaws()
    inner = root / "ADEChallengeData2016"
    root = inner if inner.is_dir() else root
    names = _ade20k_classes(root / "objectInfo150.txt")
    coding = Coding(names, {0: VOID} | {c + 1: c for c in range(len(names))})
    pairs = {
        part: _beside(root, root / "images" / folder, root / "annotations" / folder, flaws)
        for part, folder in (("train", "training"), ("val", "validation"))
        if (root / "images" / folder).is_dir()
    }
    return _parts(root, pairs, coding, flaws)


def _ade20k_classes(file: Path) -> tuple[str, ...]:
    """Names from the data set's own table, the last column; numbers without it."""
    if not file.is_file():
        return tuple(f"class {number}" for number in range(1, 151))
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8-sig").splitlines()]
    return tuple(row[-1].split(",")[0].strip() for row in rows if row[0].strip().isdigit())


# --- Pascal VOC -------------------------------------------------------------------------------------------------------


def voc_region_parts(root: Path) -> Parts:
    """The regions of a folder as Pascal VOC lays it out: SegmentationClass/, by the lists in ImageSets/Segmentation.

    Raises ValueError or FileNotFoundError with a sentence.
    """
    labels, images, flaws = folder_like(root, ("segmentationclass",)), folder_like(root, IMAGES), Flaws()
    if labels is None or images is None:
        raise FileNotFoundError(f"{root} has no SegmentationClass/ beside JPEGImages/: there are no regions to learn")
    own = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    coding = read_classes(own) if own else Coding(VOC_CLASSES, {c: c for c in range(len(VOC_CLASSES))})
    every = {Path(image).stem: (image, label) for image, label in _beside(root, images, labels, flaws)}
    lists = {part_word(file.stem) or "": file for file in sorted((root / "ImageSets/Segmentation").glob("*.txt"))}
    if not {"train", "val"} <= lists.keys():
        return _parts(root, {"": list(every.values())}, coding, flaws)
    pairs: dict[str, Pairs] = {}
    for part in ("train", "val", "test"):
        wanted = lists[part].read_text(encoding="utf-8-sig").split() if part in lists else []
        pairs[part] = [every[name] for name in wanted if name in every]
        for name in wanted:
            if name not in every:
                flaws.add("listed images without a file or a label, left out", name)
    return _parts(root, pairs, coding, flaws)


# --- anybody's own ----------------------------------------------------------------------------------------------------


def mask_parts(place: str) -> Parts:
    """Images and label PNGs, with a class list in the folder: images/ and masks/, each perhaps with train/ and val/ in it
    or in one of these; or side by side, a.jpg with a.png or a_mask.png.

    Raises ValueError or FileNotFoundError with a sentence.
    """
    root, flaws = _root(place, "masks"), Flaws()
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; masks: takes one that has images, label PNGs and classes.txt")
    coding = read_classes(_class_file(root, "masks"))
    images, labels = folder_like(root, IMAGES), folder_like(root, LABELS)
    if images is not None and labels is not None:
        return _parts(root, _by_part(_beside(root, images, labels, flaws), 1), coding, flaws)
    pairs: Pairs = []
    inside = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and part_word(folder.name)]
    for folder in inside:
        images, labels = folder_like(folder, IMAGES), folder_like(folder, LABELS)
        pairs += _beside(root, images, labels, flaws) if images and labels else _mixed(root, folder, flaws)
    if inside:
        return _parts(root, _by_part(pairs, 0), coding, flaws)
    return _parts(root, {"": _mixed(root, root, flaws)}, coding, flaws)


def _by_part(pairs: Pairs, step: int) -> dict[str, Pairs]:
    """Pairs by the word in a step of their images' paths; all in one where a step has none."""
    parts: dict[str, Pairs] = {}
    for image, label in pairs:
        steps = Path(image).parts
        parts.setdefault((part_word(steps[step]) if len(steps) > step + 1 else None) or "", []).append((image, label))
    return {"": pairs} if "" in parts else parts


def _beside(root: Path, images: Path, labels: Path, flaws: Flaws) -> Pairs:
    """Images of one folder with the labels of the same names in another."""
    if not labels.is_dir():
        raise FileNotFoundError(f"there is no {labels} for the images of {images}")
    own = {_stem(name): name for name in images_below(labels)}
    pairs: Pairs = []
    for name in images_below(images):
        label = next((own[stem] for stem in (_stem(name) + mark for mark in ("", *MARKS)) if stem in own), None)
        if label is None:
            flaws.add("images without a label PNG, left out", str(images / name))
        else:
            pairs.append(((images / name).relative_to(root).as_posix(), (labels / label).relative_to(root).as_posix()))
    return pairs


def _mixed(root: Path, folder: Path, flaws: Flaws) -> Pairs:
    """Images and labels in one folder: the label is the PNG of the same name, or of the name with a mark."""
    names = images_below(folder)
    own = {_stem(name): name for name in names if name.lower().endswith((".png", ".bmp", ".tif", ".tiff"))}
    plain = {_stem(name): name for name in names if not name.lower().endswith(".png")}
    pairs: Pairs = []
    used: set[str] = set()
    for name in names:
        stem = _stem(name)
        marked = [own[stem + mark] for mark in MARKS if stem + mark in own]
        label = next(iter(marked), own.get(stem) if stem in plain and own.get(stem) != name else None)
        if label is not None:
            pairs.append(((folder / name).relative_to(root).as_posix(), (folder / label).relative_to(root).as_posix()))
            used |= {name, label}
    for name in names:
        if name not in used:
            flaws.add("images without a label PNG, left out", str(folder / name))
    return pairs


def _stem(name: str) -> str:
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name
