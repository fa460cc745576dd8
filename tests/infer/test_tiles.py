from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from tests.found import found, painted
from torch import Tensor

from metaformer.infer import tiles as in_tiles
from metaformer.infer.tiles import STRIDE, find_in_tiles, score_in_tiles, tiles
from metaformer.tasks.found import Found


@pytest.mark.parametrize("size", [(512, 512), (513, 700), (2000, 1500), (40, 3000), (1, 1)])
@pytest.mark.parametrize(("side", "overlap"), [(512, 128), (256, 0), (128, 96), (200, 33)])
def test_tiles_cover_the_image_and_overlap(size: tuple[int, int], side: int, overlap: int) -> None:
    places = tiles(size, side, overlap)
    covered = torch.zeros(size, dtype=torch.bool)
    for top, left, bottom, right in places:
        covered[top:bottom, left:right] = True
        assert top % STRIDE == left % STRIDE == 0
        assert 0 < bottom - top <= side
        assert 0 < right - left <= side
        assert bottom - top > side - STRIDE or bottom == size[0]
    assert covered.all()
    assert places == sorted(set(places))
    across = [(left, right) for top, left, _, right in places if top == 0]
    assert all(one[1] - other[0] >= overlap for one, other in pairwise(across))


@pytest.mark.parametrize(("side", "overlap"), [(64, 64), (64, 40), (512, -1)])
def test_tiles_that_cannot_be_are_refused(side: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=rf"^tiles of {side} pixels that overlap by {overlap}: an overlap is 0 or more"):
        tiles((100, 100), side, overlap)


# --- regions ----------------------------------------------------------------------------------------------------------


