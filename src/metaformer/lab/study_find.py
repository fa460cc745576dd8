"""Which study words mean: a named one, one in a file or module of the user's own, or a mixer's there beside built-in ones."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from metaformer.core.architecture import SPECS
from metaformer.core.spec import from_text, nearest, to_text
from metaformer.lab.mixer_case import mixers_in
from metaformer.lab.study import Row, Study
from metaformer.own import ask, load

BESIDE = {"pooling": "Pooling()", "identity": "Identity()", "depthwise": "DepthwiseConv()", "attention": "Attention()"}
"""What a mixer is compared with; the first is the base."""


def find_study(what: str, known: Mapping[str, Study], read: Callable[[str], ModuleType] = load) -> tuple[Study, Path | None]:
    """The study that `norm`, `mine.py`, `mine.py:STUDY`, `module:STUDY` or a mixer's `mine.py:Gate` names, and its file.

    The file is None of what is in none; `read` imports a module. Raises ValueError with a sentence.
    """
    if what in known:
        return known[what], None
    place, _, name = what.partition(":")
    if not name and not place.endswith(".py"):
        raise ValueError(f"no study {what!r}{nearest(what, list(known))}")
    module = read(place)
    file = Path(place) if place.endswith(".py") else None
    studies = {key: value for key, value in vars(module).items() if isinstance(value, Study)}
    mixers = mixers_in(module)
    if name in studies:
        return studies[name], file
    if name and callable(getattr(module, name.partition("(")[0], None)):
        return beside(what, name), file
    if name:
        raise ValueError(f"{place} has no study or mixer {name!r}{nearest(name, [*studies, *mixers])}")
    if len(studies) == 1:
        return next(iter(studies.values())), file
    if not studies and mixers:
        raise ValueError(f"{place} has no study: name a mixer in it, {place}:{mixers[0]}, to see it beside built-in ones")
    raise ValueError(f"{place} has {len(studies)} studies ({', '.join(studies) or 'none'}): say which, {place}:NAME")


def beside(text: str, name: str) -> Study:
    """A mixer of the user's own in the frame of poolformerv2, beside built-in ones."""
    ask([text])
    title = name.partition("(")[0]
    rows = [Row(key, {"mixers": mixer}) for key, mixer in BESIDE.items()]
    return Study(
        name=title.lower(),
        about=f"{text} beside built-in mixers: the same frame, data and seeds.",
        rows=(*rows, Row(title, {"mixers": _at_each_grid(from_text(text, SPECS))})),
    )


def _at_each_grid(mixer: Any) -> Any:
    """The same, or where its spec names a grid, one for each stage's."""
    if not is_dataclass(mixer) or "grid" not in [field.name for field in fields(mixer)]:
        return mixer
    text = to_text(replace(mixer, grid=7))
    return f"({', '.join(text.replace('grid=7', f'grid={{{stage}}}', 1) for stage in range(1, 5))})"
