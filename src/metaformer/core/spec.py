"""A spec is a frozen dataclass that makes a module. Its text form is its repr, so it prints, compares, hashes, travels."""

import ast
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from typing import Any


def nearest(name: str, allowed: Mapping[str, Any] | list[str]) -> str:
    """`, did you mean X?` when something allowed is spelt alike, else the end of the sentence."""
    folded = {word.lower(): word for word in allowed}
    close = get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return f", did you mean {folded[close[0]]}?" if close else f"; allowed: {', '.join(folded.values())}"


def to_text(spec: object) -> str:
    """`Pooling(window=5)` for a spec of ours, `module:Name` for a callable of the user's own."""
    if is_dataclass(spec) and type(spec).__module__.startswith("metaformer."):
        return repr(spec)
    owner: Any = spec if hasattr(spec, "__qualname__") else type(spec)
    return f"{owner.__module__}:{owner.__qualname__}"


def from_text(text: str, known: Mapping[str, type]) -> Any:
    """The spec that a text such as `SepConv(kernel=5, activation=ReLU())` names. Nothing in the text is executed.

    Raises ValueError for an unknown name or option, naming the nearest right one.
    """
    if ":" in text and "(" not in text:
        raise ValueError(f"{text!r} is code of your own, which a file cannot bring back: build it and give it, model=")
    try:
        return _build(ast.parse(text.strip(), mode="eval").body, text, known)
    except (SyntaxError, MemoryError, RecursionError):  # what the parser raises when brackets nest too deeply
        raise ValueError(f"cannot read {text!r}: write a name with options, such as Pooling(window=5)") from None


def _build(node: ast.expr, text: str, known: Mapping[str, type]) -> Any:
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_build(item, text, known) for item in node.elts)
    call = ast.Call(func=node, args=[], keywords=[]) if isinstance(node, ast.Name) else node
    if not isinstance(call, ast.Call):
        return _constant(node, text)
    if not isinstance(call.func, ast.Name) or call.func.id not in known:
        raise ValueError(f"unknown {ast.unparse(call.func)!r}{nearest(ast.unparse(call.func), dict(known))}")
    spec = known[call.func.id]
    options = [field.name for field in fields(spec) if field.init]
    if len(call.args) > len(options):
        raise ValueError(f"{text!r} gives {spec.__name__} too many values; its options: {', '.join(options) or 'none'}")
    given = dict(zip(options, call.args, strict=False))
    for keyword in call.keywords:
        if keyword.arg not in options:
            raise ValueError(f"{spec.__name__} has no option {keyword.arg!r}{nearest(str(keyword.arg), options)}")
        if keyword.arg in given:
            raise ValueError(f"{text!r} gives {keyword.arg} twice")
        given[keyword.arg] = keyword.value
    for field in fields(spec):
        if field.default is MISSING and field.name not in given:
            raise ValueError(f"{spec.__name__} needs {field.name}, such as {spec.__name__}({field.name}=7)")
    return spec(**{name: _build(value, text, known) for name, value in given.items()})


def _constant(node: ast.expr, text: str) -> bool | int | float | None:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        value = text
    if value is not None and not isinstance(value, (bool, int, float)):
        raise ValueError(f"cannot read {text!r}: options are numbers, True, False or another spec")
    return value
