"""The tables for people."""

from dataclasses import replace
from pathlib import Path

import pytest

from metaformer import list_models
from metaformer.config import KEYS
from metaformer.lab.compare import Comparison
from metaformer.lab.tables import (
    _purposes,
    columns,
    compared_text,
    evaluation_text,
    markdown,
    model_table,
    recipe_column,
    recipe_table,
    recipes_text,
    run_table,
    settings_table,
    tuned_text,
    weights_table,
)
from metaformer.lab.trials import Plan, Search, Tried
from metaformer.recipes import ROWS, SMALL
from metaformer.runs import create_run


def test_model_table_by_value() -> None:
    assert markdown(model_table("*former_[st]18")).splitlines() == [
        "| model | parameters | MACs | at | published top-1 (at 384) |",
        "|---|---:|---:|---:|---:|",
        "| `convformer_s18` | 26.8 M | 3.94 G | 224 | 83.0 (84.4) |",
        "| `caformer_s18` | 26.3 M | 4.11 G | 224 | 83.6 (85.0) |",
    ]
    assert model_table("caformer_t6")[1][3:] == ("32", "–")
    assert model_table("poolformer_s12")[1][3:] == ("224", "77.2")


def test_model_table_of_heads() -> None:
    assert model_table("*/poolformer_s12") == [
        ("model", "parameters", "MACs", "at", "published AP (of masks) or mIoU"),
        ("retinanet/poolformer_s12", "21.65 M", "188.5 G", "800×1280", "36.2"),
        ("faster_rcnn/poolformer_s12", "28.93 M", "154.1 G", "800×1280", "–"),
        ("mask_rcnn/poolformer_s12", "31.57 M", "207.0 G", "800×1280", "37.3 (34.6)"),
        ("semantic_fpn/poolformer_s12", "15.67 M", "30.9 G", "512×512", "37.2"),
        ("upernet/poolformer_s12", "41.11 M", "220.1 G", "512×512", "–"),
    ]
    with pytest.raises(ValueError, match=r"no model matches 'x/\*'"):
        model_table("x/*")


def test_model_table_keeps_the_order_and_needs_a_match() -> None:
    assert [row[0] for row in model_table("*_t6")[1:]] == list_models("*_t6")
    with pytest.raises(ValueError, match=r"no model matches 'x\*'; metaformer models lists all"):
        model_table("x*")


def test_settings_table_has_every_key_with_default_and_limits() -> None:
    rows = {row[0]: row[1:] for row in settings_table()[1:]}
    assert list(rows) == ["name", "root", "devices", *KEYS, "model.<field>"]
    assert rows["epochs"] == ("20", "At least 1.")
    assert rows["flip"][0] == "none"
    assert rows["flip"][1].endswith("0 to 1.")
    assert rows["precision"][0] == "auto"
    assert rows["fit"][1].endswith("squash, crop or pad.")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("devices", ["devices"]), ("lr", ["lr"]), ("save*", ["save_minutes"]), ("model.norm", ["model.<field>"])],
)
def test_settings_are_shown_that_match(pattern: str, names: list[str]) -> None:
    assert [row[0] for row in settings_table(pattern)[1:]] == names


def test_a_setting_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"^no setting 'epoch', did you mean epochs\?$"):
        settings_table("epoch")


def test_every_setting_but_the_plainest_says_what_it_is_for() -> None:
    plain = {"epochs", "seed", "lr", "warmup_epochs", "warmup_lr", "min_lr", "drop_path", "head_dropout", "label_smoothing"}
    assert set(KEYS) - set(_purposes()) - plain == {"device"}


def test_recipe_table_is_the_papers_and_needs_a_match() -> None:
    head, *rows = recipe_table()
    assert head[:4] == ("recipe", "optimizer", "lr", "batch")
    assert [row[0] for row in rows] == list(ROWS)
    assert [row[0] for row in recipe_table("ph*")[1:]] == ["photos"]
    assert recipe_table("poolformer_m48*")[1] == (
        "poolformer_m48.in1k", "adamw", "0.001", "1024", "300", "5", "0.4", "0", "–", "224", "82.5", "–",
        "arXiv 2111.11418, section 4.1",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"no recipe 'x'; metaformer recipes lists all"):
        recipe_table("x")


def test_recipe_column_has_every_setting() -> None:
    column = dict(recipe_column("photos"))
    assert (column["setting"], column["crop"], column["epochs"], column["source"]) == ("photos", "0.35", "60", "ours")
    assert "device" not in column
    assert recipes_text("photos").startswith("setting ")
    assert recipes_text("photo*").startswith("recipe ")


