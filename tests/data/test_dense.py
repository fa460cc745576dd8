"""Objects and regions in every form that is read: what is true of each image, what is wrong, and how parts are found."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.painted import NAMES, Painted, coco, paint, region_map, save, several, write_coco, write_masks, write_voc, write_yolo

from metaformer.data.dataset import split_csv
from metaformer.data.dense import DenseData, few_scenes, is_dense, open_dense, open_dense_judged, parts_of
from metaformer.data.scenes import Scenes
from metaformer.data.truth import VOID, Objects

SETS = Path(os.environ.get("METAFORMER_TEST_DATA", "/nowhere"))
IMAGES = several(12)
BACK = {"red": 0, "green": 1, "blue": 2}


def objects_of(scenes: Scenes, i: int) -> Objects:
    truth = scenes.scene(i).truth
    assert isinstance(truth, Objects)
    return truth


def check_painted(data: DenseData, images: list[Painted], *, masks: bool) -> None:
    """Boxes, labels and masks of both parts are what was painted."""
    for scenes in (data.train, data.val):
        for i in range(len(scenes)):
            painted = images[int(Path(scenes.name(i)).stem.removeprefix("a"))]
            objects = objects_of(scenes, i)
            assert [BACK[data.classes[c]] for c in objects.labels.tolist()] == [c for c, *_ in painted.rectangles]
            wanted = torch.tensor([box for _, *box in painted.rectangles]).float()
            assert torch.allclose(objects.boxes, wanted, atol=1e-3)
            assert objects.boxes.dtype == objects.areas.dtype == torch.float32
            assert torch.allclose(objects.areas, (wanted[:, 2:] - wanted[:, :2]).prod(1), rtol=1e-4)
            assert (objects.height, objects.width) == (painted.height, painted.width)
            assert not objects.crowd.any()
            assert (objects.masks is not None) == masks
            for mask, (_, left, top, right, bottom) in zip(objects.masks if masks else [], painted.rectangles, strict=masks):
                own = torch.zeros_like(mask)
                own[top:bottom, left:right] = 1
                assert torch.equal(mask, own)


@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_boxes_and_masks_are_what_is_painted(tmp_path: Path, form: str, masks: bool) -> None:
    if form == "voc":
        source = write_voc(tmp_path / "set", IMAGES)
        if masks:
            with pytest.raises(ValueError, match="has boxes and no outlines of objects"):
                open_dense(source, regions=False, masks=True)
            return
    else:
        source = (
            write_coco(tmp_path / "set", IMAGES) if form == "coco" else write_yolo(tmp_path / "set", IMAGES, polygons=masks)
        )
    data = open_dense(source, regions=False, masks=masks)
    assert sorted(data.classes) == ["blue", "green", "red"]
    assert len(data.train) + len(data.val) == 12
    assert (data.notes, data.flaws, data.unreadable, data.regions) == ((), (), (), False)
    check_painted(data, IMAGES, masks=masks)
    assert np.allclose(
        data.mean, np.mean([IMAGES[int(Path(n).stem[1:])].pixels.mean((0, 1)) for n in data.train.names], 0) / 255
    )
    small = few_scenes(data, 2)
    assert (len(small.train), len(small.val)) == (2, 2)
    check_painted(small, IMAGES, masks=masks)


def test_a_split_is_drawn_by_seed_and_path_and_can_be_recalled(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "set", IMAGES)
    data = open_dense(source, regions=False, seed=3)
    assert [part for _, part in data.drawn].count("val") == len(data.val) == 2
    assert data.drawn == open_dense(source, regions=False, seed=3).drawn
    assert any(data.drawn != open_dense(source, regions=False, seed=seed).drawn for seed in range(3))
    split = tmp_path / "split.csv"
    split.write_text(split_csv(data))
    again = open_dense(source, regions=False, seed=99, split=split)
    assert (again.drawn, again.train.names, again.val.names) == (data.drawn, data.train.names, data.val.names)
    judged = open_dense_judged(source, data.classes, regions=False, split=split)
    assert (judged.val.names, len(judged.train)) == (data.val.names, 0)
    assert len(open_dense_judged(source, data.classes, regions=False).val) == 12
    (tmp_path / "set/images/a3.png").unlink()
    with pytest.raises(ValueError, match=r"images of the run's split that .* has no more: 1, such as a3\.png"):
        open_dense(source, regions=False, split=split)


# --- COCO -------------------------------------------------------------------------------------------------------------


def test_coco_numbers_have_gaps_and_may_be_nought(tmp_path: Path) -> None:
    data = open_dense(write_coco(tmp_path, IMAGES), regions=False)
    assert data.numbers == (1, 4, 7)
    assert data.classes == ("red", "green", "blue")
    ids = {
        Path(scenes.name(i)).name: objects_of(scenes, i).image_id
        for scenes in (data.train, data.val)
        for i in range(len(scenes))
    }
    assert ids == {f"a{i}.png": 3 * i for i in range(12)}


def flawed() -> dict[str, Any]:
    """COCO's JSON of twelve images with everything wrong in it that is known to happen."""
    told = coco(IMAGES)
    objects = told["annotations"]
    square = [[10, 10, 30, 10, 30, 40, 10, 40]]

    def add(image: int, box: Any, shape: Any = square, **more: Any) -> None:
        objects.append({"image_id": 3 * image, "category_id": 1, "bbox": box, "segmentation": shape, "iscrowd": 0} | more)

    add(0, [5, 5, 0, 10])
    add(0, [5, 5, 10, -3])
    add(1, [200, 5, 10, 10])
    add(2, [90, 60, 20, 20], [[90, 60, 110, 60, 110, 80, 90, 80]])
    add(3, [1, 2, 30, 40], [[1, 2, 31, 42]])
    add(3, [1, 2, 30, 40], [])
    add(4, [1, 1, 5, 5], category_id=90)
    add(50, [1, 1, 5, 5])
    add(5, "none", [])
    add(6, None, {"size": [72, 96], "counts": [96 * 72]}, iscrowd=1)
    add(6, None, {"size": [72, 96], "counts": [10 * 72 + 5, 20, 52, 20, 96 * 72 - 817]}, iscrowd=1, area=40.5)
    add(7, [1, 1, 5, 5], {"size": [72, 96], "counts": [17]})
    add(8, None, square, category_id=7)
    told["images"] += [{"id": 70, "file_name": "gone.png"}, {"id": 0, "file_name": "twice.png"}]
    told["images"].append({"id": 71, "file_name": "empty.png", "width": 50, "height": 40})
    return told


