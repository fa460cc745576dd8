"""What is wrong with a source in many places, told in few sentences: how often, and where first."""

from collections.abc import Iterable
from dataclasses import dataclass

FIRST = 3
"""Places that are named."""


@dataclass(frozen=True)
class Flaw:
    """One kind of flaw."""

    what: str
    """In the plural, and what became of it: "boxes without area, left out"."""
    count: int
    where: tuple[str, ...]
    """The first places, mostly files."""

    def __str__(self) -> str:
        some = ", ".join(self.where)
        return f"{self.what}: {self.count:,} ({some}{' …' if self.count > len(self.where) else ''})" if some else self.what


class Flaws:
    """Flaws while they are gathered."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.where: dict[str, dict[str, None]] = {}

    def add(self, what: str, where: str, count: int = 1) -> None:
        """One more place, with `count` flaws in it."""
        self.counts[what] = self.counts.get(what, 0) + count
        places = self.where.setdefault(what, {})
        if len(places) < FIRST:
            places[where] = None

    def all(self) -> tuple[Flaw, ...]:
        """What was gathered, by its first occurrence."""
        return tuple(Flaw(what, count, tuple(self.where[what])) for what, count in self.counts.items())


def together(parts: Iterable[tuple[Flaw, ...]]) -> tuple[Flaw, ...]:
    """The flaws of several parts as if they had been gathered as one."""
    counts: dict[str, int] = {}
    where: dict[str, tuple[str, ...]] = {}
    for flaw in (flaw for part in parts for flaw in part):
        counts[flaw.what] = counts.get(flaw.what, 0) + flaw.count
        where[flaw.what] = tuple(dict.fromkeys((*where.get(flaw.what, ()), *flaw.where)))[:FIRST]
    return tuple(Flaw(what, count, where[what]) for what, count in counts.items())
