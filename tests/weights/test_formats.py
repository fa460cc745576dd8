"""Every model's weights go to every format that knows it and come back bit for bit."""

import re

import pytest
import torch
from tests.fill import empty_model
from tests.published import PUBLISHED, T6

from metaformer import MetaFormer, create_model, load_weights
from metaformer.weights.formats import FORMATS, cannot_hold, rename, to_format
from metaformer.zoo import ZOO, get_config

V1 = [name for name in PUBLISHED if name.startswith(("poolformer_", "metaformer_"))]
V2 = [name for name in (*PUBLISHED, *T6) if name not in V1]
IN_TIMM = [name for name in (*PUBLISHED, *T6) if name.startswith(("poolformer", "convformer", "caformer"))]
KNOWN = {
    "ours": [*PUBLISHED, *T6],
    "v1": V1,
    "v2": V2,
    "timm": IN_TIMM,
    "transformers": [name for name in PUBLISHED if name.startswith("poolformer_")],
    "mmpretrain": [name for name in PUBLISHED if name.startswith("poolformer_")],
}
PAIRS = [(name, format) for format, names in KNOWN.items() for name in names]
BIG = ("s24", "s36", "m36", "m48", "b36")


def on_meta(name: str, **changes) -> MetaFormer:
    with torch.device("meta"):
        return create_model(name, **changes)


def numbered(model: MetaFormer) -> MetaFormer:
    """Every number of the model has a bit pattern of its own."""
    start = 1
    for tensor in model.state_dict().values():
        bits = torch.arange(start, start + tensor.numel(), dtype=torch.int32)
        tensor.copy_(bits.view(torch.float32).view(tensor.shape))
        start += tensor.numel()
    return model


def test_all_formats_are_known_here():
    assert set(FORMATS) == set(KNOWN)


@pytest.mark.parametrize(
    ("name", "format"), [pytest.param(*pair, marks=pytest.mark.slow if pair[0].endswith(BIG) else ()) for pair in PAIRS]
)
def test_round_trip(name, format):
    model = numbered(empty_model(name))
    there = to_format(model.state_dict(), format, model.config)
    assert len(there) == len(model.state_dict())
    back = load_weights(empty_model(name), there)
    for a, b in zip(model.state_dict().values(), back.state_dict().values(), strict=True):
        assert torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.mark.parametrize(("name", "format"), PAIRS)
def test_names_are_distinct_and_tell_the_format(name, format):
    """So a file of this format is read as one of this format, never as another."""
    model = on_meta(name)
    keys = list(model.state_dict())
    names = {other: {rename(key, other, model.config) for key in keys} for other in FORMATS}
    assert len(names[format]) == len(keys)
    for other in FORMATS:
        if other != format and len(names[other]) == len(keys):
            assert names[other] != names[format]


NAMES = {
    ("poolformer_s12", "v1"): {
        "stages.0.embed.conv.weight": "patch_embed.proj.weight",
        "stages.0.blocks.1.mixer.norm.weight": "network.0.1.norm1.weight",
        "stages.1.embed.conv.bias": "network.1.proj.bias",
        "stages.1.blocks.0.mixer.scale": "network.2.0.layer_scale_1",
        "stages.3.blocks.1.mlp.branch.fc2.bias": "network.6.1.mlp.fc2.bias",
        "head.norm.weight": "norm.weight",
        "head.classifier.fc.weight": "head.weight",
    },
    ("metaformer_ppaa_s12_224", "v1"): {
        "stages.2.embed.conv.weight": "network.3.proj.weight",
        "stages.2.pos_embed.weight": "network.4.pos_embed",
        "stages.2.blocks.0.mixer.branch.qkv.weight": "network.5.0.token_mixer.qkv.weight",
        "stages.3.embed.conv.weight": "network.6.proj.weight",
        "stages.3.blocks.0.mixer.branch.proj.bias": "network.7.0.token_mixer.proj.bias",
    },
    ("metaformer_pppf_s12_224", "v1"): {
        "stages.3.blocks.0.mixer.branch.weight": "network.6.0.token_mixer.fc.weight",
    },
    ("caformer_s18", "v2"): {
        "stages.0.embed.norm.weight": "downsample_layers.0.post_norm.weight",
        "stages.1.embed.norm.weight": "downsample_layers.1.pre_norm.weight",
        "stages.1.embed.conv.weight": "downsample_layers.1.conv.weight",
        "stages.0.blocks.2.mixer.branch.dw.weight": "stages.0.2.token_mixer.dwconv.weight",
        "stages.0.blocks.2.mixer.branch.pw1.weight": "stages.0.2.token_mixer.pwconv1.weight",
        "stages.0.blocks.2.mixer.branch.act.scale": "stages.0.2.token_mixer.act1.scale",
        "stages.2.blocks.0.mixer.shortcut_scale": "stages.2.0.res_scale1.scale",
        "stages.2.blocks.0.mlp.branch.act.bias": "stages.2.0.mlp.act.bias",
        "head.norm.bias": "norm.bias",
        "head.classifier.norm.bias": "head.norm.bias",
        "head.classifier.fc.bias": "head.fc2.bias",
    },
    ("randformer_s12", "v2"): {
        "stages.2.blocks.0.mixer.branch.weight": "stages.2.0.token_mixer.random_matrix",
        "head.classifier.fc.weight": "head.weight",
    },
    ("caformer_s18", "timm"): {
        "stages.0.embed.conv.weight": "stem.conv.weight",
        "stages.1.embed.norm.weight": "stages.1.downsample.norm.weight",
        "stages.2.blocks.0.mixer.shortcut_scale": "stages.2.blocks.0.res_scale1.scale",
        "head.classifier.fc1.weight": "head.fc.fc1.weight",
        "head.classifier.fc.weight": "head.fc.fc2.weight",
        "head.norm.weight": "head.norm.weight",
    },
    ("poolformer_s12", "timm"): {
        "stages.0.blocks.0.mlp.scale": "stages.0.blocks.0.layer_scale2.scale",
        "head.classifier.fc.weight": "head.fc.weight",
    },
    ("poolformer_s12", "transformers"): {
        "stages.1.embed.conv.weight": "poolformer.encoder.patch_embeddings.1.projection.weight",
        "stages.1.blocks.0.mlp.norm.bias": "poolformer.encoder.block.1.0.after_norm.bias",
        "stages.1.blocks.0.mlp.branch.fc1.weight": "poolformer.encoder.block.1.0.output.conv1.weight",
        "stages.1.blocks.0.mixer.scale": "poolformer.encoder.block.1.0.layer_scale_1",
        "head.classifier.fc.weight": "classifier.weight",
    },
    ("poolformer_s12", "mmpretrain"): {
        "stages.0.embed.conv.weight": "backbone.patch_embed.proj.weight",
        "stages.1.embed.conv.bias": "backbone.network.1.proj.bias",
        "stages.1.blocks.0.mixer.norm.weight": "backbone.network.2.0.norm1.weight",
        "stages.1.blocks.0.mixer.scale": "backbone.network.2.0.layer_scale_1",
        "stages.3.blocks.1.mlp.branch.fc2.bias": "backbone.network.6.1.mlp.fc2.bias",
        "head.norm.weight": "backbone.norm6.weight",
        "head.classifier.fc.weight": "head.fc.weight",
    },
}


