"""A folder as data: parts, class folders, and what is wrong with one."""

import re
from pathlib import Path

import pytest
import torch
from tests.photos import photo, photos

from metaformer.data.dataset import Data
from metaformer.data.sources import open_data, open_judged
from metaformer.data.splits import Encoded, Images


def names(data: Data, root: Path) -> dict[str, list[tuple[str, str]]]:
    """Class and path of each image, by part."""
    parts = {"train": data.train, "val": data.val}
    return {
        part: [(data.classes[y], Path(split.name(i)).relative_to(root).as_posix()) for i, y in enumerate(split.labels.tolist())]
        for part, split in parts.items()
    }


@pytest.fixture
def ants(tmp_path: Path) -> Path:
    """train/ with 5 + 4 images and val/ with 2 + 1, one of them deep, beside what is to be ignored."""
    photos(tmp_path / "train/bees", 5, 0)
    photos(tmp_path / "train/ants", 3, 10)
    photo(tmp_path / "train/ants/more/deep/7.JPG", 20)
    photos(tmp_path / "val/ants", 2, 30)
    photos(tmp_path / "val/bees", 1, 40)
    (tmp_path / "train/ants/.DS_Store").write_text("hidden")
    (tmp_path / "train/ants/._1.png").write_text("hidden")
    (tmp_path / "train/.ipynb_checkpoints").mkdir()
    return tmp_path


def test_train_and_val(ants: Path) -> None:
    data = open_data(str(ants))
    assert data.classes == ("ants", "bees")
    assert names(data, ants)["train"] == [
        ("ants", "train/ants/0.png"), ("ants", "train/ants/1.png"), ("ants", "train/ants/2.png"),
        ("ants", "train/ants/more/deep/7.JPG"), *(("bees", f"train/bees/{i}.png") for i in range(5)),
    ]  # fmt: skip
    assert names(data, ants)["val"] == [("ants", "val/ants/0.png"), ("ants", "val/ants/1.png"), ("bees", "val/bees/0.png")]
    assert isinstance(data.train, Encoded)
    assert data.train.labels.dtype == torch.int64
    assert data.train.image(0).shape == (3, 66, 70)
    assert (data.channels, data.image_size, data.mirrors) == (3, None, True)
    assert (data.unreadable, data.drawn, data.notes) == ((), (), ())


@pytest.mark.parametrize("name", ["validation", "valid", "Val", "test"])
def test_other_names_of_val(ants: Path, name: str) -> None:
    (ants / "val").rename(ants / name)
    (ants / "train").rename(ants / "Train")
    data = open_data(str(ants))
    assert (len(data.train), len(data.val)) == (9, 3)
    assert data.notes == (("test/ picks the best epoch, because there is no val/",) if name == "test" else ())


def test_val_judges_where_there_is_test_too(ants: Path) -> None:
    photos(ants / "test/ants", 4, 50)
    data = open_data(str(ants))
    assert {Path(path).parts[0] for _, path in names(data, ants)["val"]} == {"val"}
    assert data.notes == ("val/ judges; test/ left alone",)


def test_class_folders_alone_are_split(tmp_path: Path) -> None:
    photos(tmp_path / "a", 10)
    photos(tmp_path / "b", 3, 100)
    data = open_data(str(tmp_path))
    assert data.train.labels.bincount().tolist() == [8, 2]
    assert data.val.labels.bincount().tolist() == [2, 1]
    parts = {path: part for part, rows in names(data, tmp_path).items() for _, path in rows}
    assert dict(data.drawn) == parts
    assert list(dict(data.drawn)) == [*(f"a/{i}.png" for i in range(10)), *(f"b/{i}.png" for i in range(3))]
    assert open_data(str(tmp_path)).drawn == data.drawn
    assert open_data(str(tmp_path), seed=1).drawn != data.drawn


