"""Exporting: every family in every format says what the model says; what a file knows of itself; what is refused."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fill import filled_model
from tests.tiny import command
from torch import nn

import metaformer
from metaformer import MetaFormer, Predictor, Run, export, save_pretrained
from metaformer.config import ABOUT
from metaformer.export import export as room
from metaformer.export.compare import cases, difference, drawn, noise, reference
from metaformer.export.export import FORMATS
from metaformer.infer.engines import Options
from metaformer.infer.exported import open_exported

pytestmark = pytest.mark.usefixtures("thread", "here")

FAMILIES = ["poolformer_s12", "identityformer_s12", "randformer_s12", "poolformerv2_s12", "convformer_s18", "caformer_s18"]
SIZE = 32
CLASSES = ["ant", "bee", "cicada", "Käfer", '"wasp" & <co>\n']
PREPROCESS = {"size": SIZE, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "fit": "crop", "crop_fraction": 0.9}


def tiny(name: str, **changes: Any) -> MetaFormer:
    """Far from its initialisation, so that no branch is too small to see."""
    return filled_model(name, **{"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 32), "num_classes": len(CLASSES)} | changes)


def saved(model: Any, folder: str = "saved", **changes: Any) -> str:
    """Its folder."""
    save_pretrained(model, folder, {"classes": CLASSES, "preprocess": PREPROCESS, "note": "kept"} | changes)
    return folder


def said(file: Path) -> dict[str, Any]:
    """What a file says of itself."""
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            return json.loads(opened.metadata()[ABOUT])
    from metaformer.infer import engines, torch_files

    kinds = {".onnx": engines.OnnxEngine, ".xml": engines.OpenVinoEngine, ".pt2": torch_files.ProgramEngine}
    return kinds.get(file.suffix, torch_files.ExecuTorchEngine)(file, Options()).about()


QUICK = {("caformer_s18", format) for format in FORMATS} | {(name, "onnx") for name in ("poolformer_s12", "randformer_s12")}


@pytest.mark.slow
def test_executorch_cannot_pool_a_map_of_one_place_and_leaves_nothing() -> None:
    small = saved(tiny("poolformer_s12"), "small")
    with pytest.raises(
        ValueError, match=r"^ExecuTorch cannot run this model's operators \(.*\): export it as onnx or openvino$"
    ):
        export(small, "executorch")
    assert [path.name for path in Path().iterdir()] == ["small"]


@pytest.mark.parametrize(
    ("name", "format"),
    [
        pytest.param(name, format, marks=() if (name, format) in QUICK else pytest.mark.slow)
        for name in FAMILIES
        for format in FORMATS
    ],
)
def test_every_family_in_every_format(name: str, format: str) -> None:
    model = tiny(name)
    size = 2 * SIZE if (name, format) == ("poolformer_s12", "executorch") else SIZE
    done = export(saved(model, preprocess=PREPROCESS | {"size": size}), format)
    assert done.file == Path(f"saved{FORMATS[format].suffix}")
    assert sorted(path.name for path in Path().iterdir()) == sorted(
        {"saved", done.file.name, *(f"saved{suffix}" for suffix in FORMATS[format].beside)}
    )
    assert max(done.differences.values()) <= done.bound == FORMATS[format].bounds["fp32"]

    predictor = Predictor(done.file, device="cpu")
    assert predictor.classes == tuple(CLASSES)
    assert predictor.preprocess.to_dict() == PREPROCESS | {
        "size": size, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225),
    }  # fmt: skip
    shapes = [(1, size, size), (3, size, size)] + ([] if format in ("executorch", "safetensors") else [(2, 35, 41)])
    for batch, height, width in shapes:
        for pixels in (noise(batch, 3, height, width), drawn(batch, 3, height, width)):
            wanted = exact(name, pixels)
            found = predictor.logits(pixels)
            assert found.dtype == np.float32
            assert found.shape == (batch, 5)
            assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).mean()
    picture = drawn(1, 3, 50, 40)[0].transpose(1, 2, 0)
    (one,), (other,) = predictor([picture]), Predictor("saved", engine="torch", device="cpu")([picture])
    assert [label for label, _ in one.top] == [label for label, _ in other.top]
    assert [value for _, value in one.top] == pytest.approx([value for _, value in other.top], abs=1e-4)

    about = said(done.file)
    assert (about["note"], about["format"], about["precision"], about["metaformer"]) == (
        "kept", format, "fp32", metaformer.__version__,
    )  # fmt: skip
    assert about["config"] == json.loads(json.dumps(model.config.to_dict()))
    assert about["compared"]["differences"] == done.differences
    assert about["input"]["sides"] == (size if format == "executorch" else "any")
    content = b"".join(path.read_bytes() for path in Path().iterdir() if path.is_file())
    assert str(Path(room.__file__).parents[2]).encode() not in content  # nor where it was made


def exact(name: str, pixels: np.ndarray) -> np.ndarray:
    """The answer in float64, straight from the definition."""
    mean, std = (torch.tensor(PREPROCESS[key], dtype=torch.float64).view(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        return tiny(name).double()((torch.from_numpy(pixels) / torch.tensor(255.0, dtype=torch.float64) - mean) / std).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["openvino", "torch-export"])
def test_bf16(format: str) -> None:
    source = saved(tiny("caformer_s18"))
    small, full = export(source, format, "small" + FORMATS[format].suffix, precision="bf16"), export(source, format)
    assert (small.bytes < 0.8 * full.bytes) == (format == "torch-export")  # OpenVINO keeps weights in fp32
    assert 1e-4 < max(small.differences.values()) <= small.bound
    predictor = Predictor(small.file, device="cpu")
    assert predictor.engine.name.endswith(" bf16")
    assert said(small.file)["precision"] == "bf16"


def test_a_run(run: Run) -> None:
    code, out, err = command("export", run.path, "onnx")
    assert (code, err) == (0, "")
    assert re.match(r"tiny\.onnx  \d+\.\d MB, fp32, says what the model says:\n\ncompared on +greatest difference", out)
    assert re.search(r"^noise, batch of 3 +\d\.\de-\d\d$", out, re.MULTILINE)
    assert said(Path("tiny.onnx"))["model"] == "caformer_t6"
    evaluation = metaformer.evaluate("tiny.onnx", data=run.recipe.data)
    torch.testing.assert_close(evaluation.logits, metaformer.evaluate(run.path).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_peer_of_timm_keeps_its_size() -> None:
    from metaformer.weights.peers import Peer, PeerConfig

    torch.manual_seed(0)
    peer = Peer(PeerConfig(name="test_resnet", num_classes=5, in_chans=3, image_size=SIZE)).eval()
    source = saved(peer)
    for format in FORMATS:
        done = export(source, format)
        assert max(done.differences.values()) <= done.bound
        assert "hard borders, 33 × 29" not in done.differences
        assert said(done.file)["input"]["sides"] == SIZE
        predictor = Predictor(done.file, device="cpu")
        np.testing.assert_allclose(
            predictor.logits(noise(3, 3, SIZE, SIZE)),
            reference(peer, predictor.preprocess, noise(3, 3, SIZE, SIZE)),
            atol=1e-5,
        )


class Own(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(2) - x


def test_a_mixer_of_ones_own_goes_along_as_a_graph() -> None:
    model = metaformer.create_model("poolformerv2_t6", mixers=Own, num_classes=5, depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)).eval()
    source = saved(model)
    done = export(source, "onnx", model=model)
    pixels = noise(2, 3, SIZE, SIZE)
    predictor = Predictor(done.file)
    np.testing.assert_allclose(predictor.logits(pixels), reference(model, predictor.preprocess, pixels), rtol=1e-4, atol=1e-6)
    assert export(source, "safetensors", model=model).differences["noise"] == 0
    with pytest.raises(ValueError, match="Own"):
        Predictor("saved.safetensors")


def test_safetensors_go_everywhere() -> None:
    source = saved(tiny("caformer_s18"))
    file = export(source, "safetensors", "one.safetensors").file
    assert export(file, "onnx").file == Path("one.onnx")
    loaded = metaformer.from_pretrained(str(file))
    assert all(torch.equal(value, tiny("caformer_s18").state_dict()[key]) for key, value in loaded.state_dict().items())


# --- what is compared -------------------------------------------------------------------------------------------------


def test_cases() -> None:
    preprocess = Predictor(export(saved(tiny("caformer_s18")), "safetensors").file, device="cpu").preprocess
    made = cases(preprocess, free=True)
    assert {pixels.shape for pixels in made.values()} == {
        (1, 3, 32, 32), (3, 3, 32, 32), (2, 3, 32, 32), (2, 3, 33, 29), (2, 3, 17, 39),
    }  # fmt: skip
    assert all(pixels.dtype == np.uint8 for pixels in made.values())
    image = made["hard borders, batch of 3"][1, 2]
    assert (image[0, 5], image[5, 0], image[-1, 5], image[5, -1]) == (255, 255, 0, 0)
    whole, upper, lower = made["photograph, batch of 3"]
    assert 30 < whole.std() < 100
    assert not np.array_equal(upper, lower)
    rough = [np.abs(np.diff(made[name].astype(int), axis=-1)).mean() for name in ("noise", "photograph, batch of 3")]
    assert rough[1] < rough[0] / 2  # as photographs are
    assert len(cases(preprocess, free=False)) == len(made) - 2


def test_differences() -> None:
    one = np.array([[1.0, -3.0]], dtype=np.float32)
    assert difference(one, one) == 0
    assert difference(one, one + np.array([[0, 0.5]], dtype=np.float32)) == 0.25
    assert difference(one, one * np.float32("nan")) == float("inf")
    assert difference(one, one[:, :1]) == float("inf")
    assert difference(one * np.float32("nan"), one) == float("inf")
    assert difference(one * np.float32("inf"), one * np.float32("inf")) == float("inf")


def test_a_model_whose_answers_are_no_numbers_is_not_written() -> None:
    model = tiny("caformer_s18")
    model.head.classifier.fc.weight.data.fill_(3e38)
    with pytest.raises(ValueError, match=r"^saved\.safetensors was not written: .* logits are off by inf of their mean"):
        export(saved(model), "safetensors")
    assert [path.name for path in Path().iterdir()] == ["saved"]


def test_two_exports_of_one_name_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one begins and ends while the first is compared."""
    source, right, calls = saved(tiny("caformer_s18")), room.compare, [0]

    def meanwhile(*arguments: Any, **options: Any) -> dict[str, float]:
        calls[0] += 1
        if calls[0] == 1:
            export(source, "safetensors")
        return right(*arguments, **options)

    monkeypatch.setattr(room, "compare", meanwhile)
    assert export(source, "safetensors").differences["noise"] == 0
    assert (calls, sorted(path.name for path in Path().iterdir())) == ([2], ["saved", "saved.safetensors"])


