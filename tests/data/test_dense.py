"""Objects and regions in every form that is read: what is true of each image, splits, turned images, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.painted import coco, paint, region_map, save, several, write_coco, write_masks, write_voc, write_yolo
from tests.truths import IMAGES, SETS, check_painted, objects_of

from metaformer.data import seen
from metaformer.data.dataset import split_csv
from metaformer.data.dense import DenseData, few_scenes, is_dense, open_dense, open_dense_judged, parts_of
from metaformer.data.truth import VOID


@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_boxes_and_masks_are_what_is_painted(tmp_path: Path, form: str, masks: bool) -> None:
    if form == "voc":
        source = write_voc(tmp_path / "set", IMAGES)
        if masks:
            with pytest.raises(ValueError, match="has boxes and no outlines of objects"):
                open_dense(source, regions=False, masks=True)
            return
    else:
        source = (
            write_coco(tmp_path / "set", IMAGES) if form == "coco" else write_yolo(tmp_path / "set", IMAGES, polygons=masks)
        )
    data = open_dense(source, regions=False, masks=masks)
    assert sorted(data.classes) == ["blue", "green", "red"]
    assert len(data.train) + len(data.val) == 12
    assert (data.notes, data.flaws, data.unreadable, data.regions) == ((), (), (), False)
    check_painted(data, IMAGES, masks=masks)
    assert np.allclose(
        data.mean, np.mean([IMAGES[int(Path(n).stem[1:])].pixels.mean((0, 1)) for n in data.train.names], 0) / 255
    )
    small = few_scenes(data, 2)
    assert (len(small.train), len(small.val)) == (2, 2)
    check_painted(small, IMAGES, masks=masks)


def test_a_split_is_drawn_by_seed_and_path_and_can_be_recalled(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "set", IMAGES)
    data = open_dense(source, regions=False, seed=3)
    assert [part for _, part in data.drawn].count("val") == len(data.val) == 2
    assert data.drawn == open_dense(source, regions=False, seed=3).drawn
    assert any(data.drawn != open_dense(source, regions=False, seed=seed).drawn for seed in range(3))
    split = tmp_path / "split.csv"
    split.write_text(split_csv(data))
    again = open_dense(source, regions=False, seed=99, split=split)
    assert (again.drawn, again.train.names, again.val.names) == (data.drawn, data.train.names, data.val.names)
    judged = open_dense_judged(source, data.classes, regions=False, split=split)
    assert (judged.val.names, len(judged.train)) == (data.val.names, 0)
    assert len(open_dense_judged(source, data.classes, regions=False).val) == 12
    (tmp_path / "set/images/a3.png").unlink()
    with pytest.raises(ValueError, match=r"images of the run's split that .* has no more: 1, such as a3\.png"):
        open_dense(source, regions=False, split=split)


# --- turned and resized images -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("drawn_on", ["stored", "shown"])
def test_boxes_and_masks_follow_an_image_that_exif_turns(tmp_path: Path, turn: int, drawn_on: str) -> None:
    """Sideways the annotations' size says which they were drawn on; else it is what is shown."""
    from metaformer.data.decode import TURN

    painted = paint(1, (90, 60), (0, 1, 2))
    image = Image.fromarray(painted.pixels)
    if turn > 1:
        back = {6: TURN[8], 8: TURN[6]}.get(turn, TURN[turn])
        upright_is_stored = drawn_on == "stored"
        stored = image if upright_is_stored and turn >= 5 else image.transpose(back)
    else:
        stored = image
    exif = Image.Exif()
    exif[0x0112] = turn
    (tmp_path / "images").mkdir()
    stored.save(tmp_path / "images/a0.jpg", exif=exif, quality=98, subsampling=0)
    save(paint(2), tmp_path / "images/a1.png")
    told = coco([painted, paint(2)])
    told["images"][0]["file_name"] = "a0.jpg"
    (tmp_path / "all.json").write_text(json.dumps(told))
    data = open_dense(f"coco:{tmp_path}", regions=False, masks=True)
    scenes = data.train if data.train.names[0] == "a0.jpg" else data.val
    from tests.data.test_moves import check_objects

    scene = scenes.scene(0)
    assert check_objects(scene) == 3
    turned = drawn_on == "stored" and turn >= 5
    assert any("turned with them" in flaw.what for flaw in data.flaws) == turned
    assert (scene.width, scene.height) == ((60, 90) if turned else (90, 60))


