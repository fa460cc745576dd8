"""From a listing to a data set: unreadable images, drawn and recalled splits."""

import re
from pathlib import Path

import pytest
from tests.photos import photos

from metaformer.data.dataset import read_split, split_csv
from metaformer.data.sources import open_data, open_judged
from metaformer.data.splits import Images


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Two classes of 100 small pictures each."""
    photos(tmp_path / "a", 100, size=(8, 8))
    photos(tmp_path / "b", 100, 100, size=(8, 8))
    return tmp_path


def test_unreadable_images_are_left_out_and_told(many: Path) -> None:
    before = dict(open_data(str(many)).drawn)
    (many / "a/7.png").write_bytes(b"")
    (many / "b/9.png").write_bytes((many / "b/9.png").read_bytes()[:99])
    data = open_data(str(many))
    assert [name for name, _ in data.unreadable] == [str(many / "a/7.png"), str(many / "b/9.png")]
    assert data.unreadable[0][1] == "empty"
    assert data.unreadable[1][1].startswith("cut off: ")
    assert len(data.train) + len(data.val) == 198
    assert dict(data.drawn) == {key: part for key, part in before.items() if key not in ("a/7.png", "b/9.png")}
    for split in (data.train, data.val):
        assert isinstance(split, Images)
        assert len(split.pixels) == len(split.labels)
        assert {Path(split.name(i)).name for i in range(len(split))} == {Path(name).name for name in split.names or ()}


def test_more_than_one_percent_is_refused(many: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.png"):
        (many / name).write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match="^" + re.escape(
        f"4 of the 200 images of {many} cannot be read, more than 1 %: repair or remove them ({many}/a/1.png: not an image "
        f"but a page or drawing as text; {many}/a/2.png: not an image but a page or drawing as text; {many}/b/3.png: "
    ) + ".*; …\\)$"):  # fmt: skip
        open_data(str(many))
    with pytest.raises(ValueError, match=r"4 of the 200 images .* cannot be read, more than 1 %"):
        open_judged(str(many), ("a", "b"), 3)


def test_a_class_that_is_unreadable_is_refused(many: Path) -> None:
    (many / "c").mkdir()
    for i in range(2):
        (many / f"c/{i}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=f"^no image of class 'c' in {many} can be read$"):
        open_data(str(many))


def test_a_split_is_recalled(many: Path) -> None:
    data = open_data(str(many), seed=3)
    (many / "split.csv").write_text(split_csv(data))
    assert read_split(many / "split.csv") == dict(data.drawn)
    photos(many / "a/new", 2, 300, size=(8, 8))
    again = open_data(str(many), seed=4, split=many / "split.csv")
    assert again.drawn == data.drawn
    assert again.notes == (f"images of {many} that are not in the run's split, left out: 2",)
    judged = open_judged(str(many), ("a", "b"), 3, split=many / "split.csv").val
    assert [judged.name(i) for i in range(40)] == [data.val.name(i) for i in range(40)]


def test_a_split_whose_images_are_gone(many: Path) -> None:
    data = open_data(str(many))
    (many / "split.csv").write_text(split_csv(data))
    gone = next(key for key, part in data.drawn if part == "train")
    (many / gone).unlink()
    with pytest.raises(ValueError, match=f"^images of the run's split that {many} has no more: 1, such as {gone}; "):
        open_data(str(many), split=many / "split.csv")
    assert len(open_judged(str(many), ("a", "b"), 3, split=many / "split.csv").val) == 40


@pytest.mark.parametrize("text", ["", "path,part\na/1.png\n", "path,part\na/1.png,both\n", "part,path\n"])
def test_a_damaged_split_is_named(many: Path, text: str) -> None:
    (many / "split.csv").write_text(text)
    with pytest.raises(ValueError, match=r"split\.csv is damaged: it is not a list of paths, each with train or val$"):
        open_data(str(many), split=many / "split.csv")


def test_a_split_survives_names_with_commas_quotes_and_lines(tmp_path: Path) -> None:
    photos(tmp_path / 'a "b", c\nd', 3, size=(8, 8))
    photos(tmp_path / "e", 3, 10, size=(8, 8))
    data = open_data(str(tmp_path))
    (tmp_path / "split.csv").write_text(split_csv(data))
    assert open_data(str(tmp_path), seed=9, split=tmp_path / "split.csv").drawn == data.drawn
