"""A run as data."""

import json
import re
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path
from typing import Any

import pytest

from metaformer.config import KEYS, LIMITS, Recipe, parse, read_json, read_learn, revise


@pytest.mark.parametrize(
    ("pairs", "settings"),
    [
        (["epochs=5", "lr=1e-3"], {"epochs": 5, "lr": 1e-3}),
        (["lr=1"], {"lr": 1.0}),
        (["batch=auto"], {"batch": "auto"}),
        (["batch=32"], {"batch": 32}),
        (["clip=none", "flip=0.5"], {"clip": None, "flip": 0.5}),
        (["image_size=None"], {"image_size": None}),
        (["data=fashion-mnist:/a=b c"], {"data": "fashion-mnist:/a=b c"}),
        (["compile=True", "randaugment=none"], {"compile": True, "randaugment": None}),
        (["model.norm=BatchNorm(eps=1e-3)", "model.dims=(1,2)"], {"changes": {"norm": "BatchNorm(eps=1e-3)", "dims": "(1,2)"}}),
        ([], {}),
    ],
)
def test_parse(pairs: list[str], settings: dict[str, Any]) -> None:
    assert parse(pairs) == settings
    assert [type(value) for value in parse(pairs).values()] == [type(value) for value in settings.values()]


@pytest.mark.parametrize("key", KEYS)
def test_every_default_can_be_typed(key: str) -> None:
    default = getattr(Recipe(model="caformer_t6"), key)
    assert parse([f"{key}={default}"]) == {key: default}


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        ("epochs", "'epochs' is not key=value, such as epochs=5"),
        ("epoch=3", "no setting 'epoch', did you mean epochs?"),
        ("zzz=3", "no setting 'zzz'; allowed: recipe, weights, data, labels, image_size, "),
        ("=3", "no setting ''"),
        ("--epochs=3", "'--epochs=3' is not key=value, such as epochs=5, without dashes"),
        ("model=caformer_s18", "no setting 'model': the model is a word of its own before the settings"),
        ("changes=x", "no setting 'changes'"),
        ("epochs=1.5", "epochs=1.5 is not a whole number"),
        ("epochs=none", "epochs=none is not a whole number"),
        ("lr=fast", "lr=fast is not a number"),
        ("compile=yes", "compile=yes is not true or false"),
        ("clip=much", "clip=much is not a number or none"),
    ],
)
def test_parse_says_what_is_wrong(pair: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        parse([pair])


@pytest.mark.parametrize(
    ("pairs", "key"),
    [(["epochs=1", "epochs=2"], "epochs"), (["model.norm=MLN()", "model.norm=MLN()"], "model.norm"),
     (["model.drop_path=0", "drop_path=0.1"], "drop_path")],
)  # fmt: skip
def test_a_key_given_twice_is_refused(pairs: list[str], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(key)}= is given twice$"):
        parse(pairs)


def test_further_keys_are_texts_and_are_named_in_hints() -> None:
    assert parse(["name=5", "epochs=5"], ("name", "root")) == {"name": "5", "epochs": 5}
    with pytest.raises(ValueError, match=r"^no setting 'naem', did you mean name\?$"):
        parse(["naem=x"], ("name", "root"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epochs": 0}, "epochs=0 is not at least 1"),
        ({"epochs": 2.0}, "epochs=2.0 is not a whole number"),
        ({"patience": 0}, "patience=0 is not at least 1"),
        ({"hours": 0}, "hours=0 is not at least 1e-06"),
        ({"start_size": 0}, "start_size=0 is not between 1 and 8192"),
        ({"epochs": True}, "epochs=True is not a whole number"),
        ({"batch": 0}, "batch=0 is not at least 1"),
        ({"batch": "all"}, "batch='all' is not a whole number or auto"),
        ({"batch": "1.5"}, "batch='1.5' is not a whole number or auto"),
        ({"batch": 64.0}, "batch=64.0 is not a whole number or auto"),
        ({"accumulate": 0}, "accumulate=0 is not at least 1"),
        ({"seed": -1}, "seed=-1 is not at least 0"),
        ({"seed": 2**63}, "seed=9223372036854775808 is too large"),
        ({"lr": float("nan")}, "lr=nan is too large, or not a number at all"),
        ({"lr": float("inf")}, "lr=inf is too large, or not a number at all"),
        ({"lr": -1e-3}, "lr=-0.001 is not at least 0"),
        ({"lr": "1"}, "lr='1' is not a number"),
        ({"warmup_epochs": 1e308}, "warmup_epochs=1e+308 is too large"),
        ({"drop_path": 1.0}, "drop_path=1.0 is not between 0 and 0.99"),
        ({"flip": 1.5}, "flip=1.5 is not between 0 and 1"),
        ({"clip": -1.0}, "clip=-1.0 is not at least 1e-09"),
        ({"device": "tpu"}, "device='tpu' is not one of auto, cpu, cuda, mps"),
        ({"data": None}, "data=None is not a text"),
        ({"optimizer": "adam"}, "optimizer='adam' is not one of adamw, lamb, sgd; did you mean adamw?"),
        ({"fit": "stretch"}, "fit='stretch' is not one of squash, crop, pad"),
        ({"precision": "fp8"}, "precision='fp8' is not one of auto, fp32, tf32, bf16, fp16"),
        ({"nonfinite": "skip:2"}, "nonfinite='skip:2' is not one of stop, skip, rewind"),
        (
            {"schedule": "cosin"},
            "schedule='cosin' is not one of cosine, epochwise, constant, steps, poly; did you mean cosine?",
        ),
        ({"distill": "sof"}, "distill='sof' is not one of soft, hard; did you mean soft?"),
        ({"distill_weight": 1.1}, "distill_weight=1.1 is not between 0 and 1"),
        ({"distill_temperature": 0.0}, "distill_temperature=0.0 is not at least 0.01"),
        ({"class_weights": "balance"}, "class_weights='balance' is not one of none, balanced; did you mean balanced?"),
        ({"labels": "several"}, "labels='several' is not one of auto, single, multi"),
        ({"sampling": "random"}, "sampling='random' is not one of shuffle, balanced"),
        ({"crop_fraction": 0.0}, "crop_fraction=0.0 is not between 0.1 and 1"),
        ({"compile": 1}, "compile=1 is not true or false"),
        ({"workers": -1}, "workers=-1 is not between 0 and 1024"),
        ({"crop": 0.0}, "crop=0.0 is not between 0.01 and 1"),
        ({"changes": {"norm": 3}}, "changes={'norm': 3} is not texts by name, such as {'norm': 'BatchNorm()'}"),
        ({"changes": "norm"}, "changes='norm' is not texts by name"),
        ({"epohcs": 1}, "no setting 'epohcs', did you mean epochs?"),
        (
            {"learn": "loar"},
            "learn='loar' is not one of all, head, last:N with N from 1 to 4, lora, lora:RANK; did you mean lora?",
        ),
        ({"learn": "last:0"}, "learn='last:0' is not one of all, head, last:N with N from 1 to 4, lora, lora:RANK"),
        ({"learn": "last"}, "learn='last' is not one of"),
        ({"learn": "lora:1.5"}, "learn='lora:1.5' is not one of"),
        ({"learn": "head:1"}, "learn='head:1' is not one of"),
        ({"layer_decay": 1.1}, "layer_decay=1.1 is not between 0.01 and 1"),
        ({"freeze_norms": 1}, "freeze_norms=1 is not true or false"),
        ({"log": ""}, "log='' is not one of tensorboard, wandb, mlflow, each once, with commas between"),
        ({"log": "wandb, mlflow"}, "log=' mlflow' is not one of tensorboard, wandb, mlflow"),
        ({"log": "wandb,wandb"}, "log='wandb' is not one of tensorboard, wandb, mlflow, each once, with commas between"),
        (
            {"log": "tensorbord"},
            "log='tensorbord' is not one of tensorboard, wandb, mlflow, each once",
        ),
    ],
)
def test_recipe_refuses(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        revise(Recipe(model="caformer_t6"), settings)


def test_limits_are_of_settings() -> None:
    assert set(LIMITS) < set(KEYS)


@pytest.mark.parametrize(
    ("learn", "read"),
    [("all", ("all", 0)), ("head", ("head", 0)), ("last:4", ("last", 4)), ("lora", ("lora", 8)), ("lora:16", ("lora", 16))],
)
def test_what_learns_is_read(learn: str, read: tuple[str, int]) -> None:
    assert Recipe(model="x", learn=learn).learn == learn
    assert read_learn(learn) == read


@pytest.mark.parametrize("settings", [{"device": "cuda:1"}, {"clip": None}, {"lr": 1}, {"flip": 0}, {"drop_path": 0.99}])
def test_recipe_takes(settings: dict[str, Any]) -> None:
    assert asdict(Recipe(model="x", **settings)) == asdict(Recipe(model="x")) | settings


def test_log_names_trackers() -> None:
    assert [Recipe(model="x", log=log).trackers for log in (None, "wandb", "mlflow,tensorboard")] == [
        (), ("wandb",), ("mlflow", "tensorboard"),
    ]  # fmt: skip


def test_flat_is_every_setting_by_the_name_it_is_typed_by() -> None:
    flat = Recipe(model="x", lr=1.0, changes={"norm": "MLN()"}).flat()
    assert flat.keys() == {"model", "model.norm", *KEYS}
    assert (flat["lr"], flat["model.norm"]) == (1.0, "MLN()")


def test_recipe_is_frozen() -> None:
    recipe = Recipe(model="caformer_t6")
    with pytest.raises(FrozenInstanceError):
        recipe.epochs = 3
    assert revise(recipe, {"epochs": 3}).epochs == 3
    assert recipe.epochs == 20


def test_json_there_and_back() -> None:
    recipe = Recipe(model="caformer_t6", changes={"norm": "BatchNorm()"}, clip=None, lr=1e-3, data="digits")
    written = json.loads(json.dumps(recipe.to_dict()))
    assert written["schema"] == 1
    assert next(iter(written)) == "schema"
    assert written.keys() == {"schema", *asdict(recipe)}
    assert Recipe.from_dict(written) == recipe


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 2}, "not of schema 1"),
        ({"schema": None}, "not of schema 1"),
        ({"epohcs": 2}, "no setting 'epohcs', did you mean epochs?"),
        ({"model": None}, "model=None is not a text"),
        ({"changes": 3}, "changes=3 is not texts by name"),
    ],
)
def test_from_dict_refuses(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Recipe.from_dict(Recipe(model="caformer_t6").to_dict() | change)


def test_from_dict_takes_defaults_but_needs_a_model() -> None:
    assert Recipe.from_dict({"schema": 1, "model": "caformer_t6"}) == Recipe(model="caformer_t6")
    with pytest.raises(ValueError, match="names no model"):
        Recipe.from_dict({"schema": 1})


@pytest.mark.parametrize("content", [b"", b"{bad", b"[]", b"3", b"\xff\xfe\x00"])
def test_read_json_names_the_damaged_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "some.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"some\.json is damaged: "):
        read_json(file)
