"""Names, configs and figures of the zoo."""

import json
import re
from dataclasses import replace

import pytest
from tests.published import PUBLISHED, T6

from metaformer import Attention, MetaFormerConfig, Pooling, create_model, list_models
from metaformer.zoo import TOP1, ZOO, get_config

SIZES = {
    "s12": ((2, 2, 6, 2), (64, 128, 320, 512)),
    "s24": ((4, 4, 12, 4), (64, 128, 320, 512)),
    "s36": ((6, 6, 18, 6), (64, 128, 320, 512)),
    "m36": ((6, 6, 18, 6), (96, 192, 384, 768)),
    "m48": ((8, 8, 24, 8), (96, 192, 384, 768)),
    "t6": ((1, 1, 3, 1), (32, 64, 128, 192)),
}
STRONG_SIZES = {
    "s18": ((3, 3, 9, 3), (64, 128, 320, 512)),
    "s36": ((3, 12, 18, 3), (64, 128, 320, 512)),
    "m36": ((3, 12, 18, 3), (96, 192, 384, 576)),
    "b36": ((3, 12, 18, 3), (128, 256, 512, 768)),
    "t6": SIZES["t6"],
}


@pytest.mark.parametrize("name", ZOO)
def test_size(name):
    sizes = STRONG_SIZES if name.startswith(("conv", "ca")) else SIZES
    config = ZOO[name]
    assert (config.depths, config.dims) == sizes[name.removesuffix("_224").rpartition("_")[2]]
    assert config.stem_stride == (2 if name.endswith("_t6") else 4)
    assert (config.in_chans, config.num_classes, config.drop_path, config.head_dropout) == (3, 1000, 0.0, 0.0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_accuracy(name):
    row = PUBLISHED[name]
    assert TOP1.get(name, (None, None)) == (row.top1, row.top1_384)


def test_list_models():
    assert set(list_models()) == {*PUBLISHED, *T6}
    assert list_models("caformer*") == ["caformer_s18", "caformer_s36", "caformer_m36", "caformer_b36", "caformer_t6"]
    assert list_models("*_t6") == list(T6)
    assert list_models("resnet*") == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("caformer_s81", "no model 'caformer_s81', did you mean caformer_s18?"),
        ("CAFormer-S18", "no model 'CAFormer-S18', did you mean caformer_s18?"),
        ("poolformer2_s12", "no model 'poolformer2_s12', did you mean poolformerv2_s12?"),
        ("caformer_s12", "no model 'caformer_s12', did you mean "),
        ("resnet", "no model 'resnet'; allowed: poolformer_s12, "),
        ("retinanet", "retinanet is a head and lacks a backbone, such as retinanet/poolformer_s12"),
        ("retinanet/", "retinanet/ is a head and lacks a backbone, such as retinanet/poolformer_s12"),
    ],
)
def test_a_wrong_name_gets_the_nearest_right_one(name, sentence):
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        create_model(name)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"drop_path_rate": 0.1}, "a model has no 'drop_path_rate', did you mean drop_path?"),
        ({"dim": 64}, "a model has no 'dim', did you mean dims?"),
        ({"Mixers": Pooling()}, "a model has no 'Mixers', did you mean mixers?"),
        ({"image_size": 224}, "a model has no 'image_size'; allowed: depths, dims, mixers, "),
    ],
    ids=str,
)
def test_a_wrong_option_gets_the_nearest_right_one(changes, sentence):
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        create_model("caformer_t6", **changes)


def test_changes_leave_the_table_alone():
    before = ZOO["caformer_t6"]
    changed = get_config("caformer_t6", mixers="Pooling(window=5)", num_classes=10)
    assert changed == replace(before, mixers=(Pooling(5),) * 4, num_classes=10)
    assert changed != before
    assert ZOO["caformer_t6"] is before
    assert isinstance(before.mixers[3], Attention)


@pytest.mark.parametrize("name", ZOO)
def test_config_goes_through_json(name):
    config = ZOO[name]
    again = MetaFormerConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


def test_configs_tell_models_apart():
    """But IdentityFormer S12 and its like differ only in what they mix."""
    assert len(set(ZOO.values())) == len(ZOO)
