"""`metaformer mixer new` and `list`: a working mixer with its test and its study; the built-in ones with what they cost."""

import os
import re
from dataclasses import fields
from inspect import getdoc
from keyword import iskeyword
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from metaformer.core.mixers import Mixer
from metaformer.lab.mixer_case import at_grid
from metaformer.lab.mixer_measure import BUILT_IN
from metaformer.lab.tables import Rows

MIXER = '''"""{Name}: a token mixer. It maps (B, C, H, W) to (B, C, H, W)."""

import torch
from torch import nn


class {Name}(nn.Module):
    """Each place sees the means of its row and of its column, weighted by channel."""

    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(0.5 * torch.ones(2, dim, 1, 1))

    def forward(self, x):
        return -x + self.weight[0] * x.mean(2, keepdim=True) + self.weight[1] * x.mean(3, keepdim=True)
'''
TEST = '''"""{Name} computes what it says, and keeps the contract: metaformer mixer check {name}.py:{Name} tries all of it."""

import torch

from {name} import {Name}


def test_a_place_sees_its_row_and_its_column():
    x = torch.zeros(1, 4, 5, 7)
    x[0, 0, 2, 3] = 70.0
    y = {Name}(4)(x)
    assert y.shape == x.shape
    assert y[0, 0, 2, 0] == 0.5 * 70 / 7
    assert y[0, 0, 0, 3] == 0.5 * 70 / 5
    assert y[0, 0, 0, 0] == 0
'''
STUDY = '''"""{Name} beside two built-in mixers: the same frame, data and seeds, so that only the mixer differs."""

from {name} import {Name}

from metaformer import Row, Study

STUDY = Study(
    name="{name}",
    model="poolformerv2",
    rows=(
        Row("pooling", {{"mixers": "Pooling()"}}),
        Row("identity", {{"mixers": "Identity()"}}),
        Row("{name}", {{"mixers": {Name}}}),
    ),
)
'''


def new_mixer(name: str, folder: Path) -> tuple[Path, ...]:
    """Writes a mixer, its test and its study, all or none: `my_mixer` is the class MyMixer in my_mixer.py.

    Raises ValueError for a name that is none in Python, FileExistsError where a file of theirs is there.
    """
    stem = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", stem) or iskeyword(stem):
        raise ValueError(f"{name!r} is no name for a mixer: letters, digits and _, such as my_mixer")
    title = "".join(word[:1].upper() + word[1:] for word in stem.split("_"))
    texts = {f"{stem}.py": MIXER, f"test_{stem}.py": TEST, f"{stem}_study.py": STUDY}
    made = {folder / file: text.format(name=stem, Name=title) for file, text in texts.items()}
    for file in made:
        if file.exists():
            raise FileExistsError(f"{file} exists: choose another name, or take it away")
    written: list[Path] = []
    try:
        for file, text in made.items():
            _write_new(file, text)
            written.append(file)
    except OSError:
        for file in written:
            file.unlink()
        raise
    return tuple(made)


def _write_new(file: Path, text: str) -> None:
    """A file with all of the text, where there is none. Raises FileExistsError where there is one by now."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.link(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def next_commands(files: tuple[Path, ...]) -> str:
    """What to type after `new_mixer`."""
    mixer, test, study = (file.name for file in files)
    title = "".join(word[:1].upper() + word[1:] for word in mixer.removesuffix(".py").split("_"))
    lines = [
        (f"metaformer mixer check {mixer}:{title}", "does it keep the contract, and where does it stand?"),
        (f"python -m pytest {test}", "its test"),
        (f"metaformer study {study} data=digits", "train it and two others, three seeds each"),
    ]
    width = max(len(command) for command, _ in lines)
    return "\n".join(f"  {command:<{width}}  # {why}" for command, why in lines)


# --- what there is ----------------------------------------------------------------------------------------------------


def mixer_table(dim: int, side: int) -> Rows:
    """The built-in mixers: text, what each is, parameters, and multiply-accumulates on side × side places."""
    rows: Rows = [("mixer", "parameters", f"MACs at {side} × {side}", "")]
    for mixer in BUILT_IN:
        numbers, macs = mixer_cost(at_grid(mixer, side), dim, side)
        said = (getdoc(type(mixer)) or "").splitlines()[0]
        rows.append((_numbers(at_grid(mixer, side)), f"{numbers:,}", f"{macs / 1e6:,.2f} M", said))
    return rows


def _numbers(mixer: Mixer) -> str:
    """Its text without the options that are specs themselves: `SepConv(kernel=7, ratio=2.0, bias=False)`."""
    made: Any = mixer
    options = {field.name: getattr(made, field.name) for field in fields(made)}
    plain = ", ".join(f"{name}={value}" for name, value in options.items() if isinstance(value, (bool, int, float)))
    return f"{type(mixer).__name__}({plain})"


def mixer_cost(mixer: Mixer, dim: int, side: int) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of convolutions and matrix products on one map; only shapes are computed."""
    with torch.device("meta"):
        module: nn.Module = mixer(dim).eval()
    tensors = {name: value.detach() for name, value in (*module.named_parameters(), *module.named_buffers())}
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        functional_call(module, tensors, (torch.empty(1, dim, side, side, device="meta"),))
    return sum(p.numel() for p in module.parameters()), counter.get_total_flops() // 2