def test_boxes_are_stretched_to_images_that_were_resized_and_maps_too(tmp_path: Path) -> None:
    small = several(4)
    source = write_coco(tmp_path / "objects", small)
    for i, painted in enumerate(small):
        Image.fromarray(painted.pixels).resize((192, 144), Image.Resampling.NEAREST).save(tmp_path / f"objects/images/a{i}.png")
    data = open_dense(source, regions=False, masks=True)
    assert [flaw.what for flaw in data.flaws] == [
        "images of another size than their annotations say; these are stretched to them"
    ]
    painted = small[int(Path(data.val.name(0)).stem[1:])]
    objects = objects_of(data.val, 0)
    assert objects.boxes.tolist() == [[2.0 * side for side in box] for _, *box in painted.rectangles]
    assert objects.masks is not None
    assert [int(mask.sum()) for mask in objects.masks] == (objects.boxes[:, 2:] - objects.boxes[:, :2]).prod(1).int().tolist()

    source = write_masks(tmp_path / "regions", small)
    for file in (tmp_path / "regions/images").rglob("*.png"):
        Image.fromarray(small[int(file.stem[1:])].pixels.repeat(2, 0).repeat(2, 1)).save(file)
    scene = open_dense(source, regions=True).val.scene(0)
    assert torch.equal(scene.truth, torch.from_numpy(region_map(small[0]).repeat(2, 0).repeat(2, 1)))


# --- damage ------------------------------------------------------------------------------------------------------------


def cut(file: Path) -> tuple[str, str]:
    """Cuts an image off behind its header; its path, and the words for it."""
    Image.effect_noise((48, 36), 90).convert("RGB").save(file)
    file.write_bytes(file.read_bytes()[:-900])
    return str(file), "cut off"


def told(data: DenseData) -> list[tuple[str, str]]:
    return sorted((name, reason.partition(":")[0]) for name, reason in data.unreadable)


