"""Studies as data: which rows there are, what their models are, and what decides a result."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.rows import OWN, resolved
from tests.tiny import forget
from torch import Tensor, nn

from metaformer import Attention, DepthwiseConv, Identity, Pooling, Random, Scale, SepConv, StarReLU
from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.layers import GELU, BatchNorm, LayerNorm, NoNorm, ReLU, SiLU, SquaredReLU
from metaformer.lab.studies import STUDIES
from metaformer.lab.study import SCALES, Row, Study, sides, sized
from metaformer.lab.study_find import find_study
from metaformer.zoo import ZOO


class Mine(nn.Module):
    """A mixer of one's own."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.roll(1, 2)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named is remembered there."""
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path))


def shapes(study: Study, scale: str, size: int) -> dict[str, MetaFormerConfig]:
    found = {entry.row: entry.shape for entry in resolved(study, scale, size)}
    return {row: replace(shape, drop_path=0.0) for row, shape in found.items() if shape is not None}


# --- the papers' rows -------------------------------------------------------------------------------------------------


def test_the_studies_that_there_are() -> None:
    assert list(STUDIES) == [
        "mixers", "pool-size", "norm", "activation", "branch-scale", "bias", "frame", "hybrid-stages", "depth-width",
        "resolution", "claims",
    ]  # fmt: skip
    assert all(study.about for study in STUDIES.values())


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize(("scale", "size"), [("t4", 28), ("t6", 32), ("s12", 224), ("s18", 224)])
def test_every_row_has_a_model_of_its_own(name: str, scale: str, size: int) -> None:
    found = resolved(STUDIES[name], scale, size)
    assert [entry.row for entry in found] == [row.name for row in STUDIES[name].rows]
    assert len({entry.key for entry in found}) == len(found)
    assert all(not entry.code and entry.recipe.keep == 1 for entry in found)
    assert {entry.shape.depths for entry in found if entry.shape} >= {SCALES[scale][0][0]}


def test_rows_of_a_published_model_are_that_model() -> None:
    """Of the size and at the resolution for which the papers give their figures."""
    pairs = {
        ("hybrid-stages", "pooling"): "poolformer_s12", ("hybrid-stages", "pppa"): "metaformer_pppa_s12_224",
        ("hybrid-stages", "ppaa"): "metaformer_ppaa_s12_224", ("hybrid-stages", "pppf"): "metaformer_pppf_s12_224",
        ("hybrid-stages", "ppff"): "metaformer_ppff_s12_224", ("mixers", "identity"): "metaformer_id_s12",
        ("mixers", "identityformer"): "identityformer_s12", ("mixers", "randformer"): "randformer_s12",
        ("mixers", "poolformerv2"): "poolformerv2_s12", ("depth-width", "deep-2"): "poolformer_s24",
    }  # fmt: skip
    for (study, row), name in pairs.items():
        assert shapes(STUDIES[study], "s12", 224)[row] == ZOO[name], row
    for row, name in (("convformer", "convformer_s18"), ("caformer", "caformer_s18")):
        assert shapes(STUDIES["activation"], "s18", 224)[row] == ZOO[name]
    scaled = {"deep-3": "poolformer_s36", "deep-3-wide": "poolformer_m36", "deep-4-wide": "poolformer_m48"}
    for row, name in scaled.items():
        assert shapes(STUDIES["depth-width"], "s12", 224)[row] == ZOO[name]


