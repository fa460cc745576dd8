"""The weights and what they are in one .safetensors: a model in torch, to be judged, fine-tuned or exported elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaformer.data.preprocess import Preprocess
from metaformer.export.save import Save
from metaformer.weights.pretrained import Model, save_file


def prepare(model: Model, preprocess: Preprocess, precision: str, output: str) -> Save:
    """Gives what writes the file."""

    def save(file: Path, about: Mapping[str, Any]) -> None:
        save_file(model, file, about)

    return save
