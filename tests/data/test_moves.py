"""Moves of scenes: what is painted and what is said to be there stay in step."""

from collections.abc import Iterator
from random import Random

import numpy as np
import pytest
import torch
from tests.painted import COLOURS, Painted, box_of, near, paint, region_map

from metaformer.data.dense_views import Crop, DenseView, Distort, Flip, Jitter, Mosaic, Ratio, ShortSide, Step, steps_of
from metaformer.data.moves import cropped, flipped, on_canvas, padded, resized
from metaformer.data.truth import VOID, Objects, Scene

BACK = (145, 145, 145)


def scene_of(painted: Painted, *, masks: bool = True) -> Scene:
    """With its rectangles as objects."""
    boxes = torch.tensor([box for _, *box in painted.rectangles], dtype=torch.float32).view(-1, 4)
    labels = torch.tensor([c for c, *_ in painted.rectangles], dtype=torch.int64)
    drawn = torch.zeros(len(labels), painted.height, painted.width, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(drawn, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    none = torch.zeros(len(labels), dtype=torch.bool)
    objects = Objects(boxes, labels, drawn if masks else None, none, areas, 7, painted.height, painted.width)
    return Scene(torch.from_numpy(painted.pixels).permute(2, 0, 1).contiguous(), objects)


def map_of(painted: Painted) -> Scene:
    """With a map of its regions."""
    return Scene(scene_of(painted).image, torch.from_numpy(region_map(painted)))


def check_objects(scene: Scene) -> int:
    """Every painted rectangle is an object, and every object is painted, with a tight box and mask; how many there are."""
    objects, pixels = scene.truth, scene.image.numpy()
    assert isinstance(objects, Objects)
    assert (objects.height, objects.width) == (scene.height, scene.width)
    told = dict(zip(objects.labels.tolist(), range(len(objects)), strict=True))
    assert len(told) == len(objects)
    for c in range(len(COLOURS)):
        seen = near(pixels, c)
        box = box_of(seen) if seen.any() else (0, 0, 0, 0)
        if min(box[2] - box[0], box[3] - box[1]) >= 3:
            assert c in told
        if c not in told or objects.boxes[told[c]].diff()[1] < 3:
            continue
        own = objects.boxes[told[c]]
        if min(own[2] - own[0], own[3] - own[1]) < 3:
            continue
        assert np.abs(np.array(box) - own.numpy()).max() <= 1.01, (c, box, own)
        assert objects.areas[told[c]] == pytest.approx(float((own[2] - own[0]) * (own[3] - own[1])), rel=1e-3)
        if objects.masks is not None:
            mask = objects.masks[told[c]].numpy().astype(bool)
            assert mask.shape == (scene.height, scene.width)
            assert np.abs(np.array(box_of(mask)) - own.numpy()).max() <= 1.01
            assert (mask & seen).sum() / (mask | seen).sum() > 0.55
    return len(objects)


def check_map(scene: Scene) -> None:
    """Inside of what is painted, a pixel from its edges, the map says that class; and nowhere farther than a pixel off."""
    regions, pixels = scene.truth, scene.image.numpy()
    assert isinstance(regions, torch.Tensor)
    assert regions.dtype == torch.uint8
    assert regions.shape == scene.image.shape[1:]
    for c in range(3):
        seen = near(pixels, c)
        assert (regions.numpy()[shrunk(seen)] == c).all()
        assert (seen | ~shrunk(regions.numpy() == c)).all()


def shrunk(where: np.ndarray) -> np.ndarray:
    """Without its outermost pixels."""
    around = np.pad(where, 1)
    return np.logical_and.reduce([around[y : y + where.shape[0], x : x + where.shape[1]] for y in range(3) for x in range(3)])


@pytest.mark.parametrize("masks", [True, False], ids=["masks", "boxes"])
@pytest.mark.parametrize("seed", range(4))
def test_every_move_keeps_objects_in_step(seed: int, masks: bool) -> None:
    scene = scene_of(paint(seed), masks=masks)
    assert check_objects(scene) == 3
    for moved in (resized(scene, 144, 120), resized(scene, 50, 96), flipped(scene), padded(scene, 80, 100, BACK)):
        assert check_objects(moved) == 3
    for top, left in ((0, 0), (10, 21), (31, 46)):
        assert check_objects(cropped(scene, top, left, 40, 50)) <= 3
    assert scene.truth.boxes.tolist() == [list(map(float, box)) for _, *box in paint(seed).rectangles]


@pytest.mark.parametrize("seed", range(4))
def test_every_move_keeps_maps_in_step(seed: int) -> None:
    scene = map_of(paint(seed))
    for moved in (resized(scene, 144, 120), resized(scene, 50, 96), flipped(scene), cropped(scene, 10, 21, 40, 50)):
        check_map(moved)
    wide = padded(scene, 80, 100, (1, 2, 3))
    check_map(wide)
    assert (wide.truth[72:] == VOID).all()
    assert (wide.truth[:, 96:] == VOID).all()
    assert wide.image[:, -1, -1].tolist() == [1, 2, 3]


def test_what_a_crop_leaves_nothing_of_is_gone_with_its_mask_and_label() -> None:
    scene = scene_of(paint(0))
    assert isinstance(scene.truth, Objects)
    left, top, right, bottom = map(int, scene.truth.boxes[1].tolist())
    part = cropped(scene, top, left, bottom - top, right - left)
    assert isinstance(part.truth, Objects)
    assert part.truth.labels.tolist() == [1]
    assert part.truth.boxes.tolist() == [[0, 0, right - left, bottom - top]]
    assert part.truth.masks is not None
    assert part.truth.masks.all()
    nothing = cropped(scene, 0, 0, 1, 1)
    assert isinstance(nothing.truth, Objects)
    assert (len(nothing.truth), nothing.truth.masks.shape) == (0, (0, 1, 1))
    assert check_objects(flipped(resized(padded(nothing, 9, 9, BACK), 5, 5))) == 0


def test_a_box_is_drawn_to_what_a_cut_leaves_of_its_mask() -> None:
    triangle = torch.tril(torch.ones(1, 20, 20, dtype=torch.uint8))  # wide below, narrow above
    one = torch.tensor([0])
    objects = Objects(torch.tensor([[0.0, 0, 20, 20]]), one, triangle, one.bool(), torch.tensor([210.0]), 0, 20, 20)
    part = cropped(Scene(torch.zeros(3, 20, 20, dtype=torch.uint8), objects), 0, 0, 10, 20)
    assert isinstance(part.truth, Objects)
    assert part.truth.boxes.tolist() == [[0, 0, 10, 10]]


STEPS: list[Step] = [
    ShortSide((96, 160), 150), ShortSide((40, 40), 60), Ratio(192, 48), Jitter(80), Jitter(64, 1.0, 2.0), Crop(48), Crop(120),
    Flip(), Distort(brightness=8, contrast=(0.95, 1.05), saturation=(0.95, 1.05), hue=0.01),
]  # fmt: skip


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_every_step_keeps_truth_in_step(step: Step) -> None:
    for seed in range(6):
        check_objects(step(scene_of(paint(seed)), Random(seed), _nobody, BACK))
        check_map(step(map_of(paint(seed)), Random(seed), _nobody, BACK))


def _nobody(_: int) -> Scene:
    raise AssertionError("asked for another scene")


@pytest.mark.parametrize("seed", range(6))
def test_a_mosaic_shows_four_scenes_with_what_is_true_of_them(seed: int) -> None:
    def others(make: "type[Scene] | object") -> Iterator[Scene]:
        return iter([make(paint(10 * seed + c, (96, 72) if c % 2 else (50, 90), (c,))) for c in range(1, 4)])

    for make, check in ((scene_of, check_objects), (map_of, check_map)):
        waiting = others(make)
        whole = Mosaic(128)(make(paint(seed, (80, 80), (0,))), Random(seed), lambda _, waiting=waiting: next(waiting), BACK)
        assert whole.image.shape == (3, 128, 128)
        check(whole)
        assert next(waiting, None) is None
    scene = scene_of(paint(seed))
    assert Mosaic(128, probability=0.0)(scene, Random(0), _nobody, BACK) is scene


def test_a_mosaic_has_each_scene_in_its_quarter() -> None:
    whole = Mosaic(100)(scene_of(paint(0, (80, 80), (0,))), Random(3), lambda _: scene_of(paint(1, (80, 80), (1,))), BACK)
    empty = on_canvas([(scene_of(paint(0)), 0, 0)], 100, 100, BACK)
    assert isinstance(whole.truth, Objects)
    assert isinstance(empty.truth, Objects)
    assert whole.truth.labels.tolist().count(1) <= 3
    assert empty.truth.image_id == 7


def test_sizes_are_those_that_are_published() -> None:
    wide, tall = Scene(torch.zeros(3, 480, 640, dtype=torch.uint8), torch.zeros(480, 640, dtype=torch.uint8)), None
    tall = Scene(torch.zeros(3, 1000, 200, dtype=torch.uint8), torch.zeros(1000, 200, dtype=torch.uint8))
    short = ShortSide()
    assert short(wide, Random(0), _nobody, BACK).image.shape == (3, 800, 1067)
    assert short(tall, Random(0), _nobody, BACK).image.shape == (3, 1333, 267)
    assert {short(wide, Random(i), _nobody, BACK).height for i in range(3)} == {800}
    several = {ShortSide((480, 800))(wide, Random(i), _nobody, BACK).height for i in range(200)}
    assert several == set(range(480, 801, 32))
    sides = [Ratio()(wide, Random(i), _nobody, BACK).height for i in range(60)]
    assert 256 <= min(sides) < 300
    assert 960 < max(sides) <= 1024
    jittered = [Jitter(64, 0.1, 2.0)(map_of(paint(i)), Random(i), _nobody, BACK) for i in range(80)]
    assert {scene.image.shape for scene in jittered} == {(3, 64, 64)}
    void = [float((scene.truth == VOID).float().mean()) for scene in jittered]
    assert max(void) > 0.95
    assert min(void) == 0


def test_rows_are_as_published() -> None:
    assert steps_of("coco", 800) == (ShortSide((800, 800), 1333), Flip(0.5))
    assert steps_of("ade20k", 512) == (
        Ratio(2048, 512, 0.5, 2.0),
        Crop(512, 0.75),
        Flip(0.5),
        Distort(32, (0.5, 1.5), (0.5, 1.5), 0.1),
    )
    with pytest.raises(ValueError, match="no augmentation 'coca'; allowed: coco, ade20k, regions, objects"):
        steps_of("coca", 800)


def test_a_crop_is_not_of_one_class_alone() -> None:
    regions = torch.zeros(100, 100, dtype=torch.uint8)
    regions[65:, 65:] = 1
    scene = Scene(torch.zeros(3, 100, 100, dtype=torch.uint8), regions)

    def shares(most: float) -> list[float]:
        shown = (Crop(40, most)(scene, Random(i), _nobody, BACK).truth for i in range(60))
        return [float((one == 0).float().mean()) for one in shown]

    assert sum(share < 0.75 for share in shares(0.75)) > 3 * sum(share < 0.75 for share in shares(1.1))


def test_a_mirror_comes_as_often_as_it_should() -> None:
    scene = scene_of(paint(0))
    count = sum(Flip(0.3)(scene, Random(i), _nobody, BACK) is not scene for i in range(400))
    assert 90 < count < 150


def test_distortion_leaves_truth_and_changes_light_and_colour() -> None:
    scene = scene_of(paint(0))
    shown = [Distort()(scene, Random(i), _nobody, BACK) for i in range(40)]
    assert all(one.truth is scene.truth for one in shown)
    changed = [one for one in shown if not torch.equal(one.image, scene.image)]
    assert len(changed) > 30
    light = [int(one.image[:, 0, 0].sum()) // 3 - 145 for one in changed]
    assert max(light) > 15
    assert min(light) < -15


def test_a_view_for_judging_moves_images_alone() -> None:
    class Two:
        def scene(self, _: int) -> Scene:
            return scene_of(paint(0))

        def __len__(self) -> int:
            return 2

    steps = (ShortSide((144, 144), 400),)
    shown = DenseView(steps, judging=True)(Two(), 0, 1, 1)
    moved = DenseView(steps)(Two(), 0, 1, 1)
    assert shown.image.shape == moved.image.shape == (3, 144, 192)
    assert isinstance(shown.truth, Objects)
    assert isinstance(moved.truth, Objects)
    assert shown.truth.boxes.tolist() == [list(map(float, box)) for _, *box in paint(0).rectangles]
    assert torch.allclose(moved.truth.boxes, shown.truth.boxes * 2)