def test_run_table_lists_runs_and_how_far_they_are(tmp_path: Path) -> None:
    run = create_run(replace(SMALL, epochs=3), tmp_path, "one")
    (run.path / "metrics.jsonl").write_text('{"epoch": 1, "top1": 50.0}\n{"epoch": 2, "top1": 40.0}\n')
    create_run(SMALL, tmp_path, "two")
    (tmp_path / "alien").mkdir()
    (tmp_path / "alien" / "recipe.json").write_text('{"flour": "500 g"}')
    head, alien, one, two = run_table(tmp_path)
    assert head == ("run", "model", "data", "epochs", "best top-1")
    assert alien[2] == "this recipe is not of schema 1, the one this version reads and writes"
    assert one[1:] == ("caformer_t6", "digits", "2/3", "50.00 %")
    assert two[3:] == ("0/20", "–")
    with pytest.raises(FileNotFoundError, match="holds no run"):
        run_table(tmp_path / "elsewhere")


def test_compared_text_has_a_column_for_each_run() -> None:
    figures: dict[str, tuple[float | None, ...]] = {"epochs": (3, 0), "best_score": (97.123456, None)}
    found = Comparison((Path("runs/a"), Path("runs/b")), {"clip": (None, 1.0)}, figures, None)
    assert compared_text(found).splitlines() == [
        "setting  runs/a  runs/b",
        "clip     none    1.0",
        "",
        "figure      runs/a  runs/b",
        "epochs           3       0",
        "best_score  97.123       –",
    ]
    assert compared_text(replace(found, settings={})).startswith("the recipes are the same\n\nfigure")


def test_tuned_text_has_the_best_first_and_warns() -> None:
    plan = Plan("caformer_t6", {"epochs": 2}, {"lr": "1e-4..1e-2"})
    states = (("pruned", 99.0), ("finished", 90.0), ("failed", None), ("finished", 95.5))
    trials = tuple(
        Tried(number, {"lr": f"{number}e-3"}, state, top1, number, Path(f"runs/s/trials/00{number}"))
        for number, (state, top1) in enumerate(states)
    )
    lines = tuned_text(Search(Path("runs/s"), plan, trials, {})).splitlines()
    assert [line.split() for line in lines[:5]] == [
        ["trial", "score", "epochs", "lr"],
        ["003", "95.50", "%", "3", "3e-3", "finished"], ["001", "90.00", "%", "1", "1e-3", "finished"],
        ["000", "99.00", "%", "0", "0e-3", "pruned"], ["002", "–", "2", "2e-3", "failed"],
    ]  # fmt: skip
    assert "2 finished, 1 pruned, 1 failed" in lines
    assert any(line.startswith("the best is runs/s/trials/003") and "optimistic" in line for line in lines)
    assert lines[-1].endswith(": metaformer train caformer_t6 epochs=2 lr=3e-3")
    assert len(tuned_text(Search(Path("runs/s"), plan, trials, {}), most=2).splitlines()) == len(lines) - 2
    assert tuned_text(Search(Path("runs/s"), plan, trials[:1], {})).endswith("no trial has come to its end yet")


def test_columns_are_as_wide_as_their_widest_text() -> None:
    assert columns([("a", "long one"), ("bbb", "2")], right=(1,)) == "a    long one\nbbb         2"
    assert columns([("a", "b"), ("bbb", "")]) == "a    b\nbbb"


def test_weights_have_a_row_for_each_set() -> None:
    head, *rows = weights_table("caformer_s18")
    assert head == ("model", "weights", "pixels", "classes", "top-1", "licence", "formats", "first of them is")
    assert [row[:6] for row in rows] == [
        ("caformer_s18", "in1k", "224", "1,000", "83.6", "Apache-2.0"),
        ("caformer_s18", "in1k_384", "384", "1,000", "85.0", "Apache-2.0"),
        ("caformer_s18", "in21k", "224", "21,841", "–", "Apache-2.0"),
        ("caformer_s18", "in21k_ft_in1k", "224", "1,000", "84.1", "Apache-2.0"),
        ("caformer_s18", "in21k_ft_in1k_384", "384", "1,000", "85.4", "Apache-2.0"),
    ]
    assert rows[2][6:] == ("timm, v2", "timm/caformer_s18.sail_in22k/model.safetensors")
    assert len(weights_table()) == 66


def test_evaluation_text_has_the_worst_class_first() -> None:
    table = {"precision": 0.5, "recall": None, "f1": 0.25, "auc": 1.0, "support": 1200}
    figures = {
        "top1": 50.0, "top1_interval": [40.0, 60.0], "top5": None, "loss": 1.0, "brier": 0.5, "ece": 0.1, "macro_f1": 0.5,
        "macro_auc": None, "images": 2400, "per_class": {"good": table | {"f1": 0.75}, "bad": table},
    }  # fmt: skip
    lines = evaluation_text(figures).splitlines()
    assert lines[0] == "top-1          50.00 %  (40.0 to 60.0) on 2,400 images"
    assert lines[3] == "macro F1, AUC  0.500, –"
    assert [line.split() for line in lines[-2:]] == [
        ["bad", "0.500", "–", "0.250", "1.000", "1,200"], ["good", "0.500", "–", "0.750", "1.000", "1,200"],
    ]  # fmt: skip
