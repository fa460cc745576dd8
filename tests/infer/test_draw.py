from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from metaformer.infer import draw
from metaformer.infer.draw import LEAST, Measures, beside, draw_objects, draw_regions, with_legend
from metaformer.infer.palette import palette

CLASSES = ("ant", "bee", "a class whose name is so long that no picture has room for it " * 3)
BLUE, ORANGE = palette(2)


def grey(width: int = 960, height: int = 720) -> Image.Image:
    return Image.new("RGB", (width, height), (90, 90, 90))


def colours_of(image: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(row) for row in np.unique(np.asarray(image).reshape(-1, 3), axis=0).tolist()}


def test_a_box_is_drawn_at_its_edges() -> None:
    drawn = draw_objects(grey(), np.array([[100, 200, 300, 400]]), np.array([1]), CLASSES, legend=False)
    pixels = np.asarray(drawn)
    assert drawn.size == (960, 720)
    line = Measures.of(drawn.size).line
    for row, column in ((300, 100), (300, 299), (399, 200), (300, 100 + line - 1)):
        assert tuple(pixels[row, column]) == ORANGE
    assert tuple(pixels[300, 200]) == tuple(pixels[100, 500]) == (90, 90, 90)
    assert tuple(pixels[300, 99]) == (255, 255, 255)  # the rim


def test_a_mask_is_filled_lightly_and_has_an_edge() -> None:
    mask = np.zeros((1, 720, 960), bool)
    mask[0, 100:300, 200:400] = True
    boxes = np.array([[200, 100, 400, 300]])
    pixels = np.asarray(draw_objects(grey(), boxes, np.array([0]), CLASSES, masks=mask, legend=False)).astype(int)
    inside = pixels[200, 300]
    assert np.abs(inside - (0.6 * 90 + 0.4 * np.array(BLUE))).max() <= 1
    assert tuple(pixels[50, 300]) == (90, 90, 90)


def test_a_crowd_has_no_mask_and_its_name_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda _, place, text, **how: written.append(text))
    masks, boxes = np.zeros((2, 720, 960), bool), np.array([[200, 100, 400, 300], [500, 100, 700, 300]])
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    crowd = np.array([True, False])
    drawn = draw_objects(grey(), boxes, np.array([0, 1]), CLASSES, masks=masks, crowd=crowd, legend=False)
    pixels = np.asarray(drawn).astype(int)
    assert tuple(pixels[200, 300]) == (90, 90, 90) != tuple(pixels[200, 600])
    assert written == ["ant (crowd)", "bee"]


