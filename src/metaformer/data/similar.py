"""Which pictures of many are near copies of each other: a hash of 64 bits, found in bands, judged by their edges."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
"""(N, SIDE, SIDE): pictures."""
Codes = NDArray[np.uint64]
"""(N,): 64 bits for each picture."""
Pairs = NDArray[np.int64]
"""(P, 2): numbers of pictures, the smaller first."""
Shown = NDArray[np.float32]
"""(P, SIDE, SIDE): pictures to compare."""

SIDE = 32
BITS = 64
RADIUS = 14
"""Most bits in which the hashes of near copies differ. Unrelated pictures differ in 32 on average."""
CUT = 0.08
"""Part of each side that a second hash leaves out, so that pictures are found that were cut by a little."""
ALIKE = 0.8
"""Least correlation of the edges of near copies: 1 for the same picture in another light, 0 for unrelated ones."""
WORTH = 0.2
"""Least correlation before aligning that is worth aligning for."""
COLOUR = 14.0
"""Most mean difference of colour between near copies, in levels of 255."""
FLAT = 3.0
"""Standard deviation in levels below which a picture has nothing to be told by."""
CROWD = 100
"""Most neighbours that are looked at in one bucket, so that many alike do not take quadratic time."""
BLOCK = 2**21


def codes_of(grey: Grey) -> tuple[Codes, Codes]:
    """Codes of pictures, and of their middles: the signs of their 64 lowest waves (pHash, Zauner 2010).

    Brightness and contrast do not matter. A picture that was cut is near the other one's middle.
    """
    shown = grey.astype(np.float32)
    line = _lines(np.full(1, -CUT, np.float32), np.zeros(1, np.float32))[0][0]
    return _signs(shown), _signs(line @ shown @ line.T)


def _signs(shown: Shown) -> Codes:
    place = np.arange(SIDE)
    waves = np.cos(np.pi * (2 * place + 1) * place[:, None] / (2 * SIDE))
    every = [(u, v) for u in range(SIDE) for v in range(SIDE) if u + v]
    low = sorted(every, key=lambda wave: (wave[0] ** 2 + wave[1] ** 2, wave))
    drawn = np.stack([np.outer(waves[u], waves[v]).ravel() for u, v in low[:BITS]], 1).astype(np.float32)
    return np.packbits(shown.reshape(len(shown), -1) @ drawn > 0, axis=1).view(np.uint64)[:, 0]


def near(whole: Codes, middle: Codes) -> Pairs:
    """Pairs of which the one's code differs in at most RADIUS bits from the other's, or from that of the other's middle.

    Multi-index hashing (Norouzi et al. 2012): codes are cut into bands as wide as gives about a bucket for each picture,
    and pairs are looked at that agree in a band but for one bit. All that differ in fewer bits than twice the bands are
    found, and most of the others. Time grows about as the number of pictures, not as its square.
    """
    count = len(whole)
    bands = int(np.clip(BITS // max(1, int(np.log2(max(count, 2)))), 3, 8))
    bytes_of = (np.ascontiguousarray(codes).view(np.uint8) for codes in (whole, middle))
    cut, cut_middle = (np.unpackbits(each).reshape(count, BITS) for each in bytes_of)
    found = []
    for band in range(bands):
        scale = 1 << np.arange(len(range(band, BITS, bands)))
        keys, asked = (bits[:, band::bands].astype(np.int64) @ scale for bits in (cut, cut_middle))
        order = np.argsort(keys, kind="stable")
        buckets = _Buckets(keys[order], order, whole)
        met = [*buckets.among(len(scale)), *buckets.beside(asked, middle, len(scale))]
        found.append(_once(met))
    return np.stack(np.divmod(_once(found), count), 1)


class _Buckets:
    """Codes sorted by one band of theirs. A pair is one number: the smaller times how many codes there are, plus the other."""

    def __init__(self, keys: NDArray[np.int64], order: NDArray[np.int64], codes: Codes) -> None:
        self.keys, self.order, self.codes = keys, order, codes

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
            close = (one != other) & (distance(codes[one], self.codes[other]) <= RADIUS)
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


def likeness(one: Shown, other: Shown, inside: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """(P,): the correlation of the edges of two pictures, where `inside` says; neither light nor contrast matters."""
    here, there = (np.stack([_across(picture), _down(picture)], 1) for picture in (one, other))
    if inside is not None:
        weight = inside[:, None].astype(np.float32)
        here, there = here * weight, there * weight
    both, own, its = (np.einsum("pcyx,pcyx->p", a, b) for a, b in ((here, there), (here, here), (there, there)))
    return both / np.sqrt(own * its + 1e-6)


def _across(picture: Shown) -> Shown:
    edges = np.zeros_like(picture)
    edges[:, :, 1:-1] = picture[:, :, 2:] - picture[:, :, :-2]
    return edges


def _down(picture: Shown) -> Shown:
    return _across(picture.transpose(0, 2, 1)).transpose(0, 2, 1)


# --- aligning ---------------------------------------------------------------------------------------------------------

_PLACES = ((np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE * 2 - 1).astype(np.float32)
FARTHEST = 0.25
"""Most that a side is stretched by, or a picture moved by in units of half of its side."""
STEPS = 12


def aligned(one: Shown, other: Shown) -> NDArray[np.float32]:
    """(P,): how alike pictures are when the other one is stretched and moved so as to fit best.

    Each side may be cut differently: four numbers for a pair, by Gauss-Newton steps (Lucas and Kanade 1981), the first
    half of them on blurred pictures.
    """
    fit = np.zeros((len(one), 4), np.float32)
    for step in range(STEPS):
        here, there = (_blurred(one), _blurred(other)) if step < STEPS // 2 else (one, other)
        seen, inside = _placed(there, fit)
        fit = np.clip(fit + _step(_even(here, inside), _even(seen, inside), inside), -FARTHEST, FARTHEST)
    seen, inside = _placed(other, fit)
    inside[:, [0, -1]] = inside[:, :, [0, -1]] = False
    return likeness(one, seen, inside)


def _step(here: Shown, seen: Shown, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """By how much stretching and moving should change, the least squares of what is left to first order."""
    across, down = (_across(here) + _across(seen)) / 2, (_down(here) + _down(seen)) / 2
    x, y = _PLACES[None, None, :], _PLACES[None, :, None]
    slopes = np.stack([across * x, down * y, across, down], 1) * inside[:, None] * (SIDE / 4)
    slopes = slopes.reshape(len(here), 4, -1)
    left = ((here - seen) * inside).reshape(len(here), -1, 1)
    square = slopes @ slopes.transpose(0, 2, 1)
    square += np.eye(4, dtype=np.float32) * (1e-3 * np.trace(square, axis1=1, axis2=2) + 1e-3)[:, None, None]
    return np.linalg.solve(square, slopes @ left)[..., 0]


def _placed(picture: Shown, fit: NDArray[np.float32]) -> tuple[Shown, NDArray[np.bool_]]:
    """The picture stretched and moved, between its pixels linearly; and where that lies inside of it."""
    wide, x_in = _lines(fit[:, 0], fit[:, 2])
    high, y_in = _lines(fit[:, 1], fit[:, 3])
    return high @ picture @ wide.transpose(0, 2, 1), y_in[:, :, None] & x_in[:, None, :]


def _lines(stretch: NDArray[np.float32], move: NDArray[np.float32]) -> tuple[Shown, NDArray[np.bool_]]:
    """(P, SIDE, SIDE) that takes each line of the result from two lines, and (P, SIDE) whether they are there."""
    place = ((1 + stretch[:, None]) * _PLACES + move[:, None] + 1) * (SIDE / 2) - 0.5
    inside = (place >= -0.5) & (place <= SIDE - 0.5)
    lines = np.arange(SIDE, dtype=np.float32)
    return np.maximum(0, 1 - np.abs(place.clip(0, SIDE - 1)[..., None] - lines)).astype(np.float32), inside


def _even(picture: Shown, inside: NDArray[np.bool_]) -> Shown:
    """Of mean 0 and variance 1 inside."""
    count = inside.sum((1, 2), keepdims=True).clip(1)
    centred = (picture - (picture * inside).sum((1, 2), keepdims=True) / count) * inside
    return centred / np.sqrt((centred**2).sum((1, 2), keepdims=True) / count + 1e-6)


def _blurred(picture: Shown) -> Shown:
    for _ in range(2):
        padded = np.pad(picture, ((0, 0), (1, 1), (0, 0)), mode="edge")
        picture = ((padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4).transpose(0, 2, 1)
    return picture


def judged(
    pairs: Pairs, pictures: Callable[[NDArray[np.int64]], tuple[Grey, NDArray[np.uint8]]]
) -> tuple[Pairs, NDArray[np.float32]]:
    """Those of the pairs that are near copies when looked at, and how alike they are.

    `pictures` gives grey (P, SIDE, SIDE) and colours (P, ...) of pictures by their numbers.
    """
    kept: list[NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    alike: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), 2048):
        some = pairs[start : start + 2048]
        (one, tones), (other, others) = (pictures(some[:, side]) for side in (0, 1))
        colour = np.abs(tones.astype(np.int16) - others).reshape(len(some), -1).mean(1)
        one, other = one.astype(np.float32), other.astype(np.float32)
        told = (colour <= COLOUR) & (np.minimum(one.std((1, 2)), other.std((1, 2))) >= FLAT)
        same = np.where(told, likeness(one, other), 0)
        unsure = np.flatnonzero((same >= WORTH) & (same < ALIKE))
        if len(unsure):
            same[unsure] = np.maximum(same[unsure], aligned(one[unsure], other[unsure]))
        kept.append(some[same >= ALIKE])
        alike.append(same[same >= ALIKE])
    return np.concatenate(kept), np.concatenate(alike)
