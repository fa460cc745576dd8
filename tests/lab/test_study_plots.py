"""Pictures of a study: what is in them, from made-up results; and the papers' figure 1."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from tests.studied import rights_of

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.count import Count
from metaformer.lab import published, published_plot, study_plots
from metaformer.lab.labels import plain_ticks
from metaformer.lab.plots import figure
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
    write_all = study_plots.write_all

    def kept(made: Figure, path: Path) -> None:
        found.append(made)
        write_all(made, path)

    for module in (study_plots, published_plot):
        monkeypatch.setattr(module, "write_all", kept)
        monkeypatch.setattr(module, "DPI", 100)
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


def test_what_collapsed_is_told_and_not_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    assert study_plots.far_below([87, 88, 89, 86, 56, 10]) == [False] * 4 + [True] * 2
    assert study_plots.far_below([87, 88, 89, 86]) == [False] * 4
    rows = tuple(Row(name) for name in ("a", "b", "c", "gone"))
    results, rights = rights_of({"a": [0.8], "b": [0.81], "c": [0.79], "gone": [0.1]}, 400)
    results = [
        replace(one, curve=[{"epoch": 1, "top1": 0.9 * one.top1}, {"epoch": 2, "top1": one.top1}])
        for one in results
        if one.top1
    ]
    standings = Figures(Study(name="made", rows=rows), results, rights).standings({})
    study_plots.accuracy(standings, tmp_path / "a", "made", "")
    macs = drawn[0].axes[0]
    assert sorted(text.get_text() for text in macs.texts) == ["a", "b", "c"]
    assert macs.get_xlabel() == "multiply-accumulates, M\nfar below: gone 10.0"
    study_plots.learning(standings, tmp_path / "l", "made")
    a, *_, gone = drawn[1].axes
    assert gone.get_title() == "gone (own scale)"
    assert a.get_ylim()[0] > 60 > 12 > gone.get_ylim()[1]
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "l.pdf").exists()


def test_what_others_are_compared_with_is_drawn_however_far_below(tmp_path: Path, drawn: list[Figure]) -> None:
    results, rights = rights_of({"base": [0.3], "a": [0.8], "b": [0.81], "c": [0.79]}, 400)
    rows = tuple(Row(name) for name in ("base", "a", "b", "c"))
    standings = Figures(Study(name="made", rows=rows), results, rights).standings({})
    study_plots.accuracy(standings, tmp_path / "a", "made", "")
    assert sorted(text.get_text() for text in drawn[0].axes[0].texts) == ["a", "b", "base", "c"]


@pytest.mark.parametrize(("low", "high"), [(0.9, 1.02), (0.92, 0.96), (1.05, 1.64), (14, 21), (98, 103), (950, 4800), (2, 900)])
def test_numbers_of_an_axis_do_not_touch(low: float, high: float) -> None:
    made, axes = figure(study_plots.COLUMN, 3)
    axis = axes[0, 0]
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.tick_params(labelsize=7)
    plain_ticks(axis)
    made.canvas.draw()
    boxes = [text.get_window_extent() for text in axis.get_xticklabels() if low <= text.get_position()[0] <= high]
    shown = [text.get_text() for text in axis.get_xticklabels() if low <= text.get_position()[0] <= high]
    assert 3 <= len(shown) == len({*shown})
    assert all(one.x1 + 4 < other.x0 for one, other in pairwise(boxes))


def test_every_row_that_is_known_is_in_the_picture(standings: list[Standing], tmp_path: Path, drawn: list[Figure]) -> None:
    study_plots.accuracy(standings, tmp_path / "a", "made", "batch 64, median of 7")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] == round(200 * study_plots.COLUMN)
    macs, parameters, speed = drawn[0].axes
    assert [text.get_text() for text in macs.texts] == ["batchnorm", "layernorm", "pooling"]
    assert len(parameters.texts) == 3
    assert sorted(text.get_text() for text in speed.texts) == ["layernorm", "pooling"]
    assert speed.get_xlabel() == "measured images/s, forward\n(batch 64)"
    edge = speed.lines[0]
    assert list(edge.get_xdata()) == [100.0, 50.0]


def test_names_with_dollars_are_no_mathematics(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = (Row("$a^$"), Row("b", against="b"))
    results, rights = rights_of({row.name: [0.5] for row in rows}, 400)
    standings = Figures(Study(name="made", rows=rows), results, rights).standings({})
    study_plots.accuracy(standings, tmp_path / "a", "$m^$", "")
    study_plots.learning(standings, tmp_path / "l", "$m^$")
    assert "\\$a^\\$" in [text.get_text() for text in drawn[0].axes[0].texts]
    assert drawn[1].axes[0].get_title() == "\\$a^\\$"


def test_names_do_not_cover_each_other(tmp_path: Path, drawn: list[Figure]) -> None:
    """Twenty rows that cost the same and score alike."""
    rows = tuple(Row(f"a-long-name-{i}") for i in range(20))
    results, rights = rights_of({row.name: [0.5 + 0.002 * i] * 2 for i, row in enumerate(rows)}, 1000)
    study_plots.accuracy(Figures(Study(name="made", rows=rows), results, rights).standings({}), tmp_path / "a", "made", "")
    drawn[0].canvas.draw()
    assert len(drawn[0].axes[0].texts) == 20
    assert covered(drawn[0].axes[0]) == []


def covered(axis: Axes) -> list[tuple[str, str]]:
    """Names of which one covers more than a tenth of the other."""
    names = [(text.get_text(), Text.get_window_extent(text)) for text in axis.texts]
    return [
        (a, b)
        for i, (a, one) in enumerate(names)
        for b, other in names[:i]
        if shared(one, other) > 0.1 * min(one.width * one.height, other.width * other.height)
    ]


def shared(one: object, other: object) -> float:
    """The area that two boxes have in common."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)  # type: ignore[attr-defined]
    height = min(one.y1, other.y1) - max(one.y0, other.y0)  # type: ignore[attr-defined]
    return max(0.0, width) * max(0.0, height)


