"""Outlines → masks: pycocotools' to the pixel, from compact arrays."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as reference
from pycocotools.coco import COCO

from metaformer.data.coco import coco_parts
from metaformer.data.outlines import Drawing, compressed

SETS = Path(os.environ.get("METAFORMER_TEST_DATA", "/nowhere"))


def reference_mask(rings: list[list[float]], height: int, width: int) -> Any:
    return reference.decode(reference.merge(reference.frPyObjects(rings, height, width)))


def random_rings(random: np.random.RandomState) -> list[list[float]]:
    """Up to three polygons of which some reach beyond the image, to hundredths of a pixel."""
    return [
        (random.rand(random.randint(3, 9), 2) * (90, 70) * random.rand() + random.uniform(-12, 30, 2)).round(2).ravel().tolist()
        for _ in range(random.randint(1, 4))
    ]


def test_polygons_are_drawn_as_pycocotools_draws_them() -> None:
    random, drawing = np.random.RandomState(0), Drawing()
    objects = [random_rings(random) for _ in range(300)]
    for rings in objects:
        drawing.add(rings)
    outlines = drawing.done()
    masks = outlines.masks(0, len(objects), 80, 60)
    for rings, mask in zip(objects, masks, strict=True):
        assert (mask == reference_mask(rings, 60, 80)).all()
    order = np.array([7, 3, 299, 3])
    assert (outlines.take(order).masks(0, 4, 80, 60) == masks[order]).all()
    doubled = outlines.masks(0, 5, 160, 120, (2.0, 2.0))
    for rings, mask in zip(objects, doubled, strict=False):
        assert (mask == reference_mask([(2 * np.array(ring)).tolist() for ring in rings], 120, 160)).all()


def test_run_lengths_of_either_kind_give_the_same_mask() -> None:
    random, drawing = np.random.RandomState(1), Drawing()
    wanted = [np.asfortranarray(random.rand(30, 40) < part, np.uint8) for part in (0.0, 0.01, 0.5, 0.99, 1.0)]
    for mask in wanted:
        text = reference.encode(mask)
        flat = mask.ravel(order="F").astype(int)
        ends = np.flatnonzero(np.diff(flat, prepend=0, append=2))
        counts = np.diff(ends, prepend=0).tolist()
        for told in (text["counts"], text["counts"].decode(), counts):
            code, size = compressed({"size": [30, 40], "counts": told})
            assert size == (30, 40)
            drawing.add(code=code, size=size)
    drawing.add()
    outlines = drawing.done()
    assert outlines.present.tolist() == [True] * 15 + [False]
    masks = outlines.masks(0, 16, 40, 30)
    assert all((masks[3 * i : 3 * i + 3] == mask).all() for i, mask in enumerate(wanted))
    assert not masks[15].any()
    large = outlines.take(np.array([6])).masks(0, 1, 80, 60)[0]
    assert (large == wanted[2].repeat(2, 0).repeat(2, 1)).all()


@pytest.mark.parametrize(
    "code",
    [
        {},
        {"size": [4, 4]},
        {"size": [4, 4], "counts": [3, 3]},
        {"size": [4, 4], "counts": [-4, 20]},
        {"size": [4, -4], "counts": [16]},
        {"size": [4, 4], "counts": "zz~~~~"},
        {"size": [4, 4], "counts": "PPPPPPPPPPPPPPPPPPPP"},
        {"size": [4, 4], "counts": "`"},
        {"size": [10**6, 10**6], "counts": [10**12]},
    ],
    ids=str,
)
def test_damaged_run_lengths_are_refused(code: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        compressed(code)


@pytest.mark.skipif(not (SETS / "coco128").is_dir(), reason="METAFORMER_TEST_DATA names no folder with coco128")
def test_masks_and_boxes_of_coco_are_those_of_its_own_library(capsys: pytest.CaptureFixture[str]) -> None:
    file = SETS / "coco128/annotations/instances_train2017.json"
    own = COCO(str(file))
    listed = coco_parts(str(file))[""](True)
    count = 0
    for i, image_id in enumerate(listed.truths.ids):
        told = own.loadAnns(own.getAnnIds(imgIds=image_id))
        image = own.imgs[image_id]
        objects = listed.truths.read(i, Path("none"), image["width"], image["height"])
        assert [listed.numbers[label] for label in objects.labels] == [one["category_id"] for one in told]
        for one, mask, box, area in zip(told, objects.masks, objects.boxes, objects.areas, strict=True):
            assert (mask.numpy() == own.annToMask(one)).all()
            x, y, width, height = one["bbox"]
            assert box.tolist() == pytest.approx([x, y, x + width, y + height], abs=1e-4)
            assert float(area) == pytest.approx(one["area"])
            count += 1
    assert count == 939
    assert listed.flaws.all() == ()