def test_what_is_wrong_with_coco_is_left_out_and_told(tmp_path: Path) -> None:
    source = write_coco(tmp_path, IMAGES, flawed())
    save(paint(50, (50, 40), ()), tmp_path / "images/empty.png")
    data = open_dense(source, regions=False, masks=True)
    told = {flaw.what: (flaw.count, flaw.where) for flaw in data.flaws}
    assert told == {
        "images whose number or file was given before, left out": (1, ("twice.png",)),
        "polygons of under three points, left out": (1, ("a3.png",)),
        "objects without a box, left out": (1, ("a5.png",)),
        "run lengths that do not fill their size, left out": (1, ("a7.png",)),
        "objects of images that are not listed, left out": (1, ("all.json",)),
        "objects of a class that is not listed, left out": (1, ("a4.png",)),
        "images that are missing, left out": (1, ("gone.png",)),
        "boxes without area, left out": (3, ("a0.png", "a6.png")),
        "boxes outside of their image, left out": (1, ("a1.png",)),
        "boxes that reach beyond their image, cut": (1, ("a2.png",)),
        "objects without an outline, left out where masks are learnt": (3, ("a3.png", "a7.png")),
    }
    assert str(data.flaws[0]) == "images whose number or file was given before, left out: 1 (twice.png)"
    assert set(map(str, data.flaws)) <= set(data.notes)
    assert data.unreadable == ((str(tmp_path / "images/gone.png"), "no such file"),)
    found = {Path(scenes.name(i)).stem: objects_of(scenes, i) for scenes in (data.train, data.val) for i in range(len(scenes))}
    assert {name: len(objects) for name, objects in found.items()} == (
        {f"a{i}": 3 for i in range(12)} | {"a2": 4, "a6": 4, "a8": 4, "empty": 0}
    )
    empty = found["empty"]
    assert (empty.boxes.shape, empty.masks.shape, empty.image_id) == ((0, 4), (0, 40, 50), 71)  # type: ignore[union-attr]
    assert found["a2"].boxes[3].tolist() == [90, 60, 96, 72]
    assert found["a2"].areas[3] == 6 * 12  # type: ignore[comparison-overlap]
    crowd = found["a6"].take(found["a6"].crowd)
    assert crowd.boxes.tolist() == [[10, 5, 12, 25]]
    assert float(crowd.areas) == 40.5
    assert crowd.masks is not None
    assert (int(crowd.masks.sum()), bool(crowd.masks[0, 5:25, 10:12].all())) == (40, True)
    assert found["a8"].boxes[3].tolist() == [10, 10, 30, 40]  # from its polygon


