"""`explain` from images to page: what is asked is there, with its figures, and nothing else."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.tiny import command

from metaformer import Run
from metaformer.data.sources import open_data
from metaformer.lab.cam import class_activation
from metaformer.lab.classifier import open_classifier
from metaformer.lab.explain import _batches, explain, explained_text, read_methods
from metaformer.lab.explain_model import called
from metaformer.weights.peers import Peer, PeerConfig
from metaformer.weights.pretrained import save_pretrained

pytestmark = pytest.mark.usefixtures("thread")


@pytest.fixture(scope="module")
def images(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with six images, and a file that is none."""
    folder, val = tmp_path_factory.mktemp("images"), open_data(run.recipe.data).val
    for i in range(6):
        Image.fromarray(val.image(i)[0].numpy()).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def peer(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of timm's in a folder, for the same classes."""
    torch.manual_seed(0)
    folder, about = tmp_path_factory.mktemp("peers") / "vit", json.loads((run.best / "model.json").read_text())
    model = Peer(PeerConfig(name="vit_tiny_patch16_224", num_classes=10, in_chans=1, image_size=32))
    about["preprocess"] |= {"size": 32}
    save_pretrained(model, folder, {key: about[key] for key in ("classes", "preprocess")})
    return folder


def test_everything_of_two_models_side_by_side(run: Run, peer: Path, images: Path, tmp_path: Path) -> None:
    found = explain(run.path, images, beside=[peer], shown=2, out=tmp_path / "out")
    told = found.to_dict()
    assert told == json.loads((tmp_path / "out" / "explain.json").read_text())
    assert {file.name for file in found.page.parent.iterdir()} == {"explain.html", "explain.json"} | {
        f"{name}.{kind}" for name in ("attention", "cam", "occlusion", "reach", "similarity") for kind in ("png", "pdf")
    }
    assert (told["looked_at"], len(told["images"]), [Path(one["path"]).name for one in told["unreadable"]]) == (
        6,
        2,
        ["broken.png"],
    )
    ours, theirs = told["models"]
    assert [len(model[key]) for model in (ours, theirs) for key in ("answers", "cam")] == [2] * 4
    assert [(one["name"], one["layers"]) for one in ours["attention"]] == [("stage 3", 1), ("stage 4", 1)]
    assert [(one["name"], one["heads"]) for one in theirs["attention"]] == [("12 layers", 3)]
    assert [one["of"] for one in ours["reach"]] == [8] * 4
    assert [one["of"] for one in ours["reach_of_blocks"]] == [4, 2, 1, 1]
    assert theirs["reach_of_blocks"] == []
    assert [(one["one"] == one["other"], len(one["rows"]), len(one["columns"])) for one in told["similarity"]] == [
        (True, 4, 4), (True, 4, 4), (False, 4, 4),
    ]  # fmt: skip
    for pair in told["similarity"][:2]:
        assert [pair["values"][i][i] for i in range(3)] == pytest.approx([1] * 3, abs=1e-4)
    page = found.page.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)  # self-contained
    assert page.count("<img") == 2 * (3 + 3 + 1 + 2 * 2 + 2) + 8 + 4  # tiles, fields, what colours mean
    for section in ("cam", "occlusion", "attention", "reach", "similarity"):
        assert f'<section id="{section}">' in page


def test_the_maps_are_those_of_the_images(run: Run, images: Path, tmp_path: Path) -> None:
    found = explain(run.path, sorted(images.glob("?.png")), ask="cam", shown=3, out=tmp_path)
    opened = open_classifier(run.path)
    data = open_data(run.recipe.data).val
    fed = torch.cat([opened.preprocess(data.image(i)[None]) for i in range(3)])
    logits = opened.model(fed)
    (told,) = found.told["models"]
    assert [one["label"] for one in told["answers"]] == [opened.classes[i] for i in logits.argmax(1)]
    assert [one["probability"] for one in told["answers"]] == pytest.approx(logits.softmax(1).amax(1).tolist(), abs=1e-5)
    assert torch.allclose(torch.tensor(told["cam"]), class_activation(opened.model, fed, logits.argmax(1)), atol=1e-4)


def test_only_what_is_asked_of_the_label_asked(run: Run, images: Path, tmp_path: Path) -> None:
    label = open_classifier(run.path).classes[4]
    for older in ("cam.png", "similarity.pdf", "explain.json"):  # of a call that was asked for more
        (tmp_path / older).write_bytes(b"")
    (tmp_path / "notes.txt").write_text("mine")
    found = explain(run.path, images, ask="occlusion", label=label, shown=1, window=4, out=tmp_path)
    (told,) = found.told["models"]
    assert sorted(told) == ["answers", "name", "occlusion", "pixels"]
    assert told["answers"][0]["label"] == label
    assert told["occlusion"]["window"] == 4
    assert len(told["occlusion"]["lost"][0]) == 4  # 8 pixels by half of the window
    written = {"explain.html", "explain.json", "occlusion.pdf", "occlusion.png"}
    assert {file.name for file in tmp_path.iterdir()} == written | {"notes.txt"}
    assert "the class " + label in found.page.read_text()


