"""Files of weights, read safely: nothing from outside is unpickled but tensors, and nothing unpacks to more than it is."""

import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from metaformer.config import read_json

IN_FOLDER = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""What a folder's weights are called, the first that is there."""
AVERAGES = ("state_dict_ema", "model_ema")
WRAPPERS = ("state_dict", "model", "model_state", "module")
"""Where a checkpoint keeps its weights, the first that is there: timm's order, the moving average before the rest."""
PREFIXES = ("module.", "_orig_mod.")
"""What parallel wrappers and torch.compile put before every name."""
CHUNK = 128 * 2**20
"""Bytes after which a safetensors file is opened anew: its pages count as our memory for as long as it is open."""
DAMAGE = (
    SafetensorError, UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, OSError, EOFError, LookupError,
    ValueError, TypeError, AttributeError, AssertionError, ArithmeticError, MemoryError,
)  # fmt: skip
"""What reading a damaged file can raise: torch's reader has no error of its own and goes where the bytes lead."""


@dataclass(frozen=True)
class Source:
    """Tensors by name. `tensors()` reads those of safetensors files one by one: let go of each to keep memory low."""

    shapes: dict[str, tuple[int, ...]]
    tensors: Callable[[], Iterator[tuple[str, Tensor]]]
    part: str = ""
    """Which part of a checkpoint it is, such as `model_ema`."""
    files: tuple[Path, ...] = ()


def open_weights(source: str | Path | Mapping[str, Any], *, ema: bool | None = None) -> Source:
    """Weights in a file, a folder, shards (their index or its folder) or a state dict, wrapped or not.

    `ema`: where a checkpoint holds weights and their moving average, True takes the average, False the others, None the
    average if there is one. Raises FileNotFoundError, or ValueError with a sentence.
    """
    if isinstance(source, Mapping):
        tensors, part = unwrap(source, ema=ema)
        return _held(tensors, part)
    path = find_file(Path(source))
    if path.suffix == ".json":
        return _stored(_shards(path), (path,))
    if path.suffix == ".safetensors":
        return _stored({path: None}, ())
    tensors, part = unwrap(read_file(path), ema=ema)
    for name, tensor in tensors.items():
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise ValueError(f"{path} is refused: {name} claims {tensor.numel():,} values and does not hold them")
    return _held(tensors, part, (path,))


def find_file(path: Path) -> Path:
    """The file, or the file of weights in a folder. Raises FileNotFoundError."""
    found = next((path / name for name in IN_FOLDER if (path / name).is_file()), None) if path.is_dir() else path
    if found is None:
        raise FileNotFoundError(f"no file of weights at {path}: a folder holds {', '.join(IN_FOLDER)}")
    if not found.is_file():
        raise FileNotFoundError(f"no file of weights at {path}")
    return found


def read_file(path: Path) -> dict[str, Any]:
    """What a .safetensors or .pth file holds. Raises FileNotFoundError, or ValueError if it is not weights."""
    if not path.is_file():
        raise FileNotFoundError(f"no file of weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        check_zip(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        raise _refusal(path, error) from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not weights by name")
    return dict(state)


def unwrap(state: Mapping[Any, Any], *, ema: bool | None = None) -> tuple[dict[str, Tensor], str]:
    """The tensors inside a checkpoint, without the prefix that a wrapper adds, and the part that they were taken from."""
    wrappers = (() if ema is False else AVERAGES) + WRAPPERS
    part: list[str] = []
    given = state
    for _ in wrappers:
        name = next((name for name in wrappers if isinstance(state.get(name), Mapping)), None)
        if name is not None:
            state = state[name]
            part.append(name)
    if ema and not set(part) & set(AVERAGES):
        raise ValueError(f"there is no moving average (ema=True) among {_few(given)}: leave ema out")
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            name = _bare(key)
            if name in tensors:
                raise ValueError(f"two tensors are called {name}, one of them as {key}")
            if value.layout != torch.strided or value.is_meta:
                raise ValueError(f"{key} is no plain tensor: weights that are sparse or without values are not read")
            tensors[name] = value
    if not tensors and ema is False and set(AVERAGES) & state.keys():
        raise ValueError("there is nothing but a moving average (ema=False): leave ema out")
    return tensors, ".".join(part)


