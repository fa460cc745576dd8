import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from tests.found import found, painted
from tests.infer.test_outline import disc, filled, iou

from metaformer.infer.palette import palette
from metaformer.infer.results import COLUMNS, FORMATS, DensePrediction, Names, saved_results
from metaformer.tasks.found import Found

CLASSES = ("ant", "bee", "cow & calf")
SIZE = (80, 90)
BOXES = [[10, 20, 30, 70], [0, 0, 90, 80]]
FOUND = found(BOXES, [2, 0], [0.875, 0.5])
WITH_MASKS = found(BOXES, [2, 0], [0.875, 0.5], SIZE)
REGIONS = torch.tensor([[0, 0, 2], [2, 2, 255]], dtype=torch.uint8)
BAD = DensePrediction("pics/bad.png", error="pics/bad.png: cut off")


def written(out: Path, kind: str, *answers: DensePrediction, names: Names | None = None) -> Path:
    with saved_results(out, kind, names or Names(CLASSES)) as save:
        for answer in answers:
            save(answer)
    assert not list(out.parent.rglob("*.tmp"))
    return out


def answer(path: str = "pics/a.png", of: Found = FOUND) -> DensePrediction:
    return DensePrediction(path, SIZE, of, image_id=7)


def test_coco(tmp_path: Path) -> None:
    from pycocotools import mask

    names = Names(CLASSES, categories=(1, 18, 90))
    file = written(tmp_path / "a.json", "coco", answer(of=WITH_MASKS), BAD, DensePrediction("b.png", SIZE, FOUND), names=names)
    rows = json.loads(file.read_text())
    assert [row["image_id"] for row in rows] == [7, 7, "b", "b"]
    assert [row["category_id"] for row in rows] == [90, 1, 90, 1]
    assert rows[0]["bbox"] == [10, 20, 20, 50]
    assert rows[0]["score"] == 0.875
    assert WITH_MASKS.masks is not None
    assert np.array_equal(mask.decode(rows[0]["segmentation"]), WITH_MASKS.masks[0].numpy())
    assert "segmentation" not in rows[2]
    assert json.loads(written(tmp_path / "none.json", "coco").read_text()) == []


def test_coco_calls_images_by_whole_numbers_and_no_two_the_same(tmp_path: Path) -> None:
    """000000000139.jpg is image 139 of COCO."""
    paths = ("a/000000000139.jpg", "a/x7.jpg", "a/-7.jpg", "a/²3.jpg")
    rows = json.loads(written(tmp_path / "a.json", "coco", *(DensePrediction(p, SIZE, FOUND) for p in paths)).read_text())
    assert [row["image_id"] for row in rows[::2]] == [139, "x7", "-7", "²3"]
    for other in ("b/000000000139.jpg", "b/139.png"):
        with pytest.raises(ValueError, match=rf"^a/000000000139.jpg and {other} would both be image 139: write them into two"):
            written(tmp_path / "b.json", "coco", *(DensePrediction(p, SIZE, FOUND) for p in (paths[0], other)))
    assert not (tmp_path / "b.json").exists()


def test_coco_rounds_nothing(tmp_path: Path) -> None:
    odd = Found(torch.rand(5, 4) * 50 + torch.tensor([0, 0, 50, 50]), torch.rand(5), torch.zeros(5, dtype=torch.int64))
    rows = json.loads(written(tmp_path / "a.json", "coco", answer(of=odd)).read_text())
    x, y, wide, high = torch.tensor([row["bbox"] for row in rows], dtype=torch.float64).unbind(1)
    assert torch.equal(torch.stack([x, y, x + wide, y + high], 1).float(), odd.boxes)
    assert torch.equal(torch.tensor([row["score"] for row in rows]), odd.scores)


def test_voc(tmp_path: Path) -> None:
    out = written(tmp_path / "voc", "voc", answer("pics/a.b.jpg"), BAD)
    assert sorted(path.name for path in out.iterdir()) == ["a.b.xml"]
    root = ElementTree.parse(out / "a.b.xml").getroot()
    assert [root.findtext(name) for name in ("filename", "size/width", "size/height")] == ["a.b.jpg", "90", "80"]
    things = root.findall("object")
    assert [thing.findtext("name") for thing in things] == ["cow & calf", "ant"]
    sides = [[int(thing.findtext(f"bndbox/{side}") or "") for side in ("xmin", "ymin", "xmax", "ymax")] for thing in things]
    assert [[x1 - 1, y1 - 1, x2, y2] for x1, y1, x2, y2 in sides] == BOXES  # pixels are counted from 1 there
    assert float(things[0].findtext("score") or "") == 0.875


