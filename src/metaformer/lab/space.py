"""What a search may choose from: `low..high` and `a|b|c`, read and checked. No Optuna here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from metaformer.config import KINDS, Recipe, check_key, parse, revise

CHANGED = "model."
"""What the name of a changed field of the model begins with."""
FIXED = (
    "recipe", "data", "labels", "start_size", "epochs", "patience", "hours", "accumulate", "keep", "save_minutes", "seed",
    "smoke", "nonfinite", "device", "precision", "deterministic", "compile", "workers", "log",
)  # fmt: skip
"""Settings that are the same in every trial, or their figures could not be compared."""
DECADE = 10.0
"""Ends of a range this far apart, or farther, are searched on a logarithmic scale."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; where `log`, each power of ten is as likely as the next."""

    low: float
    high: float
    whole: bool

    @property
    def log(self) -> bool:
        return self.low > 0 and self.high >= DECADE * self.low

    def nearest(self, value: float) -> float:
        """The value with four digits, which is as good and can be typed."""
        return value if self.whole else min(max(float(f"{value:.4g}"), self.low), self.high)


@dataclass(frozen=True)
class Choice:
    """Texts as a command line has them."""

    texts: tuple[str, ...]


Space = dict[str, Range | Choice]


def is_space(key: str, text: str) -> bool:
    """Whether `key=text` gives more than one value; a text such as a path may have two dots in it."""
    return "|" in text or (".." in text and _is_number(key))


def split(pairs: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """What a command line gives several values, by key, and the rest of it. Raises ValueError for a key given twice."""
    space: dict[str, str] = {}
    rest: list[str] = []
    for pair in pairs:
        key, _, text = pair.partition("=")
        if not is_space(key, text):
            rest.append(pair)
        elif key in space:
            raise ValueError(f"{key}= is given twice")
        else:
            space[key] = text
    return space, rest


def read_space(texts: Mapping[str, str]) -> Space:
    """The ranges and choices by key. Raises ValueError that says what is wrong and what to type."""
    if not texts:
        raise ValueError("nothing to search: give some settings a range or choices, such as lr=1e-4..1e-2 'mixup=0|0.2|0.8'")
    space = {key: _read(key, text) for key, text in texts.items()}
    for key, values in space.items():
        for end in (values.low, values.high) if isinstance(values, Range) else values.texts:
            revise(Recipe(model="any"), setting(key, str(end)))
    return space


def setting(key: str, text: str) -> dict[str, Any]:
    """What `key=text` sets in a recipe."""
    return parse([f"{key}={text}"])


def _read(key: str, text: str) -> Range | Choice:
    if not key.startswith(CHANGED):
        check_key(key)
    if key in FIXED:
        raise ValueError(f"{key}= cannot be searched: it must be the same in every trial, so give it one value")
    if not is_space(key, text):
        raise ValueError(f"{key}={text} is one value, not a range such as 0..0.3 or choices such as 0|0.1|0.3")
    if "|" in text:
        texts = tuple(part.strip() for part in text.split("|"))
        if len({str(setting(key, part)) for part in texts}) < len(texts):
            raise ValueError(f"{key}={text} names a value twice")
        return Choice(texts)
    ends = text.split("..")
    if len(ends) != 2 or "" in ends:
        raise ValueError(f"{key}={text} is not low..high, such as {key}=1..2")
    low, high = (setting(key, end)[key] for end in ends)
    if not (isinstance(low, (int, float)) and isinstance(high, (int, float))):
        raise ValueError(
            f"{key}={text} is not from number to number; choices have | between them, such as {key}={ends[0]}|{ends[1]}"
        )
    if low == high:
        raise ValueError(f"{key}={text} is one value, not a range: give the ends apart, or {key}={ends[0]}")
    if low > high:
        raise ValueError(f"{key}={text} is the wrong way round: write {key}={ends[1]}..{ends[0]}")
    return Range(low, high, whole=float not in KINDS[key])


def _is_number(key: str) -> bool:
    return bool({int, float} & set(KINDS.get(key, ())))
