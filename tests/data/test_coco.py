"""COCO's JSON: how files are found, numbers with gaps, and everything that is known to be wrong with some."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.painted import coco, paint, save, write_coco
from tests.truths import IMAGES, check_painted, objects_of

from metaformer.data.dense import open_dense, parts_of


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
    assert (empty.boxes.shape, empty.masks.shape, empty.image_id) == ((0, 4), (0, 40, 50), 71)
    assert found["a2"].boxes[3].tolist() == [90, 60, 96, 72]
    assert found["a2"].areas[3] == 6 * 12
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
            ["train", "val"],
        ),
        (("annotations/instances_train2017", "annotations/split_train96", "annotations/split_val32"), ["train", "val"]),
        (("train/_annotations.coco", "valid/_annotations.coco", "test/_annotations.coco"), ["test", "train", "val"]),
        (("trainval",), [""]),
        (("annotations/instances_train", "annotations/panoptic_val"), [""]),
        (("train", "test"), ["test", "train"]),
    ],
    ids=str,
)
def test_annotation_files_are_found(tmp_path: Path, names: tuple[str, ...], parts: list[str]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.json").write_text("{}")
    assert sorted(parts_of(f"coco:{tmp_path}")) == parts


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