def test_boxes_without_outlines_serve_where_masks_are_not_learnt(tmp_path: Path) -> None:
    data = open_dense(write_coco(tmp_path, IMAGES, flawed() | {"images": coco(IMAGES)["images"]}), regions=False)
    assert (
        sum(len(objects_of(scenes, i)) for scenes in (data.train, data.val) for i in range(len(scenes))) == 36 + 1 + 2 + 2 + 1
    )
    told = coco(IMAGES)
    for one in told["annotations"]:
        del one["segmentation"]
    with pytest.raises(ValueError, match="has no object with an outline: boxes alone teach no masks"):
        open_dense(write_coco(tmp_path / "boxes", IMAGES, told), regions=False, masks=True)


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (
            ("annotations/instances_train2017", "annotations/instances_val2017", "annotations/captions_val2017"),
            {"train", "val"},
        ),
        (("annotations/instances_train2017", "annotations/split_train96", "annotations/split_val32"), {"train", "val"}),
        (("train/_annotations.coco", "valid/_annotations.coco", "test/_annotations.coco"), {"train", "val", "test"}),
        (("trainval",), {""}),
        (("annotations/instances_train", "annotations/panoptic_val"), {""}),
        (("train", "test"), {"train", "test"}),
    ],
    ids=str,
)
def test_annotation_files_are_found(tmp_path: Path, names: tuple[str, ...], parts: set[str]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.json").write_text("{}")
    assert set(parts_of(f"coco:{tmp_path}")) == parts


def test_two_annotation_files_may_be_named(tmp_path: Path) -> None:
    write_coco(tmp_path, IMAGES)
    for part, some in (("one", range(8)), ("other", range(8, 12))):
        told = coco(IMAGES)
        told["images"] = [told["images"][i] for i in some]
        told["annotations"] = [one for one in told["annotations"] if one["image_id"] // 3 in some]
        if part == "other":  # numbered otherwise
            told["categories"] = [{"id": 8 - one["id"], "name": one["name"]} for one in told["categories"]]
            for one in told["annotations"]:
                one["category_id"] = 8 - one["category_id"]
        (tmp_path / f"{part}.json").write_text(json.dumps(told))
    data = open_dense(f"coco:{tmp_path / 'one.json'},{tmp_path / 'other.json'}", regions=False)
    assert (len(data.train), len(data.val), data.drawn, data.numbers) == (8, 4, (), (1, 4, 7))
    check_painted(data, IMAGES, masks=False)
    with pytest.raises(
        ValueError, match=r"has several annotation files \(all\.json, one\.json, other\.json\): name one, or two"
    ):
        parts_of(f"coco:{tmp_path}")
    with pytest.raises(FileNotFoundError, match=r"there is no two\.json; coco: takes a folder"):
        parts_of(f"coco:{tmp_path / 'one.json'},two.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"images": [{"id": 1, "file_name": "a0.png"}', "is damaged: it ends too soon"),
        ('{"images": [{"id": 1 "file_name"', "is damaged: Expecting ',' delimiter"),
        ("[1, 2]", r"is damaged: '\[1, 2\]' where '\{' should be"),
        ("\x80", "is damaged: 'utf-8' codec"),
        ('{"images": [], "annotations": [], "categories": []}', "is no COCO file of objects: it lacks images"),
        ('{"images": [{"id": 1, "file_name": "a0.png"}]}', "it lacks categories"),
        ('{"images": [7]}', "its images are not what they should be"),
        ('{"images": [{"id": 1}]}', "has an image without id or file_name"),
        ('{"categories": [{"id": 1}]}', "has a category without id or name"),
        ('{"images": [{"id": 1, "file_name": "x.png"}], "categories": [{"id": 1, "name": "a"}]}', "none of the images of"),
    ],
)
def test_files_that_are_not_coco_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "all.json").write_bytes(text.encode("latin-1"))
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        open_dense(f"coco:{tmp_path}", regions=False)


