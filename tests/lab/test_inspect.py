"""Looking into models: parts that add up, memory by hand, time by a part that sleeps, and a table."""

import json
import time
from pathlib import Path

import pytest
import torch
from tests.tiny import one_core
from torch import Tensor, nn

from metaformer import Run, count, create_model
from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.mixers import Attention, Identity, Pooling
from metaformer.core.model import MetaFormer
from metaformer.lab.inspect import REST, inspect, inspected_text
from metaformer.lab.inspect_bars import _colours, _label
from metaformer.lab.inspect_measure import Subject, kept_bytes, peaks
from metaformer.lab.inspect_parts import parts
from metaformer.lab.plots import GREY
from metaformer.weights.peers import Peer, PeerConfig

pytestmark = pytest.mark.usefixtures("thread")


def tiny(**changes: object) -> MetaFormer:
    torch.manual_seed(0)
    settings = {
        "depths": (1, 2),
        "dims": (8, 16),
        "mixers": (Pooling(), Attention(8)),
        "pos_embed": (0, 4),
        "scales": "Scale()",
        "num_classes": 5,
    }
    return MetaFormer(MetaFormerConfig(**(settings | changes)))  # pyrefly: ignore[bad-argument-type]


# --- parts ------------------------------------------------------------------------------------------------------------


def test_the_parts_of_a_metaformer() -> None:
    assert [(part.name, part.kind) for part in parts(tiny())] == [
        ("stages.0.embed", "stem"),
        ("stages.0.blocks.0", "Pooling"),
        ("stages.1.embed", "downsampling"),
        ("stages.1.pos_embed", "position embedding"),
        ("stages.1.blocks.0", "Attention(head_dim=8)"),
        ("stages.1.blocks.1", "Attention(head_dim=8)"),
        ("head", "head"),
    ]