def test_bf16_is_compared_in_bf16_or_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tiny("caformer_s18"))
    monkeypatch.setattr("metaformer.infer.engines.OpenVinoEngine._has_bf16", lambda self: False)
    with pytest.raises(ValueError, match=r"^this processor has no bf16: precision=fp32$"):
        export(source, "openvino", precision="bf16")
    assert [path.name for path in Path().iterdir()] == ["saved"]


@pytest.mark.parametrize(
    "format", [name if name in ("onnx", "safetensors") else pytest.param(name, marks=pytest.mark.slow) for name in FORMATS]
)
def test_what_says_something_else_is_not_written(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tiny("caformer_s18"))
    right = room.compare

    def wrong(model: MetaFormer, *arguments: Any, **options: Any) -> dict[str, float]:
        other = tiny("caformer_s18")
        other.head.classifier.fc.bias.data[0] += 0.01
        return right(other, *arguments, **options)

    monkeypatch.setattr(room, "compare", wrong)
    with pytest.raises(ValueError, match=r"^saved\.\w+ was not written: as [\w-]+ the model says something else: on "):
        export(source, format)
    assert [path.name for path in Path().iterdir()] == ["saved"]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("onx",), "no format 'onx', did you mean onnx?"),
        (("tensorflow",), "no format 'tensorflow'; allowed: onnx, openvino, torch-export, executorch, safetensors"),
        (("onnx", "--precision", "bf16"), "no onnx in precision='bf16'; allowed: fp32"),
        (("onnx", "a.xml"), "a.xml is no name for this format: it ends in .onnx"),
        (("onnx", "nowhere/a.onnx"), "there is no folder nowhere to write a.onnx into"),
        (("openvino", "there.xml"), "there.bin exists: choose another name, or --force (force=True) to overwrite it"),
    ],
)
def test_slips_are_sentences(words: tuple[str, ...], sentence: str) -> None:
    Path("there.bin").write_text("mine")
    code, out, err = command("export", saved(tiny("caformer_s18")), *words)
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == f"metaformer: {sentence}"
    assert Path("there.bin").read_text() == "mine"


