"""A folder of images → what is in it: `train/` and `val/` of class folders, or class folders alone."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from metaformer.data.dataset import Listing
from metaformer.data.find import SUFFIXES, files_in, is_image, printable, subfolders

JUDGING = ("val", "validation", "valid", "test")
"""Names of the part that judges, the first of them where there are several."""


def list_folder(root: Path, *, judged: bool = False) -> Listing:
    """The images of a folder, labelled by the class folder that they are in, at any depth.

    Class folders lie in `train/` and in `val/` (or `validation/`, `valid/`, `test/`, in any case of letters), or in the
    folder itself, and then nothing says which images judge. Hidden files are ignored, and files that are no images by
    their suffix. With `judged`, only the part that judges is wanted, and there need not be a `train/`.
    Raises ValueError for a folder without class folders or images, and for a class folder without images.
    """
    folders = {path.name.lower(): path for path in subfolders(root)}
    train = folders.get("train")
    val = [folders[name] for name in JUDGING if name in folders]
    if val and judged:
        return _listing(root, [(val[0], "val")], _notes(val))
    if val and train is not None:
        return _listing(root, [(train, "train"), (val[0], "val")], _notes(val))
    if val and folders.keys() <= set(JUDGING):
        raise ValueError(f"{root} has {val[0].name}/ but no train/ to learn from")
    return _listing(root, [(train or root, None)], [])


def _notes(val: list[Path]) -> list[str]:
    if len(val) > 1:
        return [f"{val[0].name}/ judges; {' and '.join(f'{path.name}/' for path in val[1:])} left alone"]
    return ["test/ picks the best epoch, because there is no val/"] if val[0].name.lower() == "test" else []


def _listing(root: Path, parts: list[tuple[Path, str | None]], notes: list[str]) -> Listing:
    files: list[Path] = []
    labels: list[str] = []
    where: list[str] = []
    passed: Counter[str] = Counter()
    for place, part in parts:
        for label, file in _labelled(place, passed, part):
            files.append(file)
            labels.append(label)
            where += [part] if part is not None else []
    if passed:
        kinds = ", ".join(kind for kind, _ in passed.most_common(4))
        notes = [*notes, f"files in {root} that are not images of a class, left out: {passed.total():,} ({kinds})"]
    keys = [printable(file.relative_to(root).as_posix()) for file in files]
    return Listing(files, keys, labels, None, where or None, tuple(notes))


def _other_kind(place: Path) -> str:
    """What is meant where a folder's names are those of a data set of objects or regions."""
    names = {path.name.lower() for path in subfolders(place)}
    if {"annotations", "jpegimages"} <= names:
        return f"; if it is Pascal VOC, data=voc:{place}"
    return f"; if it is COCO's layout, data=coco:{place}" if "annotations" in names else ""


def _labelled(place: Path, passed: Counter[str], part: str | None) -> Iterator[tuple[str, Path]]:
    """Class and file of each image below `place`; the kinds of other files are counted in `passed`."""
    classes = subfolders(place)
    beside = sum(is_image(path) for path in place.iterdir() if path.is_file())
    if not classes and beside:
        raise ValueError(f"{place} has {beside:,} images but no class folders: put each class into a folder of its own")
    if not classes:
        raise ValueError(f"{place} has no class folders, so no images of a class")
    found = {folder: list(files_in(folder)) for folder in classes}
    images = {folder: [file for file in files if is_image(file)] for folder, files in found.items()}
    if not any(images.values()):
        raise ValueError(f"{place} has no image in its folders ({', '.join(SUFFIXES)})")
    if len(classes) == 1 and part is None and subfolders(classes[0]):
        raise ValueError(f"{place} has only one folder, {classes[0].name}, and so one class: did you mean {classes[0]}?")
    passed.update({"images beside the class folders": beside} if beside else {})
    for folder in classes:
        if not images[folder] and part != "val":
            raise ValueError(f"class folder {folder} has no image: fill it or remove it{_other_kind(place)}")
        passed.update(file.suffix.lower() or "without suffix" for file in found[folder] if not is_image(file))
        yield from ((printable(folder.name), file) for file in images[folder])
