"""Pascal VOC's XML → images and their objects."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from metaformer.data.annotations import Noted
from metaformer.data.find import is_image
from metaformer.data.flaws import Flaws
from metaformer.data.listed import Listed, Parts, folder_like, images_below
from metaformer.data.regions import voc_region_parts


def voc_parts(place: str, *, regions: bool = False) -> Parts:
    """What `voc:PLACE` names: a folder with Annotations/ and JPEGImages/, or one of its lists, of which all is meant.

    Lists are ImageSets/Main/train.txt and val.txt, or trainval.txt and test.txt; without them a split has to be drawn.
    With `regions` the maps of SegmentationClass/ are meant. Raises ValueError or FileNotFoundError with a sentence.
    """
    path = Path(place).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; voc: takes the folder that has Annotations/ and JPEGImages/")
    if path.is_file():
        root = path.parents[min(2, len(path.parents) - 1)]
        return {"": partial(_read, root, path)}
    root = next((path / inner for inner in ("VOC2012", "VOC2007") if (path / inner).is_dir()), path)
    if regions:
        return voc_region_parts(root)
    lists = folder_like(root, ("imagesets",))
    named = {file.stem: file for file in sorted((lists / "Main").glob("*.txt"))} if lists else {}
    if "train" in named and "val" in named:
        wanted: Mapping[str, Path | None] = {part: named[part] for part in ("train", "val", "test") if part in named}
    elif "test" in named and named.keys() & {"trainval", "train"}:
        wanted = {"train": named.get("trainval") or named["train"], "test": named["test"]}
    else:
        wanted = {"": named.get("trainval") or named.get("train")}
    return {part: partial(_read, root, file) for part, file in wanted.items()}


def _read(root: Path, listed: Path | None, masks: bool) -> Listed:
    """The images of a list, or all that have an XML file. Raises ValueError or FileNotFoundError with a sentence."""
    if masks:
        raise ValueError(f"voc:{root} has boxes and no outlines of objects: masks are learnt from coco: or yolo:")
    places = folder_like(root, ("annotations",)), folder_like(root, ("jpegimages", "images"))
    notes, pictures = places[0], places[1] or places[0]
    if notes is None or pictures is None:
        raise FileNotFoundError(f"{root} has no Annotations/ beside JPEGImages/")
    files = {Path(name).with_suffix("").as_posix(): name for name in images_below(pictures)}
    noted, flaws = Noted(masks=False), Flaws()
    classes: dict[str, int] = {}
    for name in _names(notes, listed):
        xml, image = notes / f"{name}.xml", files.get(name)
        if image is None:
            flaws.add("images that are missing, left out", f"{name}.jpg")
        elif not xml.is_file():
            flaws.add("images without an XML file, left out", image)
        else:
            _add_image(noted, name, (pictures / image).relative_to(root).as_posix(), xml, classes, flaws)
    if not noted.names:
        raise ValueError(f"{listed or notes} names no image that has an XML file and a picture")
    names, annotations, _ = noted.done()
    order = sorted(classes)
    annotations = annotations.relabelled([order.index(name) for name in classes] or [0])
    return Listed(root, names, annotations, tuple(order), flaws)


def _names(notes: Path, listed: Path | None) -> Iterator[str]:
    """The images that are meant, without suffix. What follows a name in lists of one class says whether it is there."""
    if listed is None:
        yield from (file.relative_to(notes).with_suffix("").as_posix() for file in sorted(notes.rglob("*.xml")))
        return
    for line in dict.fromkeys(listed.read_text(encoding="utf-8-sig").splitlines()):
        if line.strip():
            whole = line.strip().removesuffix(Path(line.strip()).suffix) if is_image(Path(line.strip())) else line.strip()
            yield whole if (notes / f"{whole}.xml").is_file() else whole.split()[0]


def _add_image(noted: Noted, name: str, image: str, xml: Path, classes: dict[str, int], flaws: Flaws) -> None:
    try:
        tree = ElementTree.parse(xml).getroot()
    except ElementTree.ParseError as error:
        flaws.add(f"XML files that are damaged ({error.msg.partition(':')[0]}), their images left out", xml.name)
        return
    width, height = (_number(tree.findtext(f"size/{side}")) or 0 for side in ("width", "height"))
    noted.image(name, image, *((int(width), int(height)) if width > 0 < height else (0, 0)))
    for found in tree.iter("object"):
        label = (found.findtext("name") or "").strip()
        sides = [_number(found.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
        if not label or None in sides:
            flaws.add("objects without a name or a box, left out", xml.name)
            continue
        left, top, right, bottom = (side for side in sides if side is not None)
        hard = (found.findtext("difficult") or "0").strip() == "1"
        empty = right <= left or bottom <= top
        box = (left, top, right, bottom) if empty else (left - 1, top - 1, right, bottom)  # pixels are counted from 1
        noted.add(name, classes.setdefault(label, len(classes)), box, crowd=hard)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
