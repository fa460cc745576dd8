"""Files, folders and globs: which images are meant."""

import os
from itertools import islice
from pathlib import Path

import pytest

from metaformer.data.find import files_in, find_images, printable, subfolders


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def found(*names: str) -> list[str]:
    return [path.as_posix() for path in find_images(names)]


def test_files_as_named_and_folders_searched(here: Path) -> None:
    touch("b/2.JPG", "b/1.png", "b/deep/3.webp", "b/notes.txt", "b/.hidden.png", "b/.cache/4.png", "a.txt")
    assert found("a.txt", "b", "nothing.png") == ["a.txt", "b/1.png", "b/2.JPG", "b/deep/3.webp", "nothing.png"]


def test_nothing_comes_twice(here: Path) -> None:
    touch("b/1.png", "b/2.png")
    assert found("b/2.png", "b", "b/*.png") == ["b/2.png", "b/1.png"]


def test_globs_are_expanded_here(here: Path) -> None:
    touch("b/2.jpg", "b/1.png", "b/deep/3.png", "c/4.png", "b/deep/notes.txt", "b/.hidden.png")
    assert found("b/*.png") == ["b/1.png"]
    assert found("**/*.png") == ["b/1.png", "b/deep/3.png", "c/4.png"]
    assert found("[bc]") == ["b/1.png", "b/2.jpg", "b/deep/3.png", "c/4.png"]
    assert found("b/deep/*") == ["b/deep/3.png"]
    assert found(f"{here.as_posix()}/c/?.png") == [f"{here.as_posix()}/c/4.png"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(here: Path) -> None:
    touch("[1].png", "1.png")
    assert found("[1].png") == ["[1].png"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("empty", r"^empty has no image in it \(\.avif, \.bmp, "),
        ("*.gif", r"^nothing matches \*\.gif$"),
        ("empty*", "^empty has no image in it"),
    ],
)
def test_nothing_found_is_said(here: Path, name: str, sentence: str) -> None:
    touch("empty/notes.txt")
    with pytest.raises(ValueError, match=sentence):
        find_images([name])


def test_links_are_followed_and_circles_left(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch("far/1.png", "b/2.png")
    Path("b/link").symlink_to(Path("far").resolve())
    for i in range(3):
        Path(f"far/back{i}").symlink_to(Path("b").resolve())
    places: list[str] = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *a, **k: (places.append(step[0]) or step for step in islice(walk(*a, **k), 99)))
    assert found("b") == ["b/2.png", "b/link/1.png"]
    assert places == ["b", "b/link", "b/link/back0", "b/link/back1", "b/link/back2"]


def test_subfolders_are_sorted_and_visible(here: Path) -> None:
    touch("d/b/x", "d/a/x", "d/.git/x", "d/__MACOSX/x", "d/file")
    assert [path.name for path in subfolders(Path("d"))] == ["a", "b"]
    assert [path.as_posix() for path in files_in(Path("d/b"))] == ["d/b/x"]


def test_printable() -> None:
    assert printable("später/猫.png") == "später/猫.png"
    assert printable(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"
    assert printable("two\nlines\x1b[31m.png") == r"two\nlines\x1b[31m.png"
