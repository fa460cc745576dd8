"""Quantizing: the file is worth what it says, multiplies integers where it says so, and keeps what the budget asks for."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import QUICK, command, one_core

import metaformer
from metaformer import Predictor, Run, create_model, evaluate, quantize
from metaformer.core.layers import MLP
from metaformer.core.mixers import SepConvMixer
from metaformer.data.preprocess import Preprocess
from metaformer.infer import quantize as module
from metaformer.infer.convert import write_ir
from metaformer.infer.engines import OpenVinoEngine
from metaformer.infer.quantize import Quantized
from metaformer.infer.sensitivity import int8_layers, linear_layers
from metaformer.weights.pretrained import read_pretrained, save_pretrained

PREPROCESS = Preprocess(8, (0.3,), (0.37,))

pytestmark = [
    pytest.mark.usefixtures("thread"),
    pytest.mark.skipif(find_spec("nncf") is None, reason="needs metaformer[fast]"),
]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that knows its digits: nine of ten or better, in a few seconds."""
    with one_core():
        root = tmp_path_factory.mktemp("runs")
        return metaformer.train("caformer_t6", data="digits", name="digits", root=root, quiet=True, **QUICK | {"epochs": 8})


@pytest.fixture(scope="module")
def done(digits: Run, tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """That run in integers."""
    with one_core():
        return quantize(digits.path, images=64, tuning=200, out=tmp_path_factory.mktemp("out") / "digits.xml")


def about(file: Path) -> dict[str, Any]:
    """What a file says of itself."""
    return opened(file).about()


def opened(file: Path) -> OpenVinoEngine:
    engine = Predictor(file).engine
    assert isinstance(engine, OpenVinoEngine)
    return engine


def test_the_file_is_worth_what_it_says(digits: Run, done: Quantized) -> None:
    after, before = evaluate(done.file, data="digits"), evaluate(digits.path, engine="openvino", precision="fp32")
    found = done.accuracy
    assert before.top1 > 85
    assert (found.top1, found.fp32_top1, found.images, found.data) == (after.top1, before.top1, len(after.labels), "digits")
    assert list(found.top1_interval) == after.summary()["top1_interval"]
    assert found.drop == before.top1 - after.top1
    assert found.drop_interval[0] <= found.drop <= found.drop_interval[1]
    said = about(done.file)
    assert (said["schema"], said["format"], said["precision"]) == (1, "openvino", "int8")
    written = said["accuracy"]
    assert (written["top1"], written["fp32_top1"], written["images"], written["budget"]) == (after.top1, before.top1, 360, 0.5)
    assert written["top1_interval"] == list(found.top1_interval)
    assert written["kept"] == list(done.kept)
    assert said["config"] == read_pretrained(digits.best)[0].config.to_dict()


def test_it_answers_as_before_and_says_what_runs_it(digits: Run, done: Quantized) -> None:
    predictor = Predictor(done.file)
    assert predictor.engine.name == "openvino int8"
    assert predictor.classes == Predictor(digits.path).classes
    assert predictor.preprocess == Predictor(digits.path).preprocess
    answers, expected = evaluate(done.file, data="digits"), evaluate(digits.path)
    assert (answers.predicted == expected.predicted).double().mean() > 0.95
    assert not torch.equal(answers.logits, expected.logits)


def test_integers_are_multiplied(done: Quantized) -> None:
    engine = opened(done.file)
    assert len(done.layers) > 15
    assert len(done.layers) == len(int8_layers(engine.model)) == len(linear_layers(engine.model)) - len(done.kept)
    assert done.layers[0] == "stages.0.embed.conv"
    assert done.layers[-1] == "head.classifier.fc"
    pixels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8).numpy()
    engine(pixels)
    (queue,) = engine.queues.values()
    kinds = [executed(op) for op in queue[0].get_compiled_model().get_runtime_model().get_ops()]
    run = [precision for kind, precision in kinds if kind in ("Convolution", "FullyConnected")]
    assert sum(precision in ("i8", "u8") for precision in run) == len(done.layers)


def executed(op: Any) -> tuple[str, str]:
    """What an operation of the graph that runs is, and what it multiplies."""
    said = op.get_rt_info()
    return str(said["layerType"].value), str(said["runtimePrecision"].value)


