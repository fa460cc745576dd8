"""ONNX: one file, for ONNX Runtime, OpenVINO and whatever else reads it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaformer.config import ABOUT
from metaformer.data.preprocess import Preprocess
from metaformer.export.save import Save
from metaformer.infer.convert import pipeline, to_onnx
from metaformer.weights.pretrained import Model


def prepare(model: Model, preprocess: Preprocess, precision: str, output: str) -> Save:
    """Converts, and gives what writes the file. fp32 alone: ONNX Runtime has no fast bf16 on processors."""
    return saver(to_onnx(pipeline(model, preprocess, output), len(preprocess.mean), preprocess.size))


def saver(proto: Any) -> Save:
    """What writes an onnx.ModelProto, with what is known of the model."""
    said = proto.metadata_props.add()
    said.key = ABOUT

    def save(file: Path, about: Mapping[str, Any]) -> None:
        said.value = json.dumps(about)
        file.write_bytes(proto.SerializeToString())

    return save
