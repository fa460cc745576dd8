"""`create_model`: a name, some changes, weights if wanted."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from metaformer.config import read_json
from metaformer.core.model import MetaFormer
from metaformer.dense.backbone import fill_published, published_spread
from metaformer.dense.config import TIMM, TimmConfig, get_dense_config
from metaformer.dense.make import make_dense
from metaformer.dense.model import Dense
from metaformer.weights.catalogue import ROWS, TAGS, find
from metaformer.weights.fetch import fetch, find_local
from metaformer.weights.files import find_file, open_weights
from metaformer.weights.load import fit_weights
from metaformer.weights.match import as_given, dense_as_given, find_format
from metaformer.zoo import get_config


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    weights: str | Path | bool | None = None,
    **changes: Any,
) -> MetaFormer:
    """A model by its published name, with any field of MetaFormerConfig changed.

    `weights` is True for the default published ones (`in1k`: ImageNet-1K alone, at 224 pixels), a tag of published ones
    (`in1k_384`, `in21k`, `in21k_ft_in1k`, `in21k_ft_in1k_384`; `metaformer weights` lists them), a file that
    `load_weights` reads, or a folder that has the model's. `num_classes` is as the weights say unless given, else 1000; 0
    gives pooled features. What is changed to make weights fit other classes or channels is told by a warning of one line.
    Specs may be text: `create_model("convformer_s18", norm="BatchNorm()", mixers="Pooling(window=5)")`.
    `head/backbone`, such as retinanet/poolformer_s12 or upernet/timm:resnet50, gives a detector or a segmenter, of 80 or 150
    classes where nothing says how many; `changes` are then fields of DenseConfig or of the backbone's config, and `weights` are
    its own, or a classifier's for its backbone.
    Raises ValueError for a wrong name, field or value and names the nearest right one; ValueError or OSError with a
    sentence where weights cannot be had.
    """
    if "/" in name:  # only the name says which it is, so a type checker is told of the other
        return cast(Any, create_dense(name, num_classes=num_classes, in_chans=in_chans, weights=weights, **changes))
    config = get_config(name, in_chans=in_chans, **changes)
    if weights is None or weights is False:
        return MetaFormer(replace(config, num_classes=1000 if num_classes is None else num_classes))
    given = open_weights(find_weights(name, weights))
    if num_classes is None:
        num_classes = as_given(config, given.shapes, find_format(given.shapes) or "ours").num_classes
        if not num_classes:
            warnings.warn(f"{name}: the file has no classifier, so the model gives features", stacklevel=2)
    model = MetaFormer(replace(config, num_classes=num_classes))
    for note in fit_weights(model, given, adapt=True).notes:
        warnings.warn(f"{name}: {note}", stacklevel=2)
    return model


def create_dense(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    weights: str | Path | bool | None = None,
    **changes: Any,
) -> Dense:
    """The detector or segmenter that `head/backbone` names; as `create_model` makes it."""
    backbone = name.partition("/")[2]
    usual = get_dense_config(name, num_classes=1, in_chans=in_chans, **changes)
    classes = (150 if usual.task == "segmentation" else 80) if num_classes is None else num_classes
    if weights is None or weights is False:
        return make_dense(replace(usual, num_classes=classes))
    if isinstance(usual.backbone, TimmConfig) and weights is True:
        model = make_dense(replace(usual, num_classes=classes))
        fill_published(model.backbone)
        return model
    given = open_weights(find_weights(backbone, weights))
    format = find_format(given.shapes, usual)
    told = {"mean": usual.mean, "std": usual.std} | told_spread(backbone, weights) | changes
    config = replace(usual, num_classes=classes, mean=told["mean"], std=told["std"])
    if num_classes is None and format is not None:
        config = dense_as_given(config, given.shapes, format)
    model = make_dense(config)
    for note in fit_weights(model, given, adapt=True).notes:
        warnings.warn(f"{name}: {note}", stacklevel=3)
    return model


def create_published(name: str) -> tuple[MetaFormer, dict[str, Any]]:
    """The model that `caformer_s18` or `caformer_s18.in1k_384` names, with its published weights, and what is to know of them.

    Raises ValueError where none are published, ValueError or OSError with a sentence where they cannot be had.
    """
    model, _, tag = name.partition(".")
    row = find(model, tag or True)
    return create_model(model, weights=f"{row.tag}@{row.format}"), row.about()


def find_weights(name: str, weights: str | Path | bool) -> Path:
    """The file that `weights` stands for, as `create_model` takes it: a tag's, fetched if need be; a path; or what a folder
    has for this model. Raises ValueError or OSError with a sentence where there is none."""
    if isinstance(weights, bool) or (isinstance(weights, str) and weights.partition("@")[0] in TAGS):
        return fetch(find(name, weights))
    path = Path(weights).expanduser()
    if path.is_dir():
        known = any(row.model == name for row in ROWS)
        return (find_local(find(name), path) if known else None) or find_file(path)
    tag = str(weights).removeprefix(f"{name}.")
    if not path.exists() and os.sep not in tag and "." not in tag:
        return fetch(find(name, tag))  # which says what tags there are
    return path


def told_spread(backbone: str, weights: str | Path | bool) -> dict[str, tuple[float, ...]]:
    """Mean and deviation of pixels, by these names, that weights were learnt with; empty where nothing says so.

    A classifier's tag or model.json says it, a dense model's, or, for `weights` of "timm", timm.
    """
    if weights == "timm":
        return published_spread(backbone.removeprefix(TIMM))
    if isinstance(weights, bool) or (isinstance(weights, str) and weights.partition("@")[0] in TAGS):
        told: Mapping[str, Any] = find(backbone, weights).preprocess
    else:
        path = Path(weights).expanduser()
        file = (path if path.is_dir() else path.parent) / "model.json"
        about = read_json(file) if file.is_file() else {}
        told = about.get("dense") or about.get("preprocess") or {}
    return {key: tuple(told[key]) for key in ("mean", "std") if key in told}


def told_preprocess(name: str, weights: str | Path) -> dict[str, Any] | None:
    """How images were made ready for weights, as `Preprocess.from_dict` takes it; None where nothing says so.

    A tag of published weights says it, and so does the model.json beside a file.
    """
    if isinstance(weights, str) and weights.partition("@")[0] in TAGS:
        return find(name, weights).preprocess
    path = Path(weights).expanduser()
    about = (path if path.is_dir() else path.parent) / "model.json"
    return read_json(about).get("preprocess") if about.is_file() else None
