"""Specs and their text form: what is written reads back, and nothing in a text is executed."""

import re
from pathlib import Path

import pytest
from torch import nn

from metaformer import (
    GELU,
    MLN,
    Attention,
    BatchNorm,
    DepthwiseConv,
    Fourier,
    GroupNorm,
    Identity,
    LayerNorm,
    LinearHead,
    MaxPooling,
    MLPHead,
    NoNorm,
    Pooling,
    Random,
    ReLU,
    Scale,
    SepConv,
    SiLU,
    SpatialFC,
    SquaredReLU,
    StarReLU,
)
from metaformer.core.architecture import SPECS
from metaformer.core.spec import from_text, nearest, to_text

EXAMPLES = [
    Identity(), Pooling(), Pooling(window=9), MaxPooling(window=5), Random(grid=14), DepthwiseConv(kernel=5, bias=True),
    SepConv(), SepConv(kernel=5, ratio=1.5, activation=ReLU(), bias=True), Attention(head_dim=16, qkv_bias=True),
    SpatialFC(grid=7), Fourier(), MLN(eps=1e-5, bias=True), LayerNorm(), BatchNorm(eps=1e-3),
    GroupNorm(groups=16), NoNorm(),
    StarReLU(0.8944, -0.4472, learn_scale=False), SquaredReLU(), ReLU(), GELU(), SiLU(),
    Scale(), Scale(shortcut=1.0), Scale(branch=1e-5), Scale(shortcut=1.0, branch=1e-6), LinearHead(), MLPHead(ratio=2.0),
]  # fmt: skip


class Mine:
    """A callable object of a user's own."""

    def __call__(self, dim: int) -> nn.Module:
        return nn.Identity()


@pytest.mark.parametrize("spec", EXAMPLES, ids=str)
def test_a_spec_reads_back_from_its_text(spec):
    assert from_text(to_text(spec), SPECS) == spec


def test_every_spec_has_an_example():
    assert {type(spec) for spec in EXAMPLES} == set(SPECS.values())


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("Pooling", Pooling()),
        (" Pooling ( 5 ) ", Pooling(window=5)),
        ("StarReLU(0.8944, bias=-0.4472)", StarReLU(0.8944, -0.4472)),
        ("SepConv(activation=GELU)", SepConv(activation=GELU())),
        ("(Pooling(), Attention)", (Pooling(), Attention())),
        ("[Scale(), Scale(branch=None)]", (Scale(), Scale())),
        ("(1, 2)", (1, 2)),
    ],
)
def test_texts_people_type(text, spec):
    assert from_text(text, SPECS) == spec


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Poolng()", "unknown 'Poolng', did you mean Pooling?"),
        ("layernorm", "unknown 'layernorm', did you mean LayerNorm?"),
        ("Pooling(windw=5)", "Pooling has no option 'windw', did you mean window?"),
        ("Identity(window=5)", "Identity has no option 'window'; allowed: "),
        ("Pooling(3, 5)", "gives Pooling too many values; its options: window"),
        ("Identity(3)", "gives Identity too many values; its options: none"),
        ("Pooling(3, window=5)", "gives window twice"),
        ("Pooling(window=3, window=5)", "gives window twice"),
        ("Random()", "Random needs grid, such as Random(grid=7)"),
        ("Pooling(window=4)", "window must be odd and positive, such as window=5"),
        ("LayerNorm(eps='a')", "options are numbers, True, False or another spec"),
        ("LayerNorm(eps=1e-5j)", "options are numbers, True, False or another spec"),
        ("LayerNorm(eps={})", "options are numbers, True, False or another spec"),
        ("Pooling(", "write a name with options, such as Pooling(window=5)"),
        ("", "write a name with options, such as Pooling(window=5)"),
        ("my.module:Mixer", "is code of your own, which a file cannot bring back"),
    ],
)
def test_a_wrong_text_gets_a_sentence(text, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        from_text(text, SPECS)


NASTY = [
    "__import__('os').system('touch {0}')",
    "open('{0}', 'w')",
    "Pooling(window=open('{0}', 'w'))",
    "Pooling(**dict(window=open('{0}', 'w')))",
    "Pooling(*[open('{0}', 'w')])",
    "(lambda: open('{0}', 'w'))()",
    "[open('{0}', 'w') for _ in (1,)]",
    "Pooling().__class__.__init__.__globals__",
    "Pooling(window=__builtins__)",
    'f\'{{open("{0}", "w")}}\'',
    "Pooling; import os",
    "9**9**9",
    "'x' * 10**9",
    "{{[]: 1}}",
    "\0",
    "é()",
    "(" * 500 + "1" + ")" * 500,
    "-" * 100_000 + "1",
    "eval",
    "SPECS",
]


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_nothing_in_a_text_is_executed(text, tmp_path: Path):
    victim = tmp_path / "victim"
    with pytest.raises(ValueError, match=r"cannot read|unknown|has no option|code of your own"):
        from_text(text.format(victim), SPECS)
    assert not victim.exists()


def test_code_of_the_users_own_is_named():
    assert to_text(nn.Identity) == "torch.nn.modules.linear:Identity"
    assert to_text(Mine()).endswith("test_spec:Mine")
    assert to_text(lambda dim: nn.Identity()).endswith("<lambda>")


def test_nearest_is_close_or_lists_all():
    assert nearest("WINDW", ["window", "bias"]) == ", did you mean window?"
    assert nearest("zzz", ["window", "bias"]) == "; allowed: window, bias"