def _bare(key: str) -> str:
    while key.startswith(PREFIXES):
        for prefix in PREFIXES:
            key = key.removeprefix(prefix)
    return key


def _few(names: Iterable[Any], most: int = 5) -> str:
    shown = [str(name) for name in names]
    return ", ".join(shown[:most]) + (" …" if len(shown) > most else "")


def _refusal(path: Path, error: BaseException) -> ValueError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return ValueError(f"{path} holds no weights that can be read safely ({reason})")


# --- pickles in a zip -------------------------------------------------------------------------------------------------


def check_zip(path: Path) -> None:
    """Raises ValueError for an archive that torch did not write: it stores what it packs, once, and nothing before it."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return  # torch reads no other file as an archive
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            file.seek(archive.start_dir + 42)
            first = int.from_bytes(file.read(4), "little")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its member {member.filename} is compressed: such a file can unpack to any size")
    size = sum(member.file_size for member in members)
    if size > path.stat().st_size:
        raise ValueError(f"it unpacks to {size:,} bytes and has only {path.stat().st_size:,}")
    if members and first != members[0].header_offset:  # zipfile would look at another directory than torch
        raise ValueError("it is an archive with something before it")


# --- safetensors, one file or shards ----------------------------------------------------------------------------------


def _shards(index: Path) -> dict[Path, set[str] | None]:
    """Each file that an index names, and the tensors that should be in it."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index} is no index of weights: it has no weight_map")
    shards: dict[Path, set[str] | None] = {}
    for key, name in weight_map.items():
        if not isinstance(name, str) or name != Path(name).name or "\\" in name or not name.endswith(".safetensors"):
            raise ValueError(f"{index} names {name!r}: a part is a .safetensors file in the same folder")
        shards[index.with_name(name)] = (shards.get(index.with_name(name)) or set()) | {key}
    gone = [path.name for path in shards if not path.is_file()]
    if gone:
        raise FileNotFoundError(f"{len(gone)} of the {len(shards)} parts that {index} names are missing: {_few(gone)}")
    return shards


def _stored(parts: Mapping[Path, set[str] | None], beside: tuple[Path, ...]) -> Source:
    """What safetensors files hold; nothing but their headers is read yet."""
    shapes: dict[str, tuple[int, ...]] = {}
    names: dict[Path, list[tuple[str, str]]] = {}
    for path, wanted in parts.items():
        try:
            with safe_open(path, "pt") as file:
                held = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118  it has keys and cannot be iterated
        except DAMAGE as error:
            raise _refusal(path, error) from error
        if wanted is not None and wanted != held.keys():
            raise ValueError(f"{path} and its index disagree about {_few(sorted(wanted ^ held.keys()))}")
        names[path] = [(key, _bare(key)) for key in held]
        for key, shape in held.items():
            if _bare(key) in shapes:
                raise ValueError(f"two tensors are called {_bare(key)}, one of them as {key} in {path}")
            shapes[_bare(key)] = shape
    return Source(shapes, lambda: _read(names), files=(*beside, *parts))


def _read(names: Mapping[Path, list[tuple[str, str]]]) -> Iterator[tuple[str, Tensor]]:
    for path, pairs in names.items():
        ahead = iter(pairs)
        left = len(pairs)
        while left:
            try:
                with safe_open(path, "pt") as file:
                    size = 0
                    while left and size < CHUNK:
                        key, name = next(ahead)
                        tensor = file.get_tensor(key)
                        size += tensor.nbytes
                        left -= 1
                        yield name, tensor
            except DAMAGE as error:
                raise _refusal(path, error) from error


def _held(tensors: dict[str, Tensor], part: str, files: tuple[Path, ...] = ()) -> Source:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Source(shapes, lambda: iter(tensors.items()), part, files)


def bad_values(tensor: Tensor) -> tuple[int, int]:
    """How many NaN and how many infinite values. A finite sum proves at the price of one reading that there are none."""
    if not tensor.is_floating_point():
        return 0, 0
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    if isfinite(wide.sum().item()):
        return 0, 0
    return int(wide.isnan().sum()), int(wide.isinf().sum())
