from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from tests.found import found, painted
from torch import Tensor

from metaformer.data.moves import fitted
from metaformer.infer.views import (
    find_at,
    find_in_views,
    find_mirrored,
    merged,
    scaled,
    score_at,
    score_in_views,
    score_mirrored,
    shown_at,
)  # fmt: skip
from metaformer.tasks.found import Found

SIZE = (60, 80)
BOX = [16.0, 8.0, 40.0, 32.0]


def image(*boxes: Sequence[float], size: tuple[int, int] = SIZE) -> Tensor:
    """Black with boxes as bright as their number: 1 is 50, 2 is 100 ..."""
    picture = torch.zeros(3, *size, dtype=torch.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes, 1):
        picture[:, int(y1) : int(y2), int(x1) : int(x2)] = 50 * number
    return picture


def bright(images: Sequence[Tensor]) -> list[Found]:
    """A toy that finds the box around all that is bright, with its mask, as sure as its class says."""
    answers = []
    for picture in images:
        mask = picture[0] > 24
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        corners = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        one = found([corners], [0], [0.8])
        answers.append(Found(one.boxes, one.scores, one.labels, mask[None]))
    return answers


def test_the_size_at_which_a_model_looks() -> None:
    assert fitted((480, 640), 800, 1333) == (800, 1067)
    assert fitted((400, 1200), 800, 1333) == (444, 1333)
    assert fitted((1200, 400), 800, 1333) == (1333, 444)
    assert fitted((1, 4000), 800, 1333) == (1, 1333)
    assert scaled(0.5)((61, 80)) == (30, 40)


@pytest.mark.parametrize("size", [(60, 80), (120, 160), (33, 97), (240, 320)])
def test_boxes_are_of_the_image_as_it_came(size: tuple[int, int]) -> None:
    asked: list[tuple[int, ...]] = []

    def noted(images: Sequence[Tensor]) -> list[Found]:
        asked.extend(tuple(picture.shape) for picture in images)
        return bright(images)

    (answer,) = find_at(noted, lambda _: size)([image(BOX)])
    assert asked == [(3, *size)]
    pixel = max(60 / size[0], 80 / size[1], 1)  # what a pixel of the smaller of both is
    assert (answer.boxes - torch.tensor(BOX)).abs().max() <= pixel
    assert answer.masks is not None
    assert answer.masks.shape == (1, *SIZE)
    assert (answer.masks != painted([BOX], SIZE)).sum() <= 4 * 24 * pixel


def test_images_of_several_sizes_go_together() -> None:
    images = [image(BOX), image([10, 20, 30, 40], size=(50, 40))]
    answers = find_at(bright, lambda size: fitted(size, 120, 400))(images)
    assert (answers[0].boxes - torch.tensor(BOX)).abs().max() < 1
    assert (answers[1].boxes - torch.tensor([10.0, 20, 30, 40])).abs().max() < 1


def test_what_is_found_in_the_mirror_is_where_it_is() -> None:
    (answer,) = find_mirrored(bright)([image(BOX)])
    assert answer.boxes.tolist() == [BOX]
    assert answer.masks is not None
    assert torch.equal(answer.masks, painted([BOX], SIZE))


def test_views_that_agree_are_one() -> None:
    (answer,) = find_in_views(bright, scales=(1.0, 2.0, 0.5))([image(BOX)])
    assert len(answer) == 1
    assert (answer.boxes - torch.tensor(BOX)).abs().max() <= 2


def test_what_only_one_view_sees_is_kept() -> None:
    def left(images: Sequence[Tensor]) -> list[Found]:
        """Sees what is brightest in the left half."""
        return [bright([picture[..., :40] * 1])[0].take(torch.tensor([0])) for picture in images]

    def boxes_alone(images: Sequence[Tensor]) -> list[Found]:
        return [Found(one.boxes, one.scores, one.labels) for one in left(images)]

    picture = image([4, 8, 24, 28], [50, 10, 70, 50])
    (answer,) = find_in_views(boxes_alone)([picture])
    assert sorted(answer.boxes.tolist()) == [[4, 8, 24, 28], [50, 10, 70, 50]]
    (alone,) = find_in_views(boxes_alone, mirror=False)([picture])
    assert alone.boxes.tolist() == [[4, 8, 24, 28]]


def test_the_surest_of_the_same_class_is_kept() -> None:
    several = found([BOX, [17, 9, 41, 33], BOX, [50, 40, 60, 50]], [0, 0, 1, 0], [0.5, 0.9, 0.3, 0.7])
    one = merged(several)
    assert one.scores.tolist() == pytest.approx([0.9, 0.7, 0.3])
    assert one.labels.tolist() == [0, 0, 1]
    assert len(merged(several, same=0.99)) == 4


def pointwise(images: Tensor) -> Tensor:
    """Logits of three classes by brightness, each pixel for itself."""
    light = images[:, :1].float() / 50
    return -torch.cat([(light - c) ** 2 for c in range(3)], 1)


def test_scores_are_of_the_image_as_it_came() -> None:
    picture = image(BOX, [50, 40, 70, 56])[None]
    whole = pointwise(picture).argmax(1)
    logits = score_at(pointwise, scaled(3))(picture)
    assert logits.shape == (1, 3, *SIZE)
    assert (logits.argmax(1) != whole).float().mean() < 0.06  # only at edges
    assert torch.equal(score_at(pointwise, lambda size: size)(picture), pointwise(picture))
    assert torch.equal(score_mirrored(pointwise)(picture), pointwise(picture))


def test_probabilities_of_views_are_averaged() -> None:
    def lopsided(images: Tensor) -> Tensor:
        """Sure of class 0 on the left, of class 2 on the right."""
        across = torch.linspace(2, -2, images.shape[-1]).expand(len(images), *images.shape[-2:])
        return torch.stack([across, torch.zeros_like(across), -across], 1)

    picture = image()[None]
    logits = score_in_views(lopsided)(picture)
    expected = (lopsided(picture).softmax(1) + lopsided(picture).softmax(1).flip(-1)) / 2
    assert torch.allclose(logits.softmax(1), expected, atol=1e-6)
    assert torch.allclose(logits.exp().sum(1), torch.ones(1, *SIZE), atol=1e-5)
    single = score_in_views(lopsided, mirror=False)(picture)
    assert torch.allclose(single, lopsided(picture).log_softmax(1), atol=1e-6)
    scaled_too = score_in_views(pointwise, scales=(1.0, 2.0))(image(BOX)[None])
    assert (scaled_too.argmax(1) != pointwise(image(BOX)[None]).argmax(1)).float().mean() < 0.05


def test_smaller_images_lose_nothing_between_pixels() -> None:
    stripes = torch.zeros(3, 64, 64, dtype=torch.uint8)
    stripes[:, :, ::4] = 200
    small = shown_at(stripes, (16, 16))
    assert small.dtype == torch.uint8
    assert small.shape == (3, 16, 16)
    assert small.float().mean() == pytest.approx(50, abs=2)
    assert shown_at(stripes, (64, 64)) is stripes
    assert torch.equal(shown_at(stripes[None], (16, 16))[0], small)
    assert torch.equal(
        F.avg_pool2d(shown_at(stripes, (32, 32)).float(), 2).round()[:, 4:12, 4:12], small.float()[:, 4:12, 4:12]
    )
