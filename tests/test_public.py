"""The public names, and the signatures that others rely upon."""

import inspect
import subprocess
import sys
from typing import Any

import pytest
import torch

import metaformer

NAMES = [
    "__version__",
    "Count", "count",
    "BatchNorm", "GELU", "GroupNorm", "LayerNorm", "LinearHead", "MLN", "MLPHead", "NoNorm",
    "ReLU", "Scale", "SiLU", "SquaredReLU", "StarReLU",
    "Attention", "DepthwiseConv", "Fourier", "Identity", "MaxPooling", "Pooling", "Random", "SepConv", "SpatialFC",
    "MetaFormer", "MetaFormerConfig",
    "Checked", "check_data", "Sharded", "shard_data",
    "Exported", "export",
    "Asking", "DensePredictor", "evaluate", "fuse", "Prediction", "Predictor", "quantize",
    "Comparison", "compare", "Explained", "explain", "Inspection", "inspect",
    "train", "Asked", "Judgement", "judge", "probe", "tune", "soup", "Search",
    "Row", "Study", "Studied", "study",
    "Run",
    "list_weights",
    "create_model",
    "from_pretrained", "push_to_hub",
    "load_weights",
    "save_pretrained",
    "list_models",
]  # fmt: skip


def test_names() -> None:
    assert metaformer.__all__ == NAMES
    assert dir(metaformer) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_what_it_says(name: str) -> None:
    thing = getattr(metaformer, name)
    if name != "__version__":
        assert thing.__name__ == name
        assert thing.__module__.startswith("metaformer.")
        assert inspect.getdoc(thing)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match=r"^module 'metaformer' has no attribute 'trian'$"):
        _ = metaformer.trian
    with pytest.raises(ImportError, match="cannot import name 'trian'"):
        from metaformer import trian  # noqa: F401


def test_train_stays_a_function_whatever_is_imported() -> None:
    code = """
import inspect
import metaformer
import metaformer.train.loop
assert inspect.isfunction(metaformer.train)
assert inspect.isfunction(metaformer.train)
from metaformer.train import loop
assert inspect.ismodule(loop) and inspect.isfunction(metaformer.train)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


REQUIRED = inspect.Parameter.empty
KEYWORDS = "**"
FIXED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # name: by place, by keyword alone
    "create_model": ({"name": REQUIRED}, {"num_classes": None, "in_chans": 3, "weights": None, "changes": KEYWORDS}),
    "list_models": ({"pattern": "*"}, {}),
    "load_weights": ({"model": REQUIRED, "source": REQUIRED}, {}),
    "list_weights": ({"pattern": "*"}, {}),
    "save_pretrained": ({"model": REQUIRED, "folder": REQUIRED, "about": None}, {}),
    "from_pretrained": ({"source": REQUIRED, "model": None}, {}),
    "push_to_hub": ({"source": REQUIRED, "repo_id": REQUIRED}, {"private": False}),
    "count": ({"model": REQUIRED, "image_size": REQUIRED}, {}),
    "Predictor": ({"source": REQUIRED, "engine": "auto"}, {"device": "auto", "precision": "auto", "model": None}),
    "fuse": ({"model": REQUIRED, "preprocess": None}, {}),
    "quantize": (
        {"source": REQUIRED, "data": None},
        {"images": 300, "budget": 0.5, "weight_only": False, "out": None, "force": False},
    ),
    "train": ({"model": REQUIRED}, {"settings": KEYWORDS}),
    "soup": ({}, {"runs": REQUIRED, "out": None, "greedy": False, "force": False, "device": "auto", "model": None}),
    "tune": ({"model": REQUIRED, "space": None}, {"trials": None, "within_hours": None, "prune": None, "settings": KEYWORDS}),
    "study": (
        {"what": REQUIRED},
        {
            "seeds": None,
            "scale": None,
            "rows": "*",
            "devices": 1,
            "jobs": 1,
            "models": False,
            "train": True,
            "measure": False,
            "name": None,
            "root": "studies",
            "quiet": False,
            "settings": KEYWORDS,
        },
    ),
    "check_data": ({"source": REQUIRED}, {"workers": None, "progress": None}),
    "shard_data": (
        {"source": REQUIRED, "out": REQUIRED},
        {"format": "tar", "size": "500MB", "shuffle": None, "progress": None},
    ),
    "judge": ({}, {"sources": REQUIRED, "data": None, "asked": None, "out": None, "device": "auto"}),
    "evaluate": ({"source": REQUIRED}, {"data": None, "device": "auto"}),
    "probe": ({"source": REQUIRED}, {"data": None, "k": 20, "batch": 64, "seed": 0, "device": "auto", "model": None}),
    "MetaFormer": ({"config": REQUIRED}, {}),
}


@pytest.mark.parametrize("name", FIXED)
def test_signature(name: str) -> None:
    places: dict[str, Any] = {}
    keywords: dict[str, Any] = {}
    for parameter in inspect.signature(getattr(metaformer, name)).parameters.values():
        if parameter.kind == parameter.POSITIONAL_OR_KEYWORD:
            places[parameter.name] = parameter.default
        else:
            keywords[parameter.name] = KEYWORDS if parameter.kind == parameter.VAR_KEYWORD else parameter.default
    by_place, by_keyword = FIXED[name]
    assert places == by_place
    assert keywords.items() >= by_keyword.items()


def test_a_model_is_fed_and_read_as_promised() -> None:
    class Own(torch.nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flip(2)

    from metaformer import Attention, MetaFormer, MetaFormerConfig, Pooling

    mixers = (Pooling(), Pooling(), Attention(), Own)
    model = MetaFormer(MetaFormerConfig(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), mixers=mixers, num_classes=3))
    x = torch.randn(2, 3, 64, 64)
    assert [tuple(x.shape) for x in model.features(x)] == [(2, 8, 16, 16), (2, 8, 8, 8), (2, 16, 4, 4), (2, 16, 2, 2)]
    assert model(x).shape == (2, 3)


def test_the_adapter_to_timm_is_there_and_imports_nothing_of_timm() -> None:
    code = """
import sys
import metaformer
assert metaformer.timm.register.__module__ == "metaformer.weights.timm_models"
assert "timm" not in sys.modules and "huggingface_hub" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
