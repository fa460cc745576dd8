"""Converted graphs, kept in the cache: to convert a model takes ten seconds, to read what came of it less than one.

A graph is kept under a hash of all that it was made of: weights, settings, preprocessing, this package's own code and the
versions of what converts. The folder `graphs` in the cache may be deleted at any time.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any, TypeVar

import torch
from filelock import FileLock
from torch import nn
from torch.fx import GraphModule

from metaformer.data.preprocess import Preprocess
from metaformer.download import cache_folder
from metaformer.infer.engines import DamagedError
from metaformer.runs import replace_folder

OURS = ("metaformer", "torch")
"""Packages whose modules a kept model is made of: of another's code nobody knows when it changes."""
MOST = 2 << 30
"""Bytes of all that is kept; what was not used for longest goes first."""
PATIENCE = 30.0
"""Seconds that another process is given to write."""
INTERNAL = frozenset(vars(nn.Module())) - {"training"}
"""What torch notes in each module; hooks, parameters, buffers and modules are looked at by themselves."""
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.memory_format)
Graph = TypeVar("Graph")
Opened = TypeVar("Opened")


class _UnknownError(Exception):
    """What a model computes cannot be told."""


def kept(
    model: nn.Module,
    preprocess: Preprocess,
    name: str,
    convert: Callable[[], Graph],
    write: Callable[[Graph, Path], None],
    read: Callable[[Path | Graph], Opened],
    converters: tuple[str, ...],
) -> Opened:
    """What `read` opens: the file of a model's graph where there is a whole one, else what `convert` makes of it, which `write`
    keeps for next time.

    `name` is the file's, `converters` are the packages that make it. A cache that cannot be written to keeps nothing.
    """
    key = _key(model, preprocess, name, converters)
    if key is None:
        return read(convert())
    folder = cache_folder() / "graphs" / key
    damaged = False
    if (folder / name).is_file():
        try:
            found = read(folder / name)
        except (OSError, DamagedError):
            damaged = True
        else:
            with suppress(OSError):
                os.utime(folder)
            return found
    graph = convert()

    def fill(new: Path) -> None:
        try:
            write(graph, new / name)
        except RuntimeError as error:  # OpenVINO's, of a full disk
            raise OSError(str(error)) from error

    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name("lock"), timeout=PATIENCE):
            if damaged or not (folder / name).is_file():  # else another process was first
                replace_folder(folder, fill)
                _drop(folder)
    return read(graph)


def versions(*packages: str) -> list[str]:
    """Of what is installed; `none` of what is not."""
    found = []
    for name in packages:
        try:
            found.append(version(name))
        except PackageNotFoundError:
            found.append("none")
    return found


def _drop(newest: Path) -> None:
    """Deletes what was not used for longest until the rest is not more than MOST; a process that reads it is not hurt."""
    size = 0
    for folder in sorted(
        (path for path in newest.parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime, reverse=True
    ):
        size += sum(file.stat().st_size for file in folder.iterdir())
        if size > MOST and folder != newest:
            shutil.rmtree(folder, ignore_errors=True)


def _key(model: nn.Module, preprocess: Preprocess, name: str, converters: tuple[str, ...]) -> str | None:
    """Different for models that compute different things; None for those of which that cannot be told."""
    about = (name, asdict(preprocess), CODE, versions("metaformer", *converters))
    found = hashlib.blake2b(repr(about).encode())
    seen: dict[int, int] = {}  # what is shared comes again, as the number that it has
    try:
        for path, module in model.named_modules(remove_duplicate=False):
            found.update(repr((path, seen.setdefault(id(module), len(seen)), _of_module(module))).encode())
    except _UnknownError:
        return None
    tensors = chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    for path, tensor in tensors:
        known = id(tensor) in seen
        found.update(repr((path, seen.setdefault(id(tensor), len(seen)), tensor.dtype, tuple(tensor.shape))).encode())
        if not known:
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:32]


def _of_module(module: nn.Module) -> str:
    """Its class and settings. Raises _UnknownError."""
    if module._forward_hooks or module._forward_pre_hooks or isinstance(module, GraphModule | torch.jit.ScriptModule):
        raise _UnknownError
    own = {key: value for key, value in vars(module).items() if key not in INTERNAL}
    return f"{_told(type(module))} {_told(own)}"


def _told(value: Any) -> str:
    """The same for the same value in any process. Raises _UnknownError where its text need not say what it is."""
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(map(_told, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_told(key)}: {_told(value[key])}' for key in sorted(value, key=repr))}}}"
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        if (value.__module__ or "").partition(".")[0] in OURS and "<" not in value.__qualname__:
            return f"{value.__module__}.{value.__qualname__}"
    elif is_dataclass(value):
        return f"{_told(type(value))}({_told({field.name: getattr(value, field.name) for field in fields(value)})})"
    raise _UnknownError


def _code() -> str:
    """This package's own, as it is when it is imported."""
    found = hashlib.blake2b()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()


CODE = _code()
