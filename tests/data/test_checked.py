"""A check of a data set: what is planted is found, and nothing else is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance
from tests.data.test_similar import cut
from tests.scenes import saved, scene
from tests.tiny import command

from metaformer.data.checked import NEAR, SAME_FILE, SAME_PICTURE, Checked, check_data
from metaformer.data.everything import take_stock
from metaformer.data.inventory import Names
from metaformer.data.look import MISNAMED, TRUNCATED, UNREADABLE


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pictures in train and test, of two classes and several sizes, none like another."""
    root = tmp_path_factory.mktemp("clean")
    for i in range(120):
        place = root / ("test" if i % 4 == 0 else "train") / ("ants" if i % 3 == 0 else "bees")
        saved(scene(i, (96, 72) if i % 5 else (64, 100)), place / f"{i:03d}.jpg")
    return root


@pytest.fixture(scope="module")
def planted(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with everything planted in it that a check is for."""
    root = tmp_path_factory.mktemp("planted") / "photos"
    shutil.copytree(clean, root)
    train, test = root / "train/bees", root / "test/bees"
    shutil.copy(train / "001.jpg", test / "leak.jpg")
    shutil.copy(train / "002.jpg", root / "train/ants/again.jpg")
    saved(scene(5, (64, 100)), train / "same.png")
    saved(scene(5, (64, 100)), train / "005.png")
    (train / "005.jpg").unlink()
    saved(scene(5, (64, 100)), train / "same.bmp")
    saved(scene(7), test / "resaved.jpg", quality=60)
    saved(cut(scene(22), 0.05, 0.8, 0.2), train / "cut.jpg")
    saved(scene(11).resize((48, 36)), test / "half.png")
    saved(ImageEnhance.Brightness(scene(13)).enhance(1.2), train / "brighter.jpg")
    whole = (train / "014.jpg").read_bytes()
    (train / "014.jpg").write_bytes(whole[: len(whole) // 2])
    whole = (train / "017.jpg").read_bytes()
    (train / "017.jpg").write_bytes(whole[:-2])
    (train / "junk.jpg").write_text("this is no image")
    saved(scene(500), train / "png.png").rename(train / "really.jpg")
    (train / "notes.txt").write_text("x")
    return root


@pytest.fixture(scope="module")
def found(planted: Path) -> Checked:
    return check_data(str(planted))


def names(found: Checked, kind: str) -> list[tuple[str, ...]]:
    return sorted(tuple(found.inventory.name(i) for i in group.members) for group in found.groups if group.kind == kind)


def test_planted_copies_are_found_and_no_others(found: Checked) -> None:
    assert names(found, SAME_FILE) == [
        ("train/ants/again.jpg", "train/bees/002.jpg"),
        ("train/bees/001.jpg", "test/bees/leak.jpg"),
    ]
    assert names(found, SAME_PICTURE) == [("train/bees/005.png", "train/bees/same.bmp", "train/bees/same.png")]
    assert names(found, NEAR) == [
        ("train/bees/007.jpg", "test/bees/resaved.jpg"),
        ("train/bees/011.jpg", "test/bees/half.png"),
        ("train/bees/013.jpg", "train/bees/brighter.jpg"),
        ("train/bees/022.jpg", "train/bees/cut.jpg"),
    ]


def test_planted_damage_is_found_and_no_other(found: Checked) -> None:
    assert [Path(name).name for name, _ in found.problems(UNREADABLE)] == ["junk.jpg"]
    assert [Path(name).name for name, _ in found.problems(TRUNCATED)] == ["014.jpg", "017.jpg"]
    assert found.problems(MISNAMED) == [("train/bees/really.jpg", "PNG, though it is named .jpg")]
    assert found.unreadable == 3
    assert found.inventory.notes == (
        f"files in {found.inventory.source} that are no images by their names, left out: 1 (1 .txt)",
    )


def test_leaks_are_counted_and_come_first(found: Checked) -> None:
    assert [group.leaks for group in found.groups] == [True] * 3 + [False] * 4
    assert [group.labels for group in found.groups if len(group.labels) > 1] == [("ants", "bees")]
    assert (found.leaked(), found.leaked(SAME_FILE), found.leaked(NEAR)) == (3, 1, 2)
    (leaks, unreadable) = found.errors()
    assert leaks.startswith("3 images that judge are also in another part, 1 of them exactly")
    assert unreadable == "3 of 130 images cannot be read, more than 1 %: training refuses"
    assert found.errors(leaks=False) == [unreadable]


def test_nothing_is_found_where_nothing_is(clean: Path) -> None:
    found = check_data(str(clean))
    assert (found.groups, found.survey.problems, found.errors()) == ((), [], [])
    told = found.to_dict()
    assert told["classes"] == {"ants": {"test": 10, "train": 30}, "bees": {"test": 20, "train": 60}}
    assert told["imbalance"] == 2.0
    assert told["sizes"]["width"] == [64, 96, 96]
    assert told["sizes"]["common"] == [[96, 72, 96], [64, 100, 24]]
    assert sum(told["sizes"]["aspects"]) == 120


def test_means_are_those_of_the_pixels(clean: Path, found: Checked) -> None:
    rows = {row["part"]: row for row in check_data(str(clean)).statistics()}
    pixels = [np.asarray(Image.open(file)).reshape(-1, 3) / 255 for file in sorted((clean / "train").rglob("*.jpg"))]
    mean = np.mean([image.mean(0) for image in pixels], 0)
    std = np.sqrt(np.mean([(image**2).mean(0) for image in pixels], 0) - mean**2)
    np.testing.assert_allclose(rows["train"]["mean"], mean, atol=2e-5)
    np.testing.assert_allclose(rows["train"]["std"], std, atol=2e-5)
    assert rows["all"]["images"] == 120


def test_workers_change_nothing(planted: Path, found: Checked) -> None:
    again = check_data(str(planted), workers=2)
    assert again.to_dict() | {"seconds": 0} == found.to_dict() | {"seconds": 0}
    assert again.shots == found.shots


def test_rows_of_parquet_and_lines_of_tables(clean: Path, tmp_path: Path) -> None:
    files = sorted((clean / "train/ants").iterdir())[:10]
    rows = [{"bytes": file.read_bytes(), "path": file.name} for file in [*files, files[3]]]
    rows[5]["bytes"] = rows[5]["bytes"][:500]
    for part, some in (("train", slice(0, 10)), ("test", slice(10, 11))):
        table = pa.table({"image": rows[some], "label": ["a", "b"] * 5 if part == "train" else ["b"]})
        pq.write_table(table, tmp_path / f"{part}.parquet", row_group_size=4)
    found = check_data(str(tmp_path))
    assert names(found, SAME_FILE) == [("test.parquet row 0", "train.parquet row 3")]
    assert [name for name, _ in found.problems(TRUNCATED)] == ["train.parquet row 5"]
    assert found.leaked() == 1

    lines = ["path,label,split", f"{files[0]},x,train", f"{files[1]},y,train", f"{files[0]},x,test", "gone.jpg,y,test"]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    found = check_data(str(tmp_path / "table.csv"))
    assert found.problems(UNREADABLE) == [("gone.jpg", "no such file")]
    assert names(found, SAME_FILE) == [(str(files[0]), str(files[0]))]
    assert found.leaked(SAME_FILE) == 1


def test_known_data_sets_are_looked_at_as_pixels(fashion: str) -> None:
    found = check_data(fashion)
    assert (len(found.inventory), found.unreadable, found.inventory.named) == (136, 0, ("train", "val"))
    assert found.to_dict()["sizes"]["common"] == [[28, 28, 136]]


def test_pictures_of_few_pixels_are_only_compared_exactly(tmp_path: Path) -> None:
    for side in (12, 24):
        for i, quality in enumerate((95, 80)):
            saved(scene(1).resize((side, side)), tmp_path / f"{side}" / f"{i}.jpg", quality=quality)
    assert names(check_data(str(tmp_path)), NEAR) == [("24/0.jpg", "24/1.jpg")]


def test_all_parts_of_a_folder_count_and_images_without_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train/a/1.png", "train/2.png", "val/a/3.png", "test/a/4.png", "other/5.png"):
        saved(scene(int(name[-5])), tmp_path / name)
    stock = take_stock(str(tmp_path))
    assert list(stock.names) == ["train/2.png", "train/a/1.png", "val/a/3.png", "test/a/4.png"]
    assert ([stock.part(i) for i in range(4)], stock.labels.tolist()) == (["train", "train", "val", "test"], [-1, 0, 0, 0])
    assert stock.notes == (f"folders beside train/ in {tmp_path}, left out: other",)
    monkeypatch.chdir(tmp_path)
    assert list(take_stock(".").names) == list(stock.names)


def test_names_take_little_memory() -> None:
    held = Names()
    for i in range(20_000):
        held.append(f"train/n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG")
    assert held[19_999] == "train/n00000999/n00000999_19999.JPEG"
    assert len(held.block) + 8 * len(held.ends) < 20_000 * 50
    held.append("b\udcff")
    assert held[20_000] == "b\udcff"


def test_the_command_writes_a_page_and_fails_on_leaks(planted: Path, clean: Path, here: Path) -> None:
    code, out, err = command("data", "check", planted)
    assert code == 1
    assert "nothing wrong" not in out
    assert "2 groups of the same file, 1 of them in several parts" in out
    assert err.startswith("metaformer: 3 images that judge are also in another part")
    told = json.loads((here / "check/check.json").read_text())
    assert told["leaked"] == {"all": 3, SAME_FILE: 1, SAME_PICTURE: 0, NEAR: 2}
    page = (here / "check/check.html").read_text()
    assert page.count('class="box leak"') == 3
    assert "really.jpg" in page
    assert "http" not in page.replace("http-equiv", "")
    (planted / "train/bees/junk.jpg").rename(here / "junk")
    shutil.move(planted / "train/bees/014.jpg", here / "014.jpg")
    assert command("data", "check", planted, "--out", "again")[0] == 1
    code, out, err = command("data", "check", planted, "--allow-leaks", "--json")
    assert (code, err, json.loads(out)["leaked"]["all"]) == (0, "", 3)
    code, out, err = command("data", "check", clean)
    assert (code, err.count("metaformer:")) == (0, 0)
    assert "\nnothing wrong found\n" in out


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nothing", "no data 'nothing'"),
        ("empty", "empty has no image in it"),
        ("file.txt", "is a file, but not a .parquet, .csv or .tsv one"),
    ],
)
def test_a_mistake_is_one_sentence(here: Path, source: str, sentence: str) -> None:
    (here / "empty").mkdir()
    (here / "file.txt").touch()
    code, out, err = command("data", "check", source)
    assert (code, out) == (2, "")
    assert sentence in err
    assert not (here / "check").exists()
