"""The tables for people."""

from dataclasses import replace
from pathlib import Path

import pytest

from metaformer import list_models
from metaformer.config import KEYS
from metaformer.lab.tables import _purposes, model_table, recipe_table, run_table, settings_table
from metaformer.recipes import SMALL
from metaformer.runs import create_run


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
    assert rows["epochs"] == ["20", "At", "least", "1."]
    assert rows["flip"][0] == "none"
    assert " ".join(rows["flip"]).endswith("0 to 1.")
    assert rows["precision"][0] == "auto"
    assert " ".join(rows["fit"]).endswith("squash, crop or pad.")


def test_every_setting_but_the_plainest_says_what_it_is_for() -> None:
    plain = {"epochs", "seed", "lr", "warmup_epochs", "warmup_lr", "min_lr", "drop_path", "head_dropout", "label_smoothing"}
    assert set(KEYS) - set(_purposes()) - plain == {"device"}


def test_recipe_table_shows_what_differs_and_needs_a_match() -> None:
    small, photos = recipe_table().splitlines()
    assert all(f" {key}=" in small for key in KEYS)
    assert photos.startswith("photos: ")
    assert "crop=0.35" in photos
    assert "seed=" not in photos
    with pytest.raises(ValueError, match="no recipe matches 'x'; there are small, photos"):
        recipe_table("x")


def test_run_table_lists_runs_and_how_far_they_are(tmp_path: Path) -> None:
    run = create_run(replace(SMALL, epochs=3), tmp_path, "one")
    (run.path / "metrics.jsonl").write_text('{"epoch": 1, "top1": 50.0}\n{"epoch": 2, "top1": 40.0}\n')
    create_run(SMALL, tmp_path, "two")
    head, one, two = run_table(tmp_path).splitlines()
    assert head.split() == ["run", "model", "data", "epochs", "best", "top-1"]
    assert one.split()[1:] == ["caformer_t6", "digits", "2/3", "50.00", "%"]
    assert two.split()[3:] == ["0/20", "–"]
    with pytest.raises(FileNotFoundError, match="holds no run"):
        run_table(tmp_path / "elsewhere")
