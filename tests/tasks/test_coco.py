import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.found import found, just_so, objects

from metaformer.core.ranks import Ranks
from metaformer.data.truth import Objects
from metaformer.infer.results import DensePrediction, Names, saved_results
from metaformer.tasks.coco import STATS, Answer, judge
from metaformer.tasks.found import Found, nothing, run_lengths

CLASSES = ("ant", "bee", "cow")
SIZE = (100, 120)
COCO128 = Path(__file__).parents[3] / "shared" / "data" / "coco128"


def scene(count: int = 12, *, masks: bool = False, seed: int = 0) -> list[Answer]:
    """Images with objects of three classes and answers that are nearly right, some crowds, some images without anything."""
    random = np.random.RandomState(seed)
    answers = []
    for i in range(count):
        many = 0 if i % 5 == 4 else random.randint(1, 7)
        corner = random.randint(0, 60, (many, 2))
        boxes = np.concatenate([corner, corner + random.randint(6, 40, (many, 2))], 1).tolist()
        labels = random.randint(0, 3, many).tolist()
        truth = objects(i * 7, boxes, labels, crowd=(random.rand(many) < 0.15).tolist(), masks=masks)
        near = [[side + random.randint(-3, 4) for side in box] for box in boxes] + [[50, 50, 70, 80]]
        near = [[max(0, x1), max(0, y1), min(120, max(x2, x1 + 1)), min(100, max(y2, y1 + 1))] for x1, y1, x2, y2 in near]
        called = [label if random.rand() < 0.8 else int(random.randint(0, 3)) for label in [*labels, 1]]
        scores = random.randint(1, 20, len(near)) / 20
        answers.append((truth, found(near, called, scores.tolist(), SIZE if masks else None)))
    return answers