def test_what_is_exported_already() -> None:
    Path("a.onnx").write_text("")
    assert command("export", "a.onnx", "openvino") == (
        2, "", "metaformer: a.onnx is exported already: export what it was made from\n",
    )  # fmt: skip


def test_force() -> None:
    source = saved(tiny("caformer_s18"))
    Path("saved.safetensors").write_text("mine")
    with pytest.raises(FileExistsError, match="--force"):
        export(source, "safetensors")
    assert Path("saved.safetensors").read_text() == "mine"
    assert export(source, "safetensors", force=True).bytes > 1000


@pytest.mark.parametrize(
    ("format", "missing"), [("onnx", "onnxscript"), ("openvino", "openvino"), ("executorch", "executorch.exir")]
)
def test_a_missing_package_says_what_to_type(format: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=rf"^{missing.partition('.')[0]} is not installed: pip install '\.\[fast\]'$"):
        export(saved(tiny("caformer_s18")), format)
    assert [path.name for path in Path().iterdir()] == ["saved"]


def test_a_model_that_cannot_be_followed_is_a_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    class Odd(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.sum().item() > 0 else x

    model = metaformer.create_model("poolformerv2_t6", mixers=Odd, num_classes=5).eval()
    with pytest.raises(ValueError, match=r"^torch\.export cannot follow this model: "):
        export(saved(model), "onnx", model=model)
    assert capfd.readouterr().err == ""  # where torch prints the graph that it had so far


# --- without torch ----------------------------------------------------------------------------------------------------

HEAVY = ("torch", "timm", "torchvision", "matplotlib", "huggingface_hub", "pyarrow", "openvino_telemetry")


@pytest.mark.parametrize(("format", "engine"), [("onnx", "onnxruntime"), ("onnx", "openvino"), ("openvino", "openvino")])
def test_a_prediction_imports_no_torch(format: str, engine: str) -> None:
    from PIL import Image

    file = export(saved(tiny("caformer_s18")), format).file
    Image.fromarray(drawn(1, 3, 40, 50)[0].transpose(1, 2, 0)).save("a.png")
    code = f"""
import sys
from metaformer import Predictor
answer, = Predictor({str(file)!r}, engine={engine!r})(["a.png"])
assert answer.label, answer.error
sys.argv = ["metaformer", "predict", {str(file)!r}, "a.png", "--engine", {engine!r}]
from metaformer.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
loaded = {{name for name in {HEAVY!r} if sys.modules.get(name)}}
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{engine} fp32: as was asked for\n1 image, 0 unreadable\n"


def test_open_exported_is_for_files_of_export() -> None:
    Path("a.onnx").mkdir()
    with pytest.raises(FileNotFoundError, match="no file"):
        open_exported(Path("b.onnx"), "auto", Options())
