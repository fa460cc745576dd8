"""Prediction: the same answer from files, bytes in memory and training; a reason for what cannot be read."""

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import metaformer
from metaformer import Prediction, Predictor, Run, create_model
from metaformer.data.preprocess import Preprocess
from metaformer.data.sources import open_data
from metaformer.infer import given
from metaformer.infer import predictor as module
from metaformer.weights.peers import Peer, PeerConfig
from metaformer.weights.pretrained import read_pretrained, save_pretrained

pytestmark = pytest.mark.usefixtures("thread")


@pytest.fixture(scope="module")
def val(run: Run) -> tuple[Tensor, Tensor]:
    split = open_data(run.recipe.data).val
    return torch.stack([split.image(i) for i in range(len(split))]), split.labels


@pytest.fixture(scope="module")
def files(val: tuple[Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The first ten judged images as PNG."""
    folder = tmp_path_factory.mktemp("images")
    for i, pixels in enumerate(val[0][:10]):
        Image.fromarray(pixels[0].numpy()).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


def test_files_and_pixels_agree_with_judging(run: Run, val: tuple[Tensor, Tensor], files: list[Path]) -> None:
    """Judging resizes as training does, prediction without torch: one unit of rounding in a byte."""
    predictor = Predictor(run.path)
    judged = metaformer.evaluate(run.path)
    expected = judged.logits.softmax(1)
    from_files, from_pixels = predictor(files), predictor(list(val[0][:10]))
    assert [answer.path for answer in from_files] == list(map(str, files))
    assert [answer.path for answer in from_pixels] == [""] * 10
    assert [answer.top for answer in from_files] == [answer.top for answer in from_pixels]
    assert predictor(val[0][:10]) == from_pixels
    for answer, row in zip(from_files, expected, strict=False):
        assert len(answer.top) == 5
        assert answer.label == judged.classes[int(row.argmax())]
        for name, value in answer.top:
            assert value == pytest.approx(row[judged.classes.index(name)].item(), abs=2e-3)
        assert [value for _, value in answer.top] == pytest.approx(row.topk(5).values.tolist(), abs=2e-3)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_records_keep_their_order_and_errors_their_place(run: Run, files: list[Path], tmp_path: Path, batch: int) -> None:
    (tmp_path / "text.png").write_text("no image")
    mixed = [files[0], tmp_path / "text.png", str(files[1]), tmp_path / "nothing.png", files[2]]
    answers = Predictor(run.path)(mixed, batch=batch)
    assert [answer.path for answer in answers] == list(map(str, mixed))
    good = Predictor(run.path)(files[:3])
    assert [answers[i].label for i in (0, 2, 4)] == [answer.label for answer in good]
    assert [(answer.label, answer.top) for answer in (answers[1], answers[3])] == [(None, ()), (None, ())]
    assert "not an image that is read" in str(answers[1].error)
    assert str(answers[3].error).endswith("nothing.png: no such file")
    assert [answers[i].error for i in (0, 2, 4)] == [None] * 3


def test_nothing_readable_and_nothing_at_all(run: Run) -> None:
    assert [answer.error for answer in Predictor(run.path)(["a.png", "b.png"])] == [
        "a.png: no such file",
        "b.png: no such file",
    ]
    assert Predictor(run.path)([]) == []


def test_stream_holds_no_more_than_a_batch(run: Run, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []
    decode = given.decode_array

    def noted(path: Path, *arguments: Any) -> np.ndarray:
        decoded.append(path)
        return decode(path, *arguments)

    monkeypatch.setattr(given, "decode_array", noted)
    answers = Predictor(run.path).stream(files, batch=4)
    next(answers)
    assert decoded == files[:4]
    assert len(list(answers)) == 9
    assert decoded == files


def test_a_grey_model_sees_colour_as_grey(run: Run, files: list[Path], tmp_path: Path) -> None:
    image = Image.open(files[3])
    image.convert("RGB").save(tmp_path / "colour.png")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    grey, *others = Predictor(run.path)([files[3], tmp_path / "colour.png", tmp_path / "alpha.png"])
    assert [answer.top for answer in others] == [grey.top] * 2


def about(**changes: Any) -> dict[str, Any]:
    preprocess = {"size": 8, "mean": [0.5] * 3, "std": [0.25] * 3, "fit": "squash"}
    return {"classes": ["a", "b", "c"], "preprocess": preprocess} | changes


def colour_model(**changes: Any) -> metaformer.MetaFormer:
    torch.manual_seed(0)
    return create_model("identityformer_t6", num_classes=3, dims=(8, 8, 8, 8), depths=(1, 1, 1, 1), **changes)


def test_a_colour_model_from_a_saved_folder(files: list[Path], tmp_path: Path) -> None:
    model = colour_model()
    save_pretrained(model, tmp_path / "saved", about(note="kept"))
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["model.json", "model.safetensors"]
    loaded, said = read_pretrained(tmp_path / "saved")
    assert loaded.config == model.config
    assert said["note"] == "kept"
    pixels = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    with torch.inference_mode():
        expected = model.eval()((pixels[None] / 255 - 0.5) / 0.25).softmax(1)[0]
    (answer,) = Predictor(tmp_path / "saved")([pixels])
    assert dict(answer.top) == pytest.approx(dict(zip("abc", expected.tolist(), strict=True)), abs=1e-5)
    grey = Predictor(str(tmp_path / "saved") + "/")([files[0]])[0]
    assert grey.error is None


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(8, 8, dtype=torch.uint8),
        torch.zeros(1, 1, 8, 8, dtype=torch.uint8),
        torch.rand(1, 8, 8),
    ],
    ids=["colour", "no channels", "a batch", "floats"],
)
def test_other_tensors_are_refused(run: Run, pixels: Tensor) -> None:
    (answer,) = Predictor(run.path)([pixels])
    assert "this model takes tensors (1, H, W) of uint8" in str(answer.error)


ENGINES = ("torch", "openvino", "onnxruntime")


@pytest.mark.parametrize("engine", ENGINES)
def test_logits_of_any_array_of_bytes(run: Run, engine: str) -> None:
    """However it lies in memory, and of none."""
    predictor = Predictor(run.path, engine, device="cpu", threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)
    wanted = predictor.logits(pixels)
    views = {"every other": np.s_[::2], "backwards": np.s_[::-1], "the first": np.s_[:1]}
    for view in views.values():
        np.testing.assert_allclose(predictor.logits(pixels[view]), wanted[view], rtol=1e-4, atol=1e-4)
    last = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(predictor.logits(last.transpose(0, 3, 1, 2)), wanted, rtol=1e-4, atol=1e-4)
    turned = predictor.logits(np.ascontiguousarray(pixels[..., ::-1]))
    np.testing.assert_allclose(predictor.logits(pixels[..., ::-1]), turned, rtol=1e-4, atol=1e-4)
    none = predictor.logits(pixels[:0])
    assert (none.shape, none.dtype) == ((0, 10), np.float32)


@pytest.mark.parametrize("engine", ENGINES)
def test_logits_of_other_arrays_are_refused(run: Run, engine: str) -> None:
    predictor = Predictor(run.path, engine, device="cpu", threads=1)
    pixels = np.zeros((2, 1, 8, 8), np.uint8)
    others = {
        "float32 (2, 1, 8, 8)": pixels / np.float32(255),
        "uint8 (2, 3, 8, 8)": pixels.repeat(3, 1),
        "uint8 (1, 8, 8)": pixels[0],
    }
    for said, other in others.items():
        with pytest.raises(ValueError, match="this model takes an array") as error:
            predictor.logits(other)
        assert str(error.value) == f"{said}: this model takes an array (B, 1, H, W) of uint8"


def test_a_model_that_is_given_is_left_as_it_was(tmp_path: Path) -> None:
    save_pretrained(colour_model().eval(), tmp_path / "saved", about())
    given = colour_model().train()
    with torch.no_grad():
        given.head.classifier.fc.bias.add_(7)
    before = {key: value.clone() for key, value in given.state_dict().items()}
    predictor = Predictor(tmp_path / "saved", "torch", device="cpu", precision="bf16", model=given)
    metaformer.export(tmp_path / "saved", "safetensors", tmp_path / "a.safetensors", model=given)
    assert given.training
    assert all(torch.equal(before[key], value) for key, value in given.state_dict().items())
    assert not torch.equal(predictor.model.head.classifier.fc.bias, given.head.classifier.fc.bias)


def test_a_peer_s_weights_are_not_cast_with_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path))
    monkeypatch.setattr("metaformer.infer.choose.SECONDS", 0.01)
    monkeypatch.setattr("metaformer.infer.choose.candidates", lambda options: ["torch"])
    peer = Peer(PeerConfig(name="test_resnet", num_classes=3, in_chans=3, image_size=32)).eval()
    save_pretrained(peer, tmp_path / "peer", about())
    predictor = Predictor(tmp_path / "peer", device="cpu", precision="bf16")
    assert predictor.engine.name == "torch bf16"
    assert {parameter.dtype for parameter in predictor.model.parameters()} == {torch.float32}
    assert [one.engine for one in predictor.tune(batch=2)] == ["torch"]


def test_one_path_is_no_list(run: Run, files: list[Path]) -> None:
    picture = Image.open(files[0])
    alone: list[Any] = [files[0], str(files[0]), files[0].read_bytes(), picture, np.array(picture), torch.zeros(1, 8, 8), None]
    for one in alone:
        with pytest.raises(ValueError, match=r"^give a list of images, be it of one: predictor\(\[image\]\)$"):
            Predictor(run.path)(one)


def test_pictures_bytes_and_arrays_are_images_too(run: Run, files: list[Path]) -> None:
    predictor = Predictor(run.path)
    expected = [answer.top for answer in predictor(files)]
    pictures = [Image.open(file) for file in files]
    assert [answer.top for answer in predictor(pictures)] == expected
    assert [answer.top for answer in predictor([file.read_bytes() for file in files])] == expected
    assert [answer.top for answer in predictor([np.array(picture) for picture in pictures])] == expected
    assert [answer.top for answer in predictor([np.array(picture)[..., None] for picture in pictures])] == expected
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures[0].transpose(Image.Transpose.ROTATE_90).save(turned := BytesIO(), "png", exif=exif)
    assert predictor([Image.open(turned)])[0].top == predictor(files[:1])[0].top  # upright, as its EXIF says
    (cut,) = predictor([files[0].read_bytes()[:70]])
    assert str(cut.error).startswith("image: ")
    (wrong,) = predictor([np.zeros((4, 4, 3), np.uint8)])
    assert wrong.error == "uint8 (4, 4, 3): this model takes arrays (H, W, 1) of uint8, 0 to 255"
    assert repr(predictor) == f"Predictor({str(run.path)!r}, 10 classes, 8 pixels, torch fp32)"


def test_to_dict() -> None:
    answer = Prediction("a.png", (("cat", 0.75), ("dog", 0.2500000001)))
    assert answer.to_dict() == {
        "path": "a.png", "label": "cat", "probability": 0.75,
        "top": [{"label": "cat", "probability": 0.75}, {"label": "dog", "probability": 0.25}],
    }  # fmt: skip
    assert Prediction("a.png", error="why").to_dict() == {"path": "a.png", "error": "why"}
    assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()


# --- judging ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [7, 64])
def test_evaluate_equals_what_training_said(run: Run, val: tuple[Tensor, Tensor], batch: int) -> None:
    judged = metaformer.evaluate(run.path, batch=batch)
    best = max(run.metrics, key=lambda line: line["top1"])
    assert judged.top1 == pytest.approx(best["top1"])
    assert judged.loss == pytest.approx(best["val_loss"], rel=1e-5)
    assert torch.equal(judged.labels, val[1])
    assert judged.top1 > 30  # it has learnt


def test_evaluate_on_other_data(run: Run, tmp_path: Path) -> None:
    named = metaformer.evaluate(run.best, data=run.recipe.data)
    assert torch.equal(named.logits, metaformer.evaluate(run.path).logits)
    assert torch.equal(named.logits, metaformer.evaluate(run.best).logits)  # what lies in a run is the run's
    shutil.copytree(run.best, tmp_path / "alone")
    with pytest.raises(ValueError, match="is no run, so say what to judge it on: data=NAME"):
        metaformer.evaluate(tmp_path / "alone")
    with pytest.raises(ValueError, match=r"^the classes of digits, 0, 1, 2, 3 …, are not the model's, T-shirt/top, "):
        metaformer.evaluate(run.path, data="digits")
    with pytest.raises(ValueError, match="no data 'nothing'"):
        metaformer.evaluate(run.path, data="nothing")


# --- a model's name: its published weights ----------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> metaformer.MetaFormer:
    """Random weights where identityformer_s12's are looked for first."""
    torch.manual_seed(0)
    model = create_model("identityformer_s12")
    torch.save(model.state_dict(), tmp_path / "identityformer_s12.pth")
    monkeypatch.setenv("METAFORMER_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("METAFORMER_OFFLINE", "1")
    return model.eval()


def test_a_name_stands_for_its_published_weights(published: metaformer.MetaFormer, tmp_path: Path) -> None:
    predictor = Predictor("identityformer_s12")
    assert predictor.preprocess == Preprocess(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "crop", 1.0)
    assert (predictor.classes[0], predictor.classes[999], predictor.synsets[0]) == (
        "tench", "toilet tissue", "n01440764",
    )  # fmt: skip
    image = torch.randint(0, 256, (3, 250, 300), dtype=torch.uint8)
    answer = predictor([image], top=1)[0]
    wanted = published(predictor.preprocess(image[None])).argmax()
    assert answer.label == predictor.classes[wanted]


def test_published_weights_are_judged_on_folders_of_either_name(published: metaformer.MetaFormer, tmp_path: Path) -> None:
    for name, folders in (("numbers", ("n01440764", "n01443537")), ("words", ("tench", "goldfish"))):
        for n, folder in enumerate(folders):
            (tmp_path / name / folder).mkdir(parents=True)
            Image.new("RGB", (60, 60), (90 * n, 50, 200)).save(tmp_path / name / folder / "a.png")
    one, other = (metaformer.evaluate("identityformer_s12", data=str(tmp_path / name)) for name in ("numbers", "words"))
    assert (one.labels.tolist(), other.labels.tolist()) == ([0, 1], [1, 0])  # folders come in the order of their names
    torch.testing.assert_close(one.logits, other.logits.flip(0))
    (tmp_path / "numbers" / "third").mkdir()
    (tmp_path / "numbers" / "third" / "a.png").write_bytes((tmp_path / "words" / "tench" / "a.png").read_bytes())
    with pytest.raises(ValueError, match="third"):
        metaformer.evaluate("identityformer_s12", data=str(tmp_path / "numbers"))


def test_nothing_is_fetched_to_say_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("METAFORMER_OFFLINE", "1")
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"^caformer_s18 is no run, so say what to judge it on"):
        metaformer.evaluate("caformer_s18")
    with pytest.raises(FileNotFoundError, match=r"^caformer_s18\.in1k_384 is not on this machine, and METAFORMER_OFFLINE"):
        Predictor("caformer_s18.in1k_384")


# --- what cannot be opened --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "error", "sentence"),
    [
        ("caformer_t6", ValueError, "no weights are published for caformer_t6: train it, metaformer train caformer_t6"),
        ("caformer_s18.in2k", ValueError, "caformer_s18 has no published weights 'in2k': did you mean in21k"),
        ("nothing", FileNotFoundError, "no run 'nothing'"),
        (".", FileNotFoundError, r"\. holds no model: it has no model\.json"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_is_no_model(source: str, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        Predictor(source)


def test_engines_agree(run: Run, files: list[Path]) -> None:
    torch_says = Predictor(run.path, "torch", device="cpu")
    assert torch_says.choice == "torch, as was asked for"
    wanted = [dict(answer.top) for answer in torch_says(files)]
    for name in ("openvino", "onnxruntime"):
        predictor = Predictor(run.path, name, threads=1)
        assert predictor.engine.name == f"{name} fp32"
        for answer, right in zip(predictor(files, batch=4), wanted, strict=True):
            assert dict(answer.top) == pytest.approx(right, abs=1e-4)
    with pytest.raises(ValueError, match="no engine 'tensorrt'; allowed: auto, torch, compiled, openvino, onnxruntime"):
        Predictor(run.path, engine="tensorrt")
    with pytest.raises(ValueError, match="precision='int3' is not one of auto, fp32, bf16, fp16"):
        Predictor(run.path, precision="int3")
    with pytest.raises(ValueError, match="threads=0 is not a whole number of at least 1"):
        Predictor(run.path, threads=0)


def test_what_was_measured_is_remembered(run: Run, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path))
    monkeypatch.setattr("metaformer.infer.choose.SECONDS", 0.01)
    predictor = Predictor(run.path)
    assert (predictor.engine.name, predictor.choice) == ("torch fp32", "torch: nothing else was tried yet")
    before = predictor(files)
    measured = predictor.tune(batch=2)
    assert {one.engine for one in measured} == {"torch", "openvino", "onnxruntime"}
    assert [one.images_per_second for one in measured] == sorted((one.images_per_second for one in measured), reverse=True)
    assert predictor.engine.name == f"{measured[0].engine} fp32"
    again = Predictor(run.path)
    assert again.engine.name == predictor.engine.name
    assert again.choice == predictor.choice
    assert again.choice.startswith(f"{measured[0].engine}: measured on ")
    assert " in batches of 2, images/s: " in again.choice
    for one, other in zip(again(files), before, strict=True):
        assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-4)
    (tmp_path / "engines.json").write_text("{damaged")
    assert Predictor(run.path).choice == "torch: nothing else was tried yet"


def test_tuning_waits_until_it_pays(run: Run, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path))
    tuned: list[int] = []
    monkeypatch.setattr(Predictor, "tune", lambda self, batch: tuned.append(batch) or setattr(self, "tunes", False))
    Predictor(run.path)(files, batch=2)
    assert not tuned
    monkeypatch.setattr(module, "PAYS", 0.0)
    Predictor(run.path)(files, batch=2)
    assert tuned == [2]
    Predictor(run.path, "torch")(files, batch=2)
    assert tuned == [2]


DAMAGES = {
    "not JSON": ("{bad", "is damaged"),
    "a list": ("[]", "is damaged"),
    "another schema": ('{"schema": 7}', "is of schema 7; this version reads 1"),
    "no schema": ("{}", "is of schema None; this version reads 1"),
    "no config": ('{"schema": 1}', "a model needs 'depths'"),
    "no classes": ({"classes": None}, "does not say the 10 classes or the preprocessing of its model"),
    "too few classes": ({"classes": ["a"]}, "does not say the 10 classes or the preprocessing of its model"),
    "no preprocessing": ({"preprocess": None}, "does not say the 10 classes or the preprocessing of its model"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_description_is_a_sentence(run: Run, tmp_path: Path, damage: str) -> None:
    content, sentence = DAMAGES[damage]
    shutil.copytree(run.path, tmp_path / "run")
    file = tmp_path / "run" / "best" / "model.json"
    if isinstance(content, dict):
        said = {key: value for key, value in (json.loads(file.read_text()) | content).items() if value is not None}
        content = json.dumps(said)
    file.write_text(content)
    with pytest.raises(ValueError, match=sentence):
        Predictor(tmp_path / "run")


def test_missing_and_damaged_weights_are_sentences(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    file = tmp_path / "run" / "best" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors holds no weights that can be read safely"):
        Predictor(tmp_path / "run")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no file of weights at .*model\.safetensors"):
        Predictor(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "best")
    with pytest.raises(ValueError, match="has no weights yet: go on with it, metaformer train"):
        Predictor(tmp_path / "run")


def test_weights_of_the_old_best_serve_while_the_new_one_is_away(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "best").rename(tmp_path / "run" / "best.old")
    assert torch.equal(metaformer.evaluate(tmp_path / "run").logits, metaformer.evaluate(run.path).logits)


@pytest.mark.parametrize(
    "change",
    [{"config": [1]}, {"config": None}, {"config": {"dims": [[1]]}}, {"timm": "resnet18"}, {"timm": {"name": "resnet18"}},
     {"classes": 5}, {"classes": list(range(10))}, {"preprocess": None}, {"preprocess": {"size": 8}},
     {"preprocess": {"size": "8", "mean": [0.5], "std": [0.5], "fit": "crop"}},
     {"preprocess": {"size": 8, "mean": [0.5], "std": [0.0], "fit": "crop"}},
     {"config": {"depths": [1] * 4, "dims": [10**7] * 4, "mixers": ["Pooling()"] * 4}},
     {"config": {"depths": [10**9] * 4, "dims": [8] * 4, "mixers": ["Pooling()"] * 4}}],
    ids=lambda change: str(change)[:40],
)  # fmt: skip
def test_a_stranger_s_description_is_used_or_is_a_sentence(run: Run, tmp_path: Path, change: dict[str, Any]) -> None:
    shutil.copytree(run.best, tmp_path / "theirs")
    file = tmp_path / "theirs/model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=r"damaged|does not say|do not fit|no preprocessing|has no|cannot be made|needs"):
        Predictor(tmp_path / "theirs")


def test_brackets_in_brackets_are_damage(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"model\.json is damaged"):
        Predictor(tmp_path)


def test_what_is_no_image_at_all_says_so(run: Run, files: list[Path]) -> None:
    odd: list[Any] = [np.array([["a"]]), None, np.zeros((8, 8)), files[0]]
    answers = Predictor(run.path)(odd)
    assert [answer.error is None for answer in answers] == [False, False, False, True]
    assert answers[1].error == "NoneType: an image is a path, bytes, a PIL image, or pixels as uint8, 0 to 255"
    with pytest.raises(ValueError, match="top=0, batch=32: both are at least 1"):
        Predictor(run.path)(files, top=0)
