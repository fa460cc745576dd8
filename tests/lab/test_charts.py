"""Charts: ticks, and where values lie on the drawing."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaformer.lab import charts
from metaformer.lab.charts import HEIGHT, WIDTH, Frame, Series, ticks
from metaformer.tasks.metrics import Bin


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (1, 4, [1, 2, 3, 4]), (0.23, 1.71, [0, 0.5, 1, 1.5, 2]), (1, 300, [0, 100, 200, 300])],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_hold_the_values(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert found[0] <= low + 1e-6 * max(1, abs(low), span)
    assert found[-1] >= low + span - 1e-6 * max(1, abs(low), span)
    assert 2 <= len(found) <= 8
    assert found == sorted(set(found))


def test_a_frame_places_its_corners() -> None:
    frame = Frame([0, 1], [10, 20], "x")
    assert (frame.across(0), frame.across(1)) == (charts.LEFT, WIDTH - charts.RIGHT)
    assert (frame.down(10), frame.down(20)) == (HEIGHT - charts.BOTTOM, charts.TOP)


def test_lines_leave_out_points_that_change_nothing() -> None:
    frame = Frame([0, 1], [0, 1], "x")
    flat = Series("a", [(i / 1000, 1.0) for i in range(1001)], 0)
    assert str(frame.line(flat)).count(",") == 2
    stairs = Series("b", [(0, 0), (0, 0.2), (0, 0.5), (0.4, 0.5), (0.4, 0.5), (1, 0.5), (1, 1)], 0)
    assert str(frame.line(stairs)).count(",") == 4


def drawings() -> list[str]:
    lines = [Series('<"a">', [(1, 0.5), (2, 0.2)], 0), Series("b", [(1, 3.0), (2, 4.0)], 1)]
    curve = [Series("c", [(0, 0), (0, 0.5), (0.5, 1), (1, 1)], 12)]
    bins = [Bin(0, 0.5, 0, None, None), Bin(0.5, 1, 4, 0.8, 0.75)]
    one = [Series("only", [(1, 7.0)], 0)]
    return [charts.by_epoch(lines, 2, "loss"), charts.by_epoch(one, 1, "top-1"), charts.roc(curve), charts.roc_left(curve),
            charts.reliability(bins), charts.sureness(bins)]  # fmt: skip


def test_every_chart_is_well_formed_and_inside_its_frame() -> None:
    for text in drawings():
        root = ElementTree.fromstring(text)
        assert root.get("viewBox") == f"0 0 {WIDTH} {HEIGHT}"
        assert root.get("aria-label")
        for shape in root.iter("rect"):
            assert float(shape.get("width", "")) > 0
            assert float(shape.get("height", "")) >= 0


def test_pointing_at_an_epoch_tells_its_values() -> None:
    assert "epoch 2\n&lt;&#34;a&#34;&gt;: 0.2\nb: 4" in drawings()[0]


def test_bars_tell_their_images() -> None:
    reliability, sureness = drawings()[-2:]
    assert "50% to 100% sure: 4 images\nconfidence 80.0%, accuracy 75.0%" in reliability
    assert "50% to 100% sure: 3 right, 1 wrong" in sureness
    assert len(re.findall("<rect", reliability)) == 2  # the empty bin has no bar
