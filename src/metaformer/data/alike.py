"""How alike two pictures are: the correlation of their edges, when the one is stretched and moved onto the other."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
"""(N, SIDE, SIDE): pictures."""
Shown = NDArray[np.float32]
"""(P, SIDE, SIDE): pictures to compare."""
Pairs = NDArray[np.int64]
"""(P, 2): numbers of pictures."""
Pictures = Callable[[NDArray[np.int64]], tuple[Grey, NDArray[np.uint8]]]
"""Grey (P, SIDE, SIDE) and colours (P, ...) of pictures by their numbers."""

SIDE = 32
ALIKE, STRICT = 0.8, 0.98
"""Least correlation of the edges of near copies, and what is enough anywhere: 1 for the same picture in another light."""
REACH = 0.6
"""Most that aligning is expected to add."""
COLOUR = 14.0
"""Most mean difference of colour between near copies, in levels of 255."""
FLAT = 3.0
"""Standard deviation in levels below which a picture has nothing to be told by."""
BLOCK = 2048
DRAWN, MANY = 2000, 200
"""Pairs drawn at random to learn what pictures have in common that are no copies; of fewer pictures nothing is learnt."""


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
    wide, x_in = lines(fit[:, 0], fit[:, 2])
    high, y_in = lines(fit[:, 1], fit[:, 3])
    seen = (high @ picture @ wide.transpose(0, 2, 1)).astype(np.float32, copy=False)
    return seen, y_in[:, :, None] & x_in[:, None, :]


def lines(stretch: NDArray[np.float32], move: NDArray[np.float32]) -> tuple[Shown, NDArray[np.bool_]]:
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
        mean = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 1:-1] + padded[:, 2:]) * np.float32(0.25)
        picture = mean.transpose(0, 2, 1)
    return picture


# --- judging ----------------------------------------------------------------------------------------------------------


def judged(pairs: Pairs, pictures: Pictures, bar: float) -> tuple[Pairs, NDArray[np.float32]]:
    """Those of the pairs that are alike by `bar` or more, and how alike they are."""
    same = compared(pairs, pictures, bar)
    return pairs[same >= bar], same[same >= bar]


def compared(pairs: Pairs, pictures: Pictures, bar: float) -> NDArray[np.float32]:
    """(P,): how alike pairs are, aligned where they are not alike by `bar` as they stand; 0 for what cannot be told."""
    found = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), BLOCK):
        some = pairs[start : start + BLOCK]
        (one, tones), (other, others) = (pictures(some[:, side]) for side in (0, 1))
        colour = np.abs(tones.astype(np.int16) - others).reshape(len(some), -1).mean(1)
        here, there = one.astype(np.float32), other.astype(np.float32)
        told = (colour <= COLOUR) & (np.minimum(here.std((1, 2)), there.std((1, 2))) >= FLAT)
        same = np.where(told, likeness(here, there), 0).astype(np.float32)
        unsure = np.flatnonzero((same >= bar - REACH) & (same < bar))
        if len(unsure):
            same[unsure] = np.maximum(same[unsure], aligned(here[unsure], there[unsure]))
        found.append(same)
    return np.concatenate(found)


def bar_of(count: int, pictures: Pictures) -> float:
    """How alike near copies must be among these pictures: ALIKE, or more where pictures are alike by what they show.

    Pairs drawn at random say how likeness is spread, in Fisher's z: from the tenth that is most alike to the hundredth it
    rises by so much, and so it is taken to go on to the one pair of all. Garments before black need STRICT; photographs
    stay at ALIKE. Of few pictures, copies may be among the pairs, so nothing is learnt from them.
    """
    if count < MANY:
        return ALIKE
    draw = np.random.default_rng(0)
    pairs = draw.integers(0, count, (DRAWN, 2))
    same = compared(pairs[pairs[:, 0] != pairs[:, 1]], pictures, 1.0)
    tenth, hundredth = np.quantile(np.arctanh(same.clip(-0.999, 0.999)), (0.9, 0.99)).tolist()
    steps = math.log10(count**2 / 2 / 100)
    return min(max(math.tanh(hundredth + steps * (hundredth - tenth)), ALIKE), STRICT)