def by_hand(answers: list[Answer], kind: str, tmp_path: Path) -> Any:
    """What pycocotools says when a person uses it: on a truth in COCO's format, and on the results file that we write."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = []
    for truth, _ in answers:
        masks = None if truth.masks is None else run_lengths(truth.masks)
        for i in range(len(truth)):
            x1, y1, x2, y2 = truth.boxes[i].tolist()
            row = {
                "id": len(rows) + 1, "image_id": truth.image_id, "category_id": 10 * int(truth.labels[i]) + 3,
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": float(truth.areas[i]), "iscrowd": int(truth.crowd[i]),
            }  # fmt: skip
            rows.append(row if masks is None else row | {"segmentation": masks[i]})
    names = Names(CLASSES, categories=(3, 13, 23))
    with saved_results(tmp_path / "results.json", "coco", names) as save:
        for truth, answer in answers:
            save(DensePrediction(f"{truth.image_id}.png", SIZE, answer, image_id=truth.image_id))
    results = json.loads((tmp_path / "results.json").read_text())
    if kind == "segm":  # with a box in it, pycocotools takes the box's area for the mask's
        results = [{key: value for key, value in row.items() if key != "bbox"} for row in results]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": truth.image_id, "height": SIZE[0], "width": SIZE[1]} for truth, _ in answers],
            "categories": [{"id": 3}, {"id": 13}, {"id": 23}], "annotations": rows,
        }  # fmt: skip
        truth.createIndex()
        done = COCOeval(truth, truth.loadRes(results), kind)
        done.evaluate()
        done.accumulate()
        done.summarize()
    return done


@pytest.mark.parametrize(("kind", "called"), [("box", "bbox"), ("mask", "segm")])
def test_figures_are_pycocotools_own(kind: str, called: str, tmp_path: Path) -> None:
    answers = scene(masks=True)
    figures = getattr(judge(answers, CLASSES), kind)
    done = by_hand(answers, called, tmp_path)
    assert [-1 if figures.overall[name] is None else figures.overall[name] for name in STATS] == done.stats.tolist()
    assert 0.05 < done.stats[0] < 0.95
    precision = done.eval["precision"][:, :, :, 0, 2]
    for c, each in enumerate(figures.per_class):
        assert each.ap == precision[:, :, c].mean()
        assert each.ap50 == precision[0, :, c].mean()
        assert each.ap75 == precision[5, :, c].mean()
        assert each.objects == sum(int(((t.labels == c) & ~t.crowd).sum()) for t, _ in answers)
    assert np.array_equal(figures.precision, precision[0].T)


def test_perfect_answers_and_none() -> None:
    answers = [(truth, just_so(truth)) for truth, _ in scene(masks=True)]
    done = judge(answers, CLASSES)
    assert done.mask is not None
    for figures in (done.box, done.mask):
        assert [figures.overall[name] for name in ("ap", "ap50", "ap75", "ar100")] == pytest.approx([1.0] * 4)
        assert [each.ap for each in figures.per_class] == pytest.approx([1.0] * 3)
    assert done.scores == pytest.approx({"mask_ap": 100.0, "box_ap": 100.0, "mask_ap50": 100.0, "box_ap50": 100.0})
    assert list(done.scores) == ["mask_ap", "box_ap", "mask_ap50", "box_ap50"]
    none = judge([(truth, nothing(SIZE)) for truth, _ in answers], CLASSES)
    assert none.mask is not None
    assert (none.box.overall["ap"], none.mask.overall["ap"], none.box.overall["ar100"]) == (0.0, 0.0, 0.0)
    assert none.scores == {"mask_ap": 0.0, "box_ap": 0.0, "mask_ap50": 0.0, "box_ap50": 0.0}


def test_shifted_answers_have_the_value_that_follows_by_hand() -> None:
    """A box of 20 pixels, shifted by 2: IoU 18 / 22 = 0.818, so it counts at 0.50, 0.55 ... 0.80: 7 of 10 thresholds."""
    truths = [objects(i, [[10, 10, 30, 30], [50, 50, 70, 70]], [0, 1], masks=True) for i in range(3)]
    answers = [(truth, found([[12, 10, 32, 30], [50, 50, 70, 70]], [0, 1], [0.9, 0.8], SIZE)) for truth in truths]
    done = judge(answers, CLASSES[:2])
    assert done.mask is not None
    for figures in (done.box, done.mask):
        assert [each.ap for each in figures.per_class] == pytest.approx([0.7, 1.0])
        assert figures.overall["ap"] == pytest.approx(0.85)
        assert figures.overall["ap75"] == pytest.approx(1.0)
        assert figures.overall["ap_small"] == pytest.approx(0.85)
        assert figures.overall["ap_large"] is None


def test_half_found_and_half_wrong_by_hand() -> None:
    """Two objects; the surest find is right, the next wrong: precision 1 up to a recall of 0.5, which is 51 of 101 places."""
    truth = objects(0, [[10, 10, 30, 30], [50, 50, 70, 70]], [0, 0])
    done = judge([(truth, found([[10, 10, 30, 30], [80, 0, 90, 10]], [0, 0], [0.9, 0.8]))], CLASSES[:1])
    assert done.box.overall["ap"] == pytest.approx(51 / 101)
    assert done.mask is None
    assert done.box.scores[0, [0, 50, 51]].tolist() == pytest.approx([0.9, 0.9, 0.0])


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong() -> None:
    truth = objects(0, [[10, 10, 30, 30], [40, 40, 100, 100]], [0, 0], crowd=[False, True])
    right = found([[10, 10, 30, 30]], [0], [0.5])
    crowded = found([[10, 10, 30, 30], [45, 45, 60, 60], [70, 70, 80, 90]], [0, 0, 0], [0.5, 0.9, 0.8])
    for answer in (right, crowded):
        assert judge([(truth, answer)], CLASSES[:1]).box.overall["ap"] == pytest.approx(1.0)
    plain = replace(truth, crowd=torch.tensor([False, False]))
    assert judge([(plain, crowded)], CLASSES[:1]).box.overall["ap"] == pytest.approx(51 / 101 / 3)


def test_a_mask_has_its_own_area() -> None:
    """The surer find is wrong, of a large box and a small mask: it spoils what is said of small masks, not of small boxes."""
    truth = objects(0, [[10, 10, 30, 30]], [0], masks=True)
    boxes = [[50, 50, 90, 90], [10, 10, 30, 30]]
    answer = found(boxes, [0, 0], [0.9, 0.5], SIZE)
    assert answer.masks is not None
    answer.masks[0, 60:] = False
    done = judge([(truth, answer)], CLASSES[:1])
    assert done.mask is not None
    assert done.box.overall["ap_small"] == pytest.approx(1.0)
    assert done.mask.overall["ap_small"] == pytest.approx(0.5)


def test_a_class_that_is_nowhere_is_left_out() -> None:
    truth = objects("a.png", [[10, 10, 30, 30]], [0])
    done = judge([(truth, just_so(truth)), (objects("b.png", [], []), found([[0, 0, 5, 5]], [2], [0.9]))], CLASSES)
    assert [each.ap for each in done.box.per_class] == [pytest.approx(1.0), None, None]
    assert done.box.overall["ap"] == pytest.approx(1.0)
    assert np.isnan(done.box.precision[1:]).all()
    assert done.box.mean_precision.tolist() == pytest.approx([1.0] * 101)
    assert json.loads(json.dumps(done.summary(), allow_nan=False))["per_class"]["bee"]["box"]["ap"] is None
    nowhere = judge([(objects(0, [], []), nothing())], CLASSES)
    assert nowhere.box.overall["ap"] is None
    assert nowhere.scores == {"box_ap": 0.0, "box_ap50": 0.0}
    assert np.isnan(nowhere.box.mean_precision).all()


def test_the_summary_is_told_in_parts() -> None:
    summary = judge(scene(masks=True), CLASSES).summary()
    assert list(summary) == ["images", "objects", "mask", "box", "per_class"]
    assert summary["images"] == 12
    assert summary["per_class"]["ant"].keys() == {"mask", "box"}
    assert set(summary["box"]) == set(STATS)


class Pretended(Ranks):
    """One of several ranks, which knows what the others will say."""

    said: list[Any]

    def gathered(self, value: Any) -> list[Any]:
        return self.said


def pretended(said: list[Any]) -> Ranks:
    ranks = Pretended(0, len(said))
    object.__setattr__(ranks, "said", said)
    return ranks


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_that_share_the_images_have_the_same_figures(count: int) -> None:
    answers = scene(13, masks=True, seed=1)
    alone = judge(answers, CLASSES)
    told = [list(judge(answers[rank::count], CLASSES).pairs) for rank in range(count)]
    shared = judge(answers[0::count], CLASSES, pretended(told))
    assert [one.image_id for one in shared.pairs] == [one.image_id for one in alone.pairs]
    assert shared.summary() == alone.summary()


def test_an_image_is_judged_once() -> None:
    with pytest.raises(AssertionError, match="given twice"):
        judge([*scene(2), *scene(1)], CLASSES)


def test_images_are_numbers_or_names() -> None:
    truths: list[Objects] = [objects(name, [[10, 10, 30, 30]], [0]) for name in ("b", 10, 0, "a", 9)]
    done = judge([(truth, just_so(truth)) for truth in truths], CLASSES)
    assert [one.image_id for one in done.pairs] == [0, 9, 10, "a", "b"]
    assert done.box.overall["ap"] == pytest.approx(1.0)


@pytest.mark.skipif(not COCO128.is_dir(), reason="coco128 is not there")
def test_real_images_and_their_file(tmp_path: Path) -> None:
    """Boxes moved a little, on the 32 images of COCO that are held out: the numbers of pycocotools on the file of results."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(COCO128 / "annotations" / "split_val32.json")
    ids = sorted(truth.getCatIds())
    random, answers = torch.Generator().manual_seed(0), []
    for image in truth.loadImgs(truth.getImgIds()):
        notes = truth.loadAnns(truth.getAnnIds(image["id"]))
        boxes = torch.tensor([note["bbox"] for note in notes], dtype=torch.float64).reshape(-1, 4)
        corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        labels = torch.tensor([ids.index(note["category_id"]) for note in notes], dtype=torch.int64)
        crowd = torch.tensor([bool(note["iscrowd"]) for note in notes], dtype=torch.bool)
        areas = torch.tensor([note["area"] for note in notes], dtype=torch.float64)
        real = Objects(corners, labels, None, crowd, areas, image["id"], image["height"], image["width"])
        moved = (corners + 0.06 * (boxes[:, 2:].repeat(1, 2)) * torch.randn(corners.shape, generator=random)).float()
        answers.append((real, Found(moved, torch.rand(len(labels), generator=random), labels)))
    with saved_results(tmp_path / "results.json", "coco", Names(tuple(map(str, ids)), tuple(ids))) as save:
        for real, answer in answers:
            save(DensePrediction("", (real.height, real.width), answer, image_id=real.image_id))
    with contextlib.redirect_stdout(io.StringIO()):
        done = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "bbox")
        done.evaluate()
        done.accumulate()
        done.summarize()
    figures = judge(answers, tuple(map(str, ids))).box
    assert [-1 if figures.overall[name] is None else figures.overall[name] for name in STATS] == done.stats.tolist()
    assert 0.2 < done.stats[0] < 0.9
