"""The maps of models' levels."""

import pytest
import torch
from torch import Tensor, nn

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.mixers import Pooling
from metaformer.core.model import MetaFormer
from metaformer.lab.feature_maps import level_maps, level_names
from metaformer.weights.peers import Peer, PeerConfig


def test_ours_are_stages() -> None:
    config = MetaFormerConfig(depths=(1, 1), dims=(8, 16), mixers=Pooling(), scales="Scale()", num_classes=2)
    model, images = MetaFormer(config).eval(), torch.randn(2, 3, 32, 64)
    assert level_names(model) == ["stage 1", "stage 2"]
    assert [torch.equal(*pair) for pair in zip(level_maps(model, images), model.features(images), strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("name", "levels", "last"),
    [
        ("resnet18", ["act1", "layer1", "layer2", "layer3", "layer4"], (512, 2, 2)),
        ("vit_tiny_patch16_224", ["blocks.2", "blocks.5", "blocks.8", "blocks.11"], (192, 4, 4)),
    ],
)
def test_peers(name: str, levels: list[str], last: tuple[int, ...]) -> None:
    model = Peer(PeerConfig(name=name, num_classes=2, in_chans=3, image_size=64)).eval()
    maps = level_maps(model, torch.randn(2, 3, 64, 64))
    assert level_names(model) == levels
    assert len(maps) == len(levels)
    assert tuple(maps[-1].shape) == (2, *last)


def test_a_model_that_gives_no_more_has_its_last_map() -> None:
    class Plain(nn.Module):
        def forward_features(self, x: Tensor) -> Tensor:
            return x * 2

    assert level_names(Plain()) == ["last map"]
    images = torch.randn(1, 3, 4, 5)
    assert torch.equal(level_maps(Plain(), images)[0], images * 2)
