"""What a file of weights is: whose names, which model, how many values of which kind, and its hash."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metaformer.weights.files import bad_values, open_weights
from metaformer.weights.match import find_format, find_models


@dataclass(frozen=True)
class Verified:
    """What is known about a file or folder of weights."""

    format: str | None
    """Whose names: ours, v1, v2, timm, transformers, mmpretrain; None if nobody's that we know."""
    part: str
    """Which part of a checkpoint, such as `model_ema`."""
    models: tuple[str, ...]
    """The published models that it fits: none, one, or two that have the same weights, such as an identity and pooling."""
    tag: str | None
    """Which published training, where the hash is known."""
    num_classes: int | None
    parameters: int
    dtypes: dict[str, int]
    """Kind of number → how many tensors have it."""
    nan: int
    inf: int
    sha256: dict[str, str]
    """Of each file, by its name."""


def verify(path: str | Path, *, ema: bool | None = None, known: Mapping[str, tuple[str, str]] | None = None) -> Verified:
    """Reads a file, a folder or shards and says what they are. `known` maps a file's SHA-256 to a model and its tag.

    Raises FileNotFoundError, or ValueError for what is not weights or cannot be read safely. NaN are counted, not refused.
    """
    given = open_weights(Path(path), ema=ema)
    sha256 = {file.name: file_hash(file) for file in given.files}
    model, tag = next(((known or {})[digest] for digest in sha256.values() if digest in (known or {})), (None, None))
    dtypes: Counter[str] = Counter()
    values = nan = inf = 0
    for _, tensor in given.tensors():
        bad = bad_values(tensor)
        dtypes[str(tensor.dtype).removeprefix("torch.")] += 1
        values, nan, inf = values + tensor.numel(), nan + bad[0], inf + bad[1]
    found = find_models(given.shapes)
    return Verified(
        format=find_format(given.shapes),
        part=given.part,
        models=(model,) if model else tuple(found),
        tag=tag,
        num_classes=next((config.num_classes for config in found.values()), None),
        parameters=values,
        dtypes=dict(dtypes),
        nan=nan,
        inf=inf,
        sha256=sha256,
    )


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