# --- turned and resized images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("drawn_on", ["stored", "shown"])
def test_boxes_and_masks_follow_an_image_that_exif_turns(tmp_path: Path, turn: int, drawn_on: str) -> None:
    """Sideways the annotations' size says which they were drawn on; else it is what is shown."""
    from metaformer.data.decode import TURN

    painted = paint(1, (90, 60), (0, 1, 2))
    image = Image.fromarray(painted.pixels)
    if turn > 1:
        back = {6: TURN[8], 8: TURN[6]}.get(turn, TURN[turn])
        upright_is_stored = drawn_on == "stored"
        stored = image if upright_is_stored and turn >= 5 else image.transpose(back)
    else:
        stored = image
    exif = Image.Exif()
    exif[0x0112] = turn
    (tmp_path / "images").mkdir()
    stored.save(tmp_path / "images/a0.jpg", exif=exif, quality=98, subsampling=0)
    save(paint(2), tmp_path / "images/a1.png")
    told = coco([painted, paint(2)])
    told["images"][0]["file_name"] = "a0.jpg"
    (tmp_path / "all.json").write_text(json.dumps(told))
    data = open_dense(f"coco:{tmp_path}", regions=False, masks=True)
    scenes = data.train if data.train.names[0] == "a0.jpg" else data.val
    from tests.data.test_moves import check_objects

    scene = scenes.scene(0)
    assert check_objects(scene) == 3
    turned = drawn_on == "stored" and turn >= 5
    assert any("turned with them" in flaw.what for flaw in data.flaws) == turned
    assert (scene.width, scene.height) == ((60, 90) if turned else (90, 60))


def test_boxes_are_stretched_to_images_that_were_resized_and_maps_too(tmp_path: Path) -> None:
    small = several(4)
    source = write_coco(tmp_path / "objects", small)
    for i, painted in enumerate(small):
        Image.fromarray(painted.pixels).resize((192, 144), Image.Resampling.NEAREST).save(tmp_path / f"objects/images/a{i}.png")
    data = open_dense(source, regions=False, masks=True)
    assert [flaw.what for flaw in data.flaws] == [
        "images of another size than their annotations say; these are stretched to them"
    ]
    painted = small[int(Path(data.val.name(0)).stem[1:])]
    objects = objects_of(data.val, 0)
    assert objects.boxes.tolist() == [[2.0 * side for side in box] for _, *box in painted.rectangles]
    assert objects.masks is not None
    assert [int(mask.sum()) for mask in objects.masks] == (objects.boxes[:, 2:] - objects.boxes[:, :2]).prod(1).int().tolist()

    source = write_masks(tmp_path / "regions", small)
    for file in (tmp_path / "regions/images").rglob("*.png"):
        Image.fromarray(small[int(file.stem[1:])].pixels.repeat(2, 0).repeat(2, 1)).save(file)
    scene = open_dense(source, regions=True).val.scene(0)
    assert torch.equal(scene.truth, torch.from_numpy(region_map(small[0]).repeat(2, 0).repeat(2, 1)))  # type: ignore[arg-type]


