"""Converted graphs, kept in the cache: to convert a model takes ten seconds, to read what came of it less than one.

A graph is kept under a hash of all that it was made of: weights, settings, preprocessing, this package's own code and the
versions of what converts. The folder `graphs` in the cache may be deleted at any time.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from filelock import FileLock
from torch import nn

from metaformer.data.preprocess import Preprocess
from metaformer.download import cache_folder
from metaformer.runs import replace_folder

OURS = ("metaformer", "torch")
"""Packages whose modules a kept model is made of: of another's code nobody knows when it changes."""
MOST = 2 << 30
"""Bytes of all that is kept; what was not used for longest goes first."""
Graph = TypeVar("Graph")


def kept(
    model: nn.Module,
    preprocess: Preprocess,
    name: str,
    convert: Callable[[], Graph],
    write: Callable[[Graph, Path], None],
    converters: tuple[str, ...],
) -> Path | Graph:
    """The file of a model's graph where there is one, else what `convert` makes of it, which `write` keeps for next time.

    `name` is the file's, `converters` are the packages that make it. A cache that cannot be written to keeps nothing.
    """
    key = _key(model, preprocess, name, converters)
    if key is None:
        return convert()
    folder = cache_folder() / "graphs" / key
    if (folder / name).is_file():
        with suppress(OSError):
            os.utime(folder)
        return folder / name
    graph = convert()
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name("lock")):
            replace_folder(folder, lambda new: write(graph, new / name))
            _drop(folder)
    return graph


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
    found = hashlib.blake2b(repr((name, asdict(preprocess), _code(), versions(*converters))).encode())
    for path, module in model.named_modules():
        kind = type(module)
        if kind.__module__.partition(".")[0] not in OURS or module._forward_hooks or module._forward_pre_hooks:
            return None
        own = sorted((key, repr(value)) for key, value in vars(module).items() if not key.startswith("_"))
        found.update(repr((path, kind.__module__, kind.__qualname__, own)).encode())
    for path, tensor in chain(model.named_parameters(), model.named_buffers()):
        found.update(repr((path, tensor.dtype, tuple(tensor.shape))).encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:32]


@cache
def _code() -> str:
    """This package's own."""
    found = hashlib.blake2b()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()
