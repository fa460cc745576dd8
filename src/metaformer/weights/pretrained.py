"""A model in a folder: model.safetensors, and model.json that says what it is. Ours to write and to read."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from metaformer.config import read_json
from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.model import MetaFormer
from metaformer.weights.files import open_weights, read_file
from metaformer.weights.load import load_weights, make_plan
from metaformer.weights.match import own_shapes
from metaformer.weights.peers import Peer, PeerConfig

SCHEMA = 1
Model = MetaFormer | Peer


def save_pretrained(model: Model, folder: str | Path, about: Mapping[str, Any] | None = None) -> None:
    """Writes weights and config; `about` (preprocessing, classes, figures: JSON) is kept beside the config.

    Raises ValueError where `about` would hide what the file itself says.
    """
    about = about or {}
    for key in about.keys() & {"schema", "config", "timm"}:
        raise ValueError(f"about may not have {key!r}: the file says that itself")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in _state(model)}
    what = {"timm": asdict(model.config)} if isinstance(model, Peer) else {"config": model.config.to_dict()}
    content = json.dumps({"schema": SCHEMA, **what, **about}, indent=2) + "\n"
    weights, text = folder / "model.safetensors.tmp", folder / "model.json.tmp"
    save_file(state, weights, metadata={"format": "pt"})
    text.write_text(content, encoding="utf-8")
    weights.replace(folder / "model.safetensors")
    text.replace(folder / "model.json")


def _state(model: Model) -> list[tuple[str, Tensor]]:
    """Name and value; cloned when saved, for a model may use one tensor under two names, which the format refuses."""
    return list(model.state_dict().items())


def read_pretrained(folder: str | Path, model: Model | None = None) -> tuple[Model, dict[str, Any]]:
    """The model in a folder, and what was written about it.

    Give the `model` where it has mixers of your own: a file cannot bring back code. Raises FileNotFoundError or
    ValueError with a sentence.
    """
    file = Path(folder) / "model.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no model: it has no model.json")
    about = read_json(file)
    if about.get("schema") != SCHEMA:
        raise ValueError(f"{file} is of schema {about.get('schema')}; this version reads {SCHEMA}")
    return fill(_described(about, file) if model is None else model, folder), about


def _described(about: Mapping[str, Any], file: Path) -> Model:
    """The model that a model.json describes, made only once it is known that the weights beside it fit."""
    try:
        if "timm" in about:
            return Peer(PeerConfig(**about["timm"]))
        config = MetaFormerConfig.from_dict(about.get("config", {}))
        given = open_weights(file.with_name("model.safetensors")).shapes
        if sum(config.depths) > len(given):
            raise ValueError(f"the weights beside {file} do not fit: it describes {sum(config.depths):,} blocks")
        make_plan(given, own_shapes(config), config)
    except (TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{file} is damaged: it describes no model ({str(error).splitlines()[0]})") from error
    return MetaFormer(config)


def fill(model: Model, folder: str | Path) -> Model:
    """Puts the folder's weights into the model. Raises ValueError where they do not fit."""
    file = Path(folder) / "model.safetensors"
    if isinstance(model, MetaFormer):
        return load_weights(model, file)
    try:
        model.load_state_dict(read_file(file))
    except RuntimeError as error:
        raise ValueError(f"{file} does not fit timm's {model.config.name}: {str(error).splitlines()[0]}") from error
    return model
