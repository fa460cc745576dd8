"""Writes weights in the names of another: from any format that we read to any that can hold the model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaformer.config import read_json
from metaformer.core.architecture import MetaFormerConfig
from metaformer.dense.config import DenseConfig, get_dense_config
from metaformer.own import bring
from metaformer.weights.files import Source, open_weights
from metaformer.weights.formats import cannot_hold, check_format, to_format
from metaformer.weights.imagenet import class_names
from metaformer.weights.load import make_plan, read_planned
from metaformer.weights.match import as_given, choose_model, dense_as_given, find_dense, find_format, own_shapes
from metaformer.weights.pretrained import SCHEMA, write_tensors
from metaformer.zoo import get_config

PICKLES = {
    "v1": (".pth", ".tar"), "v2": (".pth",), "transformers": (".bin",), "mmpretrain": (".pth",),
    "mmdet": (".pth",), "mmseg": (".pth",),
}  # fmt: skip
"""Endings of the formats that are published as pickles; every format can be written as .safetensors."""


@dataclass(frozen=True)
class Converted:
    """What was written."""

    model: str
    """The published model that it was taken for; empty where model.json said what it is."""
    format: str
    """Whose names the source had."""
    part: str
    """Which part of a checkpoint it was, such as `model_ema`."""
    files: tuple[Path, ...]


def convert(
    source: str | Path, out: str | Path, *, to: str, model: str | None = None, ema: bool | None = None, force: bool = False
) -> Converted:
    """Writes the weights of `source`, any file or folder that `load_weights` reads, in the format `to`.

    `out` without an ending is a folder: model.safetensors, and for ours model.json, for transformers config.json. With one it
    is a file: .safetensors, or the ending under which the format is published; transformers' config.json stands beside it.
    The model is what model.json says, or `model`, or the published one that names and shapes fit. Values and precision stay.
    Raises FileNotFoundError; FileExistsError for a file that is there, without `force`; ValueError where weights fit no
    model, the format cannot hold it, or values are NaN or infinite.
    """
    check_format(to)
    source, out = Path(source), Path(out)
    weights = _weights_file(out, to)
    given = open_weights(source, ema=ema)
    name, config, about = _identify(source, given, model)
    reason = cannot_hold(to, config)
    if reason:
        raise ValueError(f"{source} cannot be written: {reason}")
    texts = _beside(weights, to, config, about, alone=weights == out)
    taken = [path for path in (weights, *texts) if path.exists()]
    if taken and not force:
        raise FileExistsError(f"{taken[0]} exists: choose another name, or --force (force=True) to overwrite it")

    own = own_shapes(config)
    plan = make_plan(given.shapes, own, config)
    state = {key: tensor.reshape(own[key]) for key, tensor in read_planned(given, plan)}
    theirs = to_format({key: state[key] for key in own}, to, config)
    weights.parent.mkdir(parents=True, exist_ok=True)
    made = {path: path.with_name(path.name + ".tmp") for path in (weights, *texts)}
    try:  # all is written before anything is renamed
        _write(theirs, made[weights], pickled=weights.suffix != ".safetensors")
        for path, text in texts.items():
            made[path].write_text(text, encoding="utf-8")
        for path, temporary in made.items():
            temporary.replace(path)
    finally:
        for temporary in made.values():
            temporary.unlink(missing_ok=True)
    return Converted(name, plan.format, given.part, (weights, *texts))


def _weights_file(out: Path, to: str) -> Path:
    """The file that holds the tensors. Raises ValueError for an ending that the format does not have."""
    if not out.suffix or out.is_dir():
        return out / "model.safetensors"
    allowed = (".safetensors", *PICKLES.get(to, ()))
    if out.suffix not in allowed:
        raise ValueError(f"{out} is no name for {to!r}: give a folder, or a file that ends in {' or '.join(allowed)}")
    return out


def _identify(source: Path, given: Source, model: str | None) -> tuple[str, MetaFormerConfig | DenseConfig, dict[str, Any]]:
    """Published name, config, and what model.json says beside it."""
    if model is not None and "/" in model:
        dense = get_dense_config(model, num_classes=1)
        return model, dense_as_given(dense, given.shapes, find_format(given.shapes, dense) or "ours"), {}
    if model is not None:
        row = get_config(model)
        return model, as_given(row, given.shapes, find_format(given.shapes) or "ours"), {}
    file = (source if source.is_dir() else source.parent) / "model.json"
    if not file.is_file() or not (source.is_dir() or source.name == "model.safetensors"):
        for name, dense in find_dense(given.shapes).items():
            return name, dense, {}
        return *choose_model(given.shapes, source), {}
    about = read_json(file)
    bring([about.get("config"), about.get("dense")])
    if about.get("schema") == SCHEMA and "dense" in about:
        return "", DenseConfig.from_dict(about.pop("dense")), about
    if about.get("schema") != SCHEMA or "config" not in about:
        raise ValueError(f"{file} describes no model that can be converted: it is timm's own, or of another version")
    return "", MetaFormerConfig.from_dict(about.pop("config")), about


# --- what stands beside the weights -----------------------------------------------------------------------------------


def _beside(
    weights: Path, to: str, config: MetaFormerConfig | DenseConfig, about: dict[str, Any], *, alone: bool
) -> dict[Path, str]:
    """The JSON file that the format keeps with its weights, and its text; ours needs none where the file stands `alone`."""
    content: dict[str, dict[str, Any]] = {}
    if to == "ours" and not alone:
        kind = "dense" if isinstance(config, DenseConfig) else "config"
        content = {"model.json": {**about, "schema": SCHEMA, kind: config.to_dict()}}
    if to == "transformers" and isinstance(config, MetaFormerConfig):
        content = {"config.json": _transformers_config(config, about)}
    return {weights.with_name(name): json.dumps(value, indent=2) + "\n" for name, value in content.items()}


def _transformers_config(config: MetaFormerConfig, about: dict[str, Any]) -> dict[str, Any]:
    """What PoolFormerForImageClassification.from_pretrained reads; strides, windows and ratios are its defaults."""
    classes = about.get("classes") or class_names(config.num_classes) or [f"LABEL_{i}" for i in range(config.num_classes)]
    return {
        "architectures": ["PoolFormerForImageClassification"],
        "model_type": "poolformer",
        "num_channels": config.in_chans,
        "depths": list(config.depths),
        "hidden_sizes": list(config.dims),
        "layer_scale_init_value": config.scales[0].branch,
        "drop_path_rate": config.drop_path,
        "id2label": {str(place): name for place, name in enumerate(classes)},
        "label2id": {name: place for place, name in enumerate(classes)},
    }


# --- writing ----------------------------------------------------------------------------------------------------------


def _write(state: dict[str, Tensor], path: Path, *, pickled: bool) -> None:
    """Every tensor in a memory of its own, in rows: what both formats ask for."""
    plain = {key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in state.items()}
    if pickled:
        torch.save(plain, path)
    else:
        write_tensors(plain, path, {"format": "pt"})