# --- YOLO -------------------------------------------------------------------------------------------------------------


def test_yolo_without_a_sheet_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    source = write_yolo(tmp_path, IMAGES)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    check_painted(open_dense(source, regions=False), IMAGES, masks=False)
    labels = tmp_path / "labels/train"
    (labels / "a1.txt").unlink()
    with (labels / "a2.txt").open("a") as file:
        file.write(
            "3 0.5 0.5 0.1 0.1\nx 0.5 0.5 0.1 0.1\n0 0.5 0.5\n0 0.5 0.5 0 0.1\n0 nan 0.5 0.1 0.1\n"
            "inf 0.5 0.5 0.1 0.1\n\n1 2.5 0.5 0.1 0.1\n"
        )
    data = open_dense(source, regions=False)
    assert {flaw.what: (flaw.count, [Path(where).stem for where in flaw.where]) for flaw in data.flaws} == {
        "images without a text file, taken as images without objects": (1, ["a1"]),
        "objects of a class that is not listed, left out": (1, ["a2"]),
        "lines that are no object, left out": (4, ["a2"]),
        "boxes without area, left out": (1, ["a2"]),
        "boxes outside of their image, left out": (1, ["a2"]),
    }
    (tmp_path / "classes.txt").unlink()
    assert open_dense(source, regions=False).classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("sheet", "said"),
    [
        ("train: images/train\nval: images/val\nnames: {0: red, 1: green, 2: blue}\n", None),
        ("path: {root}\ntrain: [images/train]\nval: images/val\nnames: [red, green, blue]\n", None),
        ("path: ../elsewhere\ntrain: ../images/train\nval: ../images/val\nnc: 3\nnames: [red, green, blue]\n", None),
        ("train: train.txt\nval: val.txt\nnames: [red, green, blue]\n", None),
        ("train: images/train\nval: images/val\n", "names no classes: it needs names:"),
        ("names: [red]\n", "names no images: it needs train: and val:"),
        ("train: images/none\nnames: [red]\n", "there is no .*images/none, which data.yaml names"),
        ("names: {0: red, 2: blue}\ntrain: images/train\n", "are not numbered from 0 to 1"),
        ("names: [", "data.yaml is damaged"),
        ("- 1", "is no data.yaml"),
    ],
)
def test_a_yolo_sheet_says_where_images_are(tmp_path: Path, sheet: str, said: str | None) -> None:
    write_yolo(tmp_path, IMAGES)
    (tmp_path / "data.yaml").write_text(sheet.replace("{root}", str(tmp_path)))
    for part in ("train", "val"):
        names = sorted(file.name for file in (tmp_path / "images" / part).iterdir())
        (tmp_path / f"{part}.txt").write_text("".join(f"./images/{part}/{name}\n" for name in names))
    if said is not None:
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            open_dense(f"yolo:{tmp_path}", regions=False)
        return
    data = open_dense(f"yolo:{tmp_path / 'data.yaml'}", regions=False)
    assert (len(data.train), len(data.val)) == (9, 3)
    check_painted(data, IMAGES, masks=False)
    if "txt" in sheet:
        assert len(open_dense_judged(f"yolo:{tmp_path / 'val.txt'}", ("red", "green", "blue"), regions=False).val) == 3


