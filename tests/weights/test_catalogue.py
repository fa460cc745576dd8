"""The catalogue: as many files as are published, each with what timm, where it has it too, says of it."""

from collections import Counter
from dataclasses import FrozenInstanceError, replace

import pytest
from timm.models import get_pretrained_cfg, list_models

from metaformer.weights.catalogue import MEAN, ROWS, STD, TAGS, find, list_weights
from metaformer.weights.imagenet import class_names, synsets
from metaformer.zoo import ZOO


def test_counts() -> None:
    assert Counter(row.format for row in ROWS) == {"v1": 10, "v2": 55, "timm": 50, "transformers": 5, "mmpretrain": 5}
    assert len({(row.model, row.tag) for row in ROWS}) == 65
    assert len({(row.where, row.file) for row in ROWS}) == 125
    assert Counter(row.tag for row in ROWS if row.format == "v2") == {"in1k": 23, **dict.fromkeys(list(TAGS)[1:], 8)}


def test_timm_has_the_same_under_the_same_names() -> None:
    theirs = {name: get_pretrained_cfg(name) for name in list_models(module="metaformer", pretrained=True)}
    ours = {row.where.removeprefix("timm/"): row for row in ROWS if row.format == "timm"}
    assert ours.keys() == theirs.keys()
    for name, row in ours.items():
        cfg = theirs[name]
        assert cfg is not None
        assert row.where == cfg.hf_hub_id
        assert (row.crop_fraction, row.size, row.num_classes) == (cfg.crop_pct, cfg.input_size[-1], cfg.num_classes), name
        assert (MEAN, STD, row.licence.lower()) == (cfg.mean, cfg.std, cfg.license)
        assert cfg.interpolation == "bicubic"


OPENMMLAB = "https://download.openmmlab.com/mmclassification/v0/poolformer"
# fmt: off
PLACES = [
    ("poolformer_m36", "in1k@v1", "https://github.com/sail-sg/poolformer/releases/download/v1.0/poolformer_m36.pth.tar"),
    ("metaformer_ppaa_s12_224", "in1k",
     "https://github.com/sail-sg/poolformer/releases/download/v1.0/metaformer_ppaa_s12_224.pth.tar"),
    ("poolformer_s36", "in1k@transformers", "sail/poolformer_s36/pytorch_model.bin"),
    ("poolformer_s24", "in1k@mmpretrain", f"{OPENMMLAB}/poolformer-s24_3rdparty_32xb128_in1k_20220414-d7055904.pth"),
    ("randformer_m48", "in1k", "sail/dl/randformer/randformer_m48.pth"),
    ("convformer_s36", "in1k_384@v2", "sail/dl/convformer/convformer_s36_384.pth"),
    ("caformer_b36", "in21k@v2", "sail/dl/caformer/caformer_b36_in21k.pth"),
    ("caformer_b36", "in21k_ft_in1k_384@v2", "sail/dl/caformer/caformer_b36_384_in21ft1k.pth"),
    ("caformer_b36", "in21k_ft_in1k_384", "timm/caformer_b36.sail_in22k_ft_in1k_384/model.safetensors"),
    ("caformer_s18", "in21k_ft_in1k@v2", "sail/dl/caformer/caformer_s18_in21ft1k.pth"),
]
# fmt: on


@pytest.mark.parametrize(("model", "tag", "place"), PLACES)
def test_where_a_file_is(model: str, tag: str, place: str) -> None:
    row = find(model, tag)
    assert f"{row.where}/{row.file}" == place


# fmt: off
FACTS = [
    ("poolformer_s12",         "in1k",               224,  1000, 0.9,  77.2),
    ("poolformer_m48",         "in1k",               224,  1000, 0.95, 82.5),
    ("metaformer_id_s12",      "in1k",               224,  1000, 0.9,  74.3),
    ("metaformer_pppf_s12_224", "in1k",              224,  1000, 0.9,  None),
    ("metaformer_ppff_s12_224", "in1k",              224,  1000, 0.95, None),
    ("identityformer_s12",     "in1k",               224,  1000, 1.0,  74.6),
    ("caformer_s18",           "in1k_384",           384,  1000, 1.0,  85.0),
    ("caformer_s18",           "in21k",              224, 21841, 1.0,  None),
    ("convformer_b36",         "in21k_ft_in1k",      224,  1000, 1.0,  87.0),
    ("convformer_b36",         "in21k_ft_in1k_384",  384,  1000, 1.0,  87.6),
]
# fmt: on


