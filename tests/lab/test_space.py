"""What a search may choose from."""

import re

import pytest

from metaformer.config import KEYS
from metaformer.lab.space import FIXED, Choice, Range, is_space, read_space, setting, split


@pytest.mark.parametrize(
    ("key", "text", "expected", "log"),
    [
        ("lr", "1e-4..1e-2", Range(1e-4, 1e-2, whole=False), True),
        ("lr", "1e-3..1e-2", Range(1e-3, 1e-2, whole=False), True),
        ("lr", "1e-3..9e-3", Range(1e-3, 9e-3, whole=False), False),
        ("drop_path", "0..0.3", Range(0.0, 0.3, whole=False), False),
        ("drop_path", "0...3", Range(0.0, 0.3, whole=False), False),
        ("batch", "8..128", Range(8, 128, whole=True), True),
        ("batch", "16..64", Range(16, 64, whole=True), False),
        ("clip", "0.5..5", Range(0.5, 5.0, whole=False), True),
        ("image_size", "32..64", Range(32, 64, whole=True), False),
    ],
)
def test_ranges(key: str, text: str, expected: Range, log: bool) -> None:
    assert read_space({key: text}) == {key: expected}
    assert expected.log is log


@pytest.mark.parametrize(
    ("key", "text", "texts"),
    [
        ("mixup", "0|0.2|0.8", ("0", "0.2", "0.8")),
        ("clip", "none | 1", ("none", "1")),
        ("optimizer", "adamw|lamb", ("adamw", "lamb")),
        ("ema_warmup", "true|false", ("true", "false")),
        ("weights", "none|../runs/a", ("none", "../runs/a")),
        ("model.norm", "MLN()|BatchNorm()", ("MLN()", "BatchNorm()")),
    ],
)
def test_choices(key: str, text: str, texts: tuple[str, ...]) -> None:
    assert read_space({key: text}) == {key: Choice(texts)}


def test_numbers_are_four_digits_long_and_stay_within() -> None:
    assert Range(1e-4, 1e-2, whole=False).nearest(0.00123456) == 0.001235
    assert Range(0.12344, 0.9, whole=False).nearest(0.123441) == 0.12344
    assert Range(0.0, 0.123449, whole=False).nearest(0.1234489) == 0.1234
    assert Range(1, 99999, whole=True).nearest(12345) == 12345


@pytest.mark.parametrize(
    ("key", "text", "sentence"),
    [
        ("lr", "1e-2..1e-4", "lr=1e-2..1e-4 is the wrong way round: write lr=1e-4..1e-2"),
        ("lr", "1..1.0", "lr=1..1.0 is one value, not a range: give the ends apart, or lr=1"),
        ("lr", "1e-4..", "lr=1e-4.. is not low..high, such as lr=1..2"),
        ("lr", "1..2..3", "lr=1..2..3 is not low..high"),
        ("lr", "a..b", "lr=a is not a number"),
        ("lr", "0.1", "lr=0.1 is one value, not a range such as 0..0.3 or choices such as 0|0.1|0.3"),
        ("lr", "-1..1", "lr=-1.0 is not at least 0"),
        ("clip", "none..1", "clip=none..1 is not from number to number; choices have | between them, such as clip=none|1"),
        ("drop_path", "0..1", "drop_path=1.0 is not between 0 and 0.99"),
        ("batch", "8.5..9", "batch=8.5..9 is not from number to number"),
        ("mixup", "0|x", "mixup=x is not a number"),
        ("mixup", "0|", "mixup= is not a number"),
        ("mixup", "0|0.0", "mixup=0|0.0 names a value twice"),
        ("optimizer", "adamw|adam", "optimizer='adam' is not one of adamw, lamb, sgd; did you mean adamw?"),
        ("lrr", "0|1", "no setting 'lrr', did you mean lr?"),
        ("name", "a|b", "no setting 'name'"),
        ("epochs", "1..5", "epochs= cannot be searched: it must be the same in every trial, so give it one value"),
        ("seed", "0|1", "seed= cannot be searched"),
        ("hours", "1..2", "hours= cannot be searched"),
        ("patience", "1|none", "patience= cannot be searched"),
        ("labels", "single|multi", "labels= cannot be searched"),
        ("keep", "0..5", "keep= cannot be searched"),
        ("start_size", "16|none", "start_size= cannot be searched"),
    ],
)
def test_mistakes(key: str, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        read_space({key: text})


def test_no_space_is_told_what_one_is() -> None:
    with pytest.raises(
        ValueError, match=re.escape("nothing to search: give some settings a range or choices, such as lr=1e-4..1e-2")
    ):
        read_space({})


def test_a_command_line_is_split() -> None:
    pairs = ["lr=1e-4..1e-2", "data=../photos", "mixup=0|1", "epochs=5", "weights=../a", "model.norm=MLN()|BatchNorm()", "x"]
    assert split(pairs) == (
        {"lr": "1e-4..1e-2", "mixup": "0|1", "model.norm": "MLN()|BatchNorm()"},
        ["data=../photos", "epochs=5", "weights=../a", "x"],
    )
    with pytest.raises(ValueError, match=r"^lr= is given twice$"):
        split(["lr=1|2", "lr=1..2"])


def test_paths_are_no_ranges() -> None:
    assert not is_space("data", "../photos")
    assert is_space("epochs", "1..5")  # so that the sentence is about searching


def test_settings_are_typed() -> None:
    assert setting("mixup", "0") == {"mixup": 0.0}
    assert setting("clip", "none") == {"clip": None}
    assert setting("model.norm", "MLN()") == {"changes": {"norm": "MLN()"}}
    assert set(FIXED) < set(KEYS)
