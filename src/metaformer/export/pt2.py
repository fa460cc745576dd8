"""torch.export's archive, .pt2: the graph in torch's operators, for torch and torch.compile."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metaformer.config import ABOUT
from metaformer.data.preprocess import Preprocess
from metaformer.export.save import Save
from metaformer.infer.convert import hushed, is_fixed, pipeline, to_exported
from metaformer.weights.pretrained import Model


def prepare(model: Model, preprocess: Preprocess, precision: str, output: str) -> Save:
    """Converts, and gives what writes the file; in bf16 the graph computes in bf16."""
    module = pipeline(model, preprocess, output)
    if precision == "bf16":
        module = module.bfloat16()
    program = to_exported(module, len(preprocess.mean), preprocess.size, fixed=is_fixed(module))
    program.example_inputs = None  # they would be pickled

    def save(file: Path, about: Mapping[str, Any]) -> None:
        with hushed():
            torch.export.save(program, file, extra_files={ABOUT: json.dumps(about)})

    return save
