"""Graphs that end in probabilities: the same answers as from logits, no second softmax, and bounds of their own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fill import filled_model
from tests.tiny import command, write_several

import metaformer
from metaformer import Predictor, Run, evaluate, export, quantize, save_pretrained
from metaformer.data.preprocess import Preprocess
from metaformer.export import export as room
from metaformer.export.compare import compare, drawn, noise, reference
from metaformer.export.export import FORMATS
from metaformer.infer.about import read_about
from metaformer.infer.convert import pipeline, to_exported, to_onnx, to_openvino
from metaformer.infer.engines import Options
from metaformer.infer.exported import open_exported
from metaformer.weights.pretrained import read_pretrained

pytestmark = pytest.mark.usefixtures("thread", "here")

GRAPHS = [name for name in FORMATS if name != "safetensors"]
QUICK = [name if name == "onnx" else pytest.param(name, marks=pytest.mark.slow) for name in GRAPHS]
PREPROCESS = Preprocess(32, (0.5,) * 3, (0.25,) * 3)
PIXELS = np.concatenate([noise(2, 3, 32, 32), drawn(2, 3, 32, 32)])


def saved(task: str = "classification") -> str:
    """A model whose probabilities are neither 0 nor 1."""
    model = filled_model("caformer_s18", depths=(1, 1, 1, 1), dims=(8, 8, 16, 32), num_classes=4).eval()
    with torch.no_grad():
        model.head.classifier.fc.weight /= 4
    about = {"classes": list("abcd"), "preprocess": PREPROCESS.to_dict(), "task": task}
    save_pretrained(model, "saved", about)
    return "saved"


def raw(file: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """What a file itself gives for PIXELS, and what it says of itself."""
    engine: Any = open_exported(file, "auto", Options(device="cpu"))[0]
    return engine(PIXELS), engine.about()


@pytest.mark.parametrize("format", QUICK)
@pytest.mark.parametrize(("task", "several"), [("classification", False), ("multilabel", True)])
def test_the_graph_ends_in_probabilities(format: str, task: str, several: bool) -> None:
    plain = Predictor(saved(task), "torch", device="cpu")
    assert plain.model is not None
    logits = torch.from_numpy(reference(plain.model, plain.preprocess, PIXELS))
    wanted = (logits.sigmoid() if several else logits.softmax(1)).numpy()
    assert 0.001 < wanted.min() < wanted.max() < 0.999
    done = export("saved", format, probabilities=True)
    assert done.probabilities
    assert max(done.differences.values()) <= done.bound == 1e-4
    found, said = raw(done.file)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert said["probabilities"] is True
    assert said["output"] == f"probabilities: the {'sigmoid' if several else 'softmax'} of logits"

    again = Predictor(done.file, device="cpu")
    assert again.several is several
    images = [pixels.transpose(1, 2, 0) for pixels in PIXELS]
    for one, other in zip(again(images), plain(images), strict=True):
        assert [label for label, _ in one.top] == [label for label, _ in other.top]
        assert [value for _, value in one.top] == pytest.approx([value for _, value in other.top], abs=1e-5)


NAMES = [("softmax", "probabilities"), pytest.param("logits", "logits", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("output", "wanted"), NAMES)
def test_graphs_name_what_they_give(output: str, wanted: str) -> None:
    module = pipeline(read_pretrained(saved())[0].eval(), PREPROCESS, output)
    assert [end.name for end in to_onnx(module, 3, 32).graph.output] == [wanted]
    assert to_openvino(module, 3, 32).output(0).names == {wanted}
    assert to_exported(module, 3, 32).graph_signature.user_outputs == (wanted,)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["openvino", "torch-export"])
def test_in_bf16_they_are_near(format: str) -> None:
    done = export(saved(), format, precision="bf16", probabilities=True)
    assert 1e-5 < max(done.differences.values()) <= done.bound == 0.3


def test_a_file_is_judged_as_its_run(run: Run) -> None:
    code, out, err = command("export", run.path, "onnx", "--probabilities")
    assert (code, err) == (0, "")
    assert "greatest difference / greatest probability" in out
    of_file, of_run = evaluate("tiny.onnx", data=run.recipe.data), evaluate(run.path)
    torch.testing.assert_close(of_file.probabilities, of_run.probabilities, rtol=0, atol=1e-5)
    assert of_file.top1 == of_run.top1
    assert of_file.loss == pytest.approx(of_run.loss, abs=1e-5)
    with pytest.raises(ValueError, match=r"^tiny\.onnx gives probabilities: quantize what it was exported from$"):
        quantize("tiny.onnx", run.recipe.data, out="q.xml")


@pytest.mark.slow
def test_several_labels_are_judged_as_their_run(tmp_path: Path) -> None:
    from tests.tiny import QUICK as SETTINGS

    data = write_several(tmp_path / "sides")
    made = metaformer.train("caformer_t6", data=data, name="sides", root=tmp_path / "runs", quiet=True, **SETTINGS)
    file = export(made.path, "onnx", "sides.onnx", probabilities=True).file
    of_file, of_run = evaluate(file, data=data), evaluate(made.path)
    torch.testing.assert_close(of_file.probabilities, of_run.probabilities, rtol=0, atol=1e-5)
    assert of_file.summary()["map"] == pytest.approx(of_run.summary()["map"])


def test_probabilities_that_are_others_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(room.PROBABLE, "fp32", 0.0)
    with pytest.raises(
        ValueError, match=r"^saved\.pt2 was not written: .* probabilities are off by \S+ of the greatest, and 0 is allowed$"
    ):
        export(saved(), "torch-export", probabilities=True)


def test_small_probabilities_are_compared_as_strictly() -> None:
    """Of an untrained model with many classes each is nearly the mean, and a graph that gives the mean is still wrong."""
    model = filled_model("caformer_s18", depths=(1, 1, 1, 1), dims=(8, 8, 16, 32), num_classes=200).eval()
    with torch.no_grad():
        for values in model.head.classifier.fc.parameters():
            values /= 4000
    means = np.full((3, 200), 1 / 200, np.float32)
    found = compare(model, PREPROCESS, lambda pixels: means[: len(pixels)], free=False, output="softmax")
    assert max(found.values()) > 5 * room.PROBABLE["fp32"]


def test_what_has_no_graph_has_no_probabilities() -> None:
    code, _, err = command("export", saved(), "safetensors", "--probabilities")
    assert (code, err) == (
        2,
        "metaformer: a .safetensors is no graph that could give probabilities: leave --probabilities out, or choose onnx\n",
    )


def test_a_file_that_does_not_say_whether_is_damaged() -> None:
    said = {"classes": ["a"], "preprocess": PREPROCESS.to_dict()}
    assert not read_about(said, "a.onnx").probabilities
    with pytest.raises(ValueError, match=r"^a\.onnx is damaged: whether it gives probabilities is true or false, not 'yes'$"):
        read_about(said | {"probabilities": "yes"}, "a.onnx")
