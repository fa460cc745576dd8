"""Pictures of a study: what is in them, from made-up results; and the papers' figure 1."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tests.studied import rights_of

from metaformer.lab import published, study_plots
from metaformer.lab.studies import STUDIES
from metaformer.lab.study import Row, Study
from metaformer.lab.study_figures import Figures, Standing
from metaformer.lab.study_plots import Dot, front
from metaformer.zoo import TOP1


def dots(*places: tuple[float, float]) -> list[Dot]:
    return [Dot(f"{x}-{y}", x, y, y, y, "") for x, y in places]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written, as matplotlib has them."""
    found: list[Figure] = []
    write = study_plots.write

    def kept(made: Figure, path: Path) -> None:
        found.append(made)
        write(made, path)

    monkeypatch.setattr(study_plots, "write", kept)
    return found


@pytest.fixture(scope="module")
def standings() -> list[Standing]:
    """Of the norm study, one row without a speed, one without results."""
    names = [row.name for row in STUDIES["norm"].rows][:3]
    results, rights = rights_of({name: [0.5 + 0.1 * i, 0.52 + 0.1 * i] for i, name in enumerate(names)}, 400)
    return Figures(STUDIES["norm"], results, rights).standings({names[0]: 100.0, names[1]: 50.0})


def test_the_front_has_what_none_beats_in_both() -> None:
    places = dots((1, 50), (2, 60), (2, 55), (3, 58), (4, 70), (5, 70))
    assert [(dot.x, dot.y) for dot in front(places, more=False)] == [(1, 50), (2, 60), (4, 70)]
    assert [(dot.x, dot.y) for dot in front(places, more=True)] == [(5, 70)]
    assert front([], more=True) == []


def test_what_collapsed_is_told_and_not_drawn() -> None:
    places = dots((1, 87), (2, 88), (3, 89), (4, 86), (5, 56), (6, 10))
    assert [(dot.x, dot.y) for dot in study_plots.apart(places)] == [(5, 56), (6, 10)]
    assert study_plots.apart(places[:4]) == []


def test_every_row_that_is_known_is_in_the_picture(standings: list[Standing], tmp_path: Path, drawn: list[Figure]) -> None:
    study_plots.accuracy(standings, tmp_path / "a.png", "made", "batch 64, median of 7")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] > 1500
    macs, parameters, speed = drawn[0].axes
    assert [text.get_text() for text in macs.texts] == ["batchnorm", "layernorm", "pooling"]
    assert len(parameters.texts) == 3
    assert sorted(text.get_text() for text in speed.texts) == ["layernorm", "pooling"]
    assert speed.get_title() == "batch 64"
    edge = speed.lines[0]
    assert list(edge.get_xdata()) == [100.0, 50.0]


def test_names_do_not_cover_each_other(tmp_path: Path, drawn: list[Figure]) -> None:
    """Twenty rows that cost the same and score alike."""
    rows = tuple(Row(f"a-long-name-{i}") for i in range(20))
    results, rights = rights_of({row.name: [0.5 + 0.002 * i] * 2 for i, row in enumerate(rows)}, 1000)
    study_plots.accuracy(Figures(Study(name="made", rows=rows), results, rights).standings({}), tmp_path / "a.png", "made", "")
    drawn[0].canvas.draw()
    renderer = drawn[0].canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [text.get_tightbbox(renderer) for text in drawn[0].axes[0].texts]
    names = [text.get_window_extent(renderer) for text in drawn[0].axes[0].texts]
    assert len(boxes) == 20
    assert not [
        (i, j) for i in range(20) for j in range(i) if shared(names[i], names[j]) > 0.1 * names[i].width * names[i].height
    ]


def shared(one: object, other: object) -> float:
    """The area that two boxes have in common."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)  # type: ignore[attr-defined]
    height = min(one.y1, other.y1) - max(one.y0, other.y0)  # type: ignore[attr-defined]
    return max(0.0, width) * max(0.0, height)


def test_learning_curves_are_means_between_extremes(standings: list[Standing], tmp_path: Path, drawn: list[Figure]) -> None:
    study_plots.learning(standings, tmp_path / "l.png", "made")
    panels = [axis for axis in drawn[0].axes if axis.get_visible()]
    assert [axis.get_title() for axis in panels] == ["pooling", "layernorm", "batchnorm"]
    (own,) = panels[0].lines
    assert list(own.get_ydata()) == [40.0, 50.5]
    base, _ = panels[1].lines
    assert list(base.get_ydata()) == [40.0, 50.5]


def test_a_seed_that_stopped_early_leaves_a_shorter_curve(tmp_path: Path, drawn: list[Figure]) -> None:
    results, rights = rights_of({"pooling": [0.5, 0.6]}, 100)
    results[1].curve.pop()
    study = Study(name="made", rows=(Row("pooling"),))
    study_plots.learning(Figures(study, results, rights).standings({}), tmp_path / "l.png", "made")
    assert list(drawn[0].axes[0].lines[0].get_ydata()) == [40.0, 50.0]


def test_figure_one_has_every_published_model(tmp_path: Path, drawn: list[Figure], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "count", lambda model, size: type("C", (), {"parameters": 2e6, "macs": 10**9})())
    rates = dict.fromkeys(TOP1, 5.0)
    models = published.published_models(rates)
    study_plots.figure_one(models, published.LEVELS, tmp_path / "f.png", how="measured")
    macs, parameters, speed = drawn[0].axes
    for axis, alone in ((macs, 2), (parameters, 2), (speed, 0)):
        points = np.concatenate([line.get_ydata() for line in axis.lines if line.get_marker() == "o"])
        assert len(points) == len(TOP1) + alone
        assert set(points) >= {top1 for top1, _ in TOP1.values()}
    assert "PUBLISHED" in macs.get_ylabel()
    assert "none was trained here" in drawn[0].get_suptitle()
    assert {text.get_text() for text in macs.texts} >= {"Swin-B", "ConvNeXt-L", "RSB-ResNet-50"}
    models = [replace(one, rate=None) for one in models]
    study_plots.figure_one(models, published.LEVELS, tmp_path / "f.png")
    assert len(drawn[1].axes) == 2
