"""What is asked of a study, and what its folder holds by itself."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.studied import result

from metaformer.lab.study import Row, Study
from metaformer.lab.study_asked import Asked, Known, Wanted, chosen, found, known_of
from metaformer.lab.study_results import FAILED, borrow, name_rows, read_results
from metaformer.runs import append_line

STUDY = Study(name="made", rows=(Row("a"), Row("b", against="c"), Row("c"), Row("ab")))


@pytest.mark.parametrize(
    ("globs", "rows"),
    [("*", ["a", "b", "c", "ab"]), ("c", ["a", "c"]), ("ab, b", ["a", "b", "c", "ab"]), ("?", ["a", "b", "c"])],
)
def test_globs_choose_rows_and_their_bases(globs: str, rows: list[str]) -> None:
    assert [row.name for row in chosen(STUDY, globs).rows] == rows


@pytest.mark.parametrize("first", [Row("x"), Row("x", against="x")])
@pytest.mark.parametrize("against", [None, "x"])
def test_what_is_only_compared_with_is_compared_with_nothing(first: Row, against: str | None) -> None:
    """Its own base was not asked for, and it is none of the row that was."""
    study = Study(name="made", rows=(first, Row("a", against="b"), Row("b", against=against)))
    found = chosen(study, "a")
    assert [(row.name, found.base(row.name)) for row in found.rows] == [("a", "b"), ("b", "b")]
    found = chosen(study, "a,b")
    assert [(row.name, found.base(row.name)) for row in found.rows] == [("x", "x"), ("a", "b"), ("b", "x")]


@pytest.mark.parametrize("globs", ["x", "a,x", "a,", ""])
def test_a_glob_that_nothing_matches_is_a_mistake(globs: str) -> None:
    with pytest.raises(ValueError, match=r"^no row of made matches '"):
        chosen(STUDY, globs)


def held(folder: Path, **changes: object) -> Path:
    """A folder with results: a in two seeds, of which the second was done again after a change of code; b failed."""
    folder.mkdir()
    (folder / "study.json").write_text(Asked("made", {"lr": "1"}, "t6").to_json())
    recipe = {"data": "d", "epochs": 5}
    for one in (
        result("a", 0, recipe=recipe), result("a", 1, recipe=recipe, top1=10.0),
        result("a", 1, recipe=recipe | {"epochs": 9}, key="again", top1=20.0), result("b", 0, recipe=recipe, state=FAILED),
        result("gone", 0, recipe=recipe),
    ):  # fmt: skip
        append_line(folder / "results.jsonl", asdict(one))
    return folder


def known(root: Path, settings: dict[str, str] | None = None, **wanted: object) -> Known:
    return known_of(STUDY, settings or {}, Wanted(root=root, **wanted))  # type: ignore[arg-type]


def test_a_folder_tells_by_itself_what_is_known(tmp_path: Path) -> None:
    held(tmp_path / "made")
    told = known(tmp_path)
    assert [(one.row, one.seed, one.top1) for one in told.results] == [("a", 0, 50.0), ("a", 1, 20.0), ("b", 0, 50.0)]
    assert (told.path, told.asked.scale, told.left) == (tmp_path / "made", "t6", 4 * 3 - 2)
    assert (told.setting("data"), told.setting("epochs")) == ("d", 5)
    assert told.computed == "fp32"
    fewer = known(tmp_path, seeds=1, rows="b")
    assert [(one.row, one.seed) for one in fewer.results] == [("b", 0)]  # and of c, its base, nothing is known
    assert fewer.left == 2
    assert known(tmp_path / "nowhere").results == ()


def test_a_folder_knows_with_how_many_seeds_it_was_trained(tmp_path: Path) -> None:
    """What older versions wrote does not: there it is as many as the study says."""
    file = held(tmp_path / "made") / "study.json"
    file.write_text(Asked("made", {"lr": "1"}, "t6", 2).to_json())
    assert (known(tmp_path).left, known(tmp_path, {"lr": "1"}).left, known(tmp_path, seeds=5).left) == (
        4 * 2 - 2,
        4 * 2 - 2,
        18,
    )
    told = json.loads(file.read_text())
    del told["seeds"]
    file.write_text(json.dumps(told))
    assert known(tmp_path).left == 4 * 3 - 2


def test_as_many_seeds_are_told_as_it_was_trained_with_last(tmp_path: Path) -> None:
    """Of five that there were once, and of rows that lack one nothing is hidden by those that have more."""
    file = held(tmp_path / "made") / "study.json"
    file.write_text(Asked("made", {"lr": "1"}, "t6", 1).to_json())
    assert [(one.row, one.seed) for one in known(tmp_path).results] == [("a", 0), ("b", 0)]
    assert (known(tmp_path).left, known(tmp_path, seeds=2).left) == (4 - 1, 8 - 2)


def test_what_was_changed_and_changed_back_is_what_it_was_first(tmp_path: Path) -> None:
    """Code, or where it is computed: the file tells last what the study was last of."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made/study.json").write_text(Asked("made", {}, "t6").to_json())
    for one in (result("a", 0, key="one", top1=10.0), result("a", 0, key="two", top1=20.0, precision="bf16")):
        append_line(tmp_path / "made/results.jsonl", asdict(one))
    assert (known(tmp_path).results[0].top1, known(tmp_path).computed) == (20.0, "bf16")
    for _ in range(2):
        name_rows(tmp_path / "made", [("one", "a")])
        assert (known(tmp_path).results[0].top1, known(tmp_path).computed) == (10.0, "fp32")
        assert len((tmp_path / "made/results.jsonl").read_text().splitlines()) == 3
    append_line(tmp_path / "made/results.jsonl", asdict(result("c", 0, key="three", precision="bf16")))
    assert known(tmp_path).computed == "bf16 and fp32"


