"""ImageNet's class names, in the order of the published classifiers."""

from importlib.resources import files

import pytest

from metaformer.weights.imagenet import class_names, rows_by_synset, subset, synsets


@pytest.mark.parametrize(
    ("classes", "place", "name"),
    [
        (1000, 0, "tench"),
        (1000, 207, "golden retriever"),
        (1000, 281, "tabby"),
        (1000, 850, "teddy"),
        (1000, 999, "toilet tissue"),
        (21841, 0, "organism"),
    ],
)
def test_names_stand_at_their_class(classes: int, place: int, name: str) -> None:
    assert class_names(classes)[place] == name


@pytest.mark.parametrize("classes", [1000, 21841])
def test_one_name_per_class_in_the_order_of_synsets(classes: int) -> None:
    assert len(set(class_names(classes))) == len(set(synsets(classes))) == classes
    assert list(synsets(classes)) == sorted(synsets(classes))
    assert all(class_names(classes))


@pytest.mark.parametrize("classes", [0, 10, 999, 11221, 21843])
def test_other_numbers_have_no_names(classes: int) -> None:
    assert class_names(classes) == ()


def test_every_class_but_the_teddy_bear_has_a_row() -> None:
    rows = rows_by_synset()
    assert [place for place, row in enumerate(rows) if row is None] == [850]
    assert len({row for row in rows if row is not None}) == 999
    assert all(synsets(21841)[row] == synsets(1000)[place] for place, row in enumerate(rows) if row is not None)


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_subsets_are_where_timm_has_them(name: str) -> None:
    """By WordNet's numbers as by timm's own list of places."""
    text = files("timm").joinpath("data", "_info", f"{name.replace('-', '_')}_indices.txt").read_text()
    assert list(subset(name)) == [int(line) for line in text.split()]