# --- Pascal VOC -------------------------------------------------------------------------------------------------------


def test_voc_counts_pixels_from_one_and_tells_what_is_wrong(tmp_path: Path) -> None:
    source = write_voc(tmp_path, IMAGES)
    notes = tmp_path / "Annotations"
    box = "<bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>9</ymax></bndbox>"
    one = "<object><name>red</name><difficult>{}</difficult>" + box + "</object>"

    def add(name: str, *objects: str) -> None:
        text = (notes / f"{name}.xml").read_text()
        (notes / f"{name}.xml").write_text(text.replace("</annotation>", "".join(objects) + "</annotation>"))

    add("a1", one.format(1, 1, 96), one.format(0, 50, 50))
    add("a2", "<object><name>red</name></object>", one.format(0, "x", 5))
    (notes / "a3.xml").write_text("<annotation><object>")
    (notes / "a5.xml").unlink()
    (tmp_path / "JPEGImages/a6.png").unlink()
    data = open_dense(source, regions=False)
    assert {flaw.what.partition(" (")[0]: (flaw.count, flaw.where) for flaw in data.flaws} == {
        "objects without a name or a box, left out": (2, ("a2.xml",)),
        "XML files that are damaged": (1, ("a3.xml",)),
        "images without an XML file, left out": (1, ("a5.png",)),
        "images that are missing, left out": (1, ("a6.jpg",)),
        "boxes without area, left out": (1, ("JPEGImages/a1.png",)),
    }
    objects = objects_of(data.train, 0)
    assert objects.boxes[3].tolist() == [0, 0, 96, 9]
    assert objects.crowd.tolist() == [False, False, False, True]
    assert objects.image_id == "a1"


def test_voc_lists_say_what_is_learnt(tmp_path: Path) -> None:
    source = write_voc(tmp_path, IMAGES)
    lists = tmp_path / "ImageSets/Main"
    (lists / "test.txt").write_text("a1  1\na2 -1\n")
    data = open_dense(source, regions=False)
    assert (len(data.train), len(data.val), data.notes) == (9, 3, ("val judges; test is left alone",))
    test = open_dense_judged(f"voc:{lists / 'test.txt'}", data.classes, regions=False)
    assert [Path(name).stem for name in test.val.names] == ["a1", "a2"]
    check_painted(test, IMAGES, masks=False)
    (lists / "val.txt").rename(lists / "trainval.txt")
    data = open_dense(source, regions=False)
    assert (len(data.train), len(data.val)) == (3, 2)
    assert data.notes == ("the test part picks the best epoch, because there is no val part",)
    shutil.rmtree(tmp_path / "ImageSets")
    assert len(open_dense(source, regions=False).drawn) == 12


# --- regions ----------------------------------------------------------------------------------------------------------


def check_maps(data: DenseData, images: list[Painted], background: int = 3) -> None:
    for scenes in (data.train, data.val):
        for i in range(len(scenes)):
            painted = images[int("".join(filter(str.isdigit, Path(scenes.name(i)).stem)))]
            truth = scenes.scene(i).truth
            assert isinstance(truth, torch.Tensor)
            assert truth.dtype == torch.uint8
            assert torch.equal(truth, torch.from_numpy(region_map(painted, background)))


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


# --- what is refused --------------------------------------------------------------------------------------------------


def test_classes_that_only_judge_or_that_a_model_does_not_know_are_refused(tmp_path: Path) -> None:
    source = write_voc(tmp_path / "voc", IMAGES)
    file = tmp_path / "voc/Annotations/a0.xml"
    file.write_text(file.read_text().replace("<name>red", "<name>redd"))
    with pytest.raises(
        ValueError, match=r"the judging part of .* has class 'redd' \(did you mean 'red'\?\), which the part to learn"
    ):
        open_dense(source, regions=False)
    source = write_masks(tmp_path / "masks", IMAGES)
    with pytest.raises(ValueError, match="has class 'ground', which the model does not know"):
        open_dense_judged(source, ("red", "green", "blue"), regions=True)
    other = open_dense_judged(source, ("ground", "blue", "green", "red", "sky"), regions=True)
    wanted = torch.tensor([3, 2, 1, 0])[torch.from_numpy(region_map(IMAGES[0]).astype(np.int64))].byte()
    assert torch.equal(other.val.scene(0).truth, wanted)  # type: ignore[arg-type]