FRAME = {
    "identity": {"mixers": (Identity(),) * 4}, "depthwise": {"mixers": (DepthwiseConv(kernel=3),) * 4},
    "random": {"mixers": (Random(grid=56), Random(grid=28), Random(grid=14), Random(grid=7))},
    "separable": {"mixers": (SepConv(kernel=7, activation=GELU(), bias=True),) * 4},
    "attention": {"mixers": (Attention(proj_bias=True),) * 4},
    **{f"pooling-{window}": {"mixers": (Pooling(window=window),) * 4} for window in (5, 7, 9)},
    "layernorm": {"norm": LayerNorm(eps=1e-5, bias=True), "head_norm": LayerNorm(eps=1e-5, bias=True)},
    "batchnorm": {"norm": BatchNorm(), "head_norm": BatchNorm()}, "no-norm": {"norm": NoNorm(), "head_norm": NoNorm()},
    "relu": {"activation": ReLU()}, "silu": {"activation": SiLU()}, "no-layerscale": {"scales": (Scale(),) * 4},
    "no-residual": {"residual": False}, "no-channel-mlp": {"mlp_ratio": 0.0}, "pooling": {},
    "deep-2": {"depths": (4, 4, 12, 4)}, "deep-3": {"depths": (6, 6, 18, 6), "scales": (Scale(branch=1e-6),) * 4},
    "deep-3-wide": {"depths": (6, 6, 18, 6), "dims": (96, 192, 384, 768), "scales": (Scale(branch=1e-6),) * 4},
    "deep-4-wide": {"depths": (8, 8, 24, 8), "dims": (96, 192, 384, 768), "scales": (Scale(branch=1e-6),) * 4},
}  # fmt: skip
"""What rows change of PoolFormer-S12."""
STAR = {"scale": 0.8944, "bias": -0.4472}
ACTS = {
    "relu": ReLU(), "squared-relu": SquaredReLU(), "gelu": GELU(), "derived": StarReLU(**STAR),
    "scale-frozen": StarReLU(**STAR, learn_scale=False), "bias-frozen": StarReLU(**STAR, learn_bias=False),
    "both-frozen": StarReLU(**STAR, learn_scale=False, learn_bias=False),
}  # fmt: skip
SCALINGS = {
    "layerscale": Scale(branch=1e-5), "branchscale": Scale(shortcut=1.0, branch=1e-5), "no-scale": Scale(),
}  # fmt: skip
HYBRIDS = {name: f"metaformer_{name}_s12_224" for name in ("pppa", "ppaa", "pppf", "ppff")}
SIZED = {"identityformer": "s12", "randformer": "s12", "poolformerv2": "s12", "convformer": "s18", "caformer": "s18"}


def expected() -> dict[str, MetaFormerConfig]:
    """Every ablation row of both papers that is a change of PoolFormer-S12, ConvFormer-S18 or CAFormer-S18, by value."""
    found = {row: replace(ZOO["poolformer_s12"], **changes) for row, changes in FRAME.items()}
    found |= {row: ZOO[name] for row, name in HYBRIDS.items()}
    found |= {row: ZOO[f"{row}_{size}"] for row, size in SIZED.items() if size == "s18"}
    for family, convs in (("convformer", 4), ("caformer", 2)):
        base = ZOO[f"{family}_s18"]
        for name, act in ACTS.items():
            mixers = (SepConv(activation=act),) * convs + base.mixers[convs:]
            found[f"{family}-{name}"] = replace(base, activation=act, mixers=mixers)
        for name, scale in SCALINGS.items():
            found[f"{family}-{name}"] = replace(base, scales=(scale,) * 4)
        mixers = (SepConv(bias=True),) * convs + (Attention(qkv_bias=True, proj_bias=True),) * (4 - convs)
        norm = LayerNorm(eps=1e-6, bias=True)
        found[f"{family}-biases"] = replace(base, mixers=mixers, norm=norm, mlp_bias=True)
    return found


def test_every_row_changes_what_it_says_and_nothing_else() -> None:
    told, there = expected(), {row.name for study in STUDIES.values() for row in study.rows}
    zoomed = {f"{family}-{size}" for family in ("convformer", "caformer") for size in ("half", "384")}
    assert there == told.keys() | SIZED.keys() | zoomed
    for study in STUDIES.values():
        for scale in ("s12", "s18"):
            for row, shape in shapes(study, scale, 224).items():
                if row in told and (SIZED.get(row.partition("-")[0], "s12") == scale):
                    assert shape == told[row], (study.name, row)


@pytest.mark.parametrize(
    ("study", "row", "published"),
    [
        ("mixers", "pooling", 77.2), ("mixers", "identity", 74.3), ("mixers", "random", 75.8), ("mixers", "depthwise", 78.1),
        ("norm", "layernorm", 76.5), ("norm", "batchnorm", 76.4), ("norm", "no-norm", 46.1), ("frame", "no-residual", 0.1),
        ("frame", "no-channel-mlp", 5.7), ("activation", "relu", 76.4), ("activation", "silu", 77.2),
        ("activation", "convformer", 83.0), ("activation", "caformer", 83.6), ("activation", "convformer-relu", 82.1),
        ("activation", "caformer-relu", 82.9), ("activation", "convformer-gelu", 82.7), ("activation", "caformer-gelu", 83.4),
        ("hybrid-stages", "ppaa", 81.0), ("bias", "convformer-biases", 83.0), ("bias", "caformer-biases", 83.5),
        ("pool-size", "pooling-9", 76.7), ("depth-width", "deep-4-wide", 82.5), ("resolution", "convformer-384", 84.4),
        ("resolution", "caformer-384", 85.0), ("branch-scale", "convformer-layerscale", None),
    ],
)  # fmt: skip
def test_published_figures(study: str, row: str, published: float | None) -> None:
    (found,) = [one for one in STUDIES[study].rows if one.name == row]
    assert found.published == published