@pytest.mark.parametrize("drawn", [True, False])
def test_images_that_are_cut_off_are_left_out_before_training(
    tmp_path: Path, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that judge however many there are, those that teach up to 20,000."""
    monkeypatch.setattr(seen, "MOST_UNREADABLE", 1.0)
    images = several(12, (48, 36))
    source = write_coco(tmp_path, images) if drawn else write_yolo(tmp_path, images)
    damaged = sorted(cut(next(tmp_path.rglob(name))) for name in ("a7.png", "a8.png"))
    assert told(open_dense(source, regions=False)) == damaged
    monkeypatch.setattr(seen, "ALL", 2)
    judging = [one for one in damaged if drawn or "/val/" in one[0]]
    assert len(judging) == (2 if drawn else 1)
    assert told(open_dense(source, regions=False)) == judging
    assert told(open_dense_judged(source, ("red", "green", "blue"), regions=False)) == judging


def test_labels_that_are_cut_off_are_left_out_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_masks(tmp_path, several(12, (48, 36)))
    monkeypatch.setattr(seen, "MAPS", 1)
    monkeypatch.setattr(seen, "MOST_UNREADABLE", 1.0)
    (file,) = (tmp_path / "masks").rglob("a7.png")
    cut(file)
    (left_out,) = open_dense(source, regions=True).unreadable
    assert "its label a7.png: cut off" in left_out[1]


# --- what is refused ---------------------------------------------------------------------------------------------------


def test_classes_that_only_judge_or_that_a_model_does_not_know_are_refused(tmp_path: Path) -> None:
    source = write_voc(tmp_path / "voc", IMAGES)
    file = tmp_path / "voc/Annotations/a0.xml"
    file.write_text(file.read_text().replace("<name>red", "<name>redd"))
    with pytest.raises(
        ValueError, match=r"the judging part of .* has class 'redd' \(did you mean 'red'\?\), which the part to learn"
    ):
        open_dense(source, regions=False)
    source = write_masks(tmp_path / "masks", IMAGES)
    with pytest.raises(ValueError, match="has class 'ground', which the model does not know"):
        open_dense_judged(source, ("red", "green", "blue"), regions=True)
    other = open_dense_judged(source, ("ground", "blue", "green", "red", "sky"), regions=True)
    wanted = torch.tensor([3, 2, 1, 0])[torch.from_numpy(region_map(IMAGES[0]).astype(np.int64))].byte()
    assert torch.equal(other.val.scene(0).truth, wanted)


def test_words_and_paths_that_are_wrong_are_told(tmp_path: Path) -> None:
    assert is_dense("coco:x")
    assert not is_dense("photos")
    assert not is_dense("digits")
    for source, said in {
        "cooc:x": "no objects and no regions; allowed: coco:PATH, voc:PATH, yolo:PATH; did you mean coco:x",
        "coco:": "data=coco: lacks a path: coco:PATH",
        "coco:none": "there is no none",
        "yolo:none": "there is no none",
        "voc:none": "there is no none",
        f"coco:{tmp_path}": "has no annotation file, such as annotations/instances_train2017.json",
        f"voc:{tmp_path}": "has no Annotations/ beside JPEGImages/",
        f"yolo:{tmp_path}": "has no image",
        f"masks:{tmp_path}": "allowed: coco:PATH, voc:PATH, yolo:PATH",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            open_dense(source, regions=False)
    for source, said in {
        f"coco:{tmp_path}": "has objects, and this model finds regions; allowed: camvid:PATH, ade20k:PATH, masks:PATH",
        f"masks:{tmp_path}": "has no class list: masks: needs classes.txt there",
        "camvid:none": "there is no none; camvid: takes the folder of the data set",
        "mask:x": "allowed: camvid:PATH, ade20k:PATH, masks:PATH, voc:PATH; did you mean masks:x",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            open_dense(source, regions=True)
    with pytest.raises(ValueError, match="allowed: coco:PATH, voc:PATH, yolo:PATH, camvid:PATH, ade20k:PATH, masks:PATH; did"):
        parts_of("cooc:x")


# --- real ones ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SETS / "bccd-voc").is_dir(), reason="METAFORMER_TEST_DATA names no folder with bccd-voc")
def test_blood_cells() -> None:
    data = open_dense(f"voc:{SETS / 'bccd-voc'}", regions=False)
    assert (len(data.train), len(data.val), data.classes) == (205, 87, ("Platelets", "RBC", "WBC"))
    assert [(flaw.what, flaw.count) for flaw in data.flaws] == [("boxes without area, left out", 2)]
    test = open_dense_judged(f"voc:{SETS / 'bccd-voc/ImageSets/Main/test.txt'}", data.classes, regions=False)
    counts = sum(np.bincount(scenes.truths.labels, minlength=3) for scenes in (data.train, data.val, test.val))
    assert counts.tolist() == [361, 4155 - 2, 372]
    assert len(test.val) == 72


@pytest.mark.skipif(
    not (SETS / "coco128").is_dir(), reason="METAFORMER_TEST_DATA names no folder with coco128, nuts and camvid"
)
def test_coco_nuts_and_streets() -> None:
    data = open_dense(f"coco:{SETS / 'coco128'}", regions=False, masks=True)
    assert (len(data.train), len(data.val), len(data.classes), data.flaws) == (96, 32, 80, ())
    assert [len(scenes.truths.labels) for scenes in (data.train, data.val)] == [725, 214]
    nuts = open_dense(f"coco:{SETS / 'nuts-coco-instances'}", regions=False, masks=True)
    assert (len(nuts.train), len(nuts.val), nuts.classes, len(nuts.drawn)) == (14, 4, ("date", "fig", "hazelnut"), 18)
    streets = open_dense(f"camvid:{SETS / 'camvid'}", regions=True)
    assert (len(streets.train), len(streets.val), len(streets.classes), streets.flaws) == (120, 40, 11, ())
    seen = torch.stack([streets.val.scene(i).truth for i in range(4)]).unique()
    assert set(seen.tolist()) <= {*range(11), VOID}
