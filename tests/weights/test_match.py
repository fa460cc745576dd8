"""Weights are recognised by names and shapes: whose they are, and which model's."""

from pathlib import Path

import pytest
import torch
from tests.published import PUBLISHED, T6
from tests.weights.test_formats import KNOWN, on_meta

from metaformer.weights.formats import to_format
from metaformer.weights.match import alike, choose_model, find_format, find_models

SIZES = ("s12", "s24", "s36", "m36", "m48", "t6")
TWINS = {f"identityformer_{size}": f"poolformerv2_{size}" for size in SIZES} | {"metaformer_id_s12": "poolformer_s12"}
"""An identity and pooling have no weights to tell them apart."""
TWINS |= {pooling: identity for identity, pooling in TWINS.items()}
QUICK = ("poolformer_s12", "metaformer_ppaa_s12_224", "randformer_s12", "poolformerv2_s12", "convformer_s18", "caformer_s18")


def shapes(name: str, format: str, **changes) -> dict[str, tuple[int, ...]]:
    model = on_meta(name, **changes)
    return {key: tuple(tensor.shape) for key, tensor in to_format(model.state_dict(), format, model.config).items()}


def pairs() -> list:
    made = [(name, format) for format, names in KNOWN.items() for name in names if format == "ours" or name in PUBLISHED]
    return [pytest.param(*pair, marks=() if pair[0] in (*QUICK, *T6) else pytest.mark.slow) for pair in made]


@pytest.mark.parametrize(("name", "format"), pairs())
def test_every_model_in_every_format(name, format):
    given = shapes(name, format)
    expected = {name, TWINS.get(name, name)} & set(KNOWN[format])
    assert find_format(given) == format
    assert set(find_models(given)) == expected


@pytest.mark.parametrize(("classes", "channels"), [(0, 3), (7, 1), (21841, 6)])
def test_classes_and_channels_are_read_from_the_shapes(classes, channels):
    for format in ("ours", "v2", "timm"):
        (config,) = find_models(shapes("caformer_s18", format, num_classes=classes, in_chans=channels)).values()
        assert (config.num_classes, config.in_chans) == (classes, channels)


def test_what_is_no_published_model_is_none():
    given = shapes("caformer_s18", "v2")
    assert find_models({}) == find_models({"weight": (3,)}) == {}
    assert find_models({key: shape for key, shape in given.items() if "fc1" not in key}) == {}
    assert find_models(given | {"more": (1,)}) == {}
    assert find_models(shapes("caformer_s18", "v2", dims=(64, 128, 320, 544))) == {}
    with pytest.raises(ValueError, match="fit no published model: say which model they belong to, model="):
        choose_model(given | {"more": (1,)}, None)


@pytest.mark.parametrize("path", ["poolformer_s12.pth.tar", "metaformer_id_s12.pth", "poolformer_s12/model.safetensors"])
def test_the_files_name_tells_twins_apart(path):
    name, config = choose_model(shapes("poolformer_s12", "v1"), Path("somewhere") / path)
    assert name in path
    assert (config == on_meta("poolformer_s12").config) == ("poolformer_s12" in path)


@pytest.mark.parametrize("path", [None, "best.pth", "poolformer_s12_or_metaformer_id_s12.pth"])
def test_twins_without_a_name_are_refused(path):
    with pytest.raises(ValueError, match=r"fit poolformer_s12 and metaformer_id_s12 alike: say which, model=poolformer_s12$"):
        choose_model(shapes("poolformer_s12", "v1"), path and Path(path))


def test_a_foreign_format_has_but_one_of_the_twins():
    assert choose_model(shapes("poolformer_s12", "timm"), Path("best.safetensors"))[0] == "poolformer_s12"


def test_a_matrix_is_alike_to_a_1x1_convolution_and_to_nothing_else():
    assert alike((4, 3), (4, 3, 1, 1))
    assert alike((4, 3), (4, 3))
    assert not alike((4, 3), (4, 3, 3, 3))
    assert not alike((4, 3, 1, 1), (4, 3))
    assert not alike(tuple(torch.empty(3).shape), (3, 1, 1))
