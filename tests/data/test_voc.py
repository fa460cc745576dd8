"""Pascal VOC's XML and its lists."""

import shutil
from pathlib import Path

from tests.painted import write_voc
from tests.truths import IMAGES, check_painted, objects_of

from metaformer.data.dense import open_dense, open_dense_judged


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