def test_a_split_stays_when_the_folder_moves_or_grows(tmp_path: Path) -> None:
    photos(tmp_path / "x/a", 20)
    photos(tmp_path / "x/b", 20, 100)
    before = dict(open_data(str(tmp_path / "x")).drawn)
    (tmp_path / "x").rename(tmp_path / "y")
    assert dict(open_data(str(tmp_path / "y")).drawn) == before
    photo(tmp_path / "y/a/one more.png", 99)
    after = dict(open_data(str(tmp_path / "y")).drawn)
    assert sum(after[key] != before[key] for key in before) <= 1


def test_a_train_folder_alone_is_split(tmp_path: Path) -> None:
    photos(tmp_path / "train/a", 5)
    photos(tmp_path / "train/b", 5, 10)
    data = open_data(str(tmp_path))
    assert (data.classes, len(data.train), len(data.val)) == (("a", "b"), 8, 2)
    assert data.drawn[0][0] == "train/a/0.png"


def test_linked_class_folders_count(tmp_path: Path) -> None:
    photos(tmp_path / "elsewhere", 5)
    photos(tmp_path / "data/b", 5, 10)
    (tmp_path / "data/a").symlink_to(tmp_path / "elsewhere")
    assert open_data(str(tmp_path / "data")).classes == ("a", "b")


def test_small_images_of_one_size_are_kept_decoded(tmp_path: Path) -> None:
    photos(tmp_path / "a", 5, size=(40, 40))
    photos(tmp_path / "b", 5, 10, size=(40, 40))
    data = open_data(str(tmp_path))
    assert isinstance(data.train, Images)
    assert data.image_size == 40
    assert data.train.pixels.shape == (8, 3, 40, 40)
    assert {data.train.name(0), data.val.name(0)} <= {str(tmp_path / f"a/{i}.png") for i in range(5)}
    photo(tmp_path / "b/larger.png", 20, size=(41, 40))
    assert isinstance(open_data(str(tmp_path)).train, Encoded)


def test_grey_images_have_one_channel_until_one_has_colour(tmp_path: Path) -> None:
    photos(tmp_path / "a", 5, mode="L")
    photos(tmp_path / "b", 5, 10, mode="L")
    data = open_data(str(tmp_path))
    assert (data.channels, len(data.mean), len(data.std), len(data.train.image(0))) == (1, 1, 1, 1)
    photo(tmp_path / "b/colour.png", 20)
    data = open_data(str(tmp_path))
    assert (data.channels, len(data.mean), len(data.std), len(data.train.image(0))) == (3, 3, 3, 3)


def test_files_that_are_no_images_are_told(ants: Path) -> None:
    (ants / "train/ants/labels.txt").write_text("1")
    (ants / "train/bees/Thumbs.db").write_text("1")
    photo(ants / "train/beside.png")
    (note,) = open_data(str(ants)).notes
    start, _, kinds = note.partition(" (")
    assert start == f"files in {ants} that are not images of a class, left out: 3"
    assert set(kinds.rstrip(")").split(", ")) == {".txt", ".db", "images beside the class folders"}


def test_classes_that_nothing_judges_are_told(ants: Path) -> None:
    photos(ants / "train/wasps", 2, 60)
    (ants / "val/wasps").mkdir()
    assert open_data(str(ants)).notes == ("no image judges 'wasps'",)


def test_copies_across_the_parts_are_told(ants: Path) -> None:
    (ants / "val/ants/copy.png").write_bytes((ants / "train/ants/1.png").read_bytes())
    (ants / "train/bees/torn.png").write_bytes((ants / "train/ants/2.png").read_bytes())
    leak, torn = open_data(str(ants)).notes
    assert leak == (
        f"judging images that are also learnt from, byte for byte: 1 ({ants}/train/ants/1.png and {ants}/val/ants/copy.png); "
        "that flatters the result"
    )
    assert torn.startswith("images in several classes at once, byte for byte: 1 (")


