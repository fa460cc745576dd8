"""Configs: rows and text are read, wrong ones get a sentence, and what is written reads back."""

import copy
import json
import pickle
import re

import numpy as np
import pytest
from torch import nn

from metaformer import GELU, MLN, LayerNorm, MetaFormerConfig, Pooling, Scale, SepConv

SMALL = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}


class Own(nn.Identity):
    """A mixer of a user's own."""


def test_config_fills_rows_and_reads_text():
    config = MetaFormerConfig(depths=[1, 2], dims=64, mixers="Pooling(window=5)", scales="Scale(branch=1e-5)", norm="MLN")
    assert config.dims == (64, 64)
    assert config.mixers == (Pooling(5), Pooling(5))
    assert config.scales == (Scale(branch=1e-5),) * 2
    assert config.norm == MLN()
    assert config.pos_embed == (0, 0)
    assert MetaFormerConfig(depths="(1, 2)", dims="[8, 9]", mixers="(Identity, Pooling)", scales=Scale()).depths == (1, 2)


def test_config_is_a_value():
    one, two = (MetaFormerConfig(**SMALL, mixers=Pooling()) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != MetaFormerConfig(**SMALL, mixers=Pooling(5))
    assert pickle.loads(pickle.dumps(one)) == one
    assert copy.deepcopy(one) == one


def test_numbers_of_numpy_become_numbers():
    config = MetaFormerConfig(**SMALL, mixers=Pooling(), num_classes=np.int64(7), drop_path=np.float32(0.5))
    assert (type(config.num_classes), type(config.drop_path)) == (int, float)
    assert json.loads(json.dumps(config.to_dict()))["num_classes"] == 7


WRONG = [
    ({"depths": (1, 0, 1, 1)}, "depths (1, 0, 1, 1) and dims (8, 16, 24, 32) must be positive and one per stage"),
    ({"depths": (1, 1)}, "depths (1, 1) and dims (8, 16, 24, 32) must be positive and one per stage"),
    ({"depths": ()}, "must be positive and one per stage"),
    ({"depths": (1, 1.5, 1, 1)}, "depths=1.5 is not a whole number"),
    ({"dims": ("a", 1, 1, 1)}, "dims='a' is not a whole number"),
    ({"mixers": (Pooling(),) * 3}, "3 mixers for 4 stages of 4 blocks: give one per stage or per block"),
    ({"scales": (Scale(),) * 3}, "scales has 3 entries for 4 stages: give one per stage"),
    ({"pos_embed": (0, 7)}, "pos_embed has 2 entries for 4 stages: give one per stage"),
    ({"pos_embed": (0, 0, 0, -7)}, "pos_embed=(0, 0, 0, -7): a side is a whole number, 0 for none"),
    ({"stem_stride": 3}, "stem_stride=3 is not one of 1, 2, 4"),
    ({"patch_init": "xavier"}, 'patch_init=\'xavier\' is not one of "truncated", "torch"'),
    ({"drop_path": 1.0}, "drop_path=1.0 is not at least 0 and below 1"),
    ({"head_dropout": -0.1}, "head_dropout=-0.1 is not at least 0 and below 1"),
    ({"drop_path": None}, "drop_path=None is not a number"),
    ({"in_chans": 0}, "in_chans=0 is not at least 1"),
    ({"in_chans": True}, "in_chans=True is not a whole number"),
    ({"num_classes": -1}, "num_classes=-1 is not at least 0"),
    ({"num_classes": "ten"}, "num_classes='ten' is not a whole number"),
    ({"mlp_ratio": -1}, "mlp_ratio=-1.0 is not at least 0"),
    ({"mlp_ratio": float("nan")}, "mlp_ratio=nan is not at least 0"),
    ({"residual": 1}, "residual=1 is not True or False"),
    ({"norm": LayerNorm}, "norm=LayerNorm is a class: a spec has brackets, LayerNorm(...)"),
    (
        {"norm": GELU()},
        "norm=GELU() does not serve there: give MLN, LayerNorm, BatchNorm, GroupNorm, NoNorm, or a function or class",
    ),
    ({"norm": None}, "norm=None does not serve there: give MLN"),
    ({"norm": LayerNorm(eps=None)}, "LayerNorm's eps=None is not a number"),
    ({"norm": "LayerNorm(bias=1)"}, "LayerNorm's bias=1 is not True or False"),
    ({"scales": Scale(shortcut=True)}, "Scale's shortcut=True is not a number"),
    ({"mixers": SepConv(activation="ReLU()")}, "activation='ReLU()' does not serve there: give StarReLU"),
    ({"mixers": "SepConv(activation=Pooling())"}, "activation=Pooling(window=3) does not serve there: give StarReLU"),
    ({"norm": (LayerNorm(),) * 4}, "does not serve there: give MLN"),
    ({"norm": "LayrNorm()"}, "norm: unknown 'LayrNorm', did you mean LayerNorm?"),
    ({"activation": LayerNorm()}, "does not serve there: give StarReLU, SquaredReLU, ReLU, GELU, SiLU"),
    ({"head": Pooling()}, "head=Pooling(window=3) does not serve there: give LinearHead, MLPHead"),
    ({"mixers": nn.Identity()}, "mixers=Identity() is a module, which all blocks would share: give its class, or lambda"),
    ({"mixers": None}, "mixers=None does not serve there: give Identity, Pooling"),
    ({"scales": None}, "scales=None does not serve there: give Scale"),
    ({"scales": lambda dim: None}, "does not serve there: give Scale"),
]


@pytest.mark.parametrize(("changes", "sentence"), WRONG, ids=[sentence for _, sentence in WRONG])
def test_a_wrong_config_gets_a_sentence(changes, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        MetaFormerConfig(**{**SMALL, "mixers": Pooling(), **changes})


def test_from_dict_names_what_is_wrong_with_a_file():
    data = MetaFormerConfig(**SMALL, mixers=Pooling()).to_dict()
    with pytest.raises(ValueError, match=r"a model has no 'mixer', did you mean mixers\?"):
        MetaFormerConfig.from_dict({**data, "mixer": "Pooling()"})
    with pytest.raises(ValueError, match="a model needs 'dims', which is not among depths"):
        MetaFormerConfig.from_dict({"depths": [1]})
    own = MetaFormerConfig(**SMALL, mixers=Own).to_dict()
    assert own["mixers"] == ["tests.core.test_architecture:Own"] * 4
    with pytest.raises(ValueError, match="is code of your own, which a file cannot bring back"):
        MetaFormerConfig.from_dict(own)