def test_yolo_boxes(tmp_path: Path) -> None:
    out = written(tmp_path / "labels", "yolo", answer(), DensePrediction("pics/empty.png", SIZE, FOUND.best(2.0)))
    rows = np.loadtxt(out / "a.txt")
    assert rows[:, 0].tolist() == [2, 0]
    x, y, wide, high = rows[:, 1:].T
    corners = np.stack([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], 1) * [90, 80, 90, 80]
    assert np.abs(corners - BOXES).max() < 1e-3
    assert (out / "empty.txt").read_text() == ""
    assert (out / "classes.txt").read_text().splitlines() == list(CLASSES)


def test_yolo_polygons(tmp_path: Path) -> None:
    masks = torch.from_numpy(np.stack([disc(), disc(row=10, column=12, radius=8) | disc(radius=9), np.zeros(SIZE, bool)]))
    three = Found(torch.tensor([[0.0, 0, 9, 9]] * 3), torch.ones(3), torch.tensor([1, 2, 0]), masks)
    out = written(tmp_path / "labels", "yolo", answer(of=three))
    lines = [line.split() for line in (out / "a.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == ["1", "2"]  # a mask without a pixel has no outline
    for line, mask in zip(lines, masks, strict=False):
        points = np.array(line[1:], float).reshape(-1, 2) * [90, 80]
        assert iou(filled(points, SIZE), mask.numpy()) > 0.93


def test_label_pngs(tmp_path: Path) -> None:
    root = tmp_path / "images"
    deep = DensePrediction(str(root / "x" / "a.jpg"), (2, 3), regions=REGIONS)
    out = written(tmp_path / "out", "png", deep, names=Names(CLASSES, root=root))
    with Image.open(out / "x" / "a.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), REGIONS.numpy())
        colours = np.array(picture.convert("RGB"))
    assert tuple(colours[1, 0]) == palette(3)[2]
    many = Names(tuple(map(str, range(256))))
    with pytest.raises(ValueError, match=r"^a label PNG holds 255 classes and no more, these are 256: write jsonl or csv$"):
        written(tmp_path / "many", "png", deep, names=many)


def test_pictures(tmp_path: Path) -> None:
    """Drawn at the size at which the image is decoded, whatever the size that what was found is told in."""
    Image.new("RGB", (960, 720), (90, 90, 90)).save(tmp_path / "a.jpg")
    boxed = DensePrediction(str(tmp_path / "a.jpg"), (1440, 1920), found([[200, 400, 600, 800]], [0], [0.5]))
    out = written(tmp_path / "pictures", "pictures", boxed)
    with Image.open(out / "a.png") as picture:
        assert picture.getpixel((100, 300)) == palette(3)[0]
        assert picture.getpixel((200, 300))[0] == pytest.approx(90, abs=3)
    regions = DensePrediction(str(tmp_path / "a.jpg"), (2, 3), regions=REGIONS)
    written(tmp_path / "pictures", "pictures", regions)
    with Image.open(out / "a.png") as picture:
        assert picture.getpixel((20, 500)) == picture.getpixel((920, 20)) != picture.getpixel((20, 20))
    with pytest.raises(ValueError, match=r"^none\.jpg: no such file$"):
        written(tmp_path / "pictures", "pictures", DensePrediction("none.jpg", (2, 3), regions=REGIONS))


def test_json_lines(tmp_path: Path) -> None:
    regions = DensePrediction("r.png", (2, 3), regions=REGIONS)
    file = written(tmp_path / "a.jsonl", "jsonl", answer(), BAD, regions, answer(of=WITH_MASKS))
    good, bad, parts, masked = (json.loads(line) for line in file.read_text().splitlines())
    assert good == {
        "path": "pics/a.png", "height": 80, "width": 90,
        "objects": [
            {"label": "cow & calf", "score": 0.875, "box": BOXES[0]}, {"label": "ant", "score": 0.5, "box": BOXES[1]},
        ],
    }  # fmt: skip
    assert bad == {"path": "pics/bad.png", "error": "cut off"}
    assert parts["parts"] == {"cow & calf": 0.5, "ant": round(2 / 6, 6)}
    assert masked["objects"][0]["mask"]["size"] == [80, 90]


def test_csv(tmp_path: Path) -> None:
    regions = DensePrediction("r.png", (2, 3), regions=REGIONS)
    file = written(tmp_path / "a.csv", "csv", answer(), BAD, regions, DensePrediction("none.png", SIZE, FOUND.best(2.0)))
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["path"] for row in rows] == ["pics/a.png"] * 2 + ["pics/bad.png", "r.png", "r.png", "none.png"]
    assert [float(rows[0][side]) for side in ("score", "x1", "y1", "x2", "y2")] == [0.875, *BOXES[0]]
    assert (rows[2]["error"], rows[3]["label"], rows[3]["part"]) == ("cut off", "cow & calf", "0.5")
    assert [rows[5][name] for name in COLUMNS[1:]] == [""] * 8


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_is_whole_or_as_before(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    path, folder = str(tmp_path / "a.jpg"), kind in ("voc", "yolo", "png", "pictures")
    one = DensePrediction(path, (2, 3), regions=REGIONS) if kind == "png" else answer(path)
    out = tmp_path / "out"
    file = out / f"a.{ {'voc': 'xml', 'yolo': 'txt'}.get(kind, 'png') }" if folder else out
    if folder:
        out.mkdir()
    file.write_text("before")

    def stopped() -> None:
        with saved_results(out, kind, Names(CLASSES)) as save:
            if folder:
                monkeypatch.setattr(Path, "replace", interrupted)
            save(one)
            raise KeyboardInterrupt

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert file.read_text() == "before"
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == [tmp_path / "a.jpg", file]
    monkeypatch.undo()
    written(out, kind, one)
    assert file.read_bytes() != b"before"


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^'xml' is no format: coco, voc, yolo, png, pictures, jsonl, csv$"):
        written(tmp_path / "a", "xml")
    with pytest.raises(ValueError, match=r"^r\.png has regions, and VOC files hold objects: write png, jsonl or csv$"):
        written(tmp_path / "a", "voc", DensePrediction("r.png", (2, 3), regions=REGIONS))
    with pytest.raises(ValueError, match=r"^pics/a\.png has objects, and label PNGs hold regions: write coco, voc"):
        written(tmp_path / "b", "png", answer())
    with pytest.raises(ValueError, match=r"^pics/a\.png and more/a\.jpg would both be .*a\.txt: write them into two folders$"):
        written(tmp_path / "c", "yolo", answer(), answer("more/a.jpg"))


@pytest.mark.parametrize("kind", FORMATS)
def test_no_image_is_written_over(tmp_path: Path, kind: str) -> None:
    """Neither the one that is answered nor one that is still to be asked about, by whatever name."""
    end = {"voc": ".xml", "yolo": ".txt", "png": ".png", "pictures": ".png"}.get(kind)
    (tmp_path / "link").symlink_to(tmp_path)
    out = tmp_path / "link" if end else tmp_path / "link" / "b.png"
    image = tmp_path / f"b{end or '.png'}"
    Image.new("RGB", (8, 8)).save(image, format="png")
    before = image.read_bytes()
    saved = saved_results(out, kind, Names(CLASSES), [tmp_path / "a.jpg", tmp_path / "b.jpg", image])
    with pytest.raises(ValueError, match=r"b\.\w+ is one of the images, which would be lost: give another --out$"), saved:
        pass
    one = DensePrediction(str(image), (2, 3), regions=REGIONS) if kind == "png" else answer(str(image))
    if end:
        with pytest.raises(ValueError, match="which would be lost"):
            written(out, kind, one)
    assert image.read_bytes() == before


@pytest.mark.parametrize("kind", ["voc", "yolo", "png", "pictures"])
def test_a_list_of_classes_is_no_other_ones(tmp_path: Path, kind: str) -> None:
    (tmp_path / "classes.txt").write_text("255 0 0 ant\n")
    if kind in ("voc", "pictures"):
        written(tmp_path, kind)
    else:
        with pytest.raises(ValueError, match=r"classes\.txt is there already and says something else"):
            written(tmp_path, kind)
        written(tmp_path / "new", kind)
        written(tmp_path / "new", kind)
        assert (tmp_path / "new" / "classes.txt").read_text().splitlines() == list(CLASSES)
    assert (tmp_path / "classes.txt").read_text() == "255 0 0 ant\n"


def test_pixels_of_painted_boxes_are_theirs() -> None:
    assert painted([[1, 2, 3, 5]], (6, 6)).sum() == 6
