"""Large JSON files, element by element: the text is held, never all of what it stands for."""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")


def elements(file: Path, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Name and element, one by one, of the arrays of these names in the object that a file holds.

    Raises ValueError that names the file where it is not such JSON, OSError where it cannot be read.
    """
    try:
        yield from _elements(file.read_bytes().decode("utf-8-sig"), wanted)
    except (ValueError, IndexError, RecursionError) as error:  # IndexError: the text ends too soon
        reason = "it ends too soon" if isinstance(error, IndexError) else error
        raise ValueError(f"{file} is damaged: {reason}") from error


def _elements(text: str, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    decode = json.JSONDecoder().raw_decode
    at = _after(text, 0, "{")
    while text[at] != "}":
        key, at = decode(text, at)
        at = _after(text, at, ":")
        if key in wanted and text[at] == "[":
            at = _skip(text, at + 1)
            while text[at] != "]":
                value, at = decode(text, at)
                yield key, value
                at = _next(text, at, "]")
            at += 1
        else:
            _, at = decode(text, at)
        at = _next(text, at, "}")


def _next(text: str, at: int, end: str) -> int:
    """Where the next element starts, or the `end` is."""
    at = _skip(text, at)
    return at if text[at] == end else _after(text, at, ",")


def _after(text: str, at: int, sign: str) -> int:
    at = _skip(text, at)
    if text[at] != sign:
        raise ValueError(f"{text[at : at + 20]!r} where {sign!r} should be, at character {at:,}")
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()
