"""The pictures of a run show what they are given."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from metaformer.lab import plots

METRICS = [
    {"epoch": n + 1, "train_loss": 2 - n / 5, "val_loss": 1.9 - n / 5, "top1": 50.0 + 9 * n, "lr": 1e-3 * (5 - n)}
    for n in range(5)
]
CLASSES = ("cat", "dog", "$m$ouse")


def drawn(path: Path) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of a picture."""
    assert not path.with_name(path.name + ".tmp").exists()
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def amount(pixels: NDArray[np.uint8], colour: str) -> int:
    """How many pixels have that colour."""
    wanted = np.round(np.array(to_rgb(colour)) * 255)
    return int((np.abs(pixels.astype(int) - wanted).max(2) < 12).sum())


@pytest.mark.parametrize("epochs", [1, 5])
def test_curves_show_every_column(tmp_path: Path, epochs: int) -> None:
    full, none = METRICS[:epochs], {"train_loss": np.nan, "val_loss": np.nan, "lr": np.nan}
    plots.curves(full, tmp_path / "full.png")
    plots.curves([line | none for line in full], tmp_path / "none.png")
    pixels, blank = drawn(tmp_path / "full.png"), drawn(tmp_path / "none.png")
    assert pixels.shape[1] > 2 * pixels.shape[0] > 600
    assert amount(pixels, plots.GREEN) > 20  # the best epoch is marked
    for colour in (plots.ORANGE, plots.BLUE, plots.GREY):
        assert amount(pixels, colour) - amount(blank, colour) > (8 if epochs == 1 else 100)


def test_overlaid_has_a_colour_for_each_run(tmp_path: Path) -> None:
    plots.overlaid({"runs/a": METRICS, "$b$": METRICS[:1]}, tmp_path / "two.png")
    plots.overlaid({"runs/a": METRICS}, tmp_path / "one.png")
    two, one = drawn(tmp_path / "two.png"), drawn(tmp_path / "one.png")
    assert amount(two, "C0") > 300
    assert amount(two, "C1") > 50
    assert amount(one, "C1") == 0


def tried(number: int, state: str, score: float | None, **settings: str) -> SimpleNamespace:
    return SimpleNamespace(number=number, state=state, score=score, settings=settings)


def test_search_shows_history_importances_and_every_setting(tmp_path: Path) -> None:
    trials = [tried(n, "finished", 50.0 + n, lr=f"{10 ** -(1 + n / 4):.4g}", norm="AB"[n % 2], clip="1") for n in range(9)]
    cut = [tried(9, "pruned", 30.0, lr="0.01", norm="A", clip="none"), tried(10, "stopped", None, lr="0.1")]
    logs = {"lr": True, "norm": False, "clip": False}
    plots.search([*trials, *cut], {"lr": 0.9, "norm": 0.1}, logs, tmp_path / "all.png")
    plots.search(trials, {}, logs, tmp_path / "some.png")
    every, some = drawn(tmp_path / "all.png"), drawn(tmp_path / "some.png")
    assert amount(every, plots.GREEN) > 100
    assert amount(every, plots.GREY) > amount(some, plots.GREY) + 100
    assert amount(every, plots.BLUE) > amount(some, plots.BLUE) + 1000  # the bars
    assert every.shape[0] > 1.5 * drawn_of_one(tmp_path).shape[0]


def drawn_of_one(folder: Path) -> NDArray[np.uint8]:
    """A search of which nothing is known yet."""
    plots.search([], {}, {"lr": True}, folder / "none.png")
    return drawn(folder / "none.png")


def test_what_is_drawn_is_called_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(plots, "write", lambda made, _: titles.append(made.axes[0].get_title()))
    several = [{("map" if key == "top1" else key): value for key, value in line.items()} for line in METRICS]
    for metrics in (METRICS, several):
        plots.overlaid({"a": metrics}, tmp_path / "a.png")
    plots.search([], {}, {}, tmp_path / "b.png")
    plots.search([], {}, {}, tmp_path / "b.png", called="mAP")
    assert [title.partition(",")[0] for title in titles] == [f"{name} on held-out images" for name in ("top-1", "mAP") * 2]


def test_confusion_is_dark_where_images_are(tmp_path: Path) -> None:
    plots.confusion(torch.tensor([[9, 0, 0], [0, 0, 9], [0, 9, 0]]), CLASSES, tmp_path / "a.png")
    plots.confusion(torch.tensor([[0, 9, 0], [9, 0, 0], [0, 0, 9]]), CLASSES, tmp_path / "b.png")
    one, other = drawn(tmp_path / "a.png"), drawn(tmp_path / "b.png")
    dark = [np.abs(pixels.astype(int) - np.array([8, 48, 107])).max(2) < 12 for pixels in (one, other)]
    assert dark[0].sum() == pytest.approx(dark[1].sum(), rel=0.02)
    assert not (dark[0] & dark[1])[: len(one) // 3].any()  # other places
    assert 0.1 < dark[0].mean() < 0.3  # three of nine fields


@pytest.mark.parametrize("count", [1, 60, 61, 200])
def test_confusion_of_any_number_of_classes(tmp_path: Path, count: int) -> None:
    names = [f"class {i}" for i in range(count)]
    plots.confusion(torch.eye(count, dtype=torch.long) * 3, names, tmp_path / "a.png")
    assert max(drawn(tmp_path / "a.png").shape) < 1900
    empty = torch.zeros(count, count, dtype=torch.long)
    plots.confusion(empty, names, tmp_path / "empty.png")  # no image of any class: no division by zero
    assert amount(drawn(tmp_path / "empty.png"), "#08306b") == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_predictions_are_green_where_right_and_red_where_wrong(tmp_path: Path, channels: int) -> None:
    images = torch.randint(0, 256, (10, channels, 8, 8), dtype=torch.uint8)
    sheets: dict[str, NDArray[np.uint8]] = {}
    for name, called in (("right", "cat"), ("wrong", "$m$ouse")):
        plots.predictions(images, ["cat"] * 10, [(called, 0.9)] * 10, tmp_path / f"{name}.png")
        sheets[name] = drawn(tmp_path / f"{name}.png")
    greens, reds = ([amount(sheet, colour) for sheet in sheets.values()] for colour in (plots.GREEN, plots.RED))
    if channels == 1:  # colour images have these colours in them by chance
        assert greens[0] > 200
        assert greens[1] == 0
        assert reds[0] == 0
        assert reds[1] > 200
    assert len(np.unique(sheets["right"].reshape(-1, 3), axis=0)) > 100


def test_a_picture_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    plots.curves(METRICS, tmp_path / "curves.png")
    before = (tmp_path / "curves.png").read_bytes()
    replace: Callable[..., Any] = Path.replace
    monkeypatch.setattr(Path, "replace", cut_short)
    with pytest.raises(KeyboardInterrupt):
        plots.curves(METRICS[:1], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() == before
    monkeypatch.setattr(Path, "replace", replace)
    plots.curves(METRICS[:1], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() != before
