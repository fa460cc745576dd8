"""Weights made to fit other classes, channels and places: by value, and said."""

import re

import pytest
import torch
import torch.nn.functional as F
from tests.fill import filled

from metaformer import MetaFormer, create_model, load_weights
from metaformer.weights.adapt import fit_channels, fit_classes, fit_grid, fit_token_matrix
from metaformer.weights.formats import to_format
from metaformer.weights.imagenet import rows_by_synset
from metaformer.weights.load import fit_weights

TINY = {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24), "num_classes": 5}


def tiny(seed: int, name: str = "caformer_t6", **changes) -> MetaFormer:
    torch.manual_seed(seed)
    return create_model(name, **{**TINY, **changes}).eval()


def rest_is_read(model: MetaFormer, state: dict, *but: str) -> None:
    """All but these was taken as it is."""
    own = model.state_dict()
    assert all(any(key.startswith(start) for key in own) for start in but)
    kept = [key for key in own if not key.startswith(but)]
    assert kept
    assert all(torch.equal(own[key], state[key]) for key in kept)


# --- classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["caformer_t6", "poolformerv2_t6"])
@pytest.mark.parametrize("format", ["ours", "v2", "timm"])
def test_another_number_of_classes_gets_a_new_last_layer(name, format):
    state = tiny(0, name).state_dict()
    model, before = tiny(1, name, num_classes=7), tiny(1, name, num_classes=7).state_dict()
    given = to_format(state, format, tiny(0, name).config)
    report = fit_weights(model, given, adapt=True)
    assert (report.format, report.part) == (format, "")
    assert report.notes == ("classifier: a new last layer of 7 classes, the file's has 5",)
    rest_is_read(model, state, "head.classifier.fc.")
    for key in ("head.classifier.fc.weight", "head.classifier.fc.bias"):
        assert torch.equal(model.state_dict()[key], before[key])


def test_strict_by_default_and_the_way_out_is_named():
    state = tiny(0).state_dict()
    with pytest.raises(
        ValueError, match=r"head\.classifier\.fc\.bias: file \[5\], model \[7\](.|\n)*\nadapt=True makes them fit$"
    ):
        load_weights(tiny(1, num_classes=7), state)


def test_what_adapting_does_not_mend_is_listed():
    state = tiny(0).state_dict()
    del state["stages.0.blocks.0.mixer.norm.weight"]
    state["extra"] = torch.ones(1)
    state["stages.1.embed.conv.weight"] = torch.ones(12, 9, 3, 3)
    model, before = tiny(1, num_classes=7), tiny(1, num_classes=7).state_dict()
    for adapt in (False, True):
        with pytest.raises(ValueError, match="these weights do not fit") as caught:
            load_weights(model, state, adapt=adapt)
        text = str(caught.value)
        assert "missing (1):\n    stages.0.blocks.0.mixer.norm.weight" in text
        assert "unexpected (1):\n    extra" in text
        assert "stages.1.embed.conv.weight: file [12, 9, 3, 3], model [12, 8, 3, 3]" in text
        assert ("head.classifier.fc.bias" in text) == (not adapt)
        assert "adapt=True" not in text
        assert all(torch.equal(a, before[key]) for key, a in model.state_dict().items())


def test_features_and_back():
    state = tiny(0).state_dict()
    features = tiny(1, num_classes=0)
    assert fit_weights(features, state, adapt=True).notes == ("classifier: left out, the model has none",)
    rest_is_read(features, state)
    model = tiny(1)
    report = fit_weights(model, features.state_dict(), adapt=True)
    assert report.notes == ("classifier: new, of 5 classes, the file has none",)
    rest_is_read(model, state, "head.classifier.")
    with pytest.raises(ValueError, match=r"unexpected \(6\)"):
        load_weights(features, state)
    with pytest.raises(ValueError, match=r"missing \(6\)"):
        load_weights(model, features.state_dict())


def test_nothing_to_change_is_nothing_said():
    state = tiny(0).state_dict()
    model = tiny(1)
    assert fit_weights(model, state, adapt=True).notes == ()
    rest_is_read(model, state)


@pytest.mark.parametrize("shape", [(21841, 4), (21841,)])
def test_rows_of_21841_classes_by_synset(shape):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    fitted = fit_classes(rows)
    assert fitted.shape == (1000, *shape[1:])
    for place, row in enumerate(rows_by_synset()):
        expected = rows.mean(0) if row is None else rows[row]
        assert torch.equal(fitted[place], expected)


def test_a_model_of_1000_classes_from_one_of_21841():
    changes = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
    state = filled(create_model("caformer_t6", **changes, num_classes=21841).state_dict())
    model = create_model("caformer_t6", **changes)
    report = fit_weights(model, state, adapt=True)
    assert report.notes == (
        "classifier: 1000 of 21841 rows taken by synset; class 850 (teddy) has none there and takes the mean row",
    )
    rest_is_read(model, state, "head.classifier.fc.")
    for key in ("head.classifier.fc.weight", "head.classifier.fc.bias"):
        own, theirs = model.state_dict()[key], state[key]
        assert torch.equal(own[0], theirs[rows_by_synset()[0]])
        torch.testing.assert_close(own[850], theirs.mean(0))


# --- channels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7])
def test_the_stem_takes_other_channels_as_timm_does(channels):
    from timm.models._manipulate import adapt_input_conv

    state = tiny(0).state_dict()
    model = tiny(1, in_chans=channels)
    notes = fit_weights(model, state, adapt=True).notes
    weight = model.state_dict()["stages.0.embed.conv.weight"]
    torch.testing.assert_close(weight, adapt_input_conv(channels, state["stages.0.embed.conv.weight"]))
    how = "summed" if channels == 1 else f"repeated, times 3/{channels}"
    assert notes == (() if channels == 3 else (f"stem: 3 input channels to {channels}, {how}",))
    rest_is_read(model, state, "stages.0.embed.conv.weight")


