"""Records of real models: as `Predictor` and `DensePredictor` give them, whatever a batch is made of."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from tests.fill import filled_model
from tests.found import found as dense_found
from tests.scened import MODELS, QUICK, data_for
from tests.tiny import one_core

import metaformer
from metaformer import DensePredictor, Predictor, export, save_pretrained
from metaformer.data.preprocess import Preprocess
from metaformer.infer.embed import Embedder
from metaformer.infer.results import DensePrediction
from metaformer.lab.cam import class_activation
from metaformer.serve.answer import Classifier, ladder, open_answerer
from metaformer.serve.answer_dense import Finder, dense_record
from metaformer.serve.explain import seen_box
from metaformer.serve.jobs import Asked
from metaformer.serve.records import shown_source
from metaformer.serve.settings import Running

pytestmark = pytest.mark.usefixtures("thread")

PREPROCESS = Preprocess(32, (0.5,) * 3, (0.25,) * 3, "crop")
CLASSES = tuple(f"class {number}" for number in range(7))
TORCH = Running(engine="torch", batch=4)


def picture(seed: int, size: tuple[int, int] = (40, 36), form: str = "jpeg") -> bytes:
    """Noise of (width, height)."""
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, form)
    return file.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model `tiny`, and what was exported from it."""
    folder = tmp_path_factory.mktemp("served")
    with one_core():
        model = filled_model("caformer_t6", depths=(1, 1, 1, 1), dims=(8, 8, 16, 32), num_classes=len(CLASSES))
        about = {"classes": list(CLASSES), "preprocess": PREPROCESS.to_dict()}
        save_pretrained(model, folder / "tiny", about)
        save_pretrained(model, folder / "several", about | {"task": "multilabel"})
        export(folder / "tiny", "onnx", folder)
    return folder


IMAGES = [picture(0), picture(1, (90, 32)), b"no image", picture(2, (32, 70), "png"), b"", picture(3)]


def expected(predictor: Predictor, images: list[bytes], top: int = 5) -> list[dict[str, Any]]:
    records = [one.to_dict() for one in predictor(images, top=top)]
    for record in records:
        del record["path"]
        if "error" in record:
            record["error"] = record["error"].removeprefix("image: ")
    return records


@pytest.mark.parametrize("name", ["tiny", "several", "tiny.onnx"])
def test_records_are_those_of_predictor(made: Path, name: str) -> None:
    running = Running() if name.endswith(".onnx") else TORCH
    opened = open_answerer("m", str(made / name), running)
    records = opened.answer(opened.read(IMAGES), [Asked()] * len(IMAGES))
    assert records == expected(Predictor(made / name, running.engine), IMAGES)
    assert records[4] == {"error": "empty"}
    assert records[2]["error"].startswith("not an image that is read (JPEG, PNG")


def test_each_image_has_its_own_top(made: Path) -> None:
    opened = open_answerer("m", str(made / "tiny"), TORCH)
    records = opened.answer(opened.read(IMAGES), [Asked(top=1 + place) for place in range(len(IMAGES))])
    assert [len(record.get("top", ())) for record in records] == [1, 2, 0, 4, 0, 6]
    assert records[3]["top"] == expected(Predictor(made / "tiny", "torch"), IMAGES, top=4)[3]["top"]


def test_a_batch_of_nothing_readable(made: Path) -> None:
    opened = open_answerer("m", str(made / "tiny"), TORCH)
    for kind in ("predict", "embed", "explain"):
        assert opened.answer(opened.read([b"", b""]), [Asked(kind)] * 2) == [{"error": "empty"}] * 2


def test_what_is_known_of_a_model(made: Path) -> None:
    model = open_answerer("m", str(made / "tiny"), TORCH).model
    assert (model.name, model.source, model.task, model.classes) == ("m", "tiny", "classification", CLASSES)
    assert (model.size, model.engine, model.precision, model.several) == (32, "torch", "fp32", False)
    assert (model.embeds, model.explains) == (32, True)
    assert open_answerer("m", str(made / "several"), TORCH).model.several
    file = open_answerer("m", str(made / "tiny.onnx"), Running()).model
    assert (file.source, file.engine, file.embeds, file.explains) == ("tiny.onnx", "onnxruntime", 0, False)
    assert shown_source("hf:someone/something") == "hf:someone/something"


@pytest.mark.parametrize("name", ["nothing", "nothing.onnx", "tiny/model.json"])
def test_what_cannot_be_opened_is_a_sentence(made: Path, name: str) -> None:
    with pytest.raises((ValueError, OSError)) as caught:
        open_answerer("m", str(made / name), Running())
    assert "\n" not in str(caught.value)


def test_so_many_pixels_are_decoded(made: Path) -> None:
    opened = open_answerer("m", str(made / "tiny"), TORCH, pixels=40 * 36)
    fits, larger = opened.answer(opened.read([picture(0), picture(0, (41, 36))]), [Asked()] * 2)
    assert fits["label"] in CLASSES
    assert larger == {"error": "too large: 41 × 36 pixels, of which at most 1,440 are read"}