def test_rows_of_a_name_are_the_same_in_all_studies() -> None:
    """So that a row trained for one is not trained for another, and a claim means the same everywhere."""
    keys: dict[str, set[str]] = {}
    for study in STUDIES.values():
        for entry in resolved(study):
            keys.setdefault(entry.row, set()).add(entry.key)
    assert {row for row, found in keys.items() if len(found) > 1} == set()
    assert len(keys) == len({key for found in keys.values() for key in found})


def test_what_the_rows_change() -> None:
    act = shapes(STUDIES["activation"], "t6", 28)
    frozen = StarReLU(0.8944, -0.4472, learn_scale=False, learn_bias=False)
    assert act["caformer-both-frozen"].activation == frozen
    assert [getattr(mixer, "activation", None) for mixer in act["caformer-both-frozen"].mixers] == [frozen, frozen, None, None]
    assert act["convformer-scale-frozen"].activation == replace(frozen, learn_bias=True)
    assert shapes(STUDIES["branch-scale"], "t6", 28)["convformer-branchscale"].scales == (Scale(1.0, 1e-5),) * 4
    frame = shapes(STUDIES["frame"], "t6", 28)
    assert (frame["no-residual"].residual, frame["no-channel-mlp"].mlp_ratio) == (False, 0.0)
    assert [getattr(mixer, "grid", 0) for mixer in shapes(STUDIES["mixers"], "t6", 28)["random"].mixers] == [14, 7, 4, 2]
    assert shapes(STUDIES["hybrid-stages"], "t6", 28)["ppaa"].pos_embed == (0, 0, 4, 0)
    sizes = {entry.row: entry.recipe.image_size for entry in resolved(STUDIES["resolution"], "s18", 224)}
    assert sizes == {
        "convformer": None, "convformer-half": 112, "convformer-384": 384,
        "caformer": None, "caformer-half": 112, "caformer-384": 384,
    }  # fmt: skip
    wide = shapes(STUDIES["depth-width"], "t6", 28)["deep-3-wide"]
    assert (wide.depths, wide.dims) == ((3, 3, 9, 3), (48, 96, 192, 288))


@pytest.mark.parametrize(
    ("size", "stride", "found"),
    [(224, 4, [56, 28, 14, 7]), (28, 2, [14, 7, 4, 2]), (33, 1, [33, 17, 9, 5]), (48, 4, [12, 6, 3, 2])],
)
def test_sides_are_those_of_the_maps(size: int, stride: int, found: list[int]) -> None:
    assert sides(size, stride) == found
    model = MetaFormerConfig(depths=(1,) * 4, dims=(2,) * 4, mixers=Pooling(), stem_stride=stride)  # type: ignore[arg-type]
    from metaformer import MetaFormer

    maps = MetaFormer(model).features(torch.zeros(1, 3, size, size))
    assert [x.shape[2] for x in maps] == found


# --- families and scales ----------------------------------------------------------------------------------------------


def test_a_family_in_a_size() -> None:
    assert sized("caformer", "t6") == ("caformer_t6", {})
    assert sized("caformer_s36", "t6") == ("caformer_s36", {})
    assert sized("timm:resnet18", "s12") == ("timm:resnet18", {})
    assert sized("poolformer", "t6") == (
        "poolformer_s12", {"depths": (1, 1, 3, 1), "dims": (32, 64, 128, 192), "stem_stride": 2}
    )  # fmt: skip
    assert SCALES["s36"][0] == ((6, 6, 18, 6), (64, 128, 320, 512))


