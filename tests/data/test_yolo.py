"""YOLO's text files, with data.yaml and without."""

from pathlib import Path

import pytest
from tests.painted import write_yolo
from tests.truths import IMAGES, check_painted

from metaformer.data.annotations import Annotations
from metaformer.data.dense import open_dense, open_dense_judged


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


def test_an_image_in_two_lists_is_one_and_names_say_no_place_on_this_machine(tmp_path: Path) -> None:
    write_yolo(tmp_path, IMAGES)
    for folder in ("more/images", "more/labels"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "more/images/a1.png").write_bytes((tmp_path / "images/train/a2.png").read_bytes())
    (tmp_path / "more/labels/a1.txt").write_bytes((tmp_path / "labels/train/a2.txt").read_bytes())
    (tmp_path / "twice.txt").write_text("images/train/a1.png\n./images/train/a1.png\n")
    (tmp_path / "data.yaml").write_text(
        "train: [images/train, images/train, twice.txt, more/images]\nval: images/val\nnames: [red, green, blue]\n"
    )
    data = open_dense(f"yolo:{tmp_path}", regions=False)
    assert [(flaw.what, flaw.count) for flaw in data.flaws] == [("images that are listed twice, left out", 9 + 2)]
    truths = data.train.truths
    assert isinstance(truths, Annotations)
    assert len(data.train) == len(set(data.train.names)) == 9 + 1
    assert len(truths.labels) == 3 * len(data.train)
    assert sorted(map(str, truths.ids)) == sorted([*(f"a{i}" for i in range(12) if i % 4), "more/images/a1.png"])
