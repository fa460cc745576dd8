import re
from xml.etree import ElementTree

import pytest
import torch
from tests.found import found, just_so, objects
from tests.tasks.test_coco import CLASSES, scene

from metaformer.lab.charts import Frame, ticks
from metaformer.lab.dense_charts import LINES, ROW, Row, class_bars, detection_rows, precision_recall, region_rows
from metaformer.tasks.coco import judge
from metaformer.tasks.regions import judge as judge_regions


def lines_of(svg: str) -> dict[str, list[tuple[float, float]]]:
    root = ElementTree.fromstring(svg)
    return {
        line[0].text or "": [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
        for line in root.iter("polyline")
    }


def test_precision_over_recall() -> None:
    """Half found, then something wrong: 1 down to a recall of 0.5, nothing beyond."""
    truth = objects(0, [[10, 10, 30, 30], [50, 50, 70, 70]], [0, 0])
    done = judge([(truth, found([[10, 10, 30, 30], [80, 0, 90, 10]], [0, 0], [0.9, 0.8]))], CLASSES)
    svg, lines = precision_recall(done.box, CLASSES)
    assert [line.name for line in lines] == ["ant"]
    frame = Frame(ticks(0, 1), ticks(0, 1), "recall")
    points = lines_of(svg)["ant"]
    assert points[0] == pytest.approx((frame.across(0), frame.down(1)), abs=0.5)
    assert points[1] == pytest.approx((frame.across(0.5), frame.down(1)), abs=0.5)
    assert points[-1] == pytest.approx((frame.across(1), frame.down(0)), abs=0.5)


def test_the_mean_comes_first_and_few_classes_beside_it() -> None:
    done = judge(scene(), CLASSES)
    svg, lines = precision_recall(done.box, CLASSES)
    assert lines[0].name == "all classes"
    assert {line.name for line in lines[1:]} == set(CLASSES)
    assert len({line.colour for line in lines}) == 4
    assert list(lines_of(svg)) == [line.name for line in reversed(lines)]
    many = tuple(f"class {i}" for i in range(20))
    truth = objects(0, [[5 * i, 0, 5 * i + 4, 5 + i] for i in range(20)], list(range(20)))
    assert len(precision_recall(judge([(truth, just_so(truth))], many).box, many)[1]) == LINES + 1
    assert precision_recall(judge([(objects(0, [], []), found([], [], []))], CLASSES).box, CLASSES)[1] == []


def test_rows_say_what_the_figures_are() -> None:
    truth = objects(0, [[10, 10, 30, 30], [50, 50, 70, 70]], [0, 0])
    done = judge([(truth, found([[10, 10, 30, 30], [80, 0, 90, 10]], [0, 0], [0.9, 0.8]))], CLASSES)
    ant, bee, _ = detection_rows(done.box, CLASSES)
    assert (ant.value, bee.value) == (done.box.per_class[0].ap, None)
    assert ant.said == "ant: AP 50.5, AP50 50.5, recall 50.0, 2 objects"
    assert bee.said == "bee: AP –, AP50 –, recall –, 0 objects"
    maps = judge_regions([("a", torch.zeros(4, 4), torch.zeros(4, 4))], CLASSES)
    assert [(row.value, row.said) for row in region_rows(maps)][:2] == [
        (1.0, "ant: IoU 100.0, accuracy 100.0, boundary F 100.0"), (None, "bee: IoU –, accuracy –, boundary F –"),
    ]  # fmt: skip


def test_a_bar_for_each_class() -> None:
    rows = [Row("a < b", 0.25, "one & all"), Row("best", 1.0, "ten"), Row("nowhere" * 5, None, "none")]
    svg = class_bars(rows, "AP by class")
    root = ElementTree.fromstring(svg)
    wide = [float(bar.get("width", "")) for bar in root.iter("rect")]
    assert wide[1] == pytest.approx(wide[0] / 4, abs=0.1)
    assert wide[2] < 1
    texts = [text.text or "" for text in root.iter("text")]
    assert texts == ["best", "100.0", "a < b", "25.0", "nowherenowherenow…", "–"]
    assert [title.text for title in root.iter("title")] == ["ten", "one & all", "none"]
    assert root.get("viewBox", "").endswith(f" {3 * ROW + 4}")
    assert not re.search(r"#[0-9a-f]{6}", svg)  # colours are the page's