def test_a_mixer_of_one_s_own_is_called_by_its_name_and_not_cut_open() -> None:
    class Deep(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Sequential(nn.Conv2d(dim, dim, 1)), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    found = parts(tiny(mixers=(Deep, Identity()), mlp_ratio=0))
    assert [part.kind for part in found if "blocks" in part.name] == ["Deep, no MLP", "Identity, no MLP", "Identity, no MLP"]


@pytest.mark.parametrize(
    ("name", "cut", "blocks"),
    [("resnet18", "model.layer", 8), ("vit_tiny_patch16_224", "model.blocks.", 12), ("convnext_atto", "model.stages.", 12 + 3)],
)
def test_peers_are_cut_into_their_blocks(name: str, cut: str, blocks: int) -> None:
    found = inspect(
        Peer(PeerConfig(name=name, num_classes=4, in_chans=3, image_size=64)), image_size=64, device="cpu", time=False
    )
    assert sum(part.name.startswith(cut) for part in found.parts) == blocks
    assert sum(part.parameters for part in found.parts) == found.whole.parameters
    assert sum(part.macs or 0 for part in found.parts) == found.whole.macs
    assert found.config is None
    outside = [part for part in found.parts if part.name == REST]
    assert [part.parameters for part in outside] == ([192 * (1 + 17)] if "vit" in name else [])  # class token and positions


# --- what adds up -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["caformer_t6", "randformer_s12", "metaformer_ppaa_s12_224"])
def test_parts_add_up_to_the_model(name: str) -> None:
    model = create_model(name, depths=(1, 1, 1, 1))
    found = inspect(model, image_size=64, device="cpu", time=False)
    cost = count(model, 64)
    assert sum(part.parameters for part in found.parts) == cost.parameters == found.whole.parameters
    assert sum(part.macs or 0 for part in found.parts) == cost.macs == found.whole.macs
    assert sum(part.kept for part in found.parts) == found.whole.kept
    if "caformer" not in name and "ppaa" not in name:  # attention has another kernel where nothing is computed
        assert found.whole.kept == cost.activation_bytes
    assert found.whole.shape == (1000,)


def test_a_batch_keeps_as_many_times_as_much() -> None:
    one, four = (inspect(tiny(), image_size=32, batch=batch, device="cpu", time=False) for batch in (1, 4))
    assert four.whole.kept == 4 * one.whole.kept
    assert [part.macs for part in four.parts] == [part.macs for part in one.parts]


def test_the_model_is_left_as_it_was() -> None:
    model = tiny(norm="BatchNorm()", drop_path=0.5).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    inspect(model, image_size=32, device="cpu", rounds=1)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# --- memory -----------------------------------------------------------------------------------------------------------


def test_what_a_block_keeps_by_hand() -> None:
    """Of a map of 8 channels and 8 × 8 places, 2,048 bytes: each norm its input and a mean and a deviation for each place, the
    pooling its input, the first layer of the MLP its own, StarReLU and the second layer four times as much each."""
    model = tiny(depths=(1,), dims=(8,), mixers=Pooling(), pos_embed=0)
    subject = Subject(model, 32, 1, torch.device("cpu"))
    kept = kept_bytes(subject, parts(subject.model))
    assert kept["stages.0.blocks.0"] == (1 + 1 + 1 + 1 + 4 + 4) * 2048 + 2 * (64 + 64) * 4


def test_what_training_drops_is_kept_too() -> None:
    """Drop path's draw for the mixer's and for the MLP's branch, one number each, and dropout's mask of 8 features."""
    plain, dropping = (
        inspect(tiny(depths=(2,), dims=(8,), mixers=Pooling(), pos_embed=0, **more), image_size=32, device="cpu", time=False)
        for more in ({}, {"drop_path": 0.5, "head_dropout": 0.5})
    )
    blocks = [[part.kept for part in found.parts if "blocks" in part.name] for found in (plain, dropping)]
    assert [after - before for before, after in zip(*blocks, strict=True)] == [0, 2 * 4]
    heads = [part.kept for found in (plain, dropping) for part in found.parts if part.name == "head"]
    assert heads[1] > heads[0]


def test_what_is_alive_at_once_by_hand() -> None:
    """The image, of 1,024 bytes, always; an operation's input and what it makes."""
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    subject = Subject(model, 8, 1, torch.device("cpu"))
    assert peaks(subject, parts(subject.model)) == {"0": 1024 + 2048, "1": 1024 + 2048 + 2048, "2": 1024 + 2048 + 512}


# --- time -------------------------------------------------------------------------------------------------------------


class Sleepy(nn.Module):
    """A mixer that takes five milliseconds."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.005)
        return x


def test_time_is_of_each_part_and_of_the_whole() -> None:
    found = inspect(tiny(mixers=(Identity(), Sleepy)), image_size=16, device="cpu", rounds=5)
    took = {part.name: part for part in found.parts}
    for place in (0, 1):
        slow = took[f"stages.1.blocks.{place}"].seconds or 0
        assert slow >= 0.005
        assert (took["stages.0.blocks.0"].seconds or 1) < slow
    assert (found.whole.seconds or 0) >= 0.01
    for part in (*found.parts, found.whole):
        assert (part.low or 0) <= (part.seconds or 0) <= (part.high or 0)
    assert inspect(tiny(), image_size=16, device="cpu", time=False).whole.seconds is None


# --- sources, table, files --------------------------------------------------------------------------------------------


def test_sources(run: Run) -> None:
    of_run = inspect(run.path, time=False)
    assert (of_run.image_size, of_run.whole.shape) == (8, (10,))
    found = inspect("retinanet/caformer_t6", image_size=64, device="cpu", time=False)
    assert found.config is not None
    assert found.dense
    given = {part.name: part.shape for part in found.parts}
    assert given["head.box"] == (36, 8, 8)  # on the finest level, which comes first
    assert given["backbone.norms.0"] == (64, 8, 8)
    assert inspect("timm:resnet18", image_size=32, device="cpu", time=False).whole.parameters == 11_689_512
    with pytest.raises(ValueError, match="was exported from"):
        inspect("model.onnx")
    with pytest.raises(FileNotFoundError, match="did you mean caformer_s18"):
        inspect("caformer_s81")
    with pytest.raises(FileNotFoundError, match="no run"):
        inspect("runs/nothing")
    for wrong in ({"batch": 0}, {"rounds": 0}, {"image_size": -1}):
        with pytest.raises(ValueError, match="is not at least 1"):
            inspect("caformer_t6", **wrong)  # pyrefly: ignore[bad-argument-type]


def test_table_and_files(tmp_path: Path) -> None:
    found = inspect(tiny(), image_size=32, device="cpu", rounds=2)
    lines = inspected_text(found).splitlines()
    assert lines[0].split() == ["part", "what", "gives", "parameters", "MACs", "kept,", "MB", "peak,", "MB", "ms", "quartiles"]
    assert lines[1].split()[:6] == ["stages.0.embed", "stem", "8", "×", "8", "×"]
    assert f"{found.whole.parameters:,}" in lines[8]
    folder = found.write(tmp_path / "seen")
    names = {
        f"{name}.{kind}"
        for name, kinds in {"architecture": ("svg", "png", "pdf"), "parts": ("png", "pdf")}.items()
        for kind in kinds
    }
    assert {file.name for file in folder.iterdir()} == names | {"inspect.json"}
    told = json.loads((folder / "inspect.json").read_text())
    assert told["parts"][1]["kept"] == found.parts[1].kept
    assert told["config"]["mixers"] == ["Pooling(window=3)", "Attention(head_dim=8, qkv_bias=False, proj_bias=False)"]
    with one_core():
        peer = inspect("timm:resnet18", image_size=32, device="cpu", time=False).write(folder)  # where a drawing lies
    assert {file.name for file in peer.iterdir()} == {"inspect.json", "parts.png", "parts.pdf"}
    (folder / "inspect.json").unlink()
    with pytest.raises(ValueError, match=r"parts\.png would be replaced, and is none of ours: inspect\.json is not beside it"):
        found.write(folder)


def test_bars_have_a_colour_for_each_stage() -> None:
    ours = ["stages.0.embed", "stages.0.blocks.0", "stages.1.embed", "head"]
    resnet = ["model.conv1", "model.layer1.0", "model.layer1.1", "model.layer2.0", "model.fc"]
    vit = ["model.patch_embed", "model.blocks.0", "model.blocks.1", "model.norm"]
    detector = ["backbone.body.stages.0.embed", "backbone.body.stages.1.blocks.0", "fpn", "head.tower.0", "head.tower.1"]
    for names, stages in ((ours, "1120"), (resnet, "01120"), (vit, "0110"), (detector, "12033")):
        colours = _colours(names)
        first = {stage: colours[stages.index(stage)] for stage in stages}
        assert colours == [first[stage] for stage in stages]
        assert len({*first.values()}) == len(first)
        assert first.get("0", GREY) == GREY


def test_bars_are_called_by_what_the_part_is() -> None:
    part = {"name": "head.tower.1", "kind": "Sequential", "shape": (256, 8, 4)}
    assert _label(part) == "tower.1  8×4"
    assert _label(part | {"kind": "Conv2d", "shape": (10,)}) == "Conv2d"
