"""Exported files: run by every engine they are for, and one sentence where they are damaged, foreign or asked too much."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.fill import filled_model
from tests.tiny import command

from metaformer import MetaFormer, Predictor, export, save_pretrained
from metaformer.data.preprocess import Preprocess
from metaformer.export.compare import drawn, noise, reference
from metaformer.export.export import FORMATS
from metaformer.infer.engines import need
from metaformer.weights.pretrained import describe

pytestmark = pytest.mark.usefixtures("thread", "here")

PREPROCESS = Preprocess(32, (0.5,) * 3, (0.25,) * 3)
ABOUT = {"classes": ["x", "y"], "preprocess": PREPROCESS.to_dict()}


def model() -> MetaFormer:
    return filled_model("caformer_s18", depths=(1, 1, 1, 1), dims=(8, 8, 16, 32), num_classes=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `a` in every format."""
    folder = tmp_path_factory.mktemp("exported")
    save_pretrained(model(), folder / "a", ABOUT)
    for format in FORMATS:
        export(folder / "a", format, folder)
    return folder


@pytest.fixture
def files(made: Path, here: Path) -> Path:
    """A copy in the current folder."""
    shutil.copytree(made, here, dirs_exist_ok=True)
    return here


def named(format: str) -> Path:
    return Path(f"a{FORMATS[format].suffix}")


# --- engines ----------------------------------------------------------------------------------------------------------

ENGINES = [
    ("onnx", "onnxruntime"), ("onnx", "openvino"), ("openvino", "openvino"), ("torch-export", "torch"),
    pytest.param("torch-export", "compiled", marks=pytest.mark.slow), ("executorch", "executorch"), ("safetensors", "openvino"),
]  # fmt: skip


@pytest.mark.parametrize(("format", "engine"), ENGINES)
@pytest.mark.usefixtures("files")
def test_every_engine_of_a_file(format: str, engine: str) -> None:
    predictor = Predictor(named(format), engine, device="cpu", threads=1)
    assert predictor.engine.name == f"{engine} fp32"
    for pixels in (noise(3, 3, 32, 32), drawn(1, 3, 32, 32)):
        wanted = reference(model(), PREPROCESS, pixels)
        assert np.abs(predictor.logits(pixels) - wanted).max() < 1e-4 * np.abs(wanted).mean()


@pytest.mark.usefixtures("files")
def test_an_answer_outlives_the_next() -> None:
    for format in FORMATS:
        run = Predictor(named(format), device="cpu").logits
        first = run(noise(2, 3, 32, 32))
        kept = first.copy()
        run(drawn(2, 3, 32, 32))
        assert (first == kept).all()


@pytest.mark.usefixtures("files")
def test_threads_are_passed_on() -> None:
    assert Predictor("a.onnx", threads=1).engine.session.get_session_options().intra_op_num_threads == 1
    seen: list[int] = []
    program = Predictor("a.pt2", threads=2, device="cpu").engine
    run = program.run
    program.run = lambda x: seen.append(torch.get_num_threads()) or run(x)
    program(noise(1, 3, 32, 32))
    assert (seen, torch.get_num_threads()) == ([2], 1)  # for the call alone
    from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count

    for threads in (2, 1):
        Predictor("a.pte", threads=threads)
        assert _threadpool_get_thread_count() == threads


