"""What a file of weights is: whose names, which model, how many values of which kind, and its hash."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metaformer.core.architecture import MetaFormerConfig
from metaformer.download import hash_of
from metaformer.weights.catalogue import ROWS, Published
from metaformer.weights.files import bad_values, open_weights
from metaformer.weights.match import find_dense, find_format, find_models

COMMON = {"model.safetensors", "pytorch_model.bin", "v1.0", "dl", "poolformer"}
"""Names that say nothing of what is in them."""


@dataclass(frozen=True)
class Verified:
    """What is known about a file or folder of weights."""

    format: str | None
    """Whose names: ours, v1, v2, timm, transformers, mmpretrain, mmdet, mmseg; None if nobody's that we know."""
    part: str
    """Which part of a checkpoint, such as `model_ema`."""
    models: tuple[str, ...]
    """The published models that it fits: none, one, or two that have the same weights, such as an identity and pooling."""
    tag: str | None
    """Which published training, where the file or its folder is called as a published one."""
    num_classes: int | None
    parameters: int
    dtypes: dict[str, int]
    """Kind of number → how many tensors have it."""
    nan: int
    inf: int
    sha256: dict[str, str]
    """Of each file, by its name."""


def verify(path: str | Path, *, ema: bool | None = None) -> Verified:
    """Reads a file, a folder or shards and says what they are.

    Raises FileNotFoundError, or ValueError for what is not weights or cannot be read safely. NaN are counted, not refused.
    """
    given = open_weights(Path(path), ema=ema)
    sha256 = {file.name: hash_of(file, "sha256") for file in given.files}
    dtypes: Counter[str] = Counter()
    values = nan = inf = 0
    for _, tensor in given.tensors():
        bad = bad_values(tensor)
        dtypes[str(tensor.dtype).removeprefix("torch.")] += 1
        values, nan, inf = values + tensor.numel(), nan + bad[0], inf + bad[1]
    dense = find_dense(given.shapes)
    found = {} if dense else find_models(given.shapes)
    named = _named(Path(path), found)
    return Verified(
        format=find_format(given.shapes, next(iter(dense.values()), None)),
        part=given.part,
        models=(named.model,) if named else tuple(dense or found),
        tag=named.tag if named else None,
        num_classes=next((config.num_classes for config in (*dense.values(), *found.values())), None),
        parameters=values,
        dtypes=dict(dtypes),
        nan=nan,
        inf=inf,
        sha256=sha256,
    )


def _named(path: Path, models: Mapping[str, MetaFormerConfig]) -> Published | None:
    """The published weights after which a file or folder is called, as long as they can be these."""
    for row in ROWS:
        config = models.get(row.model)
        names = {row.name, row.where.rpartition("/")[2], row.file.rpartition("/")[2]} - COMMON
        mine = {path.name, path.name.removesuffix(".safetensors"), path.name.removesuffix(".pth"), path.parent.name}
        if config is not None and config.num_classes == row.num_classes and names & mine:
            return row
    return None
