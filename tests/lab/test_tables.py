"""The tables for people."""

import pytest

from metaformer import list_models
from metaformer.config import KEYS
from metaformer.lab.tables import model_table, settings_table


def test_model_table_by_value() -> None:
    assert model_table("*former_[st]18").splitlines() == [
        "| model | parameters | MACs | at | published top-1 (at 384) |",
        "|---|---:|---:|---:|---:|",
        "| `convformer_s18` | 26.8 M | 3.94 G | 224 | 83.0 (84.4) |",
        "| `caformer_s18` | 26.3 M | 4.11 G | 224 | 83.6 (85.0) |",
    ]
    assert model_table("caformer_t6").splitlines()[2].endswith(" | 32 | – |")
    assert model_table("poolformer_s12").splitlines()[2].endswith(" | 224 | 77.2 |")


def test_model_table_keeps_the_order_and_needs_a_match() -> None:
    assert [row.split("`")[1] for row in model_table("*_t6").splitlines()[2:]] == list_models("*_t6")
    with pytest.raises(ValueError, match=r"no model matches 'x\*'; metaformer models lists all"):
        model_table("x*")


def test_settings_table_has_every_key_with_default_and_limits() -> None:
    rows = {row.split()[0]: row.split()[1:] for row in settings_table().splitlines()}
    assert list(rows) == ["name", "root", *KEYS, "model.<field>"]
    assert rows["epochs"] == ["20", "at", "least", "1"]
    assert rows["flip"] == ["None", "0", "to", "1"]
    assert rows["data"] == ["digits"]