@pytest.mark.parametrize(
    ("model", "scale", "said"),
    [
        ("poolfromer", "t6", "no model or family 'poolfromer', did you mean poolformer"),
        ("caformer", "s21", "no scale 's21', did you mean s24"),
    ],
)
def test_what_is_mistyped(model: str, scale: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        sized(model, scale)


# --- keys -------------------------------------------------------------------------------------------------------------

PAIR = Study(name="pair", rows=(Row("pooling", {"mixers": Pooling()}), Row("depthwise", {"mixers": "DepthwiseConv()"})))


def keys(study: Study = PAIR, **changes: Any) -> list[str]:
    return [entry.key for entry in resolved(study, **changes)]


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 1e-3}, {"epochs": 21}, {"batch": 32}, {"seed": 1}, {"optimizer": "lamb"}, {"mixup": 0.2}, {"drop_path": 0.1},
        {"deterministic": True}, {"size": 32}, {"image_size": 32}, {"scale": "t4"}, {"mark": "n"}, {"precision": "bf16"},
        {"changes": {"norm": "BatchNorm()"}}, {"patience": 3}, {"accumulate": 2},
    ],
    ids=str,
)  # fmt: skip
def test_what_decides_a_result_is_in_the_key(changes: dict[str, Any]) -> None:
    assert not set(keys(**changes)) & set(keys())


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cuda"}, {"workers": 3}, {"log": "tensorboard"}, {"save_minutes": 1.0}, {"keep": 3}, {"data": "elsewhere"},
        {"recipe": "photos"}, {"image_size": 28}, {"model": "convformer_t6"}, {"changes": {"norm": "MLN(eps=1e-6)"}},
    ],
    ids=str,
)  # fmt: skip
def test_what_decides_nothing_is_not(changes: dict[str, Any]) -> None:
    assert keys(**changes) == keys()


def test_what_a_row_computes_in_is_in_its_key() -> None:
    told = ("fp32", "bf16", "fp16", "tf32", "auto")
    study = Study(name="in", rows=(Row("base"), *(Row(one, settings={"precision": one}) for one in told)))
    base, *found = [entry.key for entry in resolved(study, device="cpu")]
    assert [found.count(key) for key in found] == [2, 1, 1, 1, 2]  # auto is fp32 there
    assert base == found[0]
    base, *others = [entry.key for entry in resolved(study, device="cpu", precision="bf16")]  # auto is bf16 on a GPU
    assert others == [*found[:4], found[1]]
    assert base == found[1]


def test_what_files_hold_is_in_the_key_of_rows_that_begin_with_them(tmp_path: Path) -> None:
    file, folder = tmp_path / "one.safetensors", tmp_path / "folder"
    folder.mkdir()
    for setting in ("weights", "teacher"):
        for place, held in ((file, file), (folder, folder / "model.safetensors")):
            held.write_bytes(b"one")
            plain, fed = (Study(name="fed", rows=(Row("a", settings=told),)) for told in ({}, {setting: str(place)}))
            before = keys(fed)
            assert keys(fed) == before
            held.write_bytes(b"two")
            assert keys(fed) != before != keys(plain)
            held.write_bytes(b"one")
            assert keys(fed) == before


def test_the_same_model_under_another_name_begins_with_other_published_weights() -> None:
    rows = (Row("a", {"mixers": "Identity()"}, model="poolformerv2"), Row("b", model="identityformer"))
    plain, tagged = (
        [entry.key for entry in resolved(Study(name="tag", rows=rows, settings={}), "s12", 224, **told)]
        for told in ({}, {"weights": "in1k"})
    )
    assert plain[0] == plain[1]
    assert tagged[0] != tagged[1]
    assert not {*plain} & {*tagged}


def test_sides_are_those_of_a_row_s_own_images() -> None:
    random = {"mixers": "(Random(grid={1}), Random(grid={2}), Random(grid={3}), Random(grid={4}))"}
    study = Study(name="own", rows=(Row("a", random), Row("b", random, settings={"image_size": 56})))
    assert [[mixer.grid for mixer in entry.shape.mixers] for entry in resolved(study) if entry.shape] == [  # type: ignore[attr-defined]
        [14, 7, 4, 2], [28, 14, 7, 4],
    ]  # fmt: skip


def test_a_model_has_one_key_however_it_is_said() -> None:
    same = Study(name="same", rows=(Row("a", {"mixers": (Pooling(),) * 4}), Row("b", {"mixers": DepthwiseConv(kernel=3)})))
    assert keys(same) == keys()
    assert keys(replace(PAIR, name="other", model="poolformerv2_t6")) == keys()


def test_seeds_count_on_from_the_recipe_s() -> None:
    found = resolved(PAIR, seeds=3, seed=5)
    assert [(entry.row, entry.seed) for entry in found] == [
        (row, seed) for seed in (5, 6, 7) for row in ("pooling", "depthwise")
    ]
    assert [entry.recipe.seed for entry in found] == [5, 5, 6, 6, 7, 7]
    assert len({entry.key for entry in found}) == 6


# --- code of one's own ------------------------------------------------------------------------------------------------