@pytest.mark.parametrize(("name", "format"), NAMES)
def test_names_of_others(name, format):
    model = on_meta(name)
    assert set(NAMES[name, format]) <= set(model.state_dict())
    assert {key: rename(key, format, model.config) for key in NAMES[name, format]} == NAMES[name, format]


SHAPES = [
    ("caformer_s18", "v2", "stages.0.0.mlp.fc1.weight", (256, 64)),
    ("caformer_s18", "v2", "stages.0.0.token_mixer.dwconv.weight", (128, 1, 7, 7)),
    ("caformer_s18", "timm", "stages.0.blocks.0.mlp.fc1.weight", (256, 64, 1, 1)),
    ("caformer_s18", "timm", "stages.2.blocks.0.mlp.fc1.weight", (1280, 320)),
    ("caformer_s18", "timm", "stages.2.downsample.conv.weight", (320, 128, 3, 3)),
    ("metaformer_ppaa_s12_224", "v1", "network.5.0.token_mixer.qkv.weight", (960, 320)),
    ("metaformer_ppaa_s12_224", "v1", "network.5.0.mlp.fc1.weight", (1280, 320, 1, 1)),
    ("poolformer_s12", "transformers", "poolformer.encoder.block.0.0.output.conv1.weight", (256, 64, 1, 1)),
]


@pytest.mark.parametrize(("name", "format", "key", "shape"), SHAPES)
def test_matrices_where_theirs_is_linear(name, format, key, shape):
    model = on_meta(name)
    assert to_format(model.state_dict(), format, model.config)[key].shape == shape


def test_an_unknown_format_gets_the_nearest():
    model = on_meta("caformer_t6")
    with pytest.raises(ValueError, match=re.escape("no format 'tim', did you mean timm?")):
        to_format(model.state_dict(), "tim", model.config)


# --- which models the code of others can compute ----------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_which_published_models_a_format_holds(format):
    """Names alone would let timm's PoolFormer hold an identity; it would pool."""
    held = {name for name, config in ZOO.items() if not cannot_hold(format, config)}
    assert held == {name for name in KNOWN[format] if name in PUBLISHED or format == "ours"}


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({"num_classes": 7, "in_chans": 1, "drop_path": 0.2, "head_dropout": 0.3}, True),
        ({"depths": (1, 1, 1, 1), "dims": (32, 64, 96, 128)}, True),
        ({"mixers": "Pooling(window=5)"}, False),
        ({"norm": "MLN(eps=1e-3, bias=True)"}, False),
        ({"stem_stride": 2}, False),
        ({"depths": (1, 1), "dims": (32, 64), "mixers": "Pooling()", "scales": "Scale(branch=1e-5)", "pos_embed": ()}, False),
    ],
)
def test_what_may_change_in_a_family(changes, held):
    config = get_config("poolformer_s12", **changes)
    assert not cannot_hold("ours", config)
    reason = cannot_hold("transformers", config)
    assert (reason == "") == held
    assert held or reason == (
        "format 'transformers' holds poolformer in the sizes that are published, and this is none; 'ours' holds every model"
    )
