"""What a file says of itself, read without the runtime that it is for: a few bytes of it, and nothing of its graph."""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree.ElementTree import ParseError, parse
from zipfile import BadZipFile, ZipFile

from metaformer.config import ABOUT
from metaformer.infer.engines import said_of

LONGEST = 2**24
"""Bytes of what a file may say of itself; of a .safetensors with its list of weights."""
METADATA = 14
"""The number of ONNX's metadata_props among the fields of a model, with their key and value as fields 1 and 2 of each."""


def said_in(file: Path) -> dict[str, Any]:
    """Nothing of a file that says nothing, is damaged or of another kind: whatever opens it says what is wrong with it."""
    read = READERS.get(file.suffix.lower())
    if read is None:
        return {}
    try:
        return said_of(read(file))
    except (OSError, ValueError, LookupError, OverflowError, BadZipFile, ParseError):
        return {}


def _safetensors(file: Path) -> str | None:
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        head = said_of(handle.read(length).decode()) if length <= LONGEST else {}
    return dict(head.get("__metadata__", {})).get(ABOUT)


def _onnx(file: Path) -> str | None:
    with file.open("rb") as handle:
        for _, value in _fields(handle, file.stat().st_size, {METADATA}):
            pair = dict(_fields(BytesIO(value), len(value), {1, 2}))
            if pair.get(1) == ABOUT.encode():
                return pair.get(2, b"").decode()
    return None


def _openvino(file: Path) -> str | None:
    found = parse(file).getroot().find(f"rt_info/{ABOUT}")
    return None if found is None else found.get("value")


def _torch_export(file: Path) -> str | None:
    with ZipFile(file) as archive:
        (entry,) = (entry for entry in archive.infolist() if entry.filename.endswith(f"/extra/{ABOUT}"))
        return archive.read(entry).decode() if entry.file_size <= LONGEST else None


READERS: dict[str, Callable[[Path], str | None]] = {
    ".safetensors": _safetensors, ".onnx": _onnx, ".xml": _openvino, ".pt2": _torch_export,
}  # fmt: skip


def _fields(handle: BinaryIO, end: int, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """The fields of a message in protocol buffers' wire format that are texts or messages, and wanted; others are skipped."""
    while handle.tell() < end:
        number, kind = divmod(_whole(handle), 8)
        if kind == 0:
            _whole(handle)
            continue
        length = _whole(handle) if kind == 2 else {1: 8, 5: 4}[kind]
        if kind == 2 and number in wanted and length <= LONGEST:
            yield number, handle.read(length)
        else:
            handle.seek(length, 1)


def _whole(handle: BinaryIO) -> int:
    """A whole number of 7 bits a byte, the lowest first. Raises ValueError where it does not end."""
    value = 0
    for place in range(10):
        (byte,) = handle.read(1) or (0,)
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value
    raise ValueError("a number of more than ten bytes")
