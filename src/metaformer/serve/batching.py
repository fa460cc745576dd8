"""Images that wait for a model, and which of them make the next batch. Knows no process and no clock."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from metaformer.serve.jobs import Asked, Kind, Record

TURN = 4
"""Images of a large request that go ahead of each request that came after it."""
BYTES = 64 << 20
"""Of the files in a batch; a larger one is a batch of its own."""


@dataclass(eq=False)
class Request:
    """What is to be answered together."""

    asked: Asked
    answer: asyncio.Future[list[Record]]
    records: list[Record]
    """Empty until they are there."""
    left: int
    """How many are missing."""

    def fill(self, place: int, record: Record) -> None:
        """One more record; with the last one there is an answer. Nobody may be waiting for it any more."""
        self.records[place] = record
        self.left -= 1
        if not self.left and not self.answer.done():
            self.answer.set_result(self.records)

    def fail(self, error: Exception) -> None:
        """There will be no answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(order=True, slots=True)
class Item:
    """An image that waits: those of a low `order` first, and of one order those that came first."""

    order: float
    number: int
    request: Request = field(compare=False)
    place: int = field(compare=False)
    image: bytes = field(compare=False)
    since: float = field(compare=False)


class Line:
    """What waits. An image's order is that of its request, later by one for every TURN images before it in the request.

    So a request that comes after a large one waits for a few of its images, not for all; and a large one cannot starve, for
    of those that come later only so many go ahead of it.
    """

    def __init__(self) -> None:
        self.items: list[Item] = []
        """A heap."""
        self.kinds: Counter[Kind] = Counter()
        self.bytes = 0
        """Of the images that wait."""
        self.requests = self.images = 0
        """That ever came."""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def first(self) -> Item:
        """What is next."""
        return self.items[0]

    def put(self, request: Request, images: Sequence[bytes], now: float) -> None:
        """All images of a request, at its end."""
        for place, image in enumerate(images):
            heappush(self.items, Item(self.requests + place // TURN, self.images + place, request, place, image, now))
            self.bytes += len(image)
        self.kinds[request.asked.kind] += len(images)
        self.requests += 1
        self.images += len(images)

    def full(self, most: int) -> bool:
        """Whether there is a batch that no image could be added to."""
        return bool(self.items) and self.kinds[self.first.request.asked.kind] >= most

    def take(self, most: int) -> list[Item]:
        """The next batch: images of one kind of question, perhaps of several requests."""
        found: list[Item] = []
        other: list[Item] = []
        size = 0
        while self.items and len(found) < most:
            item = heappop(self.items)
            if found and item.request.asked.kind != found[0].request.asked.kind:
                other.append(item)
                continue
            if found and size + len(item.image) > BYTES:
                other.append(item)
                break
            found.append(item)
            size += len(item.image)
        for item in other:
            heappush(self.items, item)
        self._gone(found)
        return found

    def drop(self, request: Request) -> int:
        """Takes out what waits of a request. Returns how many images that were."""
        found = [item for item in self.items if item.request is request]
        if found:
            self.items = [item for item in self.items if item.request is not request]
            heapify(self.items)
            self._gone(found)
        return len(found)

    def _gone(self, items: Sequence[Item]) -> None:
        for item in items:
            self.kinds[item.request.asked.kind] -= 1
            self.bytes -= len(item.image)
