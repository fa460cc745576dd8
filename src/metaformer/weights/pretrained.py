"""A model in a folder: model.safetensors, and model.json that says what it is. Ours to write and to read."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from metaformer.config import read_json
from metaformer.core.model import MetaFormer, MetaFormerConfig
from metaformer.weights.load import load_weights

SCHEMA = 1


def save_pretrained(model: MetaFormer, folder: str | Path, **about: Any) -> None:
    """Writes weights and config; `about` (preprocessing, classes, figures: JSON) is kept beside the config."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    weights, text = folder / "model.safetensors.tmp", folder / "model.json.tmp"
    save_file(state, weights, metadata={"format": "pt"})
    text.write_text(json.dumps({"schema": SCHEMA, "config": model.config.to_dict(), **about}, indent=2) + "\n")
    weights.replace(folder / "model.safetensors")
    text.replace(folder / "model.json")


def from_pretrained(folder: str | Path, model: MetaFormer | None = None) -> tuple[MetaFormer, dict[str, Any]]:
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
    model = model or MetaFormer(MetaFormerConfig.from_dict(about.get("config", {})))
    return load_weights(model, Path(folder) / "model.safetensors"), about
