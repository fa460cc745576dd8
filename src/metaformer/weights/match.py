"""Whose names these are, and which model they belong to: recognised by names and shapes alone."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.model import MetaFormer
from metaformer.dense.config import DenseConfig, get_dense_config
from metaformer.dense.make import make_dense
from metaformer.weights.formats import BODY, DENSE_FORMATS, FORMATS, cannot_hold, formats_of, rename
from metaformer.zoo import ZOO

Shapes = Mapping[str, tuple[int, ...]]
STEM = "stages.0.embed.conv.weight"
FIRST_NORM = (".mixer.norm.weight", ".norm1.weight", ".before_norm.weight")
"""How the name of a block's first norm ends, in all formats."""
CLASSES = {
    "retinanet": ("head.label.bias", 9, 0), "faster_rcnn": ("box_head.label.bias", 1, 1),
    "mask_rcnn": ("box_head.label.bias", 1, 1),
    "semantic_fpn": ("classify.bias", 1, 0), "upernet": ("classify.bias", 1, 0),
}  # fmt: skip
"""Where a head's classes are told: as many times them, and so many more."""


def find_format(names: Iterable[str], config: MetaFormerConfig | DenseConfig | None = None) -> str | None:
    """The format whose stem is among the names; where `config` is a dense model, the one whose classifier is."""
    names = set(names)
    if isinstance(config, DenseConfig):
        return next((format for format in formats_of(config) if rename(CLASSES[config.head][0], format, config) in names), None)
    return next((format for format in FORMATS if rename(STEM, format, ZOO["poolformer_s12"]) in names), None)


def own_shapes(config: MetaFormerConfig | DenseConfig) -> dict[str, tuple[int, ...]]:
    """Our names and shapes of a model, without making its weights."""
    with torch.device("meta"):
        model = make_dense(config) if isinstance(config, DenseConfig) else MetaFormer(config)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def alike(shape: tuple[int, ...], like: tuple[int, ...]) -> bool:
    """Whether two shapes are the same, a matrix and a 1×1 convolution being the same."""
    return shape == like or (len(shape) == 2 and (*shape, 1, 1) == like)


def find_models(shapes: Shapes) -> dict[str, MetaFormerConfig]:
    """The zoo's models that have just these names and shapes, with the classes and channels that the shapes tell.

    There can be two: an identity and pooling have no weights to tell them apart.
    """
    format = find_format(shapes)
    if format is None:
        return {}
    stem = shapes[rename(STEM, format, ZOO["poolformer_s12"])]
    blocks = sum(name.endswith(FIRST_NORM) for name in shapes)
    found = {}
    for name, row in ZOO.items():
        if len(stem) == 4 and (row.dims[0], sum(row.depths)) == (stem[0], blocks) and not cannot_hold(format, row):
            config = as_given(row, shapes, format)
            if _fits(shapes, format, config):
                found[name] = config
    return found


def choose_model(shapes: Shapes, path: Path | None) -> tuple[str, MetaFormerConfig]:
    """The one model that fits; of twins the one that the file or its folder is named after. Raises ValueError."""
    found = find_models(shapes)
    if not found:
        raise ValueError("these weights fit no published model: say which model they belong to, model=, such as caformer_s18")
    named = [name for name in found if path is not None and any(name in part for part in path.parts[-2:])]
    if len(found) > 1 and len(named) != 1:
        raise ValueError(f"these weights fit {' and '.join(found)} alike: say which, model={next(iter(found))}")
    name = named[0] if len(named) == 1 else next(iter(found))
    return name, found[name]


def as_given(config: MetaFormerConfig, shapes: Shapes, format: str) -> MetaFormerConfig:
    """The config with the classes and channels that the shapes tell; no classes where there is no classifier."""
    stem = shapes.get(rename(STEM, format, config), ())
    classifier = shapes.get(rename("head.classifier.fc.bias", format, config), ())
    num_classes, in_chans = classifier[0] if len(classifier) == 1 else 0, stem[1] if len(stem) == 4 else 3
    return replace(config, num_classes=num_classes, in_chans=in_chans)


def _fits(shapes: Shapes, format: str, config: MetaFormerConfig | DenseConfig) -> bool:
    theirs = {rename(key, format, config): shape for key, shape in own_shapes(config).items()}
    return theirs.keys() == shapes.keys() and all(alike(shapes[name], shape) for name, shape in theirs.items())


# --- dense models -----------------------------------------------------------------------------------------------------


def find_dense(shapes: Shapes) -> dict[str, DenseConfig]:
    """The published dense models on a PoolFormer that have just these names and shapes, as `head/backbone`."""
    found = {}
    for format, (_, heads) in DENSE_FORMATS.items():
        for name in (f"{head}/{backbone}" for head in heads for backbone in ZOO if backbone.startswith("poolformer_")):
            config = dense_as_given(get_dense_config(name, num_classes=1), shapes, format)
            stem = shapes.get(rename(BODY + STEM, format, config), ())
            blocks = sum(key.endswith(FIRST_NORM) for key in shapes)
            alike_backbone = isinstance(config.backbone, MetaFormerConfig) and (*stem[:1], blocks) == (
                config.backbone.dims[0], sum(config.backbone.depths)
            )  # fmt: skip
            if alike_backbone and _fits(shapes, format, config):
                found[name] = config
    return found


def dense_as_given(config: DenseConfig, shapes: Shapes, format: str) -> DenseConfig:
    """The config with the classes that the shapes tell."""
    key, times, more = CLASSES[config.head]
    shape = shapes.get(rename(key, format, config), ())
    classes = (shape[0] - more) // times if len(shape) == 1 else 0
    return replace(config, num_classes=classes) if classes > 0 else config
