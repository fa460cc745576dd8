"""Runs of detectors and segmenters, judged, asked and shown: figures, files, page, commands."""

import io
import json
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import load_file, save_file
from tests.painted import several, write_coco
from tests.scened import MODELS, QUICK, data_for
from tests.tiny import command, one_core

import metaformer
from metaformer.data.dense import open_dense
from metaformer.infer import dense
from metaformer.infer.dense import Asking, DensePredictor
from metaformer.lab import cost
from metaformer.lab.dense_judge import DenseJudged, judge_dense, result_rows
from metaformer.lab.dense_page import worst_of
from metaformer.lab.judge import judge
from metaformer.lab.judge_text import judged_text
from metaformer.runs import Run
from metaformer.tasks import coco, detection
from metaformer.tasks.found import Found

pytestmark = pytest.mark.usefixtures("thread")


def made(head: str, root: Path) -> Run:
    with one_core():
        return metaformer.train(MODELS[head], data=data_for(head, root), root=root, name=head, quiet=True, **QUICK)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made("retinanet", tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made("semantic_fpn", tmp_path_factory.mktemp("segmenter"))


# --- judging ----------------------------------------------------------------------------------------------------------


def counted_from_one(file: Path) -> Path:
    """A copy in which no object is number 0, which pycocotools takes for no object."""
    told = json.loads(file.read_text())
    for row in told["annotations"]:
        row["id"] += 1
    copy = file.with_name("counted.json")
    copy.write_text(json.dumps(told))
    return copy


@pytest.mark.parametrize("masks", [False, True])
def test_a_results_file_has_the_figures_that_are_told(tmp_path: Path, masks: bool) -> None:
    source = write_coco(tmp_path, several(6))
    data = open_dense(source, regions=False, masks=masks)
    random = torch.Generator().manual_seed(0)

    def moved(sample: int) -> tuple[Any, Found]:
        truth = data.train.scene(sample).truth
        boxes = truth.boxes + torch.randint(-3, 4, truth.boxes.shape, generator=random)
        shifted = None if truth.masks is None else truth.masks.bool().roll(2, 2)
        return truth, Found(boxes, torch.rand(len(boxes), generator=random), truth.labels, shifted)

    done = coco.judge([moved(sample) for sample in range(len(data.train))], data.classes)
    rows = result_rows(done, data.numbers)
    assert {row["category_id"] for row in rows} == {1, 4, 7}
    assert {row["image_id"] for row in rows} == set(data.train.truths.ids)
    with redirect_stdout(io.StringIO()):
        truths = COCO(str(counted_from_one(tmp_path / "all.json")))
        found = COCOeval(truths, truths.loadRes(json.loads(json.dumps(rows))), "segm" if masks else "bbox")
        found.params.imgIds = sorted({row["image_id"] for row in rows})
        found.evaluate()
        found.accumulate()
        found.summarize()
    kind = done.mask if masks else done.box
    assert kind is not None
    assert 0.05 < found.stats[0] < 0.999
    told = [kind.overall[name] for name in ("ap", "ap50", "ap75")]
    assert told == pytest.approx(found.stats[:3].tolist(), abs=1e-12)


@pytest.mark.parametrize("which", ["detector", "segmenter"])
def test_judging_a_run_says_what_its_epoch_said(which: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(which)
    told = judge_dense(run.path).summary
    best = max(run.metrics, key=lambda line: line["miou" if which == "segmenter" else "box_ap"])
    figure = told["miou"] if which == "segmenter" else told["box"]["ap"]
    assert 100 * (figure or 0) == pytest.approx(best["miou" if which == "segmenter" else "box_ap"], abs=1e-9)
    assert told["images"] > 0


@pytest.mark.parametrize(("told", "taken"), [("auto", torch.float32), ("bf16", torch.bfloat16)])
def test_models_are_judged_in_full_precision_unless_told(
    segmenter: Run, told: str, taken: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where half precision is usual too, as on a GPU."""
    chosen, made = dense.choose_precision, []

    def on_a_gpu(name: str, device: torch.device) -> torch.dtype:
        made.append(chosen("bf16" if name == "auto" else name, device))
        return made[-1]

    monkeypatch.setattr(dense, "choose_precision", on_a_gpu)
    assert DensePredictor(segmenter.path).precision == torch.bfloat16
    assert judge_dense(segmenter.path, precision=told).predictor.precision == taken
    judge(segmenter.path, precision=told)
    assert made == [torch.bfloat16, taken, taken]


def test_eval_says_figures_and_writes_what_was_found(detector: Run, segmenter: Run, tmp_path: Path) -> None:
    code, out, err = command("eval", detector.path, "--out", tmp_path / "judged")
    assert (code, err) == (0, "")
    assert re.search(r"^AP50 +\d+\.\d\d$", out, flags=re.MULTILINE)
    assert f"what was found: {tmp_path / 'judged' / 'results.json'}" in out
    assert isinstance(json.loads((tmp_path / "judged" / "results.json").read_text()), list)
    told = json.loads((tmp_path / "judged" / "eval.json").read_text())
    assert judged_text(told) == out.strip()
    code, out, _ = command("eval", segmenter.path, "--json")
    assert code == 0
    assert json.loads(out)["miou"] == pytest.approx(max(line["miou"] for line in segmenter.metrics) / 100)


def test_eval_says_what_it_took(segmenter: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told = judge_dense(segmenter.path).summary
    assert 0 < told["images_per_second"] < told["model_images_per_second"]
    assert told["device"] == "cpu"
    assert told["peak_bytes"] is None or 0 <= told["peak_bytes"] < 2**30
    monkeypatch.setattr(cost, "resident", lambda: None)
    out = judged_text(judge(segmenter.path).told)
    assert re.search(r"^images/s on cpu, reading included +\d", out, flags=re.MULTILINE)
    assert re.search(r"^images/s, the model alone +\d", out, flags=re.MULTILINE)
    assert re.search(r"^peak memory, MB above the model's own +–$", out, flags=re.MULTILINE)


def test_several_models_are_judged_beside_each_other(detector: Run, tmp_path: Path) -> None:
    other = eager(detector, tmp_path / "other")
    code, out, err = command("eval", other, detector.path, "--tta", "flip,scales", "--out", tmp_path / "judged")
    assert (code, err) == (0, "")
    told = json.loads((tmp_path / "judged" / "eval.json").read_text())
    assert [Path(one["results"]).name for one in told["models"]] == ["results-1.json", "results-2.json"]
    first, second = told["models"]
    alone, shown = judge_dense(other), judge_dense(other, tta="flip,scales")
    assert (first["box"], first["per_class"]) == (alone.summary["box"], alone.summary["per_class"])
    assert first["tta"]["box"] == shown.summary["box"]
    assert rows_of(alone) == json.loads((tmp_path / "judged" / "results-1.json").read_text()) != rows_of(shown)
    assert second["box"] != first["box"]
    heads = [line for line in out.splitlines() if line.startswith(("figure", "class", "speed"))]
    assert [line.count("flip,scales") for line in heads] == [2, 2, 2]
    code, _, err = command("eval", detector.path, detector.path)
    assert (code, "models are judged once each" in err) == (2, True)


def rows_of(judged: DenseJudged) -> list[dict[str, Any]]:
    assert isinstance(judged.evaluation, coco.DetectionEvaluation)
    return result_rows(judged.evaluation, judged.data.numbers)


def eager(run: Run, path: Path) -> Path:
    """A copy of a run whose best weights find much, right or wrong."""
    shutil.copytree(run.path, path)
    file = path / "best" / "model.safetensors"
    known = load_file(file)
    (last,) = (name for name, tensor in known.items() if name.endswith("bias") and tensor.mean() < -3)
    save_file(known | {last: known[last] + 4}, file)
    return path


def test_other_data_judge_whose_classes_have_another_order(detector: Run, tmp_path: Path) -> None:
    source, path = Path(detector.recipe.data.removeprefix("coco:")), eager(detector, tmp_path / "eager")
    for name in ("same", "other"):
        shutil.copytree(source, tmp_path / name)
    (file,) = (tmp_path / "other").glob("*.json")
    told = json.loads(file.read_text())
    numbers = {one["id"]: 100 - one["id"] for one in told["categories"]}
    told["categories"] = [{"id": numbers[one["id"]], "name": one["name"]} for one in reversed(told["categories"])]
    for row in told["annotations"]:
        row["category_id"] = numbers[row["category_id"]]
    file.write_text(json.dumps(told))
    code, out, err = command("eval", path, "--data", f"coco:{tmp_path / 'other'}", "--out", tmp_path, "--json")
    assert (code, err) == (0, "")
    one = json.loads(out)
    same = judge_dense(path, f"coco:{tmp_path / 'same'}").summary
    assert one["images"] == 12
    assert (one["box"], one["per_class"]) == (same["box"], same["per_class"])
    rows = json.loads((tmp_path / "results.json").read_text())
    assert rows
    assert {row["category_id"] for row in rows} <= set(numbers.values())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--corruptions", "noise"], "corruptions=noise is for classifiers, and "),
        (["--images", "5"], "images=5 is for classifiers, and "),
        (["--engine", "openvino"], " is run by torch: leave engine and threads out"),
        (["--threads", "2"], " is run by torch: leave engine and threads out"),
        (["--tta", "crops"], "tta='crops' is not one of flip, scales, or both with a comma"),
        (["--data", "coco:nowhere"], "nowhere"),
    ],
)
def test_eval_refuses(detector: Run, words: list[str], sentence: str) -> None:
    code, _, err = command("eval", detector.path, *words)
    assert (code, sentence in err, "Traceback" in err) == (2, True, False), err


def test_models_of_other_kinds_are_not_compared(detector: Run, segmenter: Run, run: Run) -> None:
    with pytest.raises(ValueError, match=r"finds objects and .* regions: judge each alone"):
        judge(detector.path, segmenter.path)
    with pytest.raises(ValueError, match=r"does not find objects or regions, as another of these models does: judge it alone"):
        judge(detector.path, run.path)


# --- asking -----------------------------------------------------------------------------------------------------------


def test_answers_have_the_images_own_size_whatever_it_is(segmenter: Run) -> None:
    predictor = DensePredictor(segmenter.path)
    for height, width in ((40, 90), (200, 130), (1, 7)):
        pixels = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        for asking in (Asking(), Asking(tta="flip,scales"), Asking(tile=64, overlap=32)):
            (answer,) = predictor([pixels], asking)
            assert answer.regions is not None
            assert tuple(answer.regions.shape) == answer.size == (height, width)


def test_a_threshold_and_views_are_heard(detector: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = DensePredictor(detector.path)
    with torch.no_grad():
        predictor.model.head.label.bias.fill_(0.0)  # which finds something everywhere
    pixels = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8)

    def found(asking: Asking) -> Found:
        (answer,) = predictor([pixels], asking)
        assert answer.found is not None
        return answer.found

    every = found(Asking(0.0))
    middle = every.scores.median().item()
    asked: list[float] = []
    located = detection.locate
    monkeypatch.setattr(detection, "locate", lambda *answer: asked.append(answer[2]) or located(*answer))
    kept = found(Asking(middle))
    found(Asking(middle, tta="flip"))
    found(Asking(middle, tile=64, overlap=32))
    assert set(asked[:3]) == {middle}  # before masks become as large as the image
    assert set(asked[3:]) == {0.0}  # a piece of an object may be less sure than the object
    assert len(kept) == int((every.scores >= middle).sum()) < len(every)
    mirrored = found(Asking(0.0, tta="flip"))
    assert mirrored.boxes.tolist() != every.boxes.tolist()
    assert every.boxes[:, 2].max() <= 80
    assert every.boxes[:, 3].max() <= 60


def test_what_cannot_be_asked_is_refused() -> None:
    for settings, sentence in (
        ({"threshold": 1.5}, "threshold=1.5 is not between 0 and 1"),
        ({"tta": "crops"}, "tta='crops' is not one of flip, scales"),
        ({"tile": 64, "overlap": 60}, "tiles of 64 pixels that overlap by 60"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            Asking(**settings)


def test_predict_writes_what_is_asked_for(detector: Run, segmenter: Run, tmp_path: Path) -> None:
    images = Path(segmenter.recipe.data.removeprefix("masks:")) / "images" / "val"
    code, out, err = command("predict", segmenter.path, images, "--out", tmp_path / "labels", "--to", "png")
    assert (code, out) == (0, "")
    assert err.startswith("3 images, 0 unreadable; written to ")
    with Image.open(tmp_path / "labels" / "a0.png") as picture:
        labels = np.asarray(picture)
    assert labels.shape == (72, 96)
    assert labels.max() <= 3
    code, out, _ = command("predict", segmenter.path, images / "a0.png")
    assert (code, out.count("%") > 0) == (0, True)
    code, _, _ = command("predict", detector.path, images, "--out", tmp_path / "found.json")
    assert isinstance(json.loads((tmp_path / "found.json").read_text()), list)
    code, _, _ = command("predict", detector.path, images, "--out", tmp_path / "drawn")
    assert sorted(path.name for path in (tmp_path / "drawn").glob("*.png")) == ["a0.png", "a4.png", "a8.png"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--to", "png", "--out", "x"], "--to png does not hold objects"),
        (["--to", "voc"], "--to voc needs --out, a folder to write"),
        (["--to", "tiff", "--out", "x"], "--to tiff is not one of coco, voc, yolo, png, pictures, jsonl, csv"),
        (["--out", "x.parquet"], "--out x.parquet does not say a format by its suffix: .jsonl, .csv, .json; or a folder"),
        (["--engine", "onnxruntime"], "is run by torch: leave engine and threads out, or export it"),
    ],
)
def test_predict_refuses(detector: Run, words: list[str], sentence: str, here: Path) -> None:
    image = Path(detector.recipe.data.removeprefix("coco:")) / "images" / "a0.png"
    code, _, err = command("predict", detector.path, image, *words)
    assert (code, sentence in err) == (2, True), err


def test_predict_writes_over_no_photo(detector: Run, tmp_path: Path) -> None:
    """Of a.jpg the picture would be a.png, which is another photo, not yet asked about."""
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    before = (tmp_path / "a.png").read_bytes()
    code, _, err = command("predict", detector.path, tmp_path, "--out", tmp_path)
    assert (code, "a.png is one of the images, which would be lost: give another --out" in err) == (2, True), err
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_classifier_has_no_tiles(run: Run, here: Path) -> None:
    Image.new("L", (8, 8)).save("a.png")
    code, _, err = command("predict", run.path, "a.png", "--tile", 64)
    assert (code, "--tile 64 is for models that find objects or regions" in err) == (2, True)


def test_the_predictor_of_classes_says_which_one_to_take(detector: Run) -> None:
    with pytest.raises(ValueError, match=r"holds retinanet, no classifier|DensePredictor"):
        metaformer.Predictor(detector.path)


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["detector", "segmenter"])
def test_the_page_holds_everything(which: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(which)
    text = (run.path / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert text.count("<svg") >= (4 if which == "detector" else 3)
    assert ('title="background"' in text) == (which == "detector")
    assert "data:image/jpeg;base64," in text
    assert re.search(
        r"<span>Speed</span><b>[\d.,]+\xa0images/s</b><span>the model alone [\d.,]+; one at a time, on cpu</span>", text
    )
    assert re.search(r"<span>Memory</span><b>[\d,–]+\xa0MB</b>", text)
    assert (run.path / "confusion.png").is_file()
    assert f"metaformer predict {run.path}" in text
    with Image.open(run.path / "predictions.png") as picture:
        assert picture.width > 500


def test_the_worst_come_first(detector: Run, segmenter: Run) -> None:
    for run in (detector, segmenter):
        judged = judge_dense(run.path)
        worst = worst_of(judged)
        assert 0 < len(worst) <= 8
        assert {one.name for one in worst} <= set(judged.data.val.names)
        said = [float(one.said.rpartition(" ")[2]) for one in worst]
        assert said == sorted(said, reverse=run is detector)


def test_a_predictor_takes_whatever_is_an_image(detector: Run, tmp_path: Path) -> None:
    pixels = np.full((40, 60, 3), 90, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    predictor = DensePredictor(detector.path)
    file = tmp_path / "a.png"
    given = [file, file.read_bytes(), Image.fromarray(pixels), pixels, torch.from_numpy(pixels).permute(2, 0, 1)]
    answers = predictor(given, Asking(threshold=0.0))
    assert len({tuple(answer.found.scores.tolist()) for answer in answers if answer.found is not None}) == 1
    assert [answer.size for answer in answers] == [(40, 60)] * 5
    assert predictor([7])[0].error == "int: an image is a path, bytes, a PIL image, or pixels as uint8, 0 to 255"
    with pytest.raises(ValueError, match="give a list of images"):
        predictor("a.png")