def test_words_and_paths_that_are_wrong_are_told(tmp_path: Path) -> None:
    assert is_dense("coco:x")
    assert not is_dense("photos")
    assert not is_dense("digits")
    for source, said in {
        "cooc:x": "allowed: coco:PATH, voc:PATH, yolo:PATH, camvid:PATH, ade20k:PATH, masks:PATH; did you mean coco:x",
        "coco:": "data=coco: lacks a path: coco:PATH",
        "coco:none": "there is no none",
        "yolo:none": "there is no none",
        "voc:none": "there is no none",
        f"coco:{tmp_path}": "has no annotation file, such as annotations/instances_train2017.json",
        f"voc:{tmp_path}": "has no Annotations/ beside JPEGImages/",
        f"yolo:{tmp_path}": "has no image",
        f"masks:{tmp_path}": "allowed: coco:PATH, voc:PATH, yolo:PATH",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            open_dense(source, regions=False)
    for source, said in {
        f"coco:{tmp_path}": "has objects, and this model finds regions; allowed: camvid:PATH, ade20k:PATH, masks:PATH",
        f"masks:{tmp_path}": "has no class list: masks: needs classes.txt there",
        "camvid:none": "there is no none; camvid: takes the folder of the data set",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            open_dense(source, regions=True)


# --- real ones --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SETS / "bccd-voc").is_dir(), reason="METAFORMER_TEST_DATA names no folder with bccd-voc")
def test_blood_cells() -> None:
    data = open_dense(f"voc:{SETS / 'bccd-voc'}", regions=False)
    assert (len(data.train), len(data.val), data.classes) == (205, 87, ("Platelets", "RBC", "WBC"))
    assert [(flaw.what, flaw.count) for flaw in data.flaws] == [("boxes without area, left out", 2)]
    test = open_dense_judged(f"voc:{SETS / 'bccd-voc/ImageSets/Main/test.txt'}", data.classes, regions=False)
    counts = sum(np.bincount(scenes.truths.labels, minlength=3) for scenes in (data.train, data.val, test.val))  # type: ignore[union-attr]
    assert counts.tolist() == [361, 4155 - 2, 372]
    assert len(test.val) == 72


@pytest.mark.skipif(
    not (SETS / "coco128").is_dir(), reason="METAFORMER_TEST_DATA names no folder with coco128, nuts and camvid"
)
def test_coco_nuts_and_streets() -> None:
    data = open_dense(f"coco:{SETS / 'coco128'}", regions=False, masks=True)
    assert (len(data.train), len(data.val), len(data.classes), data.flaws) == (96, 32, 80, ())
    assert [len(scenes.truths.labels) for scenes in (data.train, data.val)] == [725, 214]  # type: ignore[union-attr]
    nuts = open_dense(f"coco:{SETS / 'nuts-coco-instances'}", regions=False, masks=True)
    assert (len(nuts.train), len(nuts.val), nuts.classes, len(nuts.drawn)) == (14, 4, ("date", "fig", "hazelnut"), 18)
    streets = open_dense(f"camvid:{SETS / 'camvid'}", regions=True)
    assert (len(streets.train), len(streets.val), len(streets.classes), streets.flaws) == (120, 40, 11, ())
    seen = torch.stack([streets.val.scene(i).truth for i in range(4)]).unique()  # type: ignore[arg-type]
    assert set(seen.tolist()) <= {*range(11), VOID}
