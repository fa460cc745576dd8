"""A large image in tiles that overlap, so that it fits into memory: what is found in them put together again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from metaformer.infer.views import SAME, Find, Score, size_of
from metaformer.tasks.found import Found, Size, joined, nothing

STRIDE = 32
"""Tiles begin at its multiples, where the whole image's coarsest features lie."""
TOUCHES = 2.0
"""Pixels from a tile's inner edge within which a box is taken to be cut off by it."""

Tile = tuple[int, int, int, int]
"""Where it begins and ends: top, left, bottom, right."""


def tiles(size: Size, side: int, overlap: int) -> list[Tile]:
    """Tiles of about `side` pixels a side that overlap by at least `overlap`, row by row; the last ones end at the edges.

    Raises ValueError for sides and overlaps that cannot be.
    """
    if not 0 <= overlap <= side - STRIDE:
        raise ValueError(
            f"tiles of {side} pixels that overlap by {overlap}: an overlap is 0 or more, "
            f"and a tile {STRIDE} pixels larger at least, such as {overlap + STRIDE}"
        )
    (down, across) = (_spans(length, side, overlap) for length in size)
    return [(top, left, bottom, right) for (top, bottom), (left, right) in product(down, across)]


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    last = max(0, -(-(length - side) // STRIDE) * STRIDE)
    step = (side - overlap) // STRIDE * STRIDE
    return [(start, min(start + side, length)) for start in (*range(0, last, step), last)]


def score_in_tiles(score: Score, image: Tensor, side: int, overlap: int) -> Tensor:
    """The region map (H, W), uint8, of an image (3, H, W): the class with the highest mean logit of the tiles that see a pixel.

    Each tile's logits count fully in its middle, and less and less towards its inner edges; on the outer quarter of the
    overlap not at all. So a model that sees no further than that answers as it would of the whole image. Only a row of tiles
    is in memory.
    """
    height, width = size_of(image)
    regions = torch.zeros(height, width, dtype=torch.uint8)
    open_: Tensor | None = None  # weighted logits of the rows from `first` on; what the weights add up to changes no order
    first = 0
    for top, left, bottom, right in tiles((height, width), side, overlap):
        logits = score(image[None, :, top:bottom, left:right])[0].float()
        if open_ is None:
            open_ = logits.new_zeros(len(logits), 0, width)
        if top > first:  # a new row of tiles: what lies above it is done
            regions[first:top] = open_[:, : top - first].argmax(0)
            open_, first = open_[:, top - first :], top
        if bottom - first > open_.shape[1]:
            more = open_.new_zeros(len(open_), bottom - first - open_.shape[1], width)
            open_ = torch.cat([open_, more], 1)
        weight = _window(top, bottom, height, overlap)[:, None] * _window(left, right, width, overlap)
        open_[:, top - first : bottom - first, left:right] += logits * weight.to(logits.device)
    if open_ is not None:
        regions[first:] = open_.argmax(0)
    return regions


def _window(start: int, end: int, length: int, overlap: int) -> Tensor:
    """(end - start,): what a tile's logits count along one side."""
    places = torch.arange(end - start) + 0.5
    quiet = overlap // 4
    ramp = max(1, overlap - 2 * quiet)
    weight = torch.ones(end - start)
    for inner, away in ((start > 0, places), (end < length, end - start - places)):
        if inner:
            weight = weight.minimum(((away - quiet) / ramp).clamp(0, 1))
    return weight


def find_in_tiles(find: Find, side: int, overlap: int, *, batch: int = 4, same: float = SAME, least: float = 0.0) -> Find:
    """Finds in tiles of each image, `batch` of them at a time, what scores at least `least` when it is put together.

    What two tiles found is compared where both see: one object there is one object, of which that is kept which no tile's
    edge cuts off, and of those the surest. An object that is cut off in all tiles is what its pieces are together.
    Masks are as large as their objects, and only those of what is kept become as large as the image.
    """

    def tiled(images: Sequence[Tensor]) -> list[Found]:
        return [_found_in(find, image, tiles(size_of(image), side, overlap), batch, same, least) for image in images]

    return tiled


@dataclass(frozen=True, eq=False)
class _Part:
    """What a mask has inside, and where in the image that begins."""

    top: int
    left: int
    inside: Tensor


def _found_in(find: Find, image: Tensor, places: Sequence[Tile], batch: int, same: float, least: float) -> Found:
    size = size_of(image)
    if len(places) == 1:
        return find([image])[0].best(least)
    pieces: list[Found] = []
    parts: list[_Part] = []
    masked = True
    for start in range(0, len(places), batch):
        some = places[start : start + batch]
        answers = find([image[:, top:bottom, left:right] for top, left, bottom, right in some])
        for piece, place in zip(answers, some, strict=True):
            masked = masked and piece.masks is not None
            parts += [_part(mask, place) for mask in piece.masks] if piece.masks is not None else []
            pieces.append(replace(piece, masks=None).placed(place[0], place[1], size))
    found = joined(pieces)
    tile = torch.tensor([number for number, piece in enumerate(pieces) for _ in range(len(piece))], dtype=torch.int64)
    objects = _stitched(found, torch.tensor(places)[:, [1, 0, 3, 2]][tile].float(), tile, size, same)
    return _united(found, objects, parts if masked else None, size, least)


def _part(mask: Tensor, place: Tile) -> _Part:
    """A tile's mask, as large as what is inside."""
    rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
    if not rows:
        return _Part(place[0], place[1], mask[:0, :0].clone())
    inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].clone()  # so that the tile's mask can go
    return _Part(place[0] + rows[0], place[1] + columns[0], inside)


def _stitched(found: Found, views: Tensor, tile: Tensor, size: Size, same: float) -> list[list[int]]:
    """The numbers of each object's pieces: one alone of what a tile sees whole.

    `views` (N, 4) are the tiles of what was found, as boxes, `tile` (N,) their numbers.
    """
    cut, scores = _cut_off(found.boxes, views, size).tolist(), found.scores.tolist()
    order = sorted(range(len(found)), key=lambda i: (cut[i], -scores[i]))
    leader: dict[int, int] = {}  # of each piece the first of its object
    for i in order:
        alike = [j for j in _alike(i, found, views, tile, same) if j in leader]
        mates = {leader[j] for j in alike if cut[i] or leader[j] == j}
        first, *others = sorted(mates, key=order.index) or [i]
        leader[i] = first
        for piece, its in leader.items():  # a piece between two pieces makes them one
            if cut[i] and cut[its] and its in others:
                leader[piece] = first
    groups = {first: [piece for piece, its in leader.items() if its == first] for first in dict.fromkeys(leader.values())}
    whole = [[first] for first in groups if not cut[first]]
    return whole + [group for first, group in groups.items() if cut[first]]


def _alike(i: int, found: Found, views: Tensor, tile: Tensor, same: float) -> list[int]:
    """Those of other tiles that are the same object as far as both tiles see it."""
    others = ((found.labels == found.labels[i]) & (tile != tile[i])).nonzero().flatten()
    shared = _inside(views[others], views[i])
    one, other = _inside(found.boxes[i], shared), _inside(found.boxes[others], shared)
    both = _area(_inside(one, other))
    ratio = both / (_area(one) + _area(other) - both).clamp(min=1e-9)
    return others[ratio > same].tolist()


def _cut_off(boxes: Tensor, views: Tensor, size: Size) -> Tensor:
    """(N,): whether a box touches an edge of its tile that is not the image's."""
    edges = boxes.new_tensor([0, 0, size[1], size[0]])
    return (((boxes - views).abs() <= TOUCHES) & (views != edges)).any(1)


def _inside(boxes: Tensor, others: Tensor) -> Tensor:
    """What boxes (..., 4) and others have in common; without an area where it is nothing."""
    return torch.cat([boxes[..., :2].maximum(others[..., :2]), boxes[..., 2:].minimum(others[..., 2:])], -1)


def _area(boxes: Tensor) -> Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return sides[:, 0] * sides[:, 1]


def _united(found: Found, objects: Sequence[Sequence[int]], parts: Sequence[_Part] | None, size: Size, least: float) -> Found:
    """All pieces of each object as one, as sure as the surest; the surest objects first, of those that are sure enough."""
    if not objects:
        return nothing(size if parts is not None else None)
    own = [found.take(torch.tensor(pieces)) for pieces in objects]
    boxes = torch.stack([torch.cat([one.boxes[:, :2].amin(0), one.boxes[:, 2:].amax(0)]) for one in own])
    scores, labels = torch.stack([one.scores.max() for one in own]), torch.cat([one.labels[:1] for one in own])
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] >= least]
    masks = None
    if parts is not None:
        masks = torch.zeros(len(order), *size, dtype=torch.bool)
        for mask, number in zip(masks, order.tolist(), strict=True):
            for piece in objects[number]:
                part = parts[piece]
                high, wide = part.inside.shape
                mask[part.top : part.top + high, part.left : part.left + wide] |= part.inside
    return Found(boxes[order], scores[order], labels[order], masks)
