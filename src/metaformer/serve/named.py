"""Names of what is served: NAME=SOURCE as it is typed, or the last part of the source."""

import re
from collections.abc import Sequence
from pathlib import PurePath

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
FILES = (".onnx", ".xml", ".pt2", ".pte", ".safetensors", ".pth", ".pt")
"""Endings that a name goes without; caformer_s18.in1k_384 has none."""


def named(words: Sequence[str]) -> dict[str, str]:
    """Sources by name, in their order. Raises ValueError with a sentence."""
    sources: dict[str, str] = {}
    for word in words:
        name, source = _split(word)
        if name in sources:
            raise ValueError(f"{sources[name]} and {source} are both called {name}: say NAME=SOURCE, such as other={source}")
        sources[name] = source
    return sources


def _split(word: str) -> tuple[str, str]:
    before, equals, after = word.partition("=")
    if equals and not re.search(r"[/\\:]", before):  # runs/lr=1 is a path
        if not NAME.fullmatch(before) or not after:
            raise ValueError(f"{word!r} is not NAME=SOURCE with a name of letters, digits, _, . and -")
        return before, after
    path = PurePath(word)
    last = path.stem if path.suffix.lower() in FILES else path.name
    last = last.rpartition(":")[2]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", last).lstrip(".-")[:64]
    if not NAME.fullmatch(name):
        raise ValueError(f"{word!r} ends with nothing that is a name: say NAME=SOURCE, such as mine={word}")
    return name, word
