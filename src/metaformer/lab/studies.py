"""The papers' experiments as a table: v1 is arXiv 2111.11418 (PoolFormer), v2 is arXiv 2210.13452 (MetaFormer Baselines).

`published` is ImageNet-1K top-1 in percent as the papers give it, of the size that the comment names, after 300 epochs. Where
a paper gives a difference, the figure is what follows from it, and `note` says so; "about" is about.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from metaformer.core.layers import (
    GELU,
    Activation,
    BatchNorm,
    LayerNorm,
    NoNorm,
    Norm,
    ReLU,
    Scale,
    SiLU,
    SquaredReLU,
    StarReLU,
)
from metaformer.core.mixers import Attention, DepthwiseConv, Identity, Pooling, SepConv
from metaformer.core.spec import to_text
from metaformer.lab.study import Row, Study

Both = tuple[float | None, float | None]
V1, CONV, CA = "poolformer", "convformer", "caformer"
P, A = Pooling(), Attention(proj_bias=True)


def _norms(norm: Norm) -> dict[str, object]:
    """Of v1's frame, whose head begins with the norm of the blocks."""
    return {"norm": norm, "head_norm": norm}


CHANNELS = _norms(LayerNorm(eps=1e-5, bias=True))
EVERYWHERE = "(Random(grid={1}), Random(grid={2}), Random(grid={3}), Random(grid={4}))"
BIASED_CONV, BIASED = SepConv(bias=True), Attention(qkv_bias=True, proj_bias=True)
BIASED_REST = {"norm": LayerNorm(eps=1e-6, bias=True), "mlp_bias": True}
SMALLER = Scale(branch=1e-6)
"""What v1 starts LayerScale at where a model has 36 blocks or more."""
MADE = StarReLU(0.8944, -0.4472)
"""With the constants that give mean 0 and variance 1 of what is normally distributed, section 2.4 of v2."""

# fmt: off
# --- v1's frame, PoolFormer-S12 ---------------------------------------------------------------------------------------
POOLING     = Row("pooling",        {},                                model=V1, published=77.2)
IDENTITY    = Row("identity",       {"mixers": Identity()},            model=V1, published=74.3)
RANDOM      = Row("random",         {"mixers": EVERYWHERE},            model=V1, published=75.8, note="in all stages")
DEPTHWISE   = Row("depthwise",      {"mixers": DepthwiseConv()},       model=V1, published=78.1)
SEPARABLE   = Row("separable",      {"mixers": SepConv(activation=GELU(), bias=True)}, model=V1)
ATTENTION   = Row("attention",      {"mixers": A},                     model=V1, note="in all stages")
POOLING_5   = Row("pooling-5",      {"mixers": Pooling(window=5)},     model=V1, note="about as window 3")
POOLING_7   = Row("pooling-7",      {"mixers": Pooling(window=7)},     model=V1, note="about as window 3")
POOLING_9   = Row("pooling-9",      {"mixers": Pooling(window=9)},     model=V1, published=76.7, note="about −0.5")
LAYERNORM   = Row("layernorm",      CHANNELS,                          model=V1, published=76.5, note="−0.7")
BATCHNORM   = Row("batchnorm",      _norms(BatchNorm()),               model=V1, published=76.4, note="−0.8")
NO_NORM     = Row("no-norm",        _norms(NoNorm()),                  model=V1, published=46.1)
V1_RELU     = Row("relu",           {"activation": ReLU()},            model=V1, published=76.4, note="−0.8")
V1_SILU     = Row("silu",           {"activation": SiLU()},            model=V1, published=77.2)
NO_SCALE    = Row("no-layerscale",  {"scales": Scale()},               model=V1)
NO_RESIDUAL = Row("no-residual",    {"residual": False},               model=V1, published=0.1)
NO_MLP      = Row("no-channel-mlp", {"mlp_ratio": 0},                  model=V1, published=5.7)
PPPA        = Row("pppa", {"mixers": (P, P, P, A), "pos_embed": "(0, 0, 0, {4})", **CHANNELS}, model=V1)
PPAA        = Row("ppaa", {"mixers": (P, P, A, A), "pos_embed": "(0, 0, {3}, 0)", **CHANNELS}, model=V1, published=81.0)
PPPF        = Row("pppf", {"mixers": "(Pooling(), Pooling(), Pooling(), SpatialFC(grid={4}))"},              model=V1)
PPFF        = Row("ppff", {"mixers": "(Pooling(), Pooling(), SpatialFC(grid={3}), SpatialFC(grid={4}))"},    model=V1)
S24         = Row("deep-2",         deep=2,                            model=V1, published=80.3, note="PoolFormer-S24")
S36         = Row("deep-3",         {"scales": SMALLER}, deep=3,            model=V1, published=81.4, note="PoolFormer-S36")
M36         = Row("deep-3-wide",    {"scales": SMALLER}, deep=3, wide=True, model=V1, published=82.1, note="PoolFormer-M36")
M48         = Row("deep-4-wide",    {"scales": SMALLER}, deep=4, wide=True, model=V1, published=82.5, note="PoolFormer-M48")
# --- v2's frame -------------------------------------------------------------------------------------------------------
V2_IDENTITY = Row("identityformer", model="identityformer", published=74.6, note="S12")
V2_RANDOM   = Row("randformer",     model="randformer",     published=76.6, note="S12")
V2_POOLING  = Row("poolformerv2",   model="poolformerv2",   published=78.0, note="S12")
CONVFORMER  = Row("convformer",     model=CONV,             published=83.0, note="S18")
CAFORMER    = Row("caformer",       model=CA,               published=83.6, note="S18")
# fmt: on


