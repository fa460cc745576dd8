"""Lines of blocks that only show, executed: where what they lack is data of one's own, there are a few painted images for it.

Training is shrunk to a smoke test. What needs published weights, a network, hours or other machines is not run here; all lines
are read by tests/test_lines.py.
"""

import re
import shutil
from pathlib import Path

import pytest
from tests.pages import PAGES, SHOWN, blocks, lines, name, typed
from tests.painted import several, write_coco, write_masks, write_voc
from tests.photos import photo
from tests.test_lines import is_place
from tests.tiny import command, one_core

VERBS = ("data", "eval", "explain", "inspect", "predict", "train")
MISSING = re.compile(
    r"former_[smb]\d|timm:(?!resnet18\b)|[-=./]imagenet|weights=|hours=|log=|devices=|\d\.xml|\.onnx|--engine|hf:|://|[A-Z]{4}|\$"
)
"""Of a line that cannot be run here: a size for ImageNet, its images, published weights, a runtime, a tracker, a network."""
STANDINS = {"camvid:camvid": "masks:streets"}
"""Data in the form that tests can paint."""
RUN = {"cells": "cells", "others": "cells"}
"""Which of the prepared runs one that the page does not train itself is; any other one is a classifier."""


def to_run(page: Path) -> list[list[str]]:
    """The words of each line that only data keeps from being run."""
    found = [typed(line) for block in blocks(page) if block.language in SHOWN for line in lines(block)]
    return [words for words in found if words and words[0] in VERBS and not MISSING.search(" ".join(words))]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, painted data sets, and a run of a classifier and of a detector."""
    root = tmp_path_factory.mktemp("world")
    for number in range(36):
        folder = ("photos", "more-photos")[number % 2], ("ants", "bee", "bees")[number % 3]
        photo(root.joinpath(*folder, f"{number}.png"), number)
    photo(root / "photo.jpg")
    write_voc(root / "cells", several(12))
    write_coco(root / "nuts", several(12))
    write_masks(root / "streets", several(12))
    with pytest.MonkeyPatch.context() as patch, one_core():
        patch.chdir(root)
        for model, data, run in (("caformer_t6", "photos", "one"), ("retinanet/poolformerv2_t6", "voc:cells", "cells")):
            assert command("train", model, f"data={data}", f"name={run}", "smoke=true", "root=ready")[0] == 0
    return root


def standing_in(word: str) -> str:
    """The word, with data that is here."""
    key, equals, value = word.rpartition("=")
    return f"{key}{equals}{STANDINS.get(value, value)}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)], ids=name)
@pytest.mark.usefixtures("thread")
def test_what_is_shown_runs(page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    shutil.copytree(world, here, symlinks=True)
    monkeypatch.chdir(here)
    for words in to_run(page):
        words = [standing_in(word) for word in words]
        for word in words[1:]:
            run = Path(word.removeprefix("teacher="))
            if run.parent.name == "runs" and not run.exists():
                shutil.copytree(here / "ready" / RUN.get(run.name, "one"), run)
        if words[0] == "train" and not is_place(words[1]):
            words = [*(word for word in words if word != "smoke=true"), "smoke=true"]
        code, _, err = command(*words)
        assert code == 0, f"{name(page)}: metaformer {' '.join(words)}: {err}"


def test_most_of_what_only_lacks_data_is_run() -> None:
    """That the pattern leaves them."""
    assert {"docs/dense.md", "docs/data.md", "docs/recipes.md", "docs/detect.md"} <= {name(p) for p in PAGES if to_run(p)}
    assert sum(len(to_run(page)) for page in PAGES) >= 20
