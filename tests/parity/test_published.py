"""Every published model computes what its published code computed, on weights read through the published key names."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from tests.fill import empty_model, filled, image
from tests.parity.published_code import published_logits
from tests.published import PUBLISHED, T6
from torch import Tensor

from metaformer import MetaFormer, create_model, list_models, load_weights
from metaformer.weights.formats import to_format

GOLDENS = json.loads(gzip.decompress((Path(__file__).parents[1] / "goldens.json.gz").read_bytes()))
OTHERS = [name for name in PUBLISHED if name not in GOLDENS]
V1 = ("poolformer_", "metaformer_")


def slow_if(slow: bool, *values: str):
    return pytest.param(*values, marks=pytest.mark.slow if slow else ())


def published_state(model: MetaFormer, name: str) -> dict[str, Tensor]:
    """The rule's weights under the names of the published code."""
    return filled(to_format(model.state_dict(), "v1" if name.startswith(V1) else "v2", model.config))


def meta_model(name: str) -> MetaFormer:
    with torch.device("meta"):
        return create_model(name)


def logits(model: MetaFormer, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(x)


def test_all_names_are_published_or_ours():
    assert set(list_models()) == {*PUBLISHED, *T6}
    assert len(PUBLISHED) == 33
    assert len(GOLDENS) == 16


@pytest.mark.parametrize("name", GOLDENS)
def test_key_names_and_shapes(name):
    ours = published_state(meta_model(name), name)
    published = [(key, tuple(shape)) for key, shape in GOLDENS[name]["keys"]]
    assert sorted((key, tuple(tensor.shape)) for key, tensor in ours.items()) == sorted(published)
    assert sum(tensor.numel() for tensor in ours.values()) == GOLDENS[name]["params"] == PUBLISHED[name].parameters


@pytest.mark.parametrize("name", [slow_if("36" in name, name) for name in GOLDENS])
def test_logits_are_the_recorded_ones(name):
    golden = GOLDENS[name]
    shapes = {key: torch.empty(shape, device="meta") for key, shape in golden["keys"]}
    state = filled(shapes)
    y = logits(load_weights(empty_model(name), state), image())
    scale = golden["logits_abs_mean"]
    assert (y[:, :64] - torch.tensor(golden["logits"])).abs().max() <= 1e-4 * scale
    assert y.abs().mean().item() == pytest.approx(scale, rel=1e-4)
    assert y.argmax(1).tolist() == golden["top1"]


@pytest.mark.parametrize("name", ["poolformer_s12", "randformer_s12", "caformer_s18", "metaformer_ppaa_s12_224"])
def test_the_plain_functions_give_the_recorded_logits(name):
    """So that they may judge the models for which none are recorded."""
    golden = GOLDENS[name]
    state = filled({key: torch.empty(shape, device="meta") for key, shape in golden["keys"]})
    y = published_logits(name, state, image())
    assert (y[:, :64] - torch.tensor(golden["logits"])).abs().max() <= 1e-4 * golden["logits_abs_mean"]


@pytest.mark.parametrize("name", [slow_if(name != "metaformer_pppf_s12_224", name) for name in OTHERS])
def test_models_without_a_record_agree_with_the_plain_functions(name):
    state = published_state(meta_model(name), name)
    x = image(1)
    y = logits(load_weights(empty_model(name), state), x)
    expected = published_logits(name, state, x)
    assert torch.isfinite(y).all()
    assert (y - expected).abs().max() <= 1e-4 * expected.abs().mean()
    assert y.argmax(1).tolist() == expected.argmax(1).tolist()
