"""Vectors: what the classifier is given, by every way to them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from metaformer import Predictor, Run, create_model, export, save_pretrained
from metaformer.infer.embed import Embedder

pytestmark = pytest.mark.usefixtures("thread")


def pixels(count: int, channels: int = 1, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def test_the_classifier_makes_the_logits_of_the_vectors(run: Run) -> None:
    predictor = Predictor(run.path)
    embedder = Embedder(predictor)
    found = embedder.embed(pixels(5))
    assert (found.shape, found.dtype, embedder.dimensions) == ((5, 32), np.float32, 32)
    assert predictor.model is not None
    with torch.no_grad():
        logits = predictor.model.head.classifier(torch.from_numpy(found)).numpy()
    np.testing.assert_allclose(logits, predictor.logits(pixels(5)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(embedder.embed(pixels(5)[2:3]), found[2:3], rtol=1e-4, atol=1e-5)


def test_precision_and_threads_are_the_predictors(run: Run) -> None:
    plain = Embedder(Predictor(run.path)).embed(pixels(5))
    half = Embedder(Predictor(run.path, precision="bf16")).embed(pixels(5))
    assert 0 < np.abs(half - plain).max() < 0.1 * np.abs(plain).max()
    embedder, before = Embedder(Predictor(run.path, threads=2)), torch.get_num_threads()
    used: list[int] = []
    embedder.model.head.norm.register_forward_hook(lambda *_: used.append(torch.get_num_threads()))
    embedder.embed(pixels(1))
    assert (used, before, torch.get_num_threads()) == ([2], 1, 1)


def test_an_array_of_another_form_is_refused(run: Run) -> None:
    embedder = Embedder(Predictor(run.path))
    assert embedder.embed(pixels(0)).shape == (0, 32)
    for wrong in (pixels(2, size=9), pixels(2, channels=3), pixels(2)[0], pixels(2).astype(np.float32)):
        with pytest.raises(ValueError, match=r"this model takes an array \(B, 1, 8, 8\) of uint8"):
            embedder.embed(wrong)


def test_an_exported_file_holds_no_vectors(tmp_path: Path) -> None:
    model = create_model("identityformer_t6", num_classes=3, dims=(8, 8, 8, 8), depths=(1, 1, 1, 1))
    preprocess = {"size": 8, "mean": [0.5] * 3, "std": [0.25] * 3, "fit": "squash"}
    save_pretrained(model, tmp_path / "saved", {"classes": ["a", "b", "c"], "preprocess": preprocess})
    export(tmp_path / "saved", "onnx", tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"model\.onnx gives answers .* embed with what it was exported from"):
        Embedder(Predictor(tmp_path / "model.onnx"))
