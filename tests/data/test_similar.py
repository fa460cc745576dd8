"""Near copies: found by their hashes without comparing all with all, judged by their edges."""

import time

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from tests.scenes import resaved, scene

from metaformer.data.alike import ALIKE, MANY, SIDE, STRICT, aligned, bar_of, judged, likeness
from metaformer.data.similar import BITS, CROWD, LEAST, RADIUS, codes_of, distance, near, radius_of


def small(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def cut(image: Image.Image, part: float, left: float = 0.5, top: float = 0.5) -> Image.Image:
    """Without `part` of each side, of which so much lies left of and above what is kept."""
    wide, high = image.size
    box = (left * part * wide, top * part * high, (1 - part + left * part) * wide, (1 - part + top * part) * high)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


def flipped(codes: np.ndarray, bits: int, random: np.random.RandomState) -> np.ndarray:
    """Codes of which so many bits are turned, each other ones."""
    wide = np.unpackbits(codes.view(np.uint8)[:, None], axis=1).reshape(len(codes), BITS)
    for row in wide:
        row[random.choice(BITS, bits, replace=False)] ^= 1
    return np.packbits(wide, axis=1).view(np.uint64)[:, 0]


@pytest.mark.parametrize(("bits", "least"), [(0, 1.0), (3, 1.0), (7, 1.0), (RADIUS, 0.5), (RADIUS + 1, 0.0)])
def test_codes_that_differ_in_few_bits_are_found_and_others_are_not(bits: int, least: float) -> None:
    random = np.random.RandomState(0)
    codes = random.randint(0, 2**63, 2000, np.uint64) * 2 + random.randint(0, 2, 2000, np.uint64)
    every = np.concatenate([codes, flipped(codes[:300], bits, random)])
    far = ~every
    found = near(every, far)
    one, other = every[found[:, 0]], every[found[:, 1]]
    assert (np.minimum(distance(one, other), distance(~one, other)) <= RADIUS).all()
    assert (found[:, 0] < found[:, 1]).all()
    assert len(np.unique(found, axis=0)) == len(found)
    got = sum(pair[1] == pair[0] + 2000 for pair in found.tolist())
    assert got >= least * 300
    assert (got == 0) == (least == 0)
    assert len(found) - got < 30  # strangers that chance made near


def test_a_middle_that_is_like_another_picture_is_found_once() -> None:
    random = np.random.RandomState(1)
    codes = random.randint(0, 2**63, 60, np.uint64)
    middles = ~codes
    middles[7] = codes[30]
    middles[40] = codes[20]
    middles[5] = codes[5]
    assert near(codes, middles).tolist() == [[7, 30], [20, 40]]


def test_many_alike_do_not_take_quadratic_time() -> None:
    codes = np.zeros(20_000, np.uint64)
    began = time.process_time()
    found = near(codes, ~codes)
    assert len(found) <= 20_000 * CROWD
    assert len(np.unique(found)) == 20_000
    assert time.process_time() - began < 10


CHANGES = {
    "saved again": lambda image: resaved(image, 50),
    "half as large": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "twice as large": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "cut by 4 %": lambda image: cut(image, 0.04, 1.0, 0.2),
    "cut by 8 %": lambda image: cut(image, 0.08, 0.3, 0.6),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_is_alike_and_what_is_another_picture_is_not(name: str) -> None:
    images = [scene(seed) for seed in range(40)]
    own = np.stack([small(image) for image in images])
    changed = np.stack([small(CHANGES[name](image)) for image in images])
    both = np.concatenate([own, changed])
    colour = np.zeros((len(both), 1, 2), np.uint8)
    pairs, alike = judged(near(*codes_of(both)), lambda numbers: (both[numbers], colour[numbers]), ALIKE)
    assert {tuple(pair) for pair in pairs.tolist()} == {(i, 40 + i) for i in range(40)}
    assert (alike >= ALIKE).all()
    assert aligned(own.astype(np.float32), np.roll(changed, 1, 0).astype(np.float32)).max() < ALIKE - 0.2


def test_aligning_undoes_a_cut_and_light_does_not_matter() -> None:
    images = [scene(seed) for seed in range(8)]
    one = np.stack([small(image) for image in images]).astype(np.float32)
    other = np.stack([small(cut(image, 0.12, 0.9, 0.1)) for image in images]).astype(np.float32)
    assert likeness(one, other).max() < 0.6
    assert aligned(one, other).min() > 0.9
    assert likeness(one, 0.5 * one + 20).min() > 0.999


def test_another_colour_is_another_picture() -> None:
    grey = np.stack([small(scene(3))] * 3)
    colour = np.full((3, 64, 2), 128, np.uint8)
    colour[2] += 40
    pairs, _ = judged(np.array([[0, 1], [0, 2]]), lambda numbers: (grey[numbers], colour[numbers]), ALIKE)
    assert pairs.tolist() == [[0, 1]]


def test_pictures_without_anything_to_see_are_not_compared() -> None:
    grey = np.full((2, SIDE, SIDE), 200, np.uint8)
    grey[0, 3, 3] += 1
    pairs, _ = judged(np.array([[0, 1]]), lambda numbers: (grey[numbers], np.zeros((2, 64, 2), np.uint8)), ALIKE)
    assert len(pairs) == 0


def test_pictures_that_are_alike_by_what_they_show_need_to_be_more_alike() -> None:
    colour = np.zeros((MANY, 1, 2), np.uint8)
    photos = np.stack([small(scene(seed)) for seed in range(MANY)])
    assert bar_of(MANY, lambda numbers: (photos[numbers], colour[numbers])) == ALIKE
    shape = np.zeros((SIDE, SIDE))
    shape[6:26, 10:22] = 150
    garments = (shape * (np.arange(MANY) % 3)[:, None, None] / 2 + photos * 0.3).astype(np.uint8)
    bar = bar_of(MANY, lambda numbers: (garments[numbers], colour[numbers]))
    assert bar == STRICT
    every = np.stack(np.triu_indices(MANY, 1), 1)[::40]
    assert len(judged(every, lambda numbers: (garments[numbers], colour[numbers]), ALIKE)[0]) > 50
    assert len(judged(every, lambda numbers: (garments[numbers], colour[numbers]), bar)[0]) == 0
    assert bar_of(MANY - 1, lambda numbers: (garments[numbers], colour[numbers])) == ALIKE


def test_codes_that_are_near_by_chance_are_not_near() -> None:
    random = np.random.RandomState(2)
    codes = random.randint(0, 2**63, 3000, np.uint64)
    assert radius_of(codes) == RADIUS
    alike = flipped(np.full(3000, codes[0]), 6, random)  # twelve bits apart, most of them
    assert LEAST <= radius_of(alike) < 10
