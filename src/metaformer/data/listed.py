"""What a reader of objects or regions finds in a part of a source, before anybody has looked at the images."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metaformer.data.annotations import Annotations
from metaformer.data.find import files_in, is_image
from metaformer.data.flaws import Flaws
from metaformer.data.maps import Maps
from metaformer.data.tables import WORDS


@dataclass(frozen=True, eq=False)
class Listed:
    """Images in files, what is true of them, and what the classes are called."""

    root: Path
    names: Sequence[str]
    """Paths from the root on."""
    truths: Annotations | Maps
    classes: tuple[str, ...]
    flaws: Flaws
    numbers: tuple[int, ...] = ()
    """What the source calls the classes where that is a number."""
    relative: bool = False
    """Whether boxes are in parts of width and height."""


Part = Callable[[bool], Listed]
"""Reads a part of a source; told whether masks are wanted."""
Parts = Mapping[str, Part]
"""Some of train, val and test; or one empty word where a source does not say."""


_WORD = re.compile(r"(?<![a-z])(train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?)(?![a-z])")


def part_word(text: str) -> str | None:
    """train, val or test, where a name has such a word in it."""
    found = _WORD.search(text.lower())
    return WORDS[found[1].removesuffix("ing")] if found else None


def without_part(text: str) -> str:
    """A name without such a word, and without the number after it."""
    return re.sub(_WORD.pattern + r"\d*", "", text.lower())


def images_below(folder: Path) -> list[str]:
    """The images anywhere in a folder, as paths from it on."""
    return [file.relative_to(folder).as_posix() for file in files_in(folder) if is_image(file)]


def folder_like(root: Path, names: Iterable[str]) -> Path | None:
    """The folder in `root` of the first of these names that there is, in any case of letters."""
    inside = {path.name.lower(): path for path in sorted(root.iterdir(), reverse=True) if path.is_dir()}
    return next((inside[name] for name in names if name in inside), None)