def _both(
    name: str, conv: Mapping[str, object], ca: Mapping[str, object], published: Both = (None, None), note: str = ""
) -> tuple[Row, Row]:
    """A row of ConvFormer-S18 and one of CAFormer-S18."""
    return (
        Row(f"convformer-{name}", conv, model=CONV, published=published[0], note=note, against="convformer"),
        Row(f"caformer-{name}", ca, model=CA, published=published[1], note=note, against="caformer"),
    )


def _acts(name: str, act: Activation, published: Both = (None, None), note: str = "") -> tuple[Row, Row]:
    """The activation of all blocks: of the channel MLPs and of the convolutions."""
    conv = to_text(replace(SepConv(), activation=act))
    told = to_text(act)
    ca = {"activation": told, "mixers": f"({conv}, {conv}, Attention(), Attention())"}
    return _both(name, {"activation": told, "mixers": conv}, ca, published, note)


def _scaled(name: str, scale: Scale, note: str = "") -> tuple[Row, Row]:
    return _both(name, {"scales": scale}, {"scales": scale}, note=note)


# fmt: off
ACTIVATIONS = (
    *_acts("relu",            ReLU(),                                                   (82.1, 82.9)),
    *_acts("squared-relu",    SquaredReLU(),                                  note="between ReLU and GELU"),
    *_acts("gelu",            GELU(),                                                   (82.7, 83.4)),
    *_acts("derived",         MADE,                                           note="s = 0.8944, b = −0.4472 at first"),
    *_acts("scale-frozen",    replace(MADE, learn_scale=False),               note="s = 0.8944"),
    *_acts("bias-frozen",     replace(MADE, learn_bias=False),                note="b = −0.4472"),
    *_acts("both-frozen",     replace(MADE, learn_scale=False, learn_bias=False), note="s = 0.8944, b = −0.4472"),
)
SCALINGS = (
    *_scaled("layerscale",  Scale(branch=1e-5),               "in all stages"),
    *_scaled("branchscale", Scale(shortcut=1.0, branch=1e-5), "in all stages; no published code has it"),
    *_scaled("no-scale",    Scale()),
)
BIASES = _both("biases", {"mixers": BIASED_CONV, **BIASED_REST},
               {"mixers": (BIASED_CONV, BIASED_CONV, BIASED, BIASED), **BIASED_REST}, (83.0, 83.5), "the same, −0.1")
