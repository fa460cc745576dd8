from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.test_moves import scene_of
from tests.found import found, objects
from tests.painted import NAMES, near, paint, several, write_masks

from metaformer.data.dense import open_dense
from metaformer.data.truth import Scene
from metaformer.infer.palette import palette
from metaformer.lab import plots
from metaformer.lab.dense_pictures import background_confusion, objects_beside, regions_beside, sheet, truth_of
from metaformer.tasks.coco import judge, pair

CLASSES = ("ant", "bee", "cow")
SIZE = (300, 400)
GREY = Image.new("RGB", (400, 300), (90, 90, 90))


def part(page: Image.Image, colour: tuple[int, int, int], left: float, right: float) -> int:
    """How many pixels of a colour lie between two parts of the width, above the legend."""
    pixels = np.asarray(page)[: int(page.height * 0.8), int(left * page.width) : int(right * page.width)]
    return int((np.abs(pixels.astype(int) - colour).sum(2) < 30).sum())


def test_truth_beside_what_was_found() -> None:
    ant, bee, cow = palette(3)
    truth = objects("a", [[50, 50, 150, 150], [200, 100, 300, 250]], [0, 2], size=SIZE, crowd=[False, True], masks=True)
    answer = found([[52, 50, 150, 150], [200, 100, 300, 250]], [1, 0], [0.9, 0.2], SIZE)
    page = objects_beside(GREY, pair(truth, answer), CLASSES, 0.5, side=960)
    assert part(page, ant, 0, 0.48) > 100
    assert part(page, cow, 0, 0.48) > 100
    assert part(page, bee, 0, 0.48) == 0
    assert part(page, bee, 0.52, 1) > 100
    assert part(page, ant, 0.52, 1) == 0  # not sure enough
    alone = objects_beside(GREY, pair(objects("b", [], [], size=SIZE), found([], [], [])), CLASSES, 0.5, side=960)
    assert part(alone, ant, 0, 1) == 0


def test_regions_beside_the_image() -> None:
    there = np.zeros(SIZE[::1], np.uint8)
    answer = np.full_like(there, 2)
    page = regions_beside(GREY, there, answer, CLASSES, side=400)
    tint = [tuple(int(0.3 * (0.5 * 90 + 64) + 0.7 * side) for side in palette(3)[c]) for c in (0, 2)]
    assert page.width > 3 * 400
    assert part(page, (90, 90, 90), 0, 0.33) > 1000
    assert part(page, tint[0], 0.34, 0.66) > 1000 > part(page, tint[1], 0.34, 0.66)
    assert part(page, tint[1], 0.68, 1) > 1000 > part(page, tint[0], 0.68, 1)


@pytest.mark.parametrize("kind", ["objects", "regions"])
def test_truth_is_shown_where_it_is(tmp_path: Path, kind: str) -> None:
    if kind == "regions":
        made = open_dense(write_masks(tmp_path, several(8, (300, 220))), regions=True).val.scene(0)
    else:
        made = scene_of(paint(0, (300, 220)))
    drawn = np.asarray(truth_of(Scene(made.image * 0, made.truth), (*NAMES[:3], "ground"), side=300)).astype(int)
    assert drawn.shape == (220, 300, 3)
    share, grey = (0.7, 0.3 * 64) if kind == "regions" else (0.4, 0)
    for c in range(3):
        inside = np.median(drawn[near(made.image.numpy(), c)], axis=0)
        assert np.abs(inside - (share * np.array(palette(4)[c]) + grey)).max() <= 2


def test_confusion_has_a_row_and_a_column_for_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = objects("a", [[50, 50, 150, 150], [200, 100, 300, 250]], [0, 2], size=SIZE)
    done = judge([(truth, found([[50, 50, 150, 150], [0, 0, 20, 20]], [1, 1], [0.9, 0.8]))], CLASSES)
    drawn: list[tuple[list[list[int]], tuple[str, ...]]] = []
    confusion = plots.confusion

    def noted(counts: torch.Tensor, classes: tuple[str, ...], path: Path) -> None:
        drawn.append((counts.tolist(), classes))
        confusion(counts, classes, path)

    monkeypatch.setattr(plots, "confusion", noted)
    background_confusion(done, 0.5, tmp_path / "confusion.png")
    assert drawn == [([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]], (*CLASSES, "background"))]
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.width > 300


def test_a_sheet_has_all_below_each_other(tmp_path: Path) -> None:
    sheet([GREY, GREY.resize((100, 50))], tmp_path / "worst.png", gap=10)
    with Image.open(tmp_path / "worst.png") as picture:
        assert picture.size == (400, 360)
        assert picture.getpixel((200, 330)) == (255, 255, 255)
        assert picture.getpixel((50, 330)) == (90, 90, 90)
    assert [path.name for path in tmp_path.iterdir()] == ["worst.png"]
    sheet([], tmp_path / "none.png")
    assert (tmp_path / "none.png").exists()