def test_own_code_is_told_as_text(cache: None) -> None:
    study = Study(name="own", rows=(Row("mine", {"mixers": (Pooling(), Pooling(), Mine, Mine)}), Row("pooling")))
    mine, pooling = resolved(study)
    text = f"{Mine.__module__}:Mine"
    assert mine.shape is not None
    assert mine.shape.mixers[2] is Mine
    assert mine.recipe.model == "poolformerv2_t6"
    assert mine.recipe.changes == {"mixers": f"(Pooling(window=3), Pooling(window=3), {text}, {text})"}
    assert list(mine.code) == [Mine.__module__]
    assert (pooling.code, pooling.recipe.changes) == ({}, {})


def test_own_code_may_be_said_as_text(cache: None) -> None:
    one, other = (Study(name="own", rows=(Row("a", {"mixers": told}),)) for told in (Mine, f"{Mine.__module__}:Mine"))
    assert resolved(one) == resolved(other)


NAMELESS: dict[str, Any] = {
    "lambda": lambda dim: nn.Identity(), "partial": partial(nn.Conv2d, kernel_size=1), "method": Mine(1).forward,
}  # fmt: skip


@pytest.mark.parametrize("code", NAMELESS.values(), ids=NAMELESS)
def test_what_another_process_cannot_find_is_refused(code: Any, cache: None) -> None:
    with pytest.raises(
        ValueError, match=r"^row 'a': .* cannot be told to another process: write a class, a function or a frozen"
    ):
        resolved(Study(name="own", rows=(Row("a", {"mixers": code}),)))


def test_the_key_is_of_what_own_code_computes_wherever_it_lies(own: Path) -> None:
    def found(place: str, text: str) -> list[str]:
        forget(own)
        (own / place).parent.mkdir(exist_ok=True)
        (own / place).write_text(text)
        return [entry.key for entry in resolved(find_study(place, STUDIES)[0])]

    pooling, nothing = found("mine.py", OWN)
    assert found("sub/other.py", OWN + "# more\n") == [pooling, nothing]
    assert found("mine.py", OWN.replace("(Row(", "(Row('more'), Row("))[1:] == [pooling, nothing]
    changed = found("mine.py", OWN.replace("super().__init__()", "super().__init__(); self.more = 1"))
    assert changed[0] == pooling
    assert changed[1] != nothing


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rows": ()}, "needs rows, each with a name of its own: none"),
        ({"rows": (Row("a"), Row("a"))}, "needs rows, each with a name of its own: a, a"),
        ({"rows": (Row("a", against="b"),)}, "row 'a' is compared with 'b'; allowed: a"),
        ({"rows": (Row("a", settings={"seed": 1}),)}, "seed= is not for a study"),
        ({"rows": (Row("a"),), "settings": {"hours": 1.0}}, "hours= is not for a study"),
        ({"rows": (Row("a", settings={"patience": 3}),)}, "patience= is not for a study: .*, and all rows learn equally long"),
        ({"rows": (Row("a"),), "name": "a/b"}, "is not the name of one folder"),
        ({"rows": (Row("a", settings={"data": "digits"}),)}, "row 'a': data= is the same for all rows, give it to the study"),
        ({"rows": (Row("a", settings={"labels": "single"}),)}, "row 'a': labels= is the same for all rows"),
        ({"rows": (Row("a", settings={"device": "cpu"}),)}, "row 'a': device= is the same for all rows"),
        ({"rows": (Row("a", settings={"recipe": "photos"}),)}, "row 'a': recipe= is the same for all rows"),
        ({"rows": (Row("a", settings={"model": "b"}),)}, r"row 'a': model is no setting but a field of the row, Row\(model="),
        ({"rows": (Row("a", settings={"changes": {}}),)}, r"row 'a': changes is no setting but .*, Row\(changes="),
        ({"rows": (Row("a"),), "settings": {"model": "b"}}, r"model is no setting but a field of the study, Study\(model="),
    ],
)
def test_what_is_wrong_with_a_study(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Study(**{"name": "wrong", **fields})


@pytest.mark.parametrize(
    ("row", "changes", "said"),
    [
        (Row("a", {"mixers": "Poling()"}), {}, "row 'a': mixers: unknown 'Poling', did you mean Pooling"),
        (Row("a", {"norm": "MLN()"}), {"changes": {"norm": "BatchNorm()"}}, "row 'a' of the study sets model.norm itself"),
        (Row("a", settings={"epohs": 3}), {}, "row 'a': no setting 'epohs', did you mean epochs"),
        (Row("a", deep=2, model="timm:resnet18"), {}, "row 'a': timm:resnet18 is timm's, so nothing of it can be changed"),
    ],
)
def test_what_is_wrong_with_a_row(row: Row, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        resolved(Study(name="wrong", rows=(row,)), **changes)