def test_the_size_is_that_of_both_files(done: Quantized) -> None:
    assert done.bytes == done.file.stat().st_size + done.file.with_suffix(".bin").stat().st_size
    assert sorted(path.name for path in done.file.parent.iterdir()) == ["digits.bin", "digits.xml"]


def ruined(digits: Run, folder: Path, branches: slice) -> tuple[Path, list[str]]:
    """The same function with one channel in these branches a million times the others: 8 bits see nothing beside it."""
    model, said = read_pretrained(digits.best)
    found = [(name, part) for name, part in model.named_modules() if isinstance(part, MLP | SepConvMixer)][branches]
    with torch.no_grad():
        for _, part in found:
            first, last = (part.fc1, part.fc2) if isinstance(part, MLP) else (part.pw1, part.pw2)
            first.weight[3] *= 1e3
            last.weight[:, 3] /= 1e6  # the activation squares
    save_pretrained(model, folder, {key: said[key] for key in ("classes", "preprocess")})
    return folder, [name for name, _ in found]


@pytest.mark.slow
def test_what_integers_ruin_is_kept(digits: Run, tmp_path: Path) -> None:
    model, _ = ruined(digits, tmp_path / "ruined", slice(None))
    spoilt = quantize(model, "digits", images=64, tuning=200, budget=100, out=tmp_path / "spoilt.xml")
    assert spoilt.kept == ()
    assert spoilt.accuracy.fp32_top1 == pytest.approx(evaluate(digits.path).top1, abs=1)
    assert spoilt.accuracy.drop > 4
    saved = quantize(model, "digits", images=64, tuning=200, budget=1, out=tmp_path / "saved.xml")
    assert {name.rpartition(".")[2] for name in saved.kept} & {"fc2", "pw2"}
    assert saved.accuracy.drop < spoilt.accuracy.drop - 2
    assert about(saved.file)["accuracy"]["kept"] == list(saved.kept)


@pytest.mark.slow
def test_the_one_that_hurts_is_put_back_and_no_other(digits: Run, tmp_path: Path) -> None:
    """Ranked the wrong way round, all others would be put back before it."""
    model, (branch,) = ruined(digits, tmp_path / "ruined", slice(0, 1))
    done = quantize(model, "digits", images=64, tuning=200, budget=1, out=tmp_path / "saved.xml")
    assert done.kept == (f"{branch}.pw2",)
    assert abs(done.accuracy.drop) < 2


def test_weights_alone_answer_as_before(digits: Run, tmp_path: Path) -> None:
    small = quantize(digits.path, weight_only=True, out=tmp_path / "small.xml")
    assert small.accuracy.top1 > 85
    assert abs(small.accuracy.drop) < 1
    assert small.accuracy.top1 == evaluate(small.file, data="digits").top1
    before, after = (evaluate(source, data="digits", engine="openvino").logits for source in (digits.path, small.file))
    assert 0 < (after - before).abs().max() < 0.2 * before.abs().mean()
    assert about(small.file)["accuracy"].keys() & {"budget", "kept"} == set()  # nothing was searched for


def test_names_with_a_point_are_kept_apart(here: Path) -> None:
    names = [module._free(name, None, "int8", force=False).name for name in ("caformer_s18.in1k_384", "caformer_s18.in21k")]
    assert names == ["caformer_s18.in1k_384-int8.xml", "caformer_s18.in21k-int8.xml"]
    Path("a.onnx").write_text("")
    assert module._free("a.onnx", None, "int8", force=False) == Path("a-int8.xml")