@pytest.mark.usefixtures("files")
def test_precision_is_what_was_asked_for() -> None:
    assert Predictor("a.xml", precision="bf16").engine.name == "openvino bf16"
    assert Predictor("a.onnx", "openvino", precision="bf16").engine.name == "openvino bf16"
    sentences = {
        "a.onnx": "ONNX Runtime has no fast bf16 on processors: precision=fp32, or engine=openvino",
        "a.pt2": "a.pt2 computes in fp32: precision=auto, or export it again in bf16",
        "a.pte": "a.pte computes in fp32: precision=fp32",
    }
    for file, sentence in sentences.items():
        with pytest.raises(ValueError, match="precision") as error:
            Predictor(file, precision="bf16", device="cpu")
        assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("file", "options", "sentence"),
    [
        ("a.onnx", {"engine": "torch"}, "a.onnx is not for engine=torch; allowed: auto, onnxruntime, openvino"),
        ("a.pte", {"engine": "openvino"}, "a.pte is not for engine=openvino; allowed: auto, executorch"),
        ("a.onnx", {"device": "cuda"}, "a.onnx runs on processors: device=cpu"),
        ("a.xml", {"device": "cuda"}, "a.xml runs on processors: device=cpu"),
        ("a.pte", {"device": "cuda"}, "a.pte runs on processors: device=cpu"),
        ("a.xml", {"precision": "fp16"}, "OpenVINO has no fast fp16 on processors: precision=bf16"),
        ("a.onnx", {"streams": 2}, "ONNX Runtime has no streams: leave streams out, or engine=openvino"),
        ("a.pte", {"streams": 2}, "ExecuTorch has no streams: leave streams out"),
        ("a.pt2", {"streams": 2, "device": "cpu"}, "torch has no streams: leave streams out"),
        ("nothing.onnx", {}, "no file nothing.onnx"),
    ],
)
@pytest.mark.usefixtures("files")
def test_what_a_file_cannot_do_is_a_sentence(file: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        Predictor(file, **options)
    assert str(error.value) == sentence


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("words", [("predict", "a.onnx", "x.png"), ("eval", "a.onnx", "--data", "digits")])
def test_the_verbs_pass_streams_on(words: tuple[str, ...]) -> None:
    Image.new("RGB", (8, 8)).save("x.png")
    said = "metaformer: ONNX Runtime has no streams: leave streams out, or engine=openvino\n"
    assert command(*words, "--streams", "2") == (2, "", said)


@pytest.mark.usefixtures("files")
def test_a_file_is_not_tuned() -> None:
    with pytest.raises(ValueError, match=r"^a\.onnx is for one runtime; what it was exported from can be tuned$"):
        Predictor("a.onnx").tune()


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("files")
def test_predict_and_eval_take_files() -> None:
    for n, name in enumerate(("x", "y")):
        Path("data", name).mkdir(parents=True)
        Image.fromarray(drawn(1, 3, 40, 30)[0].transpose(1, 2, 0) // (n + 1)).save(Path("data", name, "1.png"))
    answers = set()
    for format in FORMATS:
        code, out, err = command("predict", named(format), "data/x/1.png", "--json", "--device", "cpu")
        assert code == 0
        engine, _, why = err.splitlines()[0].partition(": ")
        assert (engine, why) == {
            "onnx": ("onnxruntime fp32", "what the file is for"), "openvino": ("openvino fp32", "what the file is for"),
            "torch-export": ("torch fp32", "what the file is for"), "executorch": ("executorch fp32", "what the file is for"),
            "safetensors": ("torch", "nothing else was tried yet"),
        }[format]  # fmt: skip
        answers.add(out.partition('"top"')[0].rpartition(",")[0].rpartition(",")[0])
        code, out, err = command("eval", named(format), "--data", "data", "--device", "cpu")
        assert (code, err, out.count("on 2 images")) == (0, "", 1)
    assert len(answers) == 1
    code, _, err = command("predict", "a.onnx", "data/x/1.png", "--engine", "openvino", "--precision", "bf16", "--threads", "1")
    assert (code, err) == (0, "openvino bf16: as was asked for\n1 image, 0 unreadable\n")
    assert command("eval", "a.onnx", "--data", "data", "--engine", "openvino", "--threads", "1", "--precision", "bf16")[0] == 0
    for verb in (("predict", "a.onnx", "data/x/1.png"), ("eval", "a.onnx", "--data", "data")):
        code, _, err = command(*verb, "--engine", "torch")
        assert (code, err.strip()) == (2, "metaformer: a.onnx is not for engine=torch; allowed: auto, onnxruntime, openvino")
        assert "precision='fp8' is not one of" in command(*verb, "--precision", "fp8")[2]
        assert command(*verb, "--threads", "0")[0] == 2
    assert "is no run, so say what to judge it on" in command("eval", "a.onnx")[2]


# --- damaged and foreign files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut off", "empty", "text", "start"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.usefixtures("files")
def test_damage_is_a_sentence(format: str, damage: str) -> None:
    file = named(format)
    content = file.read_bytes()
    spoilt = {"cut off": content[: len(content) // 2], "empty": b"", "text": b"no model\n" * 99}
    file.write_bytes(spoilt.get(damage, b"\xba" * 64 + content[64:]))
    code, out, err = command("predict", file, "a.png")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"metaformer: {file} ")  # ExecuTorch says something before
    assert "Traceback" not in err


@pytest.mark.usefixtures("files")
def test_weights_of_openvino_that_are_away_or_cut_off() -> None:
    Path("a.bin").write_bytes(Path("a.bin").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"^a\.xml is damaged"):
        Predictor("a.xml")
    Path("a.bin").unlink()
    with pytest.raises(ValueError, match=r"^a\.xml is damaged"):
        Predictor("a.xml")


FOREIGN: dict[str, dict[str, Any] | None] = {
    "no classes": {"classes": None},
    "other classes": {"classes": ["x"]},
    "no preprocessing": {"preprocess": None},
    "a wrong preprocessing": {"preprocess": PREPROCESS.to_dict() | {"size": 0}},
    "a size beyond all memory": {"preprocess": PREPROCESS.to_dict() | {"size": 300_000, "fit": "pad"}},
    "a mean that is no colour": {"preprocess": PREPROCESS.to_dict() | {"mean": [300.0] * 3, "fit": "pad"}},
    "a mean that is no number": {"preprocess": PREPROCESS.to_dict() | {"mean": [float("nan")] * 3, "fit": "pad"}},
    "a deviation without end": {"preprocess": PREPROCESS.to_dict() | {"std": [float("inf")] * 3}},
    "a crop of less than nothing": {"preprocess": PREPROCESS.to_dict() | {"fit": "crop", "crop_fraction": -1.0}},
    "synsets that are a number": {"synsets": 5},
    "too few synsets": {"synsets": ["n01440764"]},
    "other channels": {"preprocess": PREPROCESS.to_dict() | {"mean": [0.5], "std": [0.5]}},
    "nothing": None,
}


@pytest.mark.parametrize(
    "format",
    [pytest.param(name, marks=pytest.mark.slow) if name in ("executorch", "torch-export") else name for name in FORMATS],
)
def test_files_that_do_not_say_what_they_are(format: str) -> None:
    net, file = model(), named(format)
    save = FORMATS[format].prepare(net, PREPROCESS, "fp32", "logits")
    for changes in FOREIGN.values():
        save(file, {} if changes is None else describe(net) | ABOUT | changes)
        with pytest.raises(
            ValueError, match=r"does not say|is no preprocessing|does not take|of schema None|1 channels|synsets"
        ):
            Predictor(file, "torch" if format == "safetensors" else "auto", device="cpu")


@pytest.mark.usefixtures("files")
def test_brackets_in_brackets() -> None:
    onnx = need("onnx")
    proto = onnx.load("a.onnx")
    proto.metadata_props[0].value = "[" * 200_000
    onnx.save(proto, "a.onnx")
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match=r"^a\.onnx does not say the 2 classes or the preprocessing of its model$"):
            Predictor("a.onnx", engine)


STRANGE = {  # outputs, and what makes them of (1, 3, 8, 8)
    "a number": ("y", [], [("ReduceMean", "x", "y", {"keepdims": 0})]),
    "a sequence": ("y", None, [("SplitToSequence", "x", "y", {})]),
    "of any rank": ("y", None, [("NonZero", "x", "z", {}), ("Cast", "z", "y", {"to": 1})]),
    "nothing in": ("y", [1, 2], [("Constant", None, "y", {"value_floats": [0.0, 1.0]})]),
}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", STRANGE)
def test_models_of_other_forms(name: str, engine: str) -> None:
    onnx = need("onnx")
    helper, numbers = onnx.helper, onnx.TensorProto.FLOAT
    out, shape, steps = STRANGE[name]
    nodes = [helper.make_node(kind, [given] if given else [], [made], **more) for kind, given, made, more in steps]
    given = [helper.make_tensor_value_info("x", numbers, [1, 3, 8, 8])] if nodes[0].input else []
    make = helper.make_tensor_sequence_value_info if name == "a sequence" else helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", given, [make(out, numbers, shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    said = model.metadata_props.add()
    said.key, said.value = "metaformer", json.dumps(ABOUT)
    onnx.save(model, "theirs.onnx")
    with pytest.raises(ValueError, match=r"^theirs\.onnx (does not take the images|is damaged, or no model)"):
        Predictor("theirs.onnx", engine)


def test_weights_without_a_description(here: Path) -> None:
    save_pretrained(model(), "a", ABOUT)
    Path("a/model.safetensors").rename("a.safetensors")
    with pytest.raises(ValueError, match=r"^a\.safetensors holds weights and does not say of which model: load_weights"):
        Predictor("a.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, 48])
def test_a_file_of_one_size_that_says_another(size: int) -> None:
    save = FORMATS["executorch"].prepare(model(), PREPROCESS, "fp32", "logits")
    save(Path("a.pte"), ABOUT | {"preprocess": PREPROCESS.to_dict() | {"size": size}})
    with pytest.raises(
        ValueError, match=rf"^a\.pte does not take the images that it says it takes: bytes, 3 × {size} × {size}$"
    ):
        Predictor("a.pte")
