"""The key of a row with a seed: the hash of all that decides its result, by which it is known for good and trained once.

Results are kept and committed under their keys, so that keys outlive the code: a setting or a field that is new since then is
in the key only where it is not at its default, as all was before there was one.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from metaformer.config import Recipe
from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.spec import REFERENCE
from metaformer.runs import weights_of

FREE = {"device", "workers", "log", "save_minutes", "keep", "recipe", "model", "changes", "data", "precision"}
"""Settings that decide nothing, or that the key has otherwise."""
FROM_FILES = ("weights", "teacher")
"""Settings that may name files, whose content counts too."""
SETTINGS = frozenset({
    "weights", "labels", "image_size", "start_size", "augment", "fit", "crop_fraction", "normalise", "learn",
    "freeze_norms", "layer_decay", "epochs", "patience", "hours", "batch", "accumulate", "checkpointing", "seed", "smoke",
    "optimizer", "schedule", "lr", "warmup_epochs", "warmup_lr", "min_lr", "weight_decay", "clip", "ema", "ema_warmup",
    "nonfinite", "drop_path", "head_dropout", "label_smoothing", "crop", "pad", "flip", "randaugment", "erase", "mixup",
    "cutmix", "class_weights", "sampling", "window", "teacher", "distill", "distill_weight", "distill_temperature",
    "deterministic", "compile",
})  # fmt: skip
"""Those that are always in the key."""
SHAPE = frozenset({
    "depths", "dims", "mixers", "norm", "activation", "mlp_ratio", "mlp_bias", "scales", "residual", "pos_embed",
    "stem_stride", "patch_norm", "patch_init", "head_norm", "pool_first", "head", "head_dropout", "drop_path", "in_chans",
    "num_classes",
})  # fmt: skip
"""Fields of a model's config that always are."""


def key_of(
    recipe: Recipe,
    shape: MetaFormerConfig | None,
    mark: str,
    precision: str,
    code: Mapping[str, str],
    files: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Sixteen letters of the hash of all that decides a result: settings, model, data, precision, code of the user's own, and
    what weights= and teacher= hold (`marks_of_files`).

    Where that code lies decides nothing.
    """
    told: dict[str, Any] = {name: getattr(recipe, name) for name in _telling(recipe, SETTINGS) if name not in FREE}
    told |= {"data": mark, "precision": precision, "model": recipe.model}
    if shape is not None:
        texts = shape.to_dict()
        told["model"] = {name: texts[name] for name in _telling(shape, SHAPE)}
    told["code"] = sorted(set(code.values()))
    if held := {name: files[text] for name in FROM_FILES if (text := getattr(recipe, name)) in files}:
        told["files"] = held
    if shape is not None and recipe.weights is not None and recipe.weights not in files:
        told["published"] = recipe.model  # whose name says which weights a tag means
    text = json.dumps(told, sort_keys=True)
    if code:
        text = REFERENCE.sub(lambda found: f"{code.get(found['module'], '')}:{found['name']}", text)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def marks_of_files(recipes: Iterable[Recipe]) -> dict[str, str]:
    """The hash of what lies at each place that weights= and teacher= name here; what is published has none."""
    named = {text for recipe in recipes for name in FROM_FILES if (text := getattr(recipe, name)) is not None}
    there = {text: place for text in named if (place := Path(text).expanduser()).exists()}
    return {text: _mark_of(Path(weights_of(place))) for text, place in there.items()}


def _mark_of(place: Path) -> str:
    """Of a file, or of those in a folder with their names."""
    files = sorted(file for file in place.iterdir() if file.is_file()) if place.is_dir() else [place]
    told = [(file.name if place.is_dir() else "", _digest(file)) for file in files]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _telling(value: Recipe | MetaFormerConfig, first: frozenset[str]) -> list[str]:
    """Fields that were there from the first on, and newer ones that are not at their default."""
    return [f.name for f in fields(value) if f.name in first or getattr(value, f.name) != f.default]
