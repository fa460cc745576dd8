"""Names in a picture: near their dots, within the picture, none over another."""

import numpy as np
import pytest
from matplotlib.text import Text

from metaformer.lab.labels import Label, plain_ticks, write_names
from metaformer.lab.plots import figure


@pytest.mark.parametrize("spread", [0.0, 0.05, 1.0])
def test_names_are_within_the_picture_and_apart(spread: float) -> None:
    random = np.random.default_rng(0)
    made, axes = figure(5, 4)
    axis = axes[0, 0]
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    places = 0.5 + spread * (random.random((24, 2)) - 0.5)
    taken = (0.0, 0.0, 330.0, 130.0)
    write_names(axis, [Label(f"name-{i}", x, y) for i, (x, y) in enumerate(places)], taken=[taken])
    made.canvas.draw()
    inside = axis.get_window_extent()
    boxes = [Text.get_window_extent(text) for text in axis.texts]
    assert len(boxes) == 24
    for i, box in enumerate(boxes):
        assert inside.x0 - 1 <= box.x0 <= box.x1 <= inside.x1 + 1
        assert inside.y0 - 1 <= box.y0 <= box.y1 <= inside.y1 + 1
        for other in [*boxes[:i], type(box).from_extents(*taken)]:
            assert min(box.x1, other.x1) - max(box.x0, other.x0) <= 1 or min(box.y1, other.y1) - max(box.y0, other.y0) <= 1


def test_a_name_alone_is_right_of_its_dot_and_far_ones_have_a_line() -> None:
    _, axes = figure(5, 4)
    axis = axes[0, 0]
    write_names(axis, [Label("alone", 0.2, 0.2, "#ff0000"), *(Label("crowd", 0.6, 0.6) for _ in range(9))])
    alone = next(text for text in axis.texts if text.get_text() == "alone")
    assert alone.xyann[0] == pytest.approx(4)
    assert abs(alone.xyann[1]) < 4
    assert (alone.arrow_patch, alone.get_color()) == (None, "#ff0000")
    lines = [text.arrow_patch is not None for text in axis.texts if text.get_text() == "crowd"]
    assert any(lines)
    assert not all(lines)


def test_no_two_names_are_one_word_and_one_nearer_to_another_dot_has_a_line() -> None:
    made, axes = figure(5, 4)
    axis = axes[0, 0]
    places = [(0.5, 0.5), (0.5, 0.51), (0.5, 0.52), (0.5, 0.53), (0.53, 0.5)]
    write_names(axis, [Label(f"n{i}", x, y) for i, (x, y) in enumerate(places)])
    made.canvas.draw()
    boxes = {text.get_text(): Text.get_window_extent(text) for text in axis.texts}
    for one, box in boxes.items():
        for other, beside in boxes.items():
            if one < other and min(box.y1, beside.y1) > max(box.y0, beside.y0):
                assert max(box.x0, beside.x0) - min(box.x1, beside.x1) > 0.2 * box.height
    dots = axis.transData.transform(places)
    for text, own in zip(sorted(axis.texts, key=Text.get_text), dots, strict=True):
        box = boxes[text.get_text()]
        gaps = [np.hypot(max(box.x0 - x, x - box.x1, 0), max(box.y0 - y, y - box.y1, 0)) for x, y in dots]
        nearest = gaps[[tuple(dot) for dot in dots].index(tuple(own))] <= min(gaps) + 1
        assert nearest or text.arrow_patch is not None


def test_numbers_are_written_as_they_are() -> None:
    made, axes = figure(5, 4)
    axis = axes[0, 0]
    axis.plot([0.9, 2.1, 3000], [1, 2, 3])
    axis.set_xscale("log")
    plain_ticks(axis)
    made.canvas.draw()
    assert {text.get_text() for text in axis.get_xticklabels()} >= {"1", "10", "100", "1,000"}