def mend(root: Path, case: str) -> str:
    """Makes one mistake in a sound folder; gives the `data=` to open."""
    match case:
        case "missing":
            return str(root / "nowhere")
        case "empty class":
            (root / "train/wasps").mkdir()
        case "no class folders":
            (root / "flat").mkdir()
            return str(root / "flat")
        case "images alone":
            photos(root / "flat", 3)
            return str(root / "flat")
        case "no images":
            (root / "texts/a").mkdir(parents=True)
            (root / "texts/a/1.txt").touch()
            return str(root / "texts")
        case "one class":
            for file in (root / "train/bees").iterdir():
                file.rename(root / f"train/ants/b{file.name}")
            (root / "train/bees").rmdir()
            (root / "val/bees").rename(root / "gone")
        case "one folder too high":
            (root / "up/data").mkdir(parents=True)
            (root / "train").rename(root / "up/data/train")
            return str(root / "up")
        case "strange class":
            (root / "val/ants").rename(root / "val/antz")
        case "case":
            photos(root / "train/Ants", 2, 70)
        case "case across":
            (root / "val/ants").rename(root / "val/Ants")
        case "val alone":
            (root / "train").rename(root.parent / "away")
        case "one image":
            photos(root / "few/a", 1)
            photos(root / "few/b", 5, 10)
            return str(root / "few")
        case "empty val":
            for file in (root / "val").rglob("*.png"):
                file.unlink()
    return str(root)


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("missing", "there is no ROOT/nowhere; data= may be digits, "),
        ("empty class", "class folder ROOT/train/wasps has no image: fill it or remove it"),
        ("no class folders", "ROOT/flat has no class folders, so no images of a class"),
        ("images alone", "ROOT/flat has 3 images but no class folders: put each class into a folder of its own"),
        ("no images", "ROOT/texts has no image in its folders (.avif, .bmp, "),
        ("one class", "ROOT has only one class, 'ants': at least two are needed to tell apart"),
        ("one folder too high", "ROOT/up has only one folder, data, and so one class: did you mean ROOT/up/data?"),
        (
            "strange class",
            "the judging part of ROOT has class 'antz' (did you mean 'ants'?), which the part to learn",
        ),
        ("case", "ROOT has classes 'Ants' and 'ants', alike but for case: rename or merge them"),
        ("case across", "ROOT has classes 'Ants' and 'ants', alike but for case: rename or merge them"),
        ("val alone", "ROOT has val/ but no train/ to learn from"),
        (
            "one image",
            "class 'a' of ROOT/few has one image, too few to split: two are needed, one to learn",
        ),
        ("empty val", "ROOT/val has no image in its folders (.avif, "),
    ],
)
def test_mistakes_are_told_in_a_sentence(ants: Path, case: str, sentence: str) -> None:
    root = ants / "data"
    root.mkdir()
    for part in ("train", "val"):
        (ants / part).rename(root / part)
    source = mend(root, case)
    with pytest.raises((ValueError, FileNotFoundError), match="^" + re.escape(sentence.replace("ROOT", str(root)))) as caught:
        open_data(source)
    assert "\n" not in str(caught.value)


def test_judging_takes_the_judging_part_alone(ants: Path) -> None:
    data = open_judged(str(ants), ("wasps", "bees", "ants"), 3)
    assert (len(data.train), data.val.labels.tolist()) == (0, [2, 2, 1])
    assert data.classes == ("wasps", "bees", "ants")
    assert data.val.image(0).shape == (3, 66, 70)


def test_judging_takes_class_folders_whole(ants: Path) -> None:
    data = open_judged(str(ants / "train"), ("ants", "bees"), 1)
    assert data.val.labels.bincount().tolist() == [4, 5]
    assert data.val.image(0).shape == (1, 66, 70)
    with pytest.raises(ValueError, match=r"val has class 'bees', which the model does not know$"):
        open_judged(str(ants / "val"), ("ants", "wasps"), 3)
