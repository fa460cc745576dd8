"""Runs side by side."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from metaformer import compare
from metaformer.recipes import SMALL
from metaformer.runs import Run, create_run

LINE = {"train_loss": 1.0, "val_loss": 0.5, "lr": 1e-3, "seconds": 2.0, "images_per_second": 100.0}


def made(root: Path, name: str, *top1: float, **settings: object) -> Run:
    run = create_run(replace(SMALL, **settings), root, name)
    lines = (json.dumps({"epoch": epoch, "top1": value, **LINE}) + "\n" for epoch, value in enumerate(top1, 1))
    (run.path / "metrics.jsonl").write_text("".join(lines))
    return run


@pytest.fixture
def three(here: Path) -> tuple[Run, Run, Run]:
    """Three runs, of which the last has no epoch."""
    one = made(Path("runs"), "one", 50.0, 60.0, 55.0)
    two = made(Path("runs"), "two", 70.0, lr=1e-3, changes={"norm": "MLN()"})
    return one, two, made(here / "elsewhere", "three", lr=2e-3, clip=None)


def test_settings_that_differ_and_figures(three: tuple[Run, Run, Run]) -> None:
    found = compare("one", "runs/two", three[2].path)
    assert found.paths == (Path("runs/one"), Path("runs/two"), three[2].path)
    assert found.settings == {"lr": (2e-3, 1e-3, 2e-3), "clip": (1.0, 1.0, None), "model.norm": (None, "MLN()", None)}
    assert found.figures == {
        "epochs": (3, 1, 0), "best_epoch": (2, 1, None), "best_score": (60.0, 70.0, None), "last_score": (55.0, 70.0, None),
        "last_val_loss": (0.5, 0.5, None), "last_train_loss": (1.0, 1.0, None), "seconds": (6.0, 2.0, None),
        "images_per_second": (100.0, 100.0, None),
    }  # fmt: skip
    assert json.loads(json.dumps(found.to_dict()))["paths"] == [str(path) for path in found.paths]


def test_the_curves_are_drawn_where_asked(three: tuple[Run, Run, Run]) -> None:
    found = compare("one", "two", out="both.png")
    assert found.picture == Path("both.png")
    with Image.open("both.png") as image:
        assert image.width > 2 * image.height > 600


def test_without_an_epoch_there_is_no_picture(here: Path) -> None:
    for name in ("a", "b"):
        made(Path("runs"), name)
    assert compare("a", "b").picture is None
    assert [path.name for path in here.iterdir()] == ["runs"]


def test_names_lie_under_root(three: tuple[Run, Run, Run]) -> None:
    made(Path("elsewhere"), "four", 10.0)
    assert compare("three", "four", root="elsewhere").figures["epochs"] == (0, 1)


def test_scores_of_two_kinds_are_refused(three: tuple[Run, Run, Run]) -> None:
    several = made(Path("runs"), "several", 80.0)
    metrics = several.path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("top1", "map"))
    sentence = "runs/one is judged by top-1, runs/several is judged by mAP: they cannot be compared"
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        compare("one", "several")
    assert not Path("compared.png").exists()
    assert compare("several", three[2].path).figures["best_score"] == (80.0, None)  # which says nothing yet


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ((), "two runs or more can be compared, each named once; given: none"),
        (("one",), "two runs or more can be compared, each named once; given: one"),
        (("one", "runs/one"), "two runs or more can be compared, each named once; given: one, runs/one"),
        (("one", "runs/tow"), "no run 'runs/tow', did you mean runs/two?"),
        (("one", "tow"), "no run 'runs/tow', did you mean runs/two?"),
        (("one", "runs"), "runs is not a run directory: it has no recipe.json"),
    ],
)
@pytest.mark.usefixtures("three")
def test_mistakes(names: tuple[str, ...], sentence: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match="^" + re.escape(sentence)):
        compare(*names)