# --- engines ----------------------------------------------------------------------------------------------------------


def test_engines_are_measured_once_where_none_was(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path))
    told: list[str] = []
    tuned: list[int] = []

    def tune(predictor: Predictor, batch: int) -> list[Any]:
        tuned.append(batch)
        predictor.tunes, predictor.choice = False, "torch: measured"
        return []

    monkeypatch.setattr(Predictor, "tune", tune)
    open_answerer("m", str(made / "tiny"), Running(batch=3), tell=told.append)
    assert tuned == [3]
    assert told == [
        "m: no engine was measured for this model on this machine yet, which is done now, once", "m is run by torch: measured"
    ]  # fmt: skip
    open_answerer("m", str(made / "tiny"), TORCH, tell=told.append)
    open_answerer("m", str(made / "tiny.onnx"), Running(), tell=told.append)
    assert tuned == [3]


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])])
def test_every_size_that_is_to_come_is_run_once(
    made: Path, monkeypatch: pytest.MonkeyPatch, most: int, sizes: list[int]
) -> None:
    assert ladder(most) == sizes
    opened = open_answerer("m", str(made / "tiny.onnx"), Running(engine="openvino", batch=most))
    assert isinstance(opened, Classifier)
    seen: list[int] = []
    engine = opened.predictor.engine
    monkeypatch.setattr(opened.predictor, "engine", lambda pixels: (seen.append(len(pixels)), engine(pixels))[1])
    enough, seconds = opened.warm()
    assert (enough in sizes, seconds > 0) == (True, True)
    assert seen[: len(sizes) + 2] == [*sizes, 1, 1]


@pytest.mark.parametrize(
    ("first", "each", "enough"), [(0.0, 1.0, 1), (1.0, 1.0, 4), (1.0, 0.0, 6)], ids=["none", "some", "all"]
)
def test_a_batch_is_enough_where_a_larger_one_saves_little(
    made: Path, monkeypatch: pytest.MonkeyPatch, first: float, each: float, enough: int
) -> None:
    """`first` is what a batch costs whatever it has, `each` what an image adds."""
    opened = open_answerer("m", str(made / "tiny"), Running(engine="torch", batch=6))
    assert isinstance(opened, Classifier)
    clock = [0.0]
    monkeypatch.setattr(opened, "_logits", lambda pixels: clock.append(clock[-1] + first + each * len(pixels)))
    monkeypatch.setattr("metaformer.serve.answer.time", SimpleNamespace(perf_counter=lambda: clock[-1]))
    assert opened.warm() == (enough, pytest.approx(first / enough + each))


