"""What is drawn of a config: every stage, every kind of block, every box, and nothing that is not there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.layers import MLN, LayerNorm, MLPHead, NoNorm, Scale
from metaformer.core.mixers import Attention, Identity, Pooling, SepConv
from metaformer.core.model import MetaFormer
from metaformer.lab.inspect_drawing import blueprint, draw, kinds_of, stages_of
from metaformer.zoo import ZOO


def config(**changes: Any) -> MetaFormerConfig:
    return MetaFormerConfig(
        **({"depths": (2, 3), "dims": (8, 16), "mixers": (Pooling(), Attention()), "scales": Scale()} | changes)
    )


def texts(made: Figure) -> list[str]:
    return [text.get_text() for text in made.axes[0].texts]


def sums(made: Figure) -> int:
    """Circles in which a branch is added."""
    return sum(isinstance(patch, Circle) for patch in made.axes[0].patches)


def test_stages_and_runs() -> None:
    mixers = (Pooling(), Pooling(), Pooling(), Attention(), Attention())
    first, second = stages_of(config(mixers=mixers, pos_embed=(0, 14)), 224)
    assert (first.embed, second.embed) == ("Conv 7×7, stride 4\nNorm", "Norm\nConv 3×3, stride 2")
    assert (first.side, second.side, first.dim, second.dim) == (56, 28, 8, 16)
    assert [(kind.name, count) for kind, count in first.runs] == [("Pooling", 2)]
    assert [(kind.name, count) for kind, count in second.runs] == [("Pooling", 1), ("Attention", 2)]
    assert (first.position, second.position) == (0, 14)


@pytest.mark.parametrize("name", ["caformer_s18", "caformer_t6", "poolformer_s12"])
@pytest.mark.parametrize("side", [224, 97, 32])
def test_sides_are_those_of_the_maps(name: str, side: int) -> None:
    with torch.device("meta"):
        maps = MetaFormer(ZOO[name]).features(torch.empty(1, 3, side, side))
    assert [stage.side for stage in stages_of(ZOO[name], side)] == [one.shape[3] for one in maps]


def test_blocks_that_differ_in_scale_are_two_kinds() -> None:
    both = config(mixers=Pooling(), scales=(Scale(), Scale(shortcut=1.0)))
    assert len(kinds_of(stages_of(both, 32))) == 2
    assert texts(blueprint(both, 32)).count("ResScale") == 2  # a shortcut each, of one of the two
    assert texts(blueprint(config(mixers=Pooling(), scales=Scale(branch=1e-5)), 32)).count("LayerScale") == 2


def test_what_is_in_the_drawing() -> None:
    found = texts(blueprint(config(pos_embed=(0, 14)), 224, "mine"))
    for text in ("(a) mine", "stage 1: 56×56×8", "stage 2: 28×28×16", "Pooling  × 2", "Attention  × 3", "+ position 14×14"):
        assert found.count(text) == 1, text
    assert found.count("LayerNorm") == 4
    assert found.count("channel MLP ×4\nStarReLU") == 2
    assert [found.count(text) for text in ("mean", "Norm", "Linear", "1000 classes")] == [1] * 4
    assert sums(blueprint(config(), 224)) == 4


def test_what_is_not_there_is_not_drawn() -> None:
    assert sums(blueprint(config(residual=False), 224)) == 0
    bare = config(mlp_ratio=0, norm=NoNorm(), patch_norm=NoNorm(), head_norm=NoNorm(), num_classes=0, stem_stride=1)
    made = blueprint(bare, 32)
    assert sums(made) == 2
    assert not [text for text in texts(made) if "Norm" in text or "MLP ×" in text]
    assert "Conv 7×7, stride 1" in texts(made)
    late = config(pool_first=False, head=MLPHead(), norm=MLN(), head_norm=LayerNorm(), num_classes=7)
    made = blueprint(late, 32)
    heights = {text.get_text(): text.get_position()[1] for text in made.axes[0].texts}
    assert heights["Norm"] > heights["mean"] > heights["MLP"] > heights["7 classes"]
    assert texts(made).count("MLN") == 4
    found = texts(blueprint(config(), 224, backbone=True))
    assert not {"mean", "Linear", "1000 classes"} & {*found}
    assert found.count("maps of\nits stages") == 1


def test_a_mixer_of_one_s_own_has_its_name() -> None:
    class Shift(torch.nn.Identity):
        pass

    assert "Shift  × 2" in texts(blueprint(config(mixers=(Shift, SepConv(kernel=5))), 32))
    assert "SepConv(kernel=5)  × 3" in texts(blueprint(config(mixers=(Shift, SepConv(kernel=5))), 32))


@pytest.mark.parametrize("mixers", [Identity(), tuple(Pooling(window=1 + 2 * i) for i in range(5))])
def test_texts_stay_within_the_figure(mixers: Any, tmp_path: Path) -> None:
    made = blueprint(config(mixers=mixers), 224, "x")
    renderer = made.canvas.get_renderer()
    width, height = made.canvas.get_width_height()
    for text in made.axes[0].texts:
        box = text.get_window_extent(renderer)
        assert 0 <= box.x0 < box.x1 <= width, text.get_text()
        assert 0 <= box.y0 < box.y1 <= height, text.get_text()
    draw(config(mixers=mixers), 224, tmp_path / "a")
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".pdf", ".png", ".svg"]
