"""A check of objects and regions: what is planted is found, counted and shown."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.painted import coco, paint, several, write_masks, write_voc
from tests.scenes import saved, scene
from tests.tiny import command

from metaformer.data.checked import Checked, check_data
from metaformer.lab.check_page import check_page, check_text


def told_of(names: list[str]) -> dict[str, Any]:
    """COCO's JSON of pictures of 96 by 72 pixels, each with one small red object, every second with a large blue crowd."""
    whole = coco([paint(0)] * len(names))
    whole["annotations"] = []
    for i, name in enumerate(names):
        whole["images"][i]["file_name"] = name
        one = {"image_id": 3 * i, "segmentation": [], "iscrowd": 0}
        whole["annotations"].append(one | {"category_id": 1, "bbox": [5, 5, 10 + i, 10], "area": 10 * (10 + i)})
        if i % 2:
            whole["annotations"].append(one | {"category_id": 7, "bbox": [0, 0, 96, 72], "iscrowd": 1, "area": 100**2})
    return whole


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures to learn from and four to judge by, of which one is a copy, one is missing and one is damaged."""
    root = tmp_path_factory.mktemp("set")
    for i in range(12):
        saved(scene(i), root / "images" / f"{i}.jpg")
    shutil.copy(root / "images/2.jpg", root / "images/9.jpg")
    (root / "images/10.jpg").unlink()
    (root / "images/11.jpg").write_bytes(b"no image")
    learnt, judged = told_of([f"{i}.jpg" for i in range(8)]), told_of([f"{i}.jpg" for i in range(8, 12)])
    learnt["annotations"][0]["bbox"] = [5, 5, 0, 10]
    (root / "train.json").write_text(json.dumps(learnt))
    (root / "val.json").write_text(json.dumps(judged))
    return root


@pytest.fixture(scope="module")
def found(planted: Path) -> Checked:
    return check_data(f"coco:{planted}")


def test_leaks_and_damage_are_found_as_in_any_data(found: Checked) -> None:
    assert len(found.inventory) == 12
    assert found.leaked() == 1
    assert [tuple(map(found.inventory.name, group.members)) for group in found.groups] == [("2.jpg", "9.jpg")]
    assert sorted(name for name, _ in found.problems("unreadable")) == ["10.jpg", "11.jpg"]
    assert len(found.errors()) == 2
    assert found.inventory.label(1) == "red, blue"


def test_objects_are_counted_and_measured_and_flaws_told(found: Checked) -> None:
    told = found.to_dict()["truth"]
    assert told["kind"] == "objects"
    assert told["objects"] == {"red": {"train": 7, "val": 2}, "green": {"train": 0, "val": 0}, "blue": {"train": 4, "val": 1}}
    assert told["crowd"] == 5
    assert told["sizes"] == {"small": 9, "medium": 0, "large": 5, "sides": [10.0, 12.4, 100.0]}
    assert told["flaws"] == [
        {"what": "boxes without area, left out", "count": 1, "where": ["0.jpg"]},
        {"what": "images that are missing, left out", "count": 1, "where": ["10.jpg"]},
    ]


def test_the_page_and_the_words_say_so(found: Checked) -> None:
    page = check_page(found)
    assert "Boxes without area, left out: 1 (0.jpg)." in page
    assert page.split('id="truth"')[1].split("</section>")[0].count("<img") == 10
    assert "5 objects are crowds, or too hard to ask for." in page
    words = check_text(found).splitlines()
    assert words[1] == "14 objects"
    assert "boxes without area, left out: 1 (0.jpg)" in words


def test_the_command_writes_a_page_and_fails_where_something_leaks(planted: Path, here: Path) -> None:
    code, out, err = command("data", "check", f"coco:{planted}", "--workers", 0)
    assert code == 1
    assert "14 objects" in out
    assert "1 images that judge are also in another part" in err
    assert json.loads((here / "check/check.json").read_text())["truth"]["crowd"] == 5


def test_pixels_of_regions_are_counted(tmp_path: Path) -> None:
    images = several(8)
    source = write_masks(tmp_path, images, classes="red\ngreen\nvoid\nground\n")
    checked = check_data(source)
    told = checked.to_dict()["truth"]
    area = {
        part: sum((r - x) * (b - y) for i, image in enumerate(images) for c, x, y, r, b in image.rectangles
                  if c == 1 and (i % 4 == 0) == (part == "val"))
        for part in ("train", "val")
    }  # fmt: skip
    assert told["kind"] == "regions"
    assert list(told["pixels"]) == ["red", "green", "ground"]
    assert told["pixels"]["green"] == area
    text = check_page(checked)
    assert text.split('id="truth"')[1].split("</section>")[0].count("<img") == 8
    assert [word for word in ("Preview", "disagree", "no label") if word in text] == []


def test_classes_are_one_list_whatever_each_part_calls_first(tmp_path: Path) -> None:
    source = write_voc(tmp_path, several(8))
    for i in (0, 4):  # those that judge have no blue
        file = tmp_path / f"Annotations/a{i}.xml"
        file.write_text(file.read_text().replace("<name>blue", "<name>red"))
    told = check_data(source).to_dict()["truth"]["objects"]
    assert told == {
        "blue": {"train": 6, "val": 0}, "green": {"train": 6, "val": 2}, "red": {"train": 6, "val": 4},
    }  # fmt: skip
