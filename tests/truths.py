"""What tests of objects and regions share: painted images, and whether what is read of them is so."""

import os
from pathlib import Path

import torch
from tests.painted import Painted, region_map, several

from metaformer.data.dense import DenseData
from metaformer.data.scenes import Scenes
from metaformer.data.truth import Objects

SETS = Path(os.environ.get("METAFORMER_TEST_DATA", "/nowhere"))
IMAGES = several(12)
BACK = {"red": 0, "green": 1, "blue": 2}


def objects_of(scenes: Scenes, i: int) -> Objects:
    """Those of a sample."""
    truth = scenes.scene(i).truth
    assert isinstance(truth, Objects)
    return truth


def check_painted(data: DenseData, images: list[Painted], *, masks: bool) -> None:
    """Boxes, labels and masks of both parts are what was painted."""
    for scenes in (data.train, data.val):
        for i in range(len(scenes)):
            painted = images[int(Path(scenes.name(i)).stem.removeprefix("a"))]
            objects = objects_of(scenes, i)
            assert [BACK[data.classes[c]] for c in objects.labels.tolist()] == [c for c, *_ in painted.rectangles]
            wanted = torch.tensor([box for _, *box in painted.rectangles]).float()
            assert torch.allclose(objects.boxes, wanted, atol=1e-3)
            assert objects.boxes.dtype == objects.areas.dtype == torch.float32
            assert torch.allclose(objects.areas, (wanted[:, 2:] - wanted[:, :2]).prod(1), rtol=1e-4)
            assert (objects.height, objects.width) == (painted.height, painted.width)
            assert not objects.crowd.any()
            assert (objects.masks is not None) == masks
            for mask, (_, left, top, right, bottom) in zip(objects.masks if masks else [], painted.rectangles, strict=masks):
                own = torch.zeros_like(mask)
                own[top:bottom, left:right] = 1
                assert torch.equal(mask, own)


def check_maps(data: DenseData, images: list[Painted], background: int = 3) -> None:
    """The maps of both parts are what was painted."""
    for scenes in (data.train, data.val):
        for i in range(len(scenes)):
            painted = images[int("".join(filter(str.isdigit, Path(scenes.name(i)).stem)))]
            truth = scenes.scene(i).truth
            assert isinstance(truth, torch.Tensor)
            assert truth.dtype == torch.uint8
            assert torch.equal(truth, torch.from_numpy(region_map(painted, background)))
