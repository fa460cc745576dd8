"""What `report` leaves in a run directory."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import metaformer
from metaformer.lab import plots
from metaformer.lab.report import report
from metaformer.runs import Run

FILES = ("report.html", "evaluation.json", "curves.png", "confusion.png", "predictions.png")


class Still(nn.Module):
    """A mixer of one's own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.view(-1, 1, 1)


def own() -> metaformer.MetaFormer:
    torch.manual_seed(0)
    config = metaformer.MetaFormerConfig(depths=(1,) * 4, dims=(8,) * 4, mixers=Still, num_classes=10, in_chans=1)
    return metaformer.MetaFormer(config)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One epoch of a tiny model of one's own."""
    return metaformer.train(own(), data="digits", epochs=1, device="cpu", root=tmp_path_factory.mktemp("runs"), quiet=True)


def test_files_are_whole_and_nothing_else_is_left(run: Run) -> None:
    assert set(FILES) <= {file.name for file in run.path.iterdir()}
    assert not list(run.path.glob("*.tmp"))
    for name in FILES[2:]:
        with Image.open(run.path / name) as image:
            image.load()


def test_evaluation_json_is_the_summary(run: Run) -> None:
    judged = report(run, own())
    summary = json.loads((run.path / "evaluation.json").read_text())
    assert summary == judged.summary()
    assert summary["images"] == 360
    assert summary["top1"] == pytest.approx(run.metrics[0]["top1"])
    assert list(summary["per_class"]) == list("0123456789")


def test_the_same_run_gives_the_same_files(run: Run) -> None:
    before = {name: (run.path / name).read_bytes() for name in FILES}
    report(run, own())
    assert {name for name in FILES if (run.path / name).read_bytes() != before[name]} == set()


class Stubborn(nn.Module):
    """Its work depends on values, and it has no gradient."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.detach() * (1 if x.sum().item() > 0 else 2)


def test_a_model_that_cannot_be_explained_or_counted_has_its_report(tmp_path: Path) -> None:
    torch.manual_seed(0)
    frame = {"depths": (1,) * 4, "dims": (8,) * 4, "norm": "NoNorm()", "residual": False, "num_classes": 10, "in_chans": 1}
    model = metaformer.MetaFormer(metaformer.MetaFormerConfig(**frame, mixers=Stubborn, mlp_ratio=0))
    run = metaformer.train(model, data="digits", epochs=1, device="cpu", root=tmp_path, quiet=True)
    text = (run.path / "report.html").read_text()
    assert "cannot be counted" in text
    assert "No activation maps: One of the differentiated Tensors" in text


def test_predictions_take_images_of_many_sizes(tmp_path: Path) -> None:
    images = [torch.zeros(3, 10, 20, dtype=torch.uint8), torch.full((1, 30, 8), 255, dtype=torch.uint8)]
    plots.predictions(images, ["a", "$x$ b $"], [("a", 0.9), ("c", 0.5)], tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as image:
        assert np.asarray(image).std() > 0


@pytest.mark.parametrize("classes", [2, 31, 61, 1000])
def test_confusion_of_any_number_of_classes(classes: int, tmp_path: Path) -> None:
    plots.confusion(torch.eye(classes, dtype=torch.int64), [f"${i}" for i in range(classes)], tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert max(image.size) <= 13 * 130
