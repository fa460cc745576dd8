"""The run directory, also after a crash at any moment."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tiny import Killer, Stopped

from metaformer.config import Recipe
from metaformer.runs import Run, create_run, is_run, open_run, replace_folder, write_text

RECIPE = Recipe(model="caformer_t6", data="fashion-mnist:/data/fashion mnist/")


def test_create_run_writes_the_recipe(tmp_path: Path) -> None:
    run = create_run(RECIPE, tmp_path / "deep" / "runs", "mine")
    assert run.path == tmp_path / "deep" / "runs" / "mine"
    assert [file.name for file in run.path.iterdir()] == ["recipe.json"]
    assert json.loads((run.path / "recipe.json").read_text()) == RECIPE.to_dict()
    assert run.recipe == RECIPE
    assert (run.metrics, run.finished) == ([], False)
    assert open_run(str(run.path)) == run


def test_names_are_made_where_none_is_given(tmp_path: Path) -> None:
    made = [create_run(RECIPE, tmp_path, None).path.name for _ in range(3)]
    stem = "caformer_t6-fashion-mnist"
    assert made == [stem, f"{stem}-2", f"{stem}-3"]
    assert create_run(Recipe(model="x", data="digits"), tmp_path, None).path.name == "x-digits"


@pytest.mark.parametrize("name", ["mine", "été 1 ☃", "..a", "-x", "a=b"])
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    assert create_run(RECIPE, tmp_path, name).path == tmp_path / name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/tmp/x", "a/"])
def test_a_name_stays_in_its_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"name={name} is not the name of one folder; root= says where")):
        create_run(RECIPE, tmp_path / "runs", name)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_name_is_left_alone(tmp_path: Path) -> None:
    run = create_run(RECIPE, tmp_path, "mine")
    taken = rf"mine exists \({RECIPE.model}, data={RECIPE.data}\): choose another name=, .*: metaformer train .*mine"
    with pytest.raises(FileExistsError, match=taken):
        create_run(Recipe(model="y"), tmp_path, "mine")
    assert run.recipe == RECIPE
    (run.path / "recipe.json").write_text("{")
    with pytest.raises(FileExistsError, match=r"mine exists: choose another name="):
        create_run(Recipe(model="y"), tmp_path, "mine")


def test_open_run_refuses_other_folders(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=r"is not a run directory: it has no recipe\.json|^no run '"):
            open_run(path)


def test_a_damaged_recipe_is_named(tmp_path: Path) -> None:
    run = create_run(RECIPE, tmp_path, "mine")
    (run.path / "recipe.json").write_text('{"schema"')
    with pytest.raises(ValueError, match=r"recipe\.json is damaged"):
        _ = run.recipe


@pytest.mark.parametrize("cut", range(1, 13))
def test_a_cut_line_of_metrics_is_none(tmp_path: Path, cut: int) -> None:
    text = '{"epoch": 1}\n{"epoch": 2}\n'
    (tmp_path / "metrics.jsonl").write_text(text)
    assert Run(tmp_path).metrics == [{"epoch": 1}, {"epoch": 2}]
    (tmp_path / "metrics.jsonl").write_text(text[:-cut])
    assert Run(tmp_path).metrics == [{"epoch": 1}]


def test_finished_is_every_epoch(tmp_path: Path) -> None:
    run = create_run(Recipe(model="x", epochs=2), tmp_path, "mine")
    run.last.mkdir()
    for about, done in (({}, False), ({"epoch": 1}, False), ({"epoch": 2}, True)):
        (run.last / "model.json").write_text(json.dumps(about))
        assert run.finished is done
    run.last.rename(run.path / "last.old")
    assert run.finished


def test_write_text_leaves_the_old_text_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "some.txt"
    write_text(file, "old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", _stop)
        with pytest.raises(Stopped):
            write_text(file, "new")
    assert file.read_text() == "old"
    write_text(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["some.txt"]
    assert file.read_text() == "new"


def _stop(*_: object) -> None:
    raise Stopped


def _fill(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "a").write_text(text)
        (folder / "b").write_text(text)

    return write


@pytest.mark.parametrize(("name", "keep"), [("best", False), ("last", True)])
def test_replace_folder_killed_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, keep: bool) -> None:
    seen, at = [], 0
    while True:
        run = create_run(RECIPE, tmp_path, f"{name}{at}")
        folder = run.path / name
        replace_folder(folder, _fill("oldest"), keep=keep)
        replace_folder(folder, _fill("old"), keep=keep)
        try:
            with monkeypatch.context() as patch:
                Killer(patch, at)
                replace_folder(folder, _fill("new"), keep=keep)
            break
        except Stopped:
            whole = getattr(run, name)
            texts = {file.name: file.read_text() for file in whole.iterdir()}
            assert texts in ({"a": "old", "b": "old"}, {"a": "new", "b": "new"})
            seen.append((whole.name, texts["a"]))
            replace_folder(folder, _fill("newer"), keep=keep)
            assert sorted(path.name for path in run.path.iterdir()) == sorted(["recipe.json", name] + [f"{name}.before"] * keep)
            assert {file.read_text() for file in (run.path / f"{name}.before").glob("*")} == ({texts["a"]} if keep else set())
            assert {file.read_text() for file in folder.iterdir()} == {"newer"}
        at += 1
    away = f"{name}.before" if keep else f"{name}.old"
    assert set(seen) == {(name, "old"), (away, "old"), (name, "new")}
    assert keep is (run.path / f"{name}.before").is_dir()


def test_replace_folder_on_a_disk_that_fails(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError(28, "No space left on device")

    folder = tmp_path / "last"
    for text in ("old", "new"):
        replace_folder(folder, _fill(text), keep=True)
    with pytest.raises(OSError, match="No space left"):
        replace_folder(folder, fail, keep=True)
    assert {path.name: (path / "a").read_text() for path in tmp_path.iterdir()} == {"last": "new", "last.before": "old"}
