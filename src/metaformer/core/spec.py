"""A spec is a frozen dataclass that makes a module. Its text form is its repr, so it prints, compares, hashes, travels."""

import ast
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import ModuleType
from typing import Any

OWN: dict[str, ModuleType] = {}
"""Modules of the user's own that are imported, as a text calls them (`mine.py`, `package.mixers`): metaformer.own does it."""

REFERENCE = re.compile(r"(?<![\w./\\-])(?P<module>[\w./\\-]++):(?P<name>[A-Za-z_]\w*(?:\.\w+)*)(?![\w.<])")
"""What names code in a text: `mine.py:Shift`, `package.mixers:Shift`."""


def nearest(name: str, allowed: Mapping[str, Any] | list[str]) -> str:
    """`, did you mean X?` when something allowed is spelt alike, else the end of the sentence."""
    folded = {word.lower(): word for word in allowed}
    close = get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return f", did you mean {folded[close[0]]}?" if close else f"; allowed: {', '.join(folded.values())}"


def to_text(spec: object) -> str:
    """`Pooling(window=5)` for a spec of ours, `mine.py:Shift(step=2)` for the user's own, `module:Name` for other callables."""
    made = is_dataclass(spec) and not isinstance(spec, type)
    if made and type(spec).__module__.startswith("metaformer."):
        return repr(spec)
    owner: Any = spec if hasattr(spec, "__qualname__") else type(spec)
    told = repr(spec) if made and repr(spec).startswith(f"{owner.__qualname__}(") else owner.__qualname__
    return f"{owner.__module__}:{told}"


def from_text(text: str, known: Mapping[str, type]) -> Any:
    """The spec that a text such as `SepConv(kernel=5, activation=ReLU())` names. Nothing in the text is executed.

    Code of the user's own that is imported already (OWN) can be named too: `mine.py:Shift`, `(Pooling(), mine.py:Shift(2))`.
    Raises ValueError for an unknown name or option, naming the nearest right one.
    """
    own: dict[str, Any] = {}

    def named(found: re.Match[str]) -> str:
        word = f"own_{len(own)}"
        own[word] = find_own(found["module"], found["name"])
        return word

    plain = REFERENCE.sub(named, text)
    if ":" in plain and "(" not in plain:
        raise ValueError(refusal(text))
    try:
        return _build(ast.parse(plain.strip(), mode="eval").body, text, {**known, **own})
    except (SyntaxError, MemoryError, RecursionError):  # what the parser raises when brackets nest too deeply
        raise ValueError(f"cannot read {text!r}: write a name with options, such as Pooling(window=5)") from None


def find_own(module: str, name: str) -> Any:
    """What a module of the user's own calls `name`. Raises ValueError where it is not imported, or has nothing of that name."""
    if module not in OWN:
        raise ValueError(refusal(f"{module}:{name}"))
    made: Any = OWN[module]
    for part in name.split("."):
        if not hasattr(made, part):
            there = [word for word, value in vars(made).items() if callable(value) and not word.startswith("_")]
            raise ValueError(f"{module} has no {name!r}{nearest(part, there)}")
        made = getattr(made, part)
    return made


def refusal(text: str) -> str:
    """That a file cannot bring back code."""
    return f"{text!r} is code of your own, which a file cannot bring back: build it and give it, model="


def _build(node: ast.expr, text: str, known: Mapping[str, type]) -> Any:
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_build(item, text, known) for item in node.elts)
    call = ast.Call(func=node, args=[], keywords=[]) if isinstance(node, ast.Name) else node
    if not isinstance(call, ast.Call):
        return _constant(node, text)
    if not isinstance(call.func, ast.Name) or call.func.id not in known:
        raise ValueError(f"unknown {ast.unparse(call.func)!r}{nearest(ast.unparse(call.func), dict(known))}")
    spec = known[call.func.id]
    if not (isinstance(spec, type) and is_dataclass(spec)):  # a module class or a function of the user's own
        if call is node:
            raise ValueError(f"{text!r}: only a spec takes options, a frozen dataclass whose call makes the module")
        return spec
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
        if field.init and field.default is MISSING and field.default_factory is MISSING and field.name not in given:
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