def local(reach: int, classes: int = 5) -> torch.nn.Module:
    """Sees `reach` pixels far, and black beyond the image's edge."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, classes, 2 * reach + 1, padding=reach)
    return layer.requires_grad_(False)


@pytest.mark.parametrize("size", [(150, 200), (64, 300), (60, 60)])
@pytest.mark.parametrize(("reach", "overlap"), [(0, 0), (0, 32), (4, 16), (8, 32)])
def test_a_local_model_answers_as_of_the_whole_image(size: tuple[int, int], reach: int, overlap: int) -> None:
    model = local(reach)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    asked: list[tuple[int, ...]] = []

    def score(images: Tensor) -> Tensor:
        asked.append(tuple(images.shape))
        return model(images.float())

    regions = score_in_tiles(score, image, 96, overlap)
    assert regions.dtype == torch.uint8
    assert torch.equal(regions.long(), model(image.float()[None])[0].argmax(0))
    assert len(asked) == len(tiles(size, 96, overlap))
    assert all(max(shape) <= 96 for shape in asked)


def test_a_model_that_sees_too_far_differs_near_seams_alone() -> None:
    model = local(12)
    image = torch.randint(0, 256, (3, 160, 220), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    regions = score_in_tiles(lambda images: model(images.float()), image, 128, 32)
    differs = regions.long() != model(image.float()[None])[0].argmax(0)
    assert differs.any()
    seams = torch.zeros(160, 220, dtype=torch.bool)
    for top, left, bottom, right in tiles((160, 220), 128, 32):
        for start in {top, bottom} - {0, 160}:
            seams[max(0, start - 12) : start + 12] = True
        for start in {left, right} - {0, 220}:
            seams[:, max(0, start - 12) : start + 12] = True
    assert not differs[~seams].any()


def test_logits_are_averaged_and_not_votes() -> None:
    """One tile is a little for class 0, the other very much for class 1: where both see, class 1 wins from afar."""

    def score(images: Tensor) -> Tensor:
        right = float(images.float().mean()) > 100
        logits = torch.tensor([0.0, 9.0] if right else [1.0, 0.0])
        return logits[None, :, None, None].expand(1, 2, *images.shape[2:])

    image = torch.zeros(3, 64, 96, dtype=torch.uint8)
    image[..., 64:] = 255
    regions = score_in_tiles(score, image, 64, 32)
    assert regions[:, :32].max() == 0
    assert regions[:, 64:].min() == 1
    (change,) = (regions[0, 1:] != regions[0, :-1]).nonzero().flatten().tolist()
    assert 40 <= change < 45  # a tenth of the way from 40 to 56


# --- objects ----------------------------------------------------------------------------------------------------------


def spots(images: Sequence[Tensor]) -> list[Found]:
    """A toy that sees what lies together and is bright: its box, its mask, its class by brightness, its score by its area."""
    answers = []
    for image in images:
        size = (image.shape[1], image.shape[2])
        marked, many = ndimage.label(image[0].numpy() > 20)
        pieces = [np.argwhere(marked == number) for number in range(1, many + 1)]
        boxes = [[*(piece.min(0)[::-1]), *(piece.max(0)[::-1] + 1)] for piece in pieces]
        labels = [int(image[0, piece[0][0], piece[0][1]]) // 50 - 1 for piece in pieces]
        answers.append(found(boxes, labels, [min(1.0, len(piece) / 4000) for piece in pieces], size))
    return answers


def scene(size: tuple[int, int], boxes: Sequence[Sequence[int]], labels: Sequence[int]) -> Tensor:
    image = torch.zeros(3, *size, dtype=torch.uint8)
    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        image[:, y1:y2, x1:x2] = 50 * (label + 1)
    return image


def same_things(one: Found, other: Found) -> bool:
    rows = [sorted(zip(f.labels.tolist(), f.boxes.tolist(), strict=True)) for f in (one, other)]
    return rows[0] == rows[1]


def many(size: tuple[int, int], most: int, count: int, seed: int) -> tuple[list[list[int]], list[int]]:
    """Boxes of at most `most` pixels a side that do not touch."""
    random, boxes = np.random.RandomState(seed), []
    while len(boxes) < count:
        wide, high = random.randint(3, most, 2)
        x, y = random.randint(0, size[1] - wide), random.randint(0, size[0] - high)
        if all(x > b[2] + 1 or b[0] > x + wide + 1 or y > b[3] + 1 or b[1] > y + high + 1 for b in boxes):
            boxes.append([int(x), int(y), int(x + wide), int(y + high)])
    return boxes, random.randint(0, 4, count).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_a_local_model_finds_what_it_finds_in_the_whole_image(seed: int) -> None:
    size = (300, 420)
    boxes, labels = many(size, 40, 25, seed)
    image = scene(size, boxes, labels)
    (whole,), (tiled,) = spots([image]), find_in_tiles(spots, 128, 48)([image])
    assert same_things(whole, tiled)
    assert tiled.scores.tolist() == sorted(whole.scores.tolist(), reverse=True)
    assert tiled.masks is not None
    assert torch.equal(tiled.masks, painted(tiled.boxes.tolist(), size))


def test_what_is_larger_than_a_tile_is_put_together() -> None:
    size, boxes = (300, 420), [[10, 10, 400, 60], [30, 100, 90, 290], [150, 90, 420, 300]]
    image = scene(size, boxes, [0, 1, 2])
    (tiled,) = find_in_tiles(spots, 128, 48)([image])
    assert same_things(tiled, found(boxes, [0, 1, 2], [1, 1, 1]))
    assert tiled.masks is not None
    assert torch.equal(tiled.masks, painted(tiled.boxes.tolist(), size))


def test_pieces_come_together_whichever_is_surest() -> None:
    """Here the smaller are surer, so that the ends of what is long are known before its middle."""

    def unsure(images: Sequence[Tensor]) -> list[Found]:
        return [replace(one, scores=1 - one.scores) for one in spots(images)]

    size, boxes = (300, 420), [[20, 10, 300, 60], [30, 100, 90, 290]]
    (tiled,) = find_in_tiles(unsure, 128, 48)([scene(size, boxes, [0, 1])])
    assert same_things(tiled, found(boxes, [0, 1], [1, 1]))


def test_an_object_is_as_sure_as_its_surest_piece() -> None:
    """What is not sure enough when it is put together is left out, and no piece before that: the box would be too small."""
    image = scene((300, 420), [[10, 10, 400, 60], [200, 100, 210, 110]], [0, 1])
    (tiled,) = find_in_tiles(spots, 128, 48, least=0.5)([image])
    assert same_things(tiled, found([[10, 10, 400, 60]], [0], [1.0]))
    assert tiled.masks is not None
    assert torch.equal(tiled.masks, painted([[10, 10, 400, 60]], (300, 420)))
    (small,) = find_in_tiles(spots, 512, 48, least=0.5)([image])
    assert same_things(small, tiled)
    assert len(find_in_tiles(spots, 128, 48)([image])[0]) == 2


def test_masks_are_no_larger_than_their_objects_until_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 finds of each tile none takes as much as the image has pixels."""
    seen: list[tuple[int, int]] = []
    part = in_tiles._part

    def noted(mask: Tensor, place: in_tiles.Tile) -> object:
        made = part(mask, place)
        seen.append((made.inside.untyped_storage().nbytes(), int(mask.sum())))
        return made

    monkeypatch.setattr(in_tiles, "_part", noted)
    image = scene((300, 420), [[10, 10, 40, 60], [200, 100, 210, 110]], [0, 1])
    (tiled,) = find_in_tiles(spots, 128, 48, least=0.3)([image])
    assert len(tiled) == 1
    assert seen
    assert all(kept == inside for kept, inside in seen)