@pytest.mark.slow
def test_weights_alone_take_a_quarter(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("caformer_t6", num_classes=10, in_chans=1)
    said = {"classes": list("0123456789"), "preprocess": PREPROCESS.to_dict()}
    save_pretrained(model, tmp_path / "model", said)
    plain = Predictor(tmp_path / "model", "openvino").engine
    assert isinstance(plain, OpenVinoEngine)
    write_ir(plain.model, tmp_path / "plain.xml", {})
    small = quantize(tmp_path / "model", "digits", weight_only=True, out=tmp_path / "small.xml")
    assert small.bytes <= 0.3 * sum((tmp_path / f"plain.{suffix}").stat().st_size for suffix in ("xml", "bin"))
    assert about(small.file)["precision"] == "int8-weights"
    assert Predictor(small.file).engine.name == "openvino fp32"


def test_ctrl_c_is_no_crash_where_runtimes_came_and_went() -> None:
    """OpenVINO lends a thread memory for signals and frees it in its own order (`engines.elsewhere`)."""
    code = """
import faulthandler, signal
import numpy as np
import metaformer
from metaformer.data.preprocess import Preprocess
from metaformer.infer.convert import pipeline, to_openvino
from metaformer.infer.engines import OpenVinoEngine, Options
from metaformer.infer.sensitivity import quantized

faulthandler.enable()
model = metaformer.create_model("identityformer_t6", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), num_classes=4).eval()
graph = to_openvino(pipeline(model, Preprocess(32, (0.5,) * 3, (0.2,) * 3)), 3, 32)
pixels = np.zeros((1, 3, 32, 32), np.uint8)
engines = [OpenVinoEngine(graph, Options(threads=threads)) for threads in (1, 2)]
made, _ = quantized(graph, [pixels] * 4, [(pixels, np.array([0]))], 0.5)
engines.append(OpenVinoEngine(made, Options()))
for engine in engines:
    engine(pixels)
while engines:
    engines.pop(0)
del engine, made
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("alive")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr[-2000:]


@pytest.mark.slow
def test_nothing_but_errors_is_heard_of_nncf(digits: Run, tmp_path: Path) -> None:
    code = f"""
from metaformer.infer.quantize import quantize
quantize({str(digits.path)!r}, images=4, tuning=16, budget=100.0, out={str(tmp_path / "x.xml")!r}, force=True)
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "METAFORMER_CACHE": str(tmp_path / "cache")}
    for _ in range(2):  # converts the model, and finds it converted
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_mistakes_are_told(digits: Run, done: Quantized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"is no run, so say .*: data=NAME$"):
        quantize(shutil.copytree(digits.best, tmp_path / "alone"), out=tmp_path / "x.xml")
    with pytest.raises(FileExistsError, match=r"digits\.xml exists: force=True"):
        quantize(digits.path, out=done.file)
    with pytest.raises(ValueError, match=r"x\.onnx: what is written is OpenVINO's, so its name ends in \.xml$"):
        quantize(digits.path, out=tmp_path / "x.onnx")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere to write x\.xml into"):
        quantize(digits.path, out=tmp_path / "nowhere" / "x.xml")
    with pytest.raises(ValueError, match="is quantized already"):
        quantize(done.file, "digits", out=tmp_path / "x.xml")
    with pytest.raises(ValueError, match=r"budget=-1, images=300, tuning=1000: points of top-1 from 0"):
        quantize(digits.path, budget=-1)
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ValueError, match=r"^nncf is not installed: pip install '\.\[fast\]'$"):
        quantize(digits.path, out=tmp_path / "x.xml")
    assert [path.name for path in tmp_path.iterdir()] == ["alone"]


def test_other_classes_are_refused(digits: Run, fashion: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the classes of fashion-mnist:.* are not the model's"):
        quantize(digits.path, fashion, out=tmp_path / "x.xml")


def test_cut_short_it_leaves_the_old_file(digits: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def failing(model: Any, file: Path, said: dict[str, Any]) -> None:
        calls.append(file)
        if len(calls) == 2:
            raise OSError("the disk is full")
        write_ir(model, file, said)

    monkeypatch.setattr(module, "write_ir", failing)
    (tmp_path / "x.xml").write_text("old")
    with pytest.raises(OSError, match="the disk is full"):
        quantize(digits.path, weight_only=True, out=tmp_path / "x.xml", force=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.xml", "old")]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(digits: Run, tmp_path: Path) -> None:
    file = tmp_path / "q.xml"
    code, out, _ = command("quantize", digits.path, file, "--weight-only")
    assert code == 0
    assert f"{file}, " in out
    assert "of digits" in out
    assert about(file)["precision"] == "int8-weights"
    code, out, err = command("quantize", digits.path, file, "--weight-only")
    assert (code, out) == (2, "")
    assert err == f"metaformer: {file} exists: force=True (--force) overwrites it\n"