@pytest.mark.parametrize(("model", "tag", "size", "classes", "crop", "top1"), FACTS)
def test_what_a_row_says(model: str, tag: str, size: int, classes: int, crop: float, top1: float | None) -> None:
    row = find(model, tag)
    assert (row.size, row.num_classes, row.crop_fraction, row.top1) == (size, classes, crop, top1)


def test_safetensors_come_first_and_true_is_in1k_at_224() -> None:
    assert {row.format for row in (find(model, tag) for model, tag in {(r.model, r.tag) for r in ROWS})} == {"timm", "v1", "v2"}
    for row in ROWS:
        assert find(row.model, f"{row.tag}@{row.format}") == row
        assert find(row.model) == find(row.model, "in1k")
    assert all(find(row.model, row.tag) == row for row in ROWS if row.format == "timm")
    assert find("caformer_s18").size == 224


def test_nothing_at_384_is_bound_to_a_resolution() -> None:
    """So the config that serves at 224 serves at 384: no position embedding, no matrix over tokens."""
    for row in ROWS:
        if row.size == 384:
            config = ZOO[row.model]
            assert not any(config.pos_embed)
            assert not any(hasattr(mixer, "grid") for mixer in config.mixers)


# fmt: off
REFUSED = [
    ("caformer_t6",    True,           "no weights are published for caformer_t6: train it, metaformer train caformer_t6"),
    ("caformer_s18",   "in1k_348",     "caformer_s18 has no published weights 'in1k_348': did you mean in1k_384?"),
    ("caformer_s18",   "laion",        "'laion': there are in1k, in1k_384, in21k, in21k_ft_in1k, in21k_ft_in1k_384; a file"),
    ("poolformer_s12", "in1k_384",     "poolformer_s12 has no published weights 'in1k_384': there are in1k; a file's path"),
    ("poolformer_s12", "in1k@v2",
     "has no weights 'in1k@v2': there are in1k@timm, in1k@v1, in1k@transformers, in1k@mmpretrain"),
]
# fmt: on


@pytest.mark.parametrize(("model", "tag", "sentence"), REFUSED)
def test_what_is_not_there(model: str, tag: str | bool, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")):
        find(model, tag)


def test_patterns() -> None:
    assert len(list_weights()) == 125
    assert {row.model for row in list_weights("*_384")} == {row.model for row in ROWS if row.size == 384}
    assert [row.format for row in list_weights("poolformer_s12")] == ["timm", "v1", "transformers", "mmpretrain"]
    with pytest.raises(ValueError, match=r"^no published weights match 'caformr_s18'; did you mean caformer_s18\?$"):
        list_weights("caformr_s18")


def test_a_row_is_frozen() -> None:
    assert replace(ROWS[0], tag="x") != ROWS[0]
    assert isinstance(hash(ROWS[0]), int)
    with pytest.raises(FrozenInstanceError):
        ROWS[0].tag = "x"


def test_classes_have_one_name_each_in_the_order_of_the_weights() -> None:
    for count in (1000, 21841):
        names, numbers = class_names(count), synsets(count)
        assert len(names) == len(set(names)) == len(numbers) == len(set(numbers)) == count
        assert list(numbers) == sorted(numbers)
    names = class_names(1000)
    assert (names[0], names[850], names[999]) == ("tench", "teddy", "toilet tissue")
    assert [name for name in names if name.startswith("crane")] == ["crane (n02012849)", "crane (n03126707)"]
    assert [name for name in names if name.startswith("maillot")] == ["maillot", "maillot, tank suit"]
    assert set(synsets(1000)) - set(synsets(21841)) == {"n04399382"}  # teddy bear
