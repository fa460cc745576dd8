"""Which pictures of many may be near copies of each other: hashes of 64 bits that differ in few, found in bands."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from metaformer.data.alike import SIDE, Grey, Pairs, Shown, lines

Codes = NDArray[np.uint64]
"""(N,): 64 bits for each picture."""
BITS = 64
RADIUS = 14
"""Most bits in which the hashes of near copies differ. Unrelated pictures differ in 32 on average."""
CUT = 0.08
"""Part of each side that a second hash leaves out, so that pictures are found that were cut by a little."""
CHANCE = 2
"""Most pairs for each picture that chance may make near; fewer bits are allowed where it would make more, but LEAST."""
LEAST, SAMPLE = 4, 2**21
CROWD = 100
"""Most neighbours that are looked at in one bucket, so that many alike do not take quadratic time."""
BLOCK = 2**21


def codes_of(grey: Grey) -> tuple[Codes, Codes]:
    """Codes of pictures, and of their middles: the signs of their 64 lowest waves (pHash, Zauner 2010).

    Brightness and contrast do not matter. A picture that was cut is near the other one's middle.
    """
    shown = grey.astype(np.float32)
    line = lines(np.full(1, -CUT, np.float32), np.zeros(1, np.float32))[0][0]
    return _signs(shown), _signs(line @ shown @ line.T)


def _signs(shown: Shown) -> Codes:
    place = np.arange(SIDE)
    waves = np.cos(np.pi * (2 * place + 1) * place[:, None] / (2 * SIDE))
    every = [(u, v) for u in range(SIDE) for v in range(SIDE) if u + v]
    low = sorted(every, key=lambda wave: (wave[0] ** 2 + wave[1] ** 2, wave))
    drawn = np.stack([np.outer(waves[u], waves[v]).ravel() for u, v in low[:BITS]], 1).astype(np.float32)
    return np.packbits(shown.reshape(len(shown), -1) @ drawn > 0, axis=1).view(np.uint64)[:, 0]


def near(whole: Codes, middle: Codes) -> Pairs:
    """Pairs, the smaller number first, of which the one's code is near the other's, or near that of the other's middle:
    they differ in at most RADIUS bits, or in fewer where unrelated pictures are that near (`radius_of`).

    Multi-index hashing (Norouzi et al. 2012): codes are cut into bands as wide as gives about a bucket for each picture,
    and pairs are looked at that agree in a band but for one bit. All that differ in fewer bits than twice the bands are
    found, and most of the others. Time grows about as the number of pictures, not as its square.
    """
    count = len(whole)
    bands = int(np.clip(BITS // max(1, int(np.log2(max(count, 2)))), 3, 8))
    most = radius_of(whole)
    found: list[NDArray[np.int64]] = []
    for band in range(bands):
        bits = range(band, BITS, bands)
        keys, asked = _keys(whole, bits), _keys(middle, bits)
        order = np.argsort(keys, kind="stable")
        buckets = _Buckets(keys[order], order, whole, most)
        met = [*buckets.among(len(bits)), *buckets.beside(asked, middle, len(bits))]
        found.append(_once(met))
    return np.stack(np.divmod(_once(found), count), 1)


def radius_of(codes: Codes) -> int:
    """In how many bits near codes may differ, by what random pairs of these codes differ in."""
    count = len(codes)
    one, other = np.random.default_rng(0).integers(0, count, (2, SAMPLE))
    differ = distance(codes[one], codes[other])[one != other].astype(np.int64)
    if not len(differ):
        return RADIUS
    by_chance = np.cumsum(np.bincount(differ, minlength=RADIUS + 1)) / len(differ) * (count - 1) / 2
    return max(LEAST, int((by_chance[: RADIUS + 1] <= CHANCE).sum()) - 1)


def _keys(codes: Codes, bits: range) -> NDArray[np.int64]:
    """(N,): some bits of each code."""
    keys = np.zeros(len(codes), np.int64)
    for place, bit in enumerate(bits):
        keys |= (codes >> np.uint64(bit) & np.uint64(1)).astype(np.int64) << place
    return keys


class _Buckets:
    """Codes sorted by one band of theirs. A pair is one number: the smaller times how many codes there are, plus the other."""

    def __init__(self, keys: NDArray[np.int64], order: NDArray[np.int64], codes: Codes, most: int) -> None:
        self.keys, self.order, self.codes, self.most = keys, order, codes, most

    def among(self, width: int) -> Iterator[NDArray[np.int64]]:
        """Near pairs of the codes, whose bands differ in one bit or none; each once."""
        places = np.arange(len(self.keys))
        yield from self._near(self.order, self.codes, places + 1, np.searchsorted(self.keys, self.keys, "right"))
        for bit in range(width):
            without = places[self.keys & (1 << bit) == 0]
            yield from self._asked(self.order[without], self.codes, self.keys[without] | (1 << bit))

    def beside(self, keys: NDArray[np.int64], codes: Codes, width: int) -> Iterator[NDArray[np.int64]]:
        """Near pairs of other codes of the same pictures with these."""
        everyone = np.arange(len(keys))
        for flip in (0, *(1 << bit for bit in range(width))):
            yield from self._asked(everyone, codes, keys ^ flip)

    def _asked(self, asking: NDArray[np.int64], codes: Codes, keys: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        yield from self._near(
            asking, codes, np.searchsorted(self.keys, keys, "left"), np.searchsorted(self.keys, keys, "right")
        )

    def _near(
        self, asking: NDArray[np.int64], codes: Codes, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> Iterator[NDArray[np.int64]]:
        """Of each that asks with those of order[start:end], at most CROWD; in blocks, for the memory's sake."""
        counts = np.minimum(ends - starts, CROWD).clip(0)
        upto = np.concatenate([[0], np.cumsum(counts)])
        first = 0
        while first < len(counts):
            last = max(first + 1, int(np.searchsorted(upto, upto[first] + BLOCK, "right")) - 1)
            many = counts[first:last]
            within = np.arange(upto[last] - upto[first]) - np.repeat(upto[first:last] - upto[first], many)
            one = np.repeat(asking[first:last], many)
            other = self.order[np.repeat(starts[first:last], many) + within]
            close = (one != other) & (distance(codes[one], self.codes[other]) <= self.most)
            one, other = one[close], other[close]
            yield np.minimum(one, other) * len(self.codes) + np.maximum(one, other)
            first = last


def distance(one: Codes, other: Codes) -> NDArray[np.uint64]:
    """(P,): in how many bits codes differ, pair by pair; ones are added up side by side, in words of 2, 4 and 8 bits."""
    bits = one ^ other
    bits = bits - (bits >> np.uint64(1) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + (bits >> np.uint64(2) & np.uint64(0x3333333333333333))
    bits = bits + (bits >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return bits * np.uint64(0x0101010101010101) >> np.uint64(56)


def _once(numbers: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """All that occur, sorted; several times as fast as np.unique."""
    every = np.sort(np.concatenate(numbers))
    return every[np.append(True, every[1:] != every[:-1])] if len(every) else every