@pytest.mark.parametrize(("given", "channels"), [(3, 1), (3, 6), (3, 12), (1, 3), (1, 4), (4, 1)])
def test_equal_channels_give_what_they_gave_before(given, channels):
    grey = torch.randn(2, 1, 9, 9)
    weight = torch.randn(5, given, 7, 7)
    before = F.conv2d(grey.expand(-1, given, -1, -1), weight)
    after = F.conv2d(grey.expand(-1, channels, -1, -1), fit_channels(weight, channels))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_half_precision_is_kept_in_range():
    assert fit_channels(torch.ones(1, 3, 1, 1, dtype=torch.float16), 4).dtype == torch.float16


# --- places -----------------------------------------------------------------------------------------------------------


def test_a_position_embedding_of_another_grid():
    changes = {**TINY, "mixers": "Pooling()"}
    model, small = (create_model("poolformerv2_t6", **changes, pos_embed=(0, 0, side, 0)) for side in (12, 6))
    state = filled(small.state_dict())
    report = fit_weights(model, state, adapt=True)
    assert report.notes == ("position embedding of stage 3: 6×6 places to 12×12, bicubic",)
    key = "stages.2.pos_embed.weight"
    assert model.state_dict()[key].shape == (1, 16, 12, 12)
    torch.testing.assert_close(model.state_dict()[key], fit_grid(state[key], 12))
    rest_is_read(model, state, key)


def test_a_grid_is_interpolated_smoothly():
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    wide = fit_grid(ramp, 16)
    inner = wide[0, 0, 8, 4:12]
    torch.testing.assert_close(inner, (torch.arange(4.0, 12.0) + 0.5) / 2 - 0.5, atol=0.02, rtol=0)
    torch.testing.assert_close(fit_grid(torch.ones(1, 2, 14, 14), 7), torch.ones(1, 2, 7, 7))
    checks = (torch.arange(14).view(-1, 1) + torch.arange(14)).remainder(2).float().expand(1, 1, 14, 14)
    assert (fit_grid(checks, 7)[..., 2:-2, 2:-2] - 0.5).abs().max() < 0.05  # antialiased: the finest pattern becomes grey


@pytest.mark.parametrize(("grid", "side"), [(4, 7), (7, 4), (4, 8)])
def test_random_matrices_still_average(grid, side):
    """Rows that sum to 1, nothing negative, and what the model itself computes on maps of that size."""
    matrix = torch.softmax(torch.randn(grid**2, grid**2, generator=torch.Generator().manual_seed(0)), dim=-1)
    fitted = fit_token_matrix(matrix, side)
    assert fitted.shape == (side**2, side**2)
    assert (fitted >= 0).all()
    torch.testing.assert_close(fitted.sum(1), torch.ones(side**2))


@pytest.mark.parametrize("spec", ["Random", "SpatialFC"])
def test_a_model_for_larger_images_computes_what_the_small_one_does_on_them(spec):
    def model(seed: int, *grids: int) -> MetaFormer:
        mixers = f"(Pooling(), Pooling(), {spec}({grids[0]}), {spec}({grids[1]}))"
        return tiny(seed, "poolformerv2_t6", mixers=mixers)

    small, large = model(0, 4, 2), model(1, 6, 3)
    small.load_state_dict(filled(small.state_dict()))
    report = fit_weights(large, small.state_dict(), adapt=True)
    assert report.notes == (
        "token matrices of stage 3: 4×4 places to 6×6, interpolated over rows and columns",
        "token matrices of stage 4: 2×2 places to 3×3, interpolated over rows and columns",
    )
    x = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(large(x), small(x), atol=1e-5, rtol=1e-4)


def test_a_depthwise_convolution_is_no_token_matrix():
    """Its name is the same."""
    state = tiny(0, "poolformerv2_t6", mixers="DepthwiseConv(kernel=3)").state_dict()
    with pytest.raises(ValueError, match=re.escape("mixer.branch.weight: file [8, 1, 3, 3], model [8, 1, 5, 5]")):
        load_weights(tiny(1, "poolformerv2_t6", mixers="DepthwiseConv(kernel=5)"), state, adapt=True)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("stages.0.embed.conv.weight", (8, 3, 5, 5)),
        ("stages.0.embed.conv.weight", (9, 4, 7, 7)),
        ("stages.0.embed.conv.weight", (8, 0, 7, 7)),
        ("stages.0.embed.conv.weight", ()),
        ("stages.2.pos_embed.weight", (1, 16, 4, 5)),
        ("stages.2.pos_embed.weight", (1, 12, 4, 4)),
        ("stages.3.blocks.0.mixer.branch.weight", (15, 15)),
        ("stages.3.blocks.0.mixer.branch.weight", (16, 9)),
        ("stages.3.blocks.0.mixer.branch.weight", (0, 0)),
        ("head.classifier.fc.weight", (7, 25)),
        ("head.classifier.fc.bias", ()),
        ("head.norm.weight", (25,)),
    ],
)
def test_shapes_that_no_rule_mends(key, shape):
    changes = {"pos_embed": (0, 0, 6, 0), "mixers": "(Pooling(), Pooling(), Pooling(), Random(2))"}
    state = tiny(0, "poolformerv2_t6", **changes).state_dict()
    assert key in state
    state[key] = torch.zeros(shape)
    with pytest.raises(ValueError, match=re.escape(f"{key}: file {list(shape)}, model ")):
        load_weights(tiny(1, "poolformerv2_t6", **changes), state, adapt=True)