def test_what_lies_at_the_images_edge_is_whole() -> None:
    """Seen whole by two tiles, a little otherwise: the surer is kept as it is, and not both as one."""

    def wavering(images: Sequence[Tensor]) -> list[Found]:
        answers = []
        for tile, one in enumerate(spots(images)):
            moved = one.boxes + one.boxes.new_tensor([tile, 0, tile, 0])
            answers.append(replace(one, boxes=moved, scores=one.scores / (tile + 1)))
        return answers

    image = scene((100, 200), [[90, 0, 110, 20]], [0])
    assert [(left, right) for _, left, _, right in tiles((100, 200), 128, 48)] == [(0, 128), (64, 192), (96, 200)]
    (tiled,) = find_in_tiles(wavering, 128, 48)([image])
    assert tiled.boxes.tolist() == [[90, 0, 110, 20]]


def test_what_overlaps_in_one_tile_stays_two() -> None:
    def twice(images: Sequence[Tensor]) -> list[Found]:
        return [replace(one, labels=one.labels * 0) for one in nested(images)]

    def nested(images: Sequence[Tensor]) -> list[Found]:
        """Of each spot also its upper two thirds, as another object of its class."""
        answers = []
        for (one,) in ([spot] for spot in spots(images)):
            upper = one.boxes.clone()
            upper[:, 3] = upper[:, 1] + (upper[:, 3] - upper[:, 1]) * 2 // 3
            boxes, scores = torch.cat([one.boxes, upper]), torch.cat([one.scores, one.scores / 2])
            answers.append(Found(boxes, scores, one.labels.repeat(2)))
        return answers

    size, boxes = (300, 420), [[110, 90, 128, 114], [200, 200, 230, 230]]
    image = scene(size, boxes, [0, 0])
    (whole,), (tiled,) = twice([image]), find_in_tiles(twice, 128, 48)([image])
    assert len(tiled) == 4
    assert same_things(whole, tiled)


def test_a_small_image_is_one_tile_and_several_go_in_turn() -> None:
    asked: list[int] = []

    def noted(images: Sequence[Tensor]) -> list[Found]:
        asked.append(len(images))
        return spots(images)

    small, large = scene((100, 90), [[5, 5, 20, 20]], [1]), scene((300, 420), [[100, 100, 150, 140]], [0])
    answers = find_in_tiles(noted, 128, 48, batch=5)([small, large])
    assert [len(answer) for answer in answers] == [1, 1]
    places = len(tiles((300, 420), 128, 48))
    assert asked == [1, *[5] * (places // 5), *([places % 5] if places % 5 else [])]
    (nothing,) = find_in_tiles(spots, 128, 48)([torch.zeros(3, 300, 420, dtype=torch.uint8)])
    assert len(nothing) == 0
    assert nothing.masks is not None
    assert nothing.masks.shape == (0, 300, 420)


def test_weights_of_one_row_of_tiles_alone_are_kept() -> None:
    """A tall image: what is above a row of tiles is done and gone, and the map is whole all the same."""
    model = local(2)
    image = torch.randint(0, 256, (3, 700, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    regions = score_in_tiles(lambda images: model(images.float()), image, 64, 16)
    assert torch.equal(regions.long(), F.conv2d(image.float()[None], model.weight, model.bias, padding=2)[0].argmax(0))