def test_learning_curves_are_means_between_extremes(standings: list[Standing], tmp_path: Path, drawn: list[Figure]) -> None:
    study_plots.learning(standings, tmp_path / "l", "made")
    panels = [axis for axis in drawn[0].axes if axis.get_visible()]
    assert [axis.get_title() for axis in panels] == ["pooling", "layernorm", "batchnorm"]
    (own,) = panels[0].lines
    assert list(own.get_ydata()) == [40.0, 50.5]
    assert drawn[0].get_supxlabel() == "epoch"
    assert "band: from the lowest to the highest" in drawn[0].get_suptitle()
    base, _ = panels[1].lines
    assert list(base.get_ydata()) == [40.0, 50.5]


def test_a_seed_that_stopped_early_leaves_a_shorter_curve(tmp_path: Path, drawn: list[Figure]) -> None:
    results, rights = rights_of({"pooling": [0.5, 0.6]}, 100)
    results[1].curve.pop()
    study = Study(name="made", rows=(Row("pooling"),))
    study_plots.learning(Figures(study, results, rights).standings({}), tmp_path / "l", "made")
    assert list(drawn[0].axes[0].lines[0].get_ydata()) == [40.0, 50.0]


def test_a_single_epoch_has_a_single_number(tmp_path: Path, drawn: list[Figure]) -> None:
    results, rights = rights_of({"pooling": [0.5]}, 100)
    results[0].curve.pop()
    study = Study(name="made", rows=(Row("pooling"),))
    study_plots.learning(Figures(study, results, rights).standings({}), tmp_path / "l", "made")
    (low, high), ticks = drawn[0].axes[0].get_xlim(), drawn[0].axes[0].get_xticks()
    assert [tick for tick in ticks if low <= tick <= high] == [1]


def counted(config: MetaFormerConfig, size: int) -> Count:
    """About what a model costs, without building it."""
    parameters = sum(8 * dim**2 * depth for dim, depth in zip(config.dims, config.depths, strict=True))
    return Count(parameters, 0, 150 * parameters, 300 * parameters, None, 0, {})


def test_figure_one_has_every_published_model(tmp_path: Path, drawn: list[Figure], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "MetaFormer", lambda config: config)
    monkeypatch.setattr(published, "count", counted)
    rates = {name: 400 / (1 + number % 7) for number, name in enumerate(TOP1)}
    models = published.published_models(rates)
    published_plot.figure_one(models, published.LEVELS, tmp_path / "f", how="measured")
    macs, parameters, speed = drawn[0].axes
    for axis, alone in ((macs, 2), (parameters, 2), (speed, 0)):
        points = np.concatenate([line.get_ydata() for line in axis.lines if line.get_marker() == "o"])
        assert len(points) == len(TOP1) + alone
        assert set(points) >= {top1 for top1, _ in TOP1.values()}
    assert "PUBLISHED" in macs.get_ylabel()
    assert "none was trained here" in drawn[0].get_suptitle()
    assert {text.get_text() for text in macs.texts} >= {"Swin-B", "ConvNeXt-L", "RSB-ResNet-50"}
    drawn[0].canvas.draw()
    assert [covered(axis) for axis in drawn[0].axes] == [[], [], []]
    assert "MEASURED HERE\nmeasured" in speed.get_xlabel()
    models = [replace(one, rate=None) for one in models]
    published_plot.figure_one(models, published.LEVELS, tmp_path / "f")
    assert len(drawn[1].axes) == 2
