"""Reads weights of any known format into a model. Nothing from outside is unpickled but tensors."""

import struct
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from metaformer.core.model import MetaFormer
from metaformer.weights.formats import FORMATS, rename

WRAPPERS = ("state_dict", "model", "model_state", "module")
DAMAGE = (
    SafetensorError, UnpicklingError, struct.error, RuntimeError, OSError, EOFError, LookupError, ValueError, TypeError,
    AttributeError, AssertionError, ArithmeticError, MemoryError,
)  # fmt: skip
"""What reading a damaged file can raise: torch's reader has no error of its own and goes where the bytes lead."""

Model = TypeVar("Model", bound=MetaFormer)


def load_weights(model: Model, source: str | Path | Mapping[str, Tensor]) -> Model:
    """Fills `model` in place from a file or state dict and returns it.

    The format is recognised by its names: ours, the two papers' published code, timm, transformers. Matrices become 1×1
    convolutions. Raises ValueError that lists what is missing, unexpected or of another shape; then nothing was changed.
    """
    if any(tensor.is_meta for tensor in model.state_dict().values()):
        raise ValueError('a model on the meta device holds no weights: model.to_empty(device="cpu") gives it room for them')
    given = dict(source) if isinstance(source, Mapping) else read_file(Path(source))
    state = unwrap(given)
    own = model.state_dict()
    names = {format: {rename(key, format, model.config): key for key in own} for format in FORMATS}
    format = max(FORMATS, key=lambda f: len(names[f].keys() & state.keys()))
    theirs = names[format]

    missing = sorted(theirs.keys() - state.keys())
    unexpected = sorted(state.keys() - theirs.keys())
    fitted = {name: _fit(state[name], own[theirs[name]]) for name in theirs.keys() & state.keys()}
    misshapen = sorted(name for name, tensor in fitted.items() if tensor is None)
    if missing or unexpected or misshapen:
        shapes = {n: f"{n}: file {list(state[n].shape)}, model {list(own[theirs[n]].shape)}" for n in misshapen}
        raise ValueError(
            f"these weights do not fit (read as format {format!r})"
            + _listed("missing", missing)
            + _listed("unexpected", unexpected)
            + _listed("of another shape", list(shapes.values()))
        )
    with torch.no_grad():
        for name, tensor in fitted.items():
            own[theirs[name]].copy_(tensor)  # type: ignore[arg-type]
    return model


def _fit(tensor: Tensor, like: Tensor) -> Tensor | None:
    """`tensor` in the shape of `like`, where a matrix and a 1×1 convolution are the same; None where they are not."""
    if tensor.shape == like.shape:
        return tensor
    same = tensor.shape == like.shape[:2] and like.shape[2:] == (1, 1)
    return tensor.view(like.shape) if same else None


def _listed(what: str, names: list[str], most: int = 8) -> str:
    if not names:
        return ""
    more = f"\n    and {len(names) - most} more" if len(names) > most else ""
    return f"\n  {what} ({len(names)}):" + "".join(f"\n    {name}" for name in names[:most]) + more


def read_file(path: Path) -> dict[str, Any]:
    """What a .safetensors or .pth file holds. Raises FileNotFoundError, or ValueError if it is not weights."""
    if not path.is_file():
        raise FileNotFoundError(f"no file of weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} holds no weights that can be read safely ({reason})") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not weights by name")
    return dict(state)


def unwrap(state: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, without the prefix that a parallel wrapper adds."""
    for _ in WRAPPERS:
        inner = next((state[name] for name in WRAPPERS if isinstance(state.get(name), Mapping)), state)
        state = dict(inner)
    tensors = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    return {key.removeprefix("module."): value for key, value in tensors.items()}