def test_a_small_image_is_enlarged_with_what_is_in_it() -> None:
    mask = np.zeros((1, 24, 32), bool)
    mask[0, 12:18, 8:16] = True
    drawn = draw_objects(grey(32, 24), np.array([[8, 12, 16, 18]]), np.array([0]), CLASSES, masks=mask, legend=False)
    assert drawn.size == (LEAST, LEAST * 24 // 32)
    scale = LEAST / 32
    pixels = np.asarray(drawn).astype(int)
    assert tuple(pixels[int(15 * scale), int(8 * scale)]) == BLUE
    assert np.abs(pixels[int(15 * scale), int(12 * scale)] - (0.6 * 90 + 0.4 * np.array(BLUE))).max() <= 1
    assert tuple(pixels[int(5 * scale), int(4 * scale)]) == (90, 90, 90)


@pytest.mark.parametrize("size", [(960, 720), (60, 40), (1600, 300), (300, 1600)])
def test_names_never_overlap_and_stay_in_the_picture(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.RandomState(0)
    corners = random.rand(40, 2) * size
    boxes = np.concatenate([corners, np.minimum(corners + random.rand(40, 2) * 100 + 2, size)], 1)
    drawn: list[tuple[float, ...]] = []
    rectangle = ImageDraw.ImageDraw.rectangle

    def noted(self: ImageDraw.ImageDraw, xy: tuple[float, ...], **how: object) -> None:
        if "fill" in how and "outline" not in how:
            drawn.append(xy)
        rectangle(self, xy, **how)

    monkeypatch.setattr(draw.ImageDraw.ImageDraw, "rectangle", noted)
    picture = draw_objects(grey(*size), boxes, random.randint(0, 3, 40), CLASSES, scores=random.rand(40), legend=False)
    assert 3 <= len(drawn) < 40
    for one, other in combinations(drawn, 2):
        assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
    assert all(min(x1, y1) >= 0 and x2 < picture.width and y2 < picture.height for x1, y1, x2, y2 in drawn)


def test_where_names_meet_the_surer_one_is_written() -> None:
    boxes, labels = np.array([[2.0, 2, 900, 700]] * 9), np.array([0] * 8 + [1])
    first = draw_objects(grey(), boxes, labels, CLASSES, scores=np.array([0.5] * 8 + [0.9]), legend=False)
    last = draw_objects(grey(), boxes, labels, CLASSES, scores=np.array([0.5] * 8 + [0.1]), legend=False)
    count = [int((np.asarray(image) == ORANGE).all(2).sum()) for image in (first, last)]
    assert count[0] > 2 * count[1]  # its box lies on top, and its name stands


def test_the_legend_names_what_is_there() -> None:
    boxes, labels = np.array([[100, 200, 300, 400], [10, 10, 50, 50]]), np.array([1, 1])
    bare = draw_objects(grey(), boxes, labels, CLASSES, legend=False)
    drawn = draw_objects(grey(), boxes, labels, CLASSES)
    assert drawn.width == bare.width
    assert drawn.height > bare.height
    assert np.array_equal(np.asarray(drawn)[: bare.height], np.asarray(bare))
    below = drawn.crop((0, bare.height, *drawn.size))
    assert ORANGE in colours_of(below)
    assert BLUE not in colours_of(below)
    nothing = draw_objects(grey(), np.zeros((0, 4)), np.zeros(0, int), CLASSES)
    assert np.array_equal(np.asarray(nothing), np.asarray(grey()))


def test_a_legend_of_many_names_has_rows() -> None:
    entries = [(f"class number {i}", colour) for i, colour in enumerate(palette(60))]
    measures = Measures.of((960, 720))
    page = with_legend(grey(), entries, measures)
    assert set(palette(60)) <= colours_of(page.crop((0, 720, *page.size)))
    assert page.width == 960
    narrow = with_legend(grey(40, 960), entries[:3], measures)
    assert narrow.width == LEAST // 2
    assert with_legend(grey(), [], measures).size == (960, 720)


def test_regions_have_the_colours_of_their_classes() -> None:
    regions = np.zeros((720, 960), np.uint8)
    regions[:, 480:] = 1
    regions[600:] = 255
    drawn = draw_regions(grey(), regions, CLASSES)
    pixels = np.asarray(drawn).astype(int)
    for column, colour in ((100, BLUE), (800, ORANGE)):
        assert np.abs(pixels[200, column] - (0.3 * (0.5 * 90 + 64) + 0.7 * np.array(colour))).max() <= 1
    assert tuple(pixels[200, 480]) == (255, 255, 255)  # the seam
    void = pixels[650, 100]
    assert void.max() == void.min()
    below = colours_of(drawn.crop((0, 720, *drawn.size)))
    assert {BLUE, ORANGE} <= below
    assert palette(3)[2] not in below
    assert draw_regions(grey(64, 48), np.zeros((48, 64), np.uint8), CLASSES, legend=False).size == (LEAST, 720)


def test_pictures_side_by_side() -> None:
    page = beside([("truth", grey()), ("a title that is longer than its picture " * 4, grey(320, 480))])
    text = Measures.of((960, 720)).text
    assert page.size == (960 + text // 2 + 320, 720 + 2 * text)
    pixels = np.asarray(page)
    assert pixels[: 2 * text, :960].min() == 0  # the title
    assert tuple(pixels[2 * text, 0]) == tuple(pixels[2 * text + 479, -1]) == (90, 90, 90)
    assert tuple(pixels[-1, -1]) == (255, 255, 255)


@pytest.mark.parametrize("side", [320, 960, 1500])
def test_a_picture_has_the_size_that_is_asked_for(side: int) -> None:
    mask = np.zeros((1, 720, 960), bool)
    mask[0, 240:480, 320:640] = True
    boxes, scale = np.array([[320, 240, 640, 480]]), side / 960
    drawn = draw_objects(grey(), boxes, np.array([0]), CLASSES, masks=mask, legend=False, side=side)
    pixels = np.asarray(drawn).astype(int)
    assert drawn.size == (side, side * 3 // 4)
    assert tuple(pixels[int(360 * scale), round(320 * scale)]) == BLUE
    assert np.abs(pixels[int(360 * scale), int(480 * scale)] - (0.6 * 90 + 0.4 * np.array(BLUE))).max() <= 1
    regions = draw_regions(grey(), mask[0].astype(np.uint8), CLASSES, legend=False, side=side)
    assert regions.size == drawn.size
    assert np.abs(np.asarray(regions)[int(360 * scale), int(480 * scale)] - (0.3 * 109 + 0.7 * np.array(ORANGE))).max() <= 1


def test_what_is_drawn_grows_with_the_picture() -> None:
    small, large = Measures.of((640, 480)), Measures.of((4000, 3000))
    assert large.line > 4 * small.line
    assert large.text > 5 * small.text
    assert Measures.of((100, 100)).text >= 13