def test_what_is_compiled_sees_sizes_of_the_ladder_alone(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_answerer("m", str(made / "tiny"), Running(engine="torch", batch=6))
    assert isinstance(opened, Classifier)
    plain = opened.answer(opened.read(IMAGES), [Asked()] * len(IMAGES))
    seen: list[int] = []
    engine = opened.predictor.engine
    monkeypatch.setattr(opened.predictor, "engine", lambda pixels: (seen.append(len(pixels)), engine(pixels))[1])
    opened.compiled = True
    for count in (1, 2, 4, 6):
        records = opened.answer(opened.read(IMAGES[:count]), [Asked()] * count)
        assert [one.get("label") for one in records] == [one.get("label") for one in plain[:count]]
    assert seen == [1, 2, 4, 4]  # of which two cannot be read


# --- embeddings and heat ----------------------------------------------------------------------------------------------


def test_embeddings_are_the_embedders(made: Path) -> None:
    opened = open_answerer("m", str(made / "tiny"), TORCH)
    assert isinstance(opened, Classifier)
    read = opened.read(IMAGES)
    records = opened.answer(read, [Asked("embed")] * len(IMAGES))
    vectors = Embedder(Predictor(made / "tiny", "torch")).embed(read.pixels)
    assert np.allclose([one["embedding"] for one in records if "embedding" in one], vectors, atol=1e-6)
    assert ["error" in one for one in records] == [False, False, True, False, True, False]


def test_heat_lies_where_the_class_is_seen(made: Path) -> None:
    opened = open_answerer("m", str(made / "tiny"), TORCH)
    assert isinstance(opened, Classifier)
    read = opened.read(IMAGES[:2])
    best, asked = opened.answer(read, [Asked("explain"), Asked("explain", label="class 4")])
    plain = opened.answer(read, [Asked(top=7)] * 2)
    assert (best["label"], asked["label"]) == (plain[0]["label"], "class 4")
    assert best["probability"] == pytest.approx(plain[0]["probability"], abs=1e-5)
    wanted = next(one["probability"] for one in plain[1]["top"] if one["label"] == "class 4")
    assert asked["probability"] == pytest.approx(wanted, abs=1e-5)
    assert (asked["width"], asked["height"], asked["box"]) == (90, 32, [29, 0, 61, 32])
    model = Predictor(made / "tiny", "torch").model
    assert model is not None
    images = PREPROCESS.normalise(torch.from_numpy(read.pixels))
    maps = class_activation(model, images, torch.tensor([CLASSES.index(best["label"]), 4]))
    large = torch.nn.functional.interpolate(maps[:, None], (32, 32), mode="bilinear", align_corners=False)[:, 0]
    for record, wanted_heat in zip((best, asked), large, strict=True):
        heat = Image.open(io.BytesIO(record["heat"]))
        assert (heat.format, heat.mode, heat.size) == ("PNG", "L", (32, 32))
        assert np.abs(np.asarray(heat) - 255 * wanted_heat.numpy()).max() <= 1.5


@pytest.mark.parametrize(
    ("fit", "fraction", "box"),
    [
        ("squash", None, [0, 0, 200, 100]), ("crop", None, [50, 0, 150, 100]), ("pad", None, [0, -50, 200, 150]),
        ("crop", 0.5, [75, 25, 125, 75]),
    ],
)  # fmt: skip
def test_the_part_that_is_seen(fit: str, fraction: float | None, box: list[float]) -> None:
    preprocess = Preprocess(32, (0.5,) * 3, (0.25,) * 3, fit, fraction)
    assert seen_box(preprocess, 100, 200) == pytest.approx(box, abs=0.01)


# --- objects and regions ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["mask_rcnn", "semantic_fpn"])
def dense(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    with one_core():
        return metaformer.train(
            MODELS[request.param], data=data_for(request.param, root), root=root, name="run", quiet=True, **QUICK
        ).path


def test_dense_records_are_those_of_the_predictor(dense: Path) -> None:
    opened = open_answerer("m", str(dense), Running())
    assert isinstance(opened, Finder)
    assert (opened.batch, opened.model.source, opened.model.engine) == (1, "run", "torch")
    assert opened.warm()[1] > 0
    images = [picture(0, (70, 50), "png"), b"no", picture(1, (20, 90), "png")]
    asked = [Asked(threshold=0.051, masks="rle")] * 3
    records = opened.answer(opened.read(images), asked)
    assert records[1]["error"].startswith("not an image that is read")
    predictor = DensePredictor(dense)
    for place in (0, 2):
        (answer,) = predictor(images[place : place + 1], metaformer.Asking(0.051))
        assert records[place] == dense_record(answer, predictor.classes, asked[0])
        assert (records[place]["width"], records[place]["height"]) == Image.open(io.BytesIO(images[place])).size
        if answer.regions is not None:
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(records[place]["png"]))), answer.regions.numpy())
            assert sum(one["share"] for one in records[place]["regions"]) == pytest.approx(1, abs=1e-4)
            assert opened.model.task == "segmentation"
        else:
            assert opened.model.task == "instances"


def test_objects_have_boxes_and_shapes() -> None:
    boxes = [(10, 5, 40, 25), (60, 30, 64, 38)]
    answer = DensePrediction("", (50, 80), dense_found(boxes, [1, 0], [0.9, 0.6], masks=(50, 80)))
    record = dense_record(answer, ("a", "b"), Asked())
    first, second = record["objects"]
    assert (first["label"], first["score"], first["box"]) == ("b", 0.9, [10, 5, 40, 25])
    (ring,) = first["polygons"]
    assert (min(ring[0::2]), max(ring[0::2]), min(ring[1::2]), max(ring[1::2])) == (10, 40, 5, 25)
    assert len(second["polygons"]) == 1
    for one, box in zip(dense_record(answer, ("a", "b"), Asked(masks="rle"))["objects"], boxes, strict=True):
        mask = coco.decode(one["rle"])
        assert mask.shape == (50, 80)
        assert mask.sum() == mask[box[1] : box[3], box[0] : box[2]].sum() == (box[2] - box[0]) * (box[3] - box[1])
    plain = DensePrediction("", (50, 80), dense_found(boxes, [1, 0], [0.9, 0.6]))
    assert dense_record(plain, ("a", "b"), Asked())["objects"][0].keys() == {"label", "score", "box"}


def test_regions_are_numbers_in_a_picture() -> None:
    regions = torch.zeros(4, 10, dtype=torch.uint8)
    regions[:, 4:] = 2
    regions[0, 0] = 255
    record = dense_record(DensePrediction("", (4, 10), regions=regions), ("a", "b", "c"), Asked())
    picture = Image.open(io.BytesIO(record["png"]))
    assert picture.mode == "L"
    assert np.array_equal(np.asarray(picture), regions.numpy())
    assert record["regions"] == [{"label": "c", "index": 2, "share": 0.6}, {"label": "a", "index": 0, "share": 0.375}]
