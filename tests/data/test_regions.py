"""Maps of regions, whatever label files hold and however they lie."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.painted import NAMES, region_map, save, several, write_masks, write_voc
from tests.truths import IMAGES, check_maps
from torch import Tensor

from metaformer.data.dense import open_dense, open_dense_judged
from metaformer.data.truth import VOID


def test_maps_are_what_is_painted_whatever_the_label_files_hold(tmp_path: Path) -> None:
    source = write_masks(tmp_path, IMAGES)
    data = open_dense(source, regions=True)
    assert (data.classes, len(data.train), len(data.val), data.regions) == (("red", "green", "blue", "ground"), 9, 3, True)
    check_maps(data, IMAGES)
    files = sorted((tmp_path / "masks").rglob("*.png"))
    numbers = {file: region_map(IMAGES[int(file.stem[1:])]) for file in files}
    for file, label in numbers.items():
        palette = Image.fromarray(label)
        palette.putpalette([value for c in range(256) for value in (c * 40 % 256, 255 - c, c)])
        assert palette.mode == "P"
        palette.save(file)
    check_maps(open_dense(source, regions=True), IMAGES)
    for change in (lambda label: np.stack([label] * 3, 2), lambda label: label.astype(np.uint16)):
        for file, label in numbers.items():
            Image.fromarray(change(label)).save(file)
        check_maps(open_dense(source, regions=True), IMAGES)


COLOURED = "# what is what\n250 40 40 red\ngreen: 40 250 40\n40,40,250 blue\nvoid:145,145,145::\n"


def test_labels_may_be_colours_that_the_class_list_names(tmp_path: Path) -> None:
    source = write_masks(tmp_path, IMAGES, classes=COLOURED)
    for file in (tmp_path / "masks").rglob("*.png"):
        Image.fromarray(IMAGES[int(file.stem[1:])].pixels).save(file)
    data = open_dense(source, regions=True)
    assert (data.classes, data.flaws) == (("red", "green", "blue"), ())
    check_maps(data, IMAGES, VOID)
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    with pytest.raises(ValueError, match=r"its label a1\.png: its label has colours: write them into the class list"):
        open_dense(source, regions=True)


def test_labels_beyond_the_class_list_are_void_and_told(tmp_path: Path) -> None:
    source = write_masks(tmp_path, IMAGES, classes="0 red\n1 green\n2 blue\n")
    data = open_dense(source, regions=True)
    check_maps(data, IMAGES, VOID)
    (flaw,) = data.flaws
    assert flaw.what == "label files with numbers or colours that are no class, which are not asked about"
    assert str(flaw).endswith("about: 12 (images/train/a1.png, images/train/a10.png, images/train/a11.png …)")
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\nVoid\n")
    data = open_dense(source, regions=True)
    assert (data.classes, data.flaws) == (("red", "green", "blue"), ())
    check_maps(data, IMAGES, VOID)


@pytest.mark.parametrize("layout", ["part first", "side by side", "marked", "not divided"])
def test_images_and_labels_may_lie_in_several_ways(tmp_path: Path, layout: str) -> None:
    write_masks(tmp_path / "from", IMAGES)
    for i in range(12):
        part = "train" if i % 4 else "val"
        image, label = (tmp_path / "from" / kind / part / f"a{i}.png" for kind in ("images", "masks"))
        to = tmp_path / "set"
        places = {
            "part first": (to / part / "Images" / f"a{i}.png", to / part / "labels" / f"a{i}.png"),
            "side by side": (to / part / f"a{i}.jpg", to / part / f"a{i}.png"),
            "marked": (to / f"a{i}.png", to / f"a{i}_mask.png"),
            "not divided": (to / "imgs" / f"a{i}.png", to / "masks" / f"a{i}_gt.png"),
        }[layout]
        for was, place in zip((image, label), places, strict=True):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(was, place)
    shutil.copy(tmp_path / "from/classes.txt", tmp_path / "set/classes.txt")
    data = open_dense(f"masks:{tmp_path / 'set'}", regions=True)
    assert (len(data.train), len(data.val)) == ((9, 3) if layout in ("part first", "side by side") else (10, 2))
    assert bool(data.drawn) == (layout in ("marked", "not divided"))
    check_maps(data, IMAGES)
    assert data.flaws == ()
    if layout == "not divided":
        (tmp_path / "set/masks/a3_gt.png").unlink()
        flaws = open_dense(f"masks:{tmp_path / 'set'}", regions=True).flaws
        assert [(flaw.what, flaw.count) for flaw in flaws] == [("images without a label PNG, left out", 1)]


def test_camvid_by_folders_and_by_lists(tmp_path: Path) -> None:
    for i, painted in enumerate(IMAGES):
        part = "train" if i % 4 else "val"
        save(painted, tmp_path / part / f"a{i}.png")
        (tmp_path / f"{part}annot").mkdir(exist_ok=True)
        Image.fromarray(region_map(painted)).save(tmp_path / f"{part}annot/a{i}.png")
    (tmp_path / "classes.txt").write_text("0 red\n1 green\n2 blue\n3 Unlabelled\n")
    data = open_dense(f"camvid:{tmp_path}", regions=True)
    assert (data.classes, len(data.train), len(data.val)) == (("red", "green", "blue"), 9, 3)
    check_maps(data, IMAGES, VOID)
    (tmp_path / "train.txt").write_text(
        "/SegNet/CamVid/train/a1.png /SegNet/CamVid/trainannot/a1.png\ntrain/a2.png trainannot/a2.png\nx\n"
    )
    (tmp_path / "val.txt").write_text("val/a0.png valannot/a0.png\n")
    data = open_dense(f"camvid:{tmp_path}", regions=True)
    assert (data.train.names, data.val.names) == (["train/a1.png", "train/a2.png"], ["val/a0.png"])
    assert [str(flaw) for flaw in data.flaws] == ["lines of train.txt that are not an image and a label, left out: 1 (x)"]
    check_maps(open_dense_judged(f"camvid:{tmp_path / 'val.txt'}", data.classes, regions=True), IMAGES, VOID)


def test_ade20k_leaves_nought_out_and_counts_classes_from_one(tmp_path: Path) -> None:
    for i, painted in enumerate(IMAGES[:8]):
        part = "training" if i % 4 else "validation"
        save(painted, tmp_path / f"ADEChallengeData2016/images/{part}/a{i}.jpg")
        label = tmp_path / f"ADEChallengeData2016/annotations/{part}/a{i}.png"
        label.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((region_map(painted).astype(int) + 1).astype(np.uint8) % 4).save(label)
    data = open_dense(f"ade20k:{tmp_path}", regions=True)
    assert (len(data.classes), data.classes[149], len(data.train), len(data.val)) == (150, "class 150", 6, 2)
    check_maps(data, IMAGES, VOID)
    table = "Idx\tRatio\tTrain\tVal\tName\n" + "".join(f"{i}\t0.1\t1\t1\t{name}, other\n" for i, name in enumerate(NAMES, 1))
    (tmp_path / "ADEChallengeData2016/objectInfo150.txt").write_text(table)
    assert open_dense(f"ade20k:{tmp_path}", regions=True).classes == NAMES


def test_the_regions_of_voc(tmp_path: Path) -> None:
    write_voc(tmp_path, IMAGES)
    (tmp_path / "SegmentationClass").mkdir()
    (tmp_path / "ImageSets/Segmentation").mkdir()
    for i, painted in enumerate(IMAGES):
        label = region_map(painted, VOID)
        Image.fromarray(label).save(tmp_path / f"SegmentationClass/a{i}.png")
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a1\na2\nnone\n")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("a3\n")
    data = open_dense(f"voc:{tmp_path}", regions=True)
    assert (data.classes[:3], len(data.classes), len(data.train), len(data.val)) == (
        ("background", "aeroplane", "bicycle"),
        21,
        2,
        1,
    )
    check_maps(data, IMAGES, VOID)
    assert [str(flaw) for flaw in data.flaws] == ["listed images without a file or a label, left out: 1 (none)"]


def test_a_label_of_another_shape_is_left_out(tmp_path: Path) -> None:
    images = several(140, (48, 40))
    source = write_masks(tmp_path, images)
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(tmp_path / "masks/train/a1.png")
    data = open_dense(source, regions=True)
    assert data.unreadable == ((str(tmp_path / "images/train/a1.png"), "its label has 60 × 40 pixels, and it has 48 × 40"),)
    (tmp_path / "masks/train/a2.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"2 of the 105 images of .* cannot be read, more than 1 %: repair or remove them"):
        open_dense(source, regions=True)


@pytest.mark.parametrize("there", [0, 255])
def test_classes_that_no_label_file_has_are_told_and_void_alone_is_refused(tmp_path: Path, there: int) -> None:
    """0 and 255 are how many tools write a background and one object."""
    source = write_masks(tmp_path, several(8, (48, 36)), classes="background\nobject\n")
    label = np.where(region_map(IMAGES[0])[:36, :48] < 3, 255, there).astype(np.uint8)
    for file in (tmp_path / "masks").rglob("*.png"):
        Image.fromarray(label).save(file)
    if there == 255:
        with pytest.raises(ValueError, match=r"no pixel in the label files of .* is of a class.*'255 object'"):
            open_dense(source, regions=True)
    else:
        (note,) = open_dense(source, regions=True).notes
        assert note.startswith("no pixel of 'object' in the label files, of which 6 were read; 255 is void")
    (tmp_path / "classes.txt").write_text("0 background\n255 object\n")
    data = open_dense(source, regions=True)
    truth = data.val.scene(0).truth
    assert isinstance(truth, Tensor)
    assert (truth.numpy() == (label == 255)).all()
    assert (data.notes == ()) == (there == 0)
