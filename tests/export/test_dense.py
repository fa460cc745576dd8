"""Exporting detectors and segmenters: a file says what the model says, is asked like it, and refuses what it cannot do."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.dense.test_graph import SMALL, far
from tests.painted import several, write_coco, write_masks
from tests.tiny import command

import metaformer
from metaformer import Asking, DensePredictor, export, save_pretrained
from metaformer.export import dense as room
from metaformer.export.compare import drawn
from metaformer.infer.about import is_dense_source
from metaformer.infer.said import said_in
from metaformer.infer.views import fitted_within
from metaformer.tasks.found import Found

pytestmark = pytest.mark.usefixtures("thread", "here")
CLASSES = ["red", "green", "blue", "ground"]
SIDE = 64
REGIONS = ("semantic_fpn", "upernet")
QUICK = (("retinanet", "onnx"), ("semantic_fpn", "onnx"), ("mask_rcnn", "safetensors"))
SLOW = (
    ("faster_rcnn", "onnx"), ("mask_rcnn", "onnx"), ("upernet", "onnx"), ("mask_rcnn", "openvino"), ("upernet", "openvino"),
    ("retinanet", "torch-export"), ("mask_rcnn", "torch-export"), ("semantic_fpn", "torch-export"),
)  # fmt: skip
ENDS = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2", "safetensors": ".safetensors"}


def saved(head: str, folder: Path) -> Path:
    """Its folder."""
    model = far(head, len(CLASSES))
    shown = {"short": SIDE, "long": SIDE}
    save_pretrained(model, folder, {"task": model.config.task, "classes": CLASSES, "shown": shown, "note": "kept"})
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A detector's and a segmenter's folder and file."""
    made = {}
    for head in ("retinanet", "semantic_fpn"):
        folder = tmp_path_factory.mktemp("files")
        made[f"saved {head}"] = saved(head, folder / "saved")
        made[head] = export(folder / "saved", "onnx", folder).file
    return made


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Slopes of light and rectangles with hard edges."""
    return torch.from_numpy(drawn(seed + 1, 3, height, width)[seed])


def alike(one: Found, other: Found) -> None:
    """Whether the same was found."""
    assert len(one) == len(other) > 3
    assert torch.equal(one.labels, other.labels)
    torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=0.02)
    torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-4)
    assert (one.masks is None) == (other.masks is None)
    if one.masks is not None and other.masks is not None:
        assert (one.masks == other.masks).float().mean() > 0.999


@pytest.mark.parametrize(("head", "format"), [*QUICK, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)])
def test_every_head_in_every_format(head: str, format: str, request: pytest.FixtureRequest) -> None:
    if format == "onnx" and (head, format) in QUICK:
        files = request.getfixturevalue("files")
        source, file = files[f"saved {head}"], files[head]
    else:
        source = saved(head, Path("saved"))
        done = export(source, format)
        file = done.file
        assert file == Path(f"saved{ENDS[format]}")
        assert set(done.bounds) == {name.partition(", ")[0] for name in done.differences}
        assert all(value <= done.bounds[name.partition(", ")[0]] for name, value in done.differences.items())
        assert done.differences[f"{next(iter(done.bounds))}, noise"] >= 0
    about = said_in(file)
    assert (about["classes"], about["note"], about["format"]) == (CLASSES, "kept", format)
    assert about["input"]["sides"] == [SIDE, SIDE]
    assert set(about["compared"]["bounds"]) == set(room.bounds_of(far(head), format))
    assert is_dense_source(file)
    predictor, model = DensePredictor(file, device="cpu"), DensePredictor(source, device="cpu")
    assert predictor.classes == tuple(CLASSES)
    assert predictor.regions == (head in REGIONS)
    for image in (picture(SIDE, SIDE), picture(2 * SIDE, 2 * SIDE, 1)):  # that fill the file's size
        (found,), (wanted,) = predictor([image], Asking(0.05)), model([image], Asking(0.05))
        if head in REGIONS:
            assert (found.regions == wanted.regions).float().mean() > 0.999
        else:
            alike(found.found, wanted.found)


def test_an_image_of_other_sides_is_laid_on_the_mean_colour(files: dict[str, Path]) -> None:
    file, source = DensePredictor(files["retinanet"]), DensePredictor(files["saved retinanet"], device="cpu")
    image = picture(45, 90)
    assert file.fitted((45, 90)) == (32, 64)
    laid = torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None].repeat(1, SIDE, SIDE)
    laid[:, :32] = metaformer.infer.views.shown_at(image, (32, 64))
    (wanted,) = source([laid], Asking(0.05))
    inside = wanted.found.boxes.clone()
    inside[:, 1::2] = inside[:, 1::2].clamp(max=32)
    keep = inside[:, 3] > inside[:, 1]
    (found,) = file([image], Asking(0.05))
    assert found.size == (45, 90)
    assert 3 < len(found.found) == int(keep.sum())
    torch.testing.assert_close(found.found.boxes, inside[keep] * 90 / 64, rtol=0, atol=0.05)
    regions = DensePredictor(files["semantic_fpn"])([image])[0].regions
    assert regions.shape == (45, 90)


def test_a_file_is_asked_in_tiles_and_in_the_mirror_but_at_no_other_size(files: dict[str, Path]) -> None:
    file, source = DensePredictor(files["retinanet"]), DensePredictor(files["saved retinanet"], device="cpu")
    asking = Asking(0.05, tile=SIDE, overlap=32, tta="flip")
    (found,), (wanted,) = (one([picture(96, 128)], asking) for one in (file, source))
    alike(found.found, wanted.found)
    with pytest.raises(ValueError, match=r"^tile=96 is too large: .* takes images of 64 × 64 .*; at most 64$"):
        file([picture(100, 130)], Asking(tile=96, overlap=16))
    with pytest.raises(ValueError, match=r"^tta=scales shows images larger and smaller, .*: flip is allowed$"):
        file([picture(64, 64)], Asking(tta="scales"))
    with pytest.raises(ValueError, match=r"takes images of at most 64 × 64 pixels, .* not 70 × 64: .* --image-size 96 64$"):
        file.model([picture(70, 64)])


def test_the_batch_of_a_segmenter_is_free(files: dict[str, Path]) -> None:
    model = DensePredictor(files["semantic_fpn"]).model
    images = torch.stack([picture(64, 64, seed) for seed in range(3)])
    torch.testing.assert_close(model(images).logits[2:], model(images[2:]).logits, rtol=1e-4, atol=1e-4)


def test_the_commands_take_a_file(files: dict[str, Path]) -> None:
    data = write_coco(Path("data"), several(4, (64, 64)))
    code, out, err = command(
        "predict", files["retinanet"], "data/images", "--to", "coco", "--out", "found.json", "--threads", 1
    )
    assert code == 0, err
    assert {row["category_id"] for row in json.loads(Path("found.json").read_text())} <= {1, 2, 3, 4}
    code, of_file, err = command("eval", files["retinanet"], "--data", data, "--json", "--engine", "onnxruntime")
    assert (code, err) == (0, "")
    code, of_model, _ = command("eval", files["saved retinanet"], "--data", data, "--json")
    one, other = (json.loads(text)["box"] for text in (of_file, of_model))
    assert one["ar100"] == pytest.approx(other["ar100"], abs=1e-6)
    data = write_masks(Path("maps"), several(4, (64, 64)))
    figures = []
    for source in (files["semantic_fpn"], files["saved semantic_fpn"]):
        code, out, err = command("eval", source, "--data", data, "--json")
        assert code == 0, err
        figures.append(json.loads(out)["pixel_accuracy"])
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)
    code, _, err = command("predict", files["saved retinanet"], "data/images", "--engine", "openvino")
    assert (code, "is run by torch: leave engine and threads out, or export it" in err) == (2, True)


def test_the_command_exports(files: dict[str, Path]) -> None:
    source = files["saved semantic_fpn"]
    code, out, err = command("export", source, "safetensors", "a.safetensors", "--image-size", 32, 96)
    assert (code, err) == (0, "")
    assert re.search(r"^pixels of another class, noise +0\.0e\+00$", out, re.MULTILINE)
    assert re.search(r"^ +allowed +0\.0e\+00$", out, re.MULTILINE)
    Image.fromarray(picture(64, 64).permute(1, 2, 0).numpy()).save("a.png")
    code, out, err = command("predict", "a.safetensors", "a.png")
    assert (code, "a.png" in out) == (0, True), err


@pytest.mark.parametrize(
    ("format", "options", "sentence"),
    [
        ("executorch", {}, r"^executorch is for classifiers, and this is semantic_fpn: onnx, openvino or torch-export$"),
        ("onnx", {"probabilities": True}, r"finds objects or regions: it is exported in fp32, without --probabilities"),
        ("openvino", {"precision": "bf16"}, r"finds objects or regions: it is exported in fp32, without --probabilities"),
        ("onnx", {"image_size": (64, 100)}, r"^a height of 64 and a width of 100 are not multiples of 32: take 64 96$"),
    ],
)
def test_what_is_refused(files: dict[str, Path], format: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        export(files["saved semantic_fpn"], format, **options)
    assert list(Path().iterdir()) == []
    with pytest.raises(ValueError, match="is exported already: export what it was made from"):
        export(files["retinanet"], "onnx")
    with pytest.raises(ValueError, match=r"finds objects or regions: metaformer\.DensePredictor opens it$"):
        metaformer.Predictor(files["retinanet"])


def test_a_file_is_for_the_size_at_which_its_model_was_judged() -> None:
    assert room.sides_of({"shown": {"short": 512, "long": 512}}, None) == ((512, 512), (512, 512))
    assert room.sides_of({"shown": {"short": 800, "long": 1333}}, None) == ((800, 1344), (800, 1333))
    assert room.sides_of({"shown": {"short": 512, "long": 2048}}, None) == ((512, 864), (512, 853))
    assert room.sides_of({"shown": {"short": 512, "long": 512}}, (64, 96)) == ((64, 96), (64, 96))
    assert fitted_within((600, 800), (800, 1333)) == (800, 1067)
    assert fitted_within((800, 600), (800, 1333)) == (800, 600)


def test_differences_of_objects() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 50, 60], [20, 20, 50, 60]], np.float32)
    wanted = [boxes, np.array([0.9, 0.5, 0.4], np.float32), np.array([0, 1, 2]), np.zeros((3, 28, 28), np.float32)]
    assert set(room.object_differences(wanted, wanted).values()) == {0.0}
    order = [2, 0, 1]
    moved = [array[order] + (0.25 if array is boxes else 0) for array in wanted]
    moved[1] = moved[1] - np.float32(0.125)
    moved[3] = moved[3] + np.float32(0.5)
    found = room.object_differences(wanted, moved)
    assert list(found.values()) == pytest.approx([0, 0.25, 0.125, 0.5])
    other = [wanted[0], wanted[1], np.array([0, 1, 1]), wanted[3]]
    assert room.object_differences(wanted, other)["boxes without their like"] == pytest.approx(1 / 3)
    wrong = [wanted[0] * np.nan, *wanted[1:]]
    assert set(room.object_differences(wanted, wrong).values()) == {float("inf")}
    with pytest.raises(ValueError, match=r"^a\.onnx was not written: .*: scores, noise, 0\.2; allowed is 0\.001$"):
        room.check({"scores, noise": 0.2}, room.OBJECT_BOUNDS, "onnx", Path("a.onnx"))


def test_what_says_nothing_or_is_damaged_says_nothing(files: dict[str, Path]) -> None:
    whole = files["semantic_fpn"].read_bytes()
    for name in ("a.onnx", "a.xml", "a.pt2", "a.safetensors", "a.pte"):
        for content in (b"", b"\xff" * 40, whole[:-30], whole[:5]):
            Path(name).write_bytes(content)
            assert said_in(Path(name)) == {}
    assert said_in(Path("none.onnx")) == {}
    assert SMALL["channels"] == said_in(files["semantic_fpn"])["dense"]["channels"]