# fmt: on


def _zooms(row: Row) -> tuple[Row, ...]:
    """A model at other sizes of images; the papers fine-tune at 384 what learnt at 224."""
    larger = {"convformer": 84.4, "caformer": 85.0}[row.name]
    return (
        row,
        replace(row, name=f"{row.name}-half", zoom=0.5, published=None, note="", against=row.name),
        replace(row, name=f"{row.name}-384", zoom=12 / 7, published=larger, note="fine-tuned at 384", against=row.name),
    )


def _named(studies: Iterable[Study]) -> dict[str, Study]:
    return {study.name: study for study in studies}


SMALL_SCALE = {"data": "fashion-mnist", "epochs": 5, "batch": 128, "precision": "bf16"}
"""What two cores have the time for: 75 trainings in some five hours."""

# fmt: off
STUDIES = _named((
    Study(name="mixers", about="Which token mixer? Both papers' frames.", rows=(
        POOLING, IDENTITY, RANDOM, DEPTHWISE, SEPARABLE, ATTENTION, PPAA,
        replace(V2_POOLING, against="poolformerv2"), *(replace(row, against="poolformerv2") for row in (
            V2_IDENTITY, V2_RANDOM, CONVFORMER, CAFORMER)),
    )),
    Study(name="pool-size", about="How large a window? v1, section 4.4.", rows=(POOLING, POOLING_5, POOLING_7, POOLING_9)),
    Study(name="norm", about="Which norm before the branches? v1, section 4.4.", rows=(POOLING, LAYERNORM, BATCHNORM, NO_NORM)),
    Study(name="activation", about="Which activation? Both papers, with StarReLU's variants.", rows=(
        CONVFORMER, replace(CAFORMER, against="caformer"), *ACTIVATIONS,
        replace(POOLING, against="pooling", note="GELU"),
        *(replace(row, against="pooling") for row in (V1_RELU, V1_SILU)),
    )),
    Study(name="branch-scale", about="ResScale, LayerScale, both (BranchScale) or none? v2.", rows=(
        CONVFORMER, replace(CAFORMER, against="caformer"), *SCALINGS,
        replace(POOLING, against="pooling", note="LayerScale"), replace(NO_SCALE, against="pooling"),
    )),
    Study(name="bias", about="Biases in every block? v2.", rows=(CONVFORMER, replace(CAFORMER, against="caformer"), *BIASES)),
    Study(name="frame", about="What of the block matters? v1, section 4.4.", rows=(
        POOLING, NO_RESIDUAL, NO_MLP, NO_NORM, NO_SCALE,
    )),
    Study(name="hybrid-stages", about="Attention, convolution or a matrix over places in the late stages?", rows=(
        POOLING, PPPA, PPAA, PPPF, PPFF, replace(CONVFORMER, against="convformer"), replace(CAFORMER, against="convformer"),
    )),
    Study(name="depth-width", about="More blocks or wider ones? v1, table 2.", rows=(POOLING, S24, S36, M36, M48)),
    Study(name="resolution", about="What do larger images give?", rows=(
        *_zooms(CONVFORMER), *_zooms(replace(CAFORMER, against="caformer")),
    )),
    Study(name="claims", about="The rows that bear the papers' claims.", settings=SMALL_SCALE, rows=(
        POOLING, IDENTITY, RANDOM, DEPTHWISE, PPAA, POOLING_5, POOLING_7, POOLING_9, LAYERNORM, BATCHNORM, NO_NORM,
        NO_RESIDUAL, NO_MLP, replace(CONVFORMER, against="convformer"), replace(CAFORMER, against="convformer"),
        *(replace(row, against="convformer") for row in (V2_IDENTITY, V2_RANDOM, V2_POOLING)),
        *(row for row in (*ACTIVATIONS[:6], *SCALINGS, *BIASES) if row.model == CONV),
    )),
))
# fmt: on
"""Every named study."""
