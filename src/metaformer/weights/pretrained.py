"""A model in a folder, model.safetensors and model.json that says what it is, or both in one file. Ours to write and read."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as pack_tensors
from safetensors.torch import save_file as save_tensors
from torch import Tensor

from metaformer.config import ABOUT, parse_json, read_json
from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.lora import plain_state
from metaformer.core.model import MetaFormer
from metaformer.dense.config import DenseConfig
from metaformer.dense.make import make_dense
from metaformer.dense.model import Dense
from metaformer.own import bring
from metaformer.weights.files import DAMAGE, open_weights, read_file
from metaformer.weights.load import load_weights, make_plan
from metaformer.weights.match import own_shapes
from metaformer.weights.peers import Peer, PeerConfig

SCHEMA = 1
Model = MetaFormer | Peer
Kept = Model | Dense
"""What a folder may hold."""
Filled = TypeVar("Filled", MetaFormer, Peer, Dense, Model, Kept)


def save_pretrained(model: Kept, folder: str | Path, about: Mapping[str, Any] | None = None) -> None:
    """Writes weights and config; `about` (preprocessing, classes, figures: JSON) is kept beside the config.

    Raises ValueError where `about` would hide what the file itself says, OSError where the disk fails.
    """
    folder = Path(folder)
    text = told_text(model, about or {})
    folder.mkdir(parents=True, exist_ok=True)
    weights, told = folder / "model.safetensors.tmp", folder / "model.json.tmp"
    write_tensors(copied_state(model), weights, {"format": "pt"})
    told.write_text(text, encoding="utf-8")
    weights.replace(folder / "model.safetensors")
    told.replace(folder / "model.json")


def told_text(model: Kept, about: Mapping[str, Any]) -> str:
    """What goes into a model.json. Raises ValueError where `about` would hide what the file itself says."""
    for key in about.keys() & {"schema", "config", "timm", "dense"}:
        raise ValueError(f"about may not have {key!r}: the file says that itself")
    return json.dumps({**describe(model), **about}, indent=2) + "\n"


def packed(state: Mapping[str, Tensor]) -> bytes:
    """What a model.safetensors holds, of a `copied_state`."""
    return pack_tensors(dict(state), metadata={"format": "pt"})


def save_file(model: Kept, file: Path, about: Mapping[str, Any]) -> None:
    """Writes the weights, and `about` in the same file's header; `read_pretrained` takes both from it."""
    write_tensors(copied_state(model), file, {"format": "pt", ABOUT: json.dumps(about)})


def write_tensors(state: Mapping[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """A safetensors file. What fails on a disk is an OSError: the format's own error has but a text for it.

    Its library lets only the owner read what it writes: the file is for those for whom a new one is, as all others are.
    """
    file.touch()
    mode = file.stat().st_mode
    try:
        save_tensors(dict(state), file, metadata=metadata)
    except SafetensorError as error:
        if not file.stat().st_size:
            file.unlink()
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(file)) from error
    file.chmod(mode)


def describe(model: Kept) -> dict[str, Any]:
    """What it takes to make the model again, but for its weights. JSON-ready."""
    if isinstance(model, Peer):
        return {"schema": SCHEMA, "timm": asdict(model.config)}
    what = {"dense" if isinstance(model, Dense) else "config": model.config.to_dict()}
    return {"schema": SCHEMA, **what}


def copied_state(model: Kept) -> dict[str, Tensor]:
    """Values by name, on the processor, with low-rank updates in the weights.

    Cloned, for a model may use one tensor under two names, which the format refuses.
    """
    state = plain_state(model)
    return {key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in state.items()}


def read_pretrained(source: str | Path, model: Model | None = None) -> tuple[Model, dict[str, Any]]:
    """The model in a folder or in a .safetensors file of `save_file`, and what was written about it.

    Give the `model` where it has mixers of your own: a file cannot bring back code, but what a command named (`own.py`). Raises
    FileNotFoundError or ValueError with a sentence.
    """
    file, about = _read_checked(Path(source))
    made = _described(about, file) if model is None else model
    if isinstance(made, Dense):
        raise ValueError(
            f"{source} holds {made.config.head}, no classifier: metaformer train, eval and predict take it, and DensePredictor"
        )
    return fill(made, source), about


def read_dense(source: str | Path) -> tuple[Dense, dict[str, Any]]:
    """The detector or segmenter in a folder or in a .safetensors file of `save_file`, and what was written about it.

    Raises FileNotFoundError or ValueError with a sentence.
    """
    file, about = _read_checked(Path(source))
    made = _described(about, file)
    if not isinstance(made, Dense):
        raise ValueError(f"{source} holds a classifier: read_pretrained opens it")
    return load_weights(made, file if file.suffix == ".safetensors" else file.with_name("model.safetensors")), about


def _read_about(source: Path) -> tuple[Path, dict[str, Any]]:
    """What is to know of a model, and the file where it stands."""
    file = source / "model.json"
    if file.is_file():
        return file, read_json(file)
    if source.suffix != ".safetensors" or not source.is_file():
        raise FileNotFoundError(f"{source} holds no model: it has no model.json")
    try:
        with safe_open(source, "pt") as opened:
            text = (opened.metadata() or {}).get(ABOUT)
    except DAMAGE as error:
        raise ValueError(f"{source} is damaged: {str(error).splitlines()[0]}") from error
    if text is None:
        raise ValueError(f"{source} holds weights and does not say of which model: load_weights fills one with them")
    return source, parse_json(text, source)


def _read_checked(source: Path) -> tuple[Path, dict[str, Any]]:
    """The same, where this version reads it. Raises ValueError where it does not."""
    file, about = _read_about(source)
    if about.get("schema") != SCHEMA:
        raise ValueError(f"{file} is of schema {about.get('schema')}; this version reads {SCHEMA}")
    return file, about


def _described(about: Mapping[str, Any], file: Path) -> Kept:
    """The model that a model.json describes, made only once it is known that the weights beside it, or in it, fit."""
    bring([about.get("config"), about.get("dense")])
    try:
        if "timm" in about:
            return Peer(PeerConfig(**about["timm"]))
        dense = "dense" in about
        config = DenseConfig.from_dict(about["dense"]) if dense else MetaFormerConfig.from_dict(about.get("config", {}))
        body = config.backbone if isinstance(config, DenseConfig) else config
        given = open_weights(file if file.suffix == ".safetensors" else file.with_name("model.safetensors")).shapes
        if isinstance(body, MetaFormerConfig) and sum(body.depths) > len(given):
            raise ValueError(f"the weights beside {file} do not fit: it describes {sum(body.depths):,} blocks")
        make_plan(given, own_shapes(config), config)
    except (TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{file} is damaged: it describes no model ({str(error).splitlines()[0]})") from error
    return make_dense(config) if isinstance(config, DenseConfig) else MetaFormer(config)


def fill(model: Filled, source: str | Path) -> Filled:
    """Puts a folder's or a file's weights into the model. Raises ValueError where they do not fit."""
    file = Path(source) if Path(source).is_file() else Path(source) / "model.safetensors"
    if not isinstance(model, Peer):
        return load_weights(model, file)
    try:
        model.load_state_dict(read_file(file))
    except RuntimeError as error:
        raise ValueError(f"{file} does not fit timm's {model.config.name}: {str(error).splitlines()[0]}") from error
    return model