def test_what_lies_beside_a_study_and_is_none_is_left_alone(tmp_path: Path) -> None:
    held(tmp_path / "made")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/results.jsonl").write_text('{"model": "x", "loss": 1}\n')
    (tmp_path / "new").mkdir()
    assert borrow(tmp_path / "new", {"a-9": "a"}) == []
    (tmp_path / "mine/study.json").write_text("{}")
    with pytest.raises(ValueError, match=r"mine/results\.jsonl is damaged in line 1"):
        borrow(tmp_path / "new", {"a-9": "a"})


def test_the_last_that_was_done_counts(tmp_path: Path) -> None:
    """Also where what was done before it under another key had failed first."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made/study.json").write_text(Asked("made", {}, "t6").to_json())
    for one in (
        result("a", 0, key="one", state=FAILED, top1=None), result("a", 0, key="two", top1=10.0),
        result("a", 0, key="one", top1=20.0),
    ):  # fmt: skip
        append_line(tmp_path / "made/results.jsonl", asdict(one))
    assert [one.top1 for one in known(tmp_path).results] == [20.0]


def test_a_row_that_is_done_under_another_name_is_told_under_its_own(tmp_path: Path) -> None:
    """As one that was renamed, or two that are the same."""
    held(tmp_path / "made")
    name_rows(tmp_path / "made", [("a-0", "a"), ("a-0", "c"), ("again", "c"), ("b-0", "c"), ("none", "c")])
    told = [(one.row, one.seed, one.top1) for one in known(tmp_path).results]
    assert told == [("a", 0, 50.0), ("a", 1, 20.0), ("b", 0, 50.0), ("c", 0, 50.0), ("c", 1, 20.0)]
    before = (tmp_path / "made/results.jsonl").read_bytes()
    name_rows(tmp_path / "made", [("a-0", "a"), ("a-0", "c"), ("again", "c")])
    assert (tmp_path / "made/results.jsonl").read_bytes() == before
    assert len(read_results(tmp_path / "made")) == 5


@pytest.mark.parametrize("change", [{"more": 1}, {"settings": 1}, {"seeds": "3"}])
def test_a_damaged_study_json_is_said(tmp_path: Path, change: dict[str, object]) -> None:
    file = held(tmp_path / "made") / "study.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(
        ValueError,
        match=r"made/study\.json is damaged, as it is to hold study, settings, scale, seeds, equal: delete it and give",
    ):
        known(tmp_path)


def test_other_settings_are_another_study(tmp_path: Path) -> None:
    held(tmp_path / "made")
    assert known(tmp_path, {"lr": "1"}).results
    for changes in ({"settings": {"lr": "2"}}, {"scale": "s12"}):
        with pytest.raises(FileExistsError, match=r"made is of made at scale=t6 and equal=width with lr=1: give this one"):
            known(tmp_path, **changes)  # type: ignore[arg-type]
    with pytest.raises(FileExistsError):
        found(STUDY, {}, Wanted(root=tmp_path))
    with pytest.raises(FileExistsError):
        known_of(Study(name="made", rows=(Row("a"),)), {"lr": "3"}, Wanted(root=tmp_path))


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [({"lr": "2"}, Wanted()), ({}, Wanted(scale="s12")), ({}, Wanted(name="other")), ({}, Wanted(root=Path("elsewhere")))],
)
def test_a_study_that_is_named_by_its_folder_goes_on_as_it_is(tmp_path: Path, settings: dict[str, str], wanted: Wanted) -> None:
    folder = held(tmp_path / "made")
    with pytest.raises(ValueError, match=r"a study goes on as it is: study .*made without settings"):
        found(folder, settings, wanted)
