"""Keys of rows outlive the code, as results that are kept are known by them."""

import hashlib
from dataclasses import dataclass, replace

import pytest

from metaformer.config import Recipe
from metaformer.core.architecture import NUMBERS, MetaFormerConfig
from metaformer.lab import study_key
from metaformer.lab.studies import SMALL_SCALE, STUDIES
from metaformer.lab.study import entries
from metaformer.lab.study_key import key_of
from metaformer.recipes import SMALL
from metaformer.zoo import ZOO


def test_keys_of_committed_results_are_what_they_were() -> None:
    """Results are known by them, so that this must not change: give what is new a default that leaves the key as it is."""
    base = replace(SMALL, changes={}, epochs=5, batch=128, precision="bf16")
    assert {key: getattr(base, key) for key in ("epochs", "batch", "precision")}.items() <= SMALL_SCALE.items()
    made = entries(STUDIES["claims"], base, "t6", 3, channels=1, classes=10, mark="m", size=28, precision="bf16")
    assert len(made) == 75
    assert made[0].key == "f218a1031e285f3a"
    assert hashlib.sha256(" ".join(entry.key for entry in made).encode()).hexdigest()[:16] == "5fea97d9d86adddb"


@dataclass(frozen=True, kw_only=True)
class Later(Recipe):
    """What a recipe may be some day."""

    brand_new: float = 0.5


@dataclass(frozen=True, kw_only=True)
class LaterConfig(MetaFormerConfig):
    """What a model may be."""

    brand_new: bool = False


def test_what_is_new_is_in_the_key_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NUMBERS, "brand_new", bool)
    shape = ZOO["poolformer_s12"]
    now = key_of(SMALL, shape, "m", "fp32", {})
    told = {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}
    assert key_of(Later(**told), shape, "m", "fp32", {}) == now
    assert key_of(Later(**told, brand_new=0.4), shape, "m", "fp32", {}) != now
    fields = {name: getattr(shape, name) for name in shape.__dataclass_fields__}
    assert key_of(SMALL, LaterConfig(**fields), "m", "fp32", {}) == now
    assert key_of(SMALL, LaterConfig(**fields, brand_new=True), "m", "fp32", {}) != now


@pytest.mark.parametrize("name", sorted(study_key.SETTINGS | study_key.SHAPE))
def test_names_are_of_settings_or_of_fields(name: str) -> None:
    known = Recipe.__dataclass_fields__.keys() | MetaFormerConfig.__dataclass_fields__.keys()
    assert name in known