def test_too_few_images_for_similarity_are_said(run: Run, images: Path, tmp_path: Path) -> None:
    found = explain(run.path, [images / "0.png", images / "1.png"], ask="similarity", out=tmp_path)
    assert found.told["similarity"] == []
    assert "at least four images, and here are 2" in found.page.read_text()


def test_mistakes_are_said(run: Run, images: Path, tmp_path: Path) -> None:
    for wrong, said in (
        ({"ask": "cam,cams"}, "ask='cams' is not one of all, cam, occlusion"),
        ({"shown": 0}, "shown=0 is not at least 1"),
        ({"label": "zebra"}, "'zebra' is no class of"),
        ({"label": "Sneeker"}, "did you mean Sneaker?"),
        ({"window": 9, "ask": "occlusion"}, "window=9 is not between 1 and 8"),
        ({"beside": ["model.onnx"]}, "explain the run or model that it was exported from"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            explain(run.path, images, out=tmp_path, **wrong)  # pyrefly: ignore[bad-argument-type]
    with pytest.raises(ValueError, match=r"the image cannot be read: .*broken\.png: "):
        explain(run.path, images / "broken.png", out=tmp_path)
    (tmp_path / "cam.pdf").write_text("mine")
    with pytest.raises(ValueError, match=r"cam\.pdf would be replaced, and is none of ours: explain\.json is not beside it"):
        explain(run.path, images, out=tmp_path)
    assert (tmp_path / "cam.pdf").read_text() == "mine"


def test_what_is_too_small_is_said_of_its_model(run: Run, images: Path, tmp_path: Path) -> None:
    about = json.loads((run.best / "model.json").read_text())
    about["preprocess"] |= {"size": 16}
    model = Peer(PeerConfig(name="vit_tiny_patch16_224", num_classes=10, in_chans=1, image_size=16))
    save_pretrained(model, tmp_path / "vit", {key: about[key] for key in ("classes", "preprocess")})
    with pytest.raises(ValueError, match=r"/vit: the images are so small that"):
        explain(run.path, images, beside=[tmp_path / "vit"], ask="cam", shown=1, out=tmp_path / "out")


def test_without_images_those_that_the_run_held_out(run: Run, tmp_path: Path) -> None:
    found = explain(run.path, ask="reach", shown=2, out=tmp_path)
    assert (found.told["looked_at"], found.told["images"]) == (40, ["image 0", "image 39"])
    data = open_data(run.recipe.data)
    assert found.told["truth"] == [data.classes[int(data.val.labels[at])] for at in (0, 39)]
    assert explained_text(found.told).splitlines()[0].split()[:2] == ["image", "is"]
    with pytest.raises(ValueError, match=r"best is no run, which would have images of its own: name some"):
        explain(run.best, ask="reach", out=tmp_path)


def test_a_detector_is_answered_by_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"schema": 1, "dense": {}}')
    with pytest.raises(ValueError, match="finds objects or regions, and what is explained are classifiers"):
        explain(tmp_path, tmp_path)
    with pytest.raises(ValueError, match="finds objects or regions"):
        explain("retinanet/poolformerv2_t6", tmp_path)


def test_models_are_called_by_what_tells_them_apart() -> None:
    assert called(["/a/runs/one", "timm:resnet18", "hf:someone/caformer"]) == ["one", "timm:resnet18", "caformer"]
    assert called(["runs/a/best", "runs/b/best", "runs/a/best"]) == ["a/best", "b/best", "a/best"]
    assert called(["runs/a", "runs/a/"]) == ["a", "a"]


def test_methods_are_read_in_their_order() -> None:
    assert read_methods("reach, cam") == ("cam", "reach")


@pytest.mark.parametrize(
    ("images", "sizes"), [(4, [4]), (16, [16]), (19, [19]), (20, [16, 4]), (35, [16, 19]), (48, [16, 16, 16])]
)
def test_no_batch_is_too_small_for_the_estimate(images: int, sizes: list[int]) -> None:
    assert [part.stop - part.start for part in _batches(images)] == sizes


def test_the_verbs(run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run.path, tmp_path / "runs" / "tiny")
    code, out, err = command("explain", "runs/tiny", images, "--ask", "reach", "--shown", 1, "--beside", "runs/tiny")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["image", "tiny", "tiny"]
    assert out.splitlines()[-1] == "The page: explained/explain.html"
    code, out, err = command("explain", "runs/tiny", images, "--ask", "similarity", "--out", "there", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads((tmp_path / "there" / "explain.json").read_text())
    code, out, err = command("inspect", "runs/tiny", "--batch", 2, "--no-time")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "The pictures: inspected"
    assert "2 images of 8 × 8 on" in out
    code, out, err = command("inspect", "timm:test_resnet", "--image-size", 16, "--json", "--device", "cpu", "--rounds", 1)
    assert (code, err) == (0, "")
    assert json.loads(out)["image_size"] == 16
    assert json.loads(out)["parts"][0]["seconds"] > 0
    code, _, err = command("explain", "nothing", images)
    assert (code, err.startswith("metaformer: ")) == (2, True)
