"""What a process of a study decides by itself: how many processes read its images."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.photos import photos

from metaformer.data import loader
from metaformer.data.sources import open_data
from metaformer.lab.study_worker import Place, _readers
from metaformer.recipes import SMALL


def place(near: int) -> Place:
    return Place("s", Path(), "", 0, "cpu", 1, near, None, Path("log"))


def test_processes_share_the_cores_for_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("train", "val"):
        for name in ("ants", "bees"):
            photos(tmp_path / "photos" / part / name, 2)
    encoded = open_data(str(tmp_path / "photos"))
    monkeypatch.setattr(loader.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert [_readers(SMALL, encoded, place(near)) for near in (1, 2, 4, 99)] == [8, 4, 2, 1]
    assert _readers(replace(SMALL, workers=3), encoded, place(4)) == 3


def test_images_in_memory_are_read_as_they_always_are(fashion: str) -> None:
    assert _readers(SMALL, open_data(fashion), place(4)) is None
