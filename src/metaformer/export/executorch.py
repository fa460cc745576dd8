"""ExecuTorch's .pte for XNNPACK: what runs on phones and boards, and here through its Python runtime."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaformer.config import ABOUT
from metaformer.data.preprocess import Preprocess
from metaformer.export.save import Save
from metaformer.infer.convert import pipeline, to_executorch
from metaformer.weights.pretrained import Model

ROOM = 4096
"""Bytes kept for what the comparison finds, which is known only when the file can be run."""


def prepare(model: Model, preprocess: Preprocess, precision: str, output: str) -> Save:
    """Gives what converts and writes the file. What it says of itself is a method that returns a text."""
    module = pipeline(model, preprocess, output)
    converted: list[tuple[bytes, bytes]] = []

    def save(file: Path, about: Mapping[str, Any]) -> None:
        text = json.dumps(about).encode()
        if not converted:
            padded = text + b" " * ROOM
            program = to_executorch(module, len(preprocess.mean), preprocess.size, {ABOUT: padded.decode()})
            converted.append((program, padded))
        program, padded = converted[0]
        assert program.count(padded) == 1
        assert len(text) <= len(padded)
        file.write_bytes(program.replace(padded, text.ljust(len(padded))))

    return save
