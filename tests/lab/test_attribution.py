"""Grad-CAM by captum against the formula and against our own; occlusion by value where the answer is known."""

import builtins
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.mixers import Attention, Pooling
from metaformer.core.model import MetaFormer
from metaformer.lab.attribution import captum, grad_cam, occlusion
from metaformer.lab.cam import class_activation
from metaformer.lab.feature_maps import Through
from metaformer.weights.peers import Peer, PeerConfig

pytestmark = pytest.mark.usefixtures("thread")


def tiny(**changes: Any) -> MetaFormer:
    torch.manual_seed(0)
    config = {"depths": (1,) * 4, "dims": (8, 8, 16, 16), "mixers": Pooling(), "num_classes": 5} | changes
    return MetaFormer(MetaFormerConfig(**config)).eval()


def test_grad_cam_is_the_formula() -> None:
    """ReLU(Σ mean slope · channel), the slopes by differences of the logit: no gradient of ours or captum's in it."""
    model, images, asked = tiny().double(), torch.randn(1, 3, 128, 128, dtype=torch.double), torch.tensor([3])
    with torch.no_grad():
        found = model.features(images)[-1].contiguous()
        slopes, step = torch.zeros_like(found), 1e-4
        for place in range(found.numel()):
            moved = found.clone()
            moved.view(-1)[place] += step
            slopes.view(-1)[place] = (model.head(moved) - model.head(found))[0, 3] / step
    heat = (slopes.mean((2, 3), keepdim=True) * found).sum(1).relu()
    assert heat.max() > 0
    assert torch.allclose(grad_cam(model, images, asked), heat / heat.max(), atol=1e-3)


@pytest.mark.parametrize("side", [128, 64, 40])
def test_grad_cam_is_the_reports(side: int) -> None:
    """Two implementations, the same maps, of each image for its own class."""
    model, images, asked = tiny(), torch.randn(2, 3, side, side), torch.tensor([3, 1])
    assert torch.allclose(grad_cam(model, images, asked), class_activation(model, images, asked), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("convnext_atto", 64),
        ("resnet18", 128),
        ("resnet18", 32),  # whose last map is one place: read is that of layer2
        ("vit_tiny_patch16_224", 64),
        pytest.param("swin_s3_tiny_224", 224, marks=pytest.mark.slow),
    ],
)
def test_grad_cam_of_peers_is_the_reports(name: str, side: int) -> None:
    """Channels first, channels last, and tokens with a class token, which comes back to its place."""
    torch.manual_seed(0)
    model = Peer(PeerConfig(name=name, num_classes=4, in_chans=3, image_size=side)).eval()
    images, asked = torch.randn(2, 3, side, side), torch.tensor([0, 3])
    assert torch.allclose(Through(model)(images), model(images), atol=1e-5)
    assert torch.allclose(grad_cam(model, images, asked), class_activation(model, images, asked), atol=1e-4)


def test_what_is_too_small_or_has_no_map_is_said() -> None:
    with pytest.raises(ValueError, match="one place wide"):
        grad_cam(tiny(), torch.randn(1, 3, 3, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match="Flatten has no forward_features"):
        grad_cam(nn.Flatten(), torch.randn(1, 2, 2, 2), torch.tensor([0]))


def test_without_captum_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("captum"):
            raise ImportError("No module named 'captum'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'metaformer\[explain\]'"):
        captum()


def looks_at(x: Tensor) -> Tensor:
    """Two classes; the first is as probable as the mean of rows 4 to 7, columns 8 to 11, of the first channel."""
    seen = x[:, 0, 4:8, 8:12].mean((1, 2))
    return torch.stack([seen, 1 - seen], 1)


def test_occlusion_finds_the_patch() -> None:
    """A window of 4, moved by 2: it covers the whole patch once, a half or a quarter around that, and nothing elsewhere."""
    images = torch.ones(2, 3, 16, 16)
    lost = occlusion(looks_at, images, torch.tensor([0, 1]), 4)
    windows = torch.zeros(7, 7)  # by the place of their corner, what each covers of the patch
    windows[1:4, 3:6] = torch.tensor([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])
    cells = torch.zeros(8, 8)
    for row in range(8):
        for column in range(8):
            over = windows[max(0, row - 1) : row + 1, max(0, column - 1) : column + 1]
            cells[row, column] = over.mean()
    assert torch.allclose(lost[0], cells, atol=1e-6)
    assert torch.allclose(lost[1], -cells, atol=1e-6)  # the other class gains what the first loses
    assert lost[0].argmax() in (2 * 8 + 4, 2 * 8 + 5, 3 * 8 + 4, 3 * 8 + 5)


def test_occlusion_of_small_and_odd_images() -> None:
    assert occlusion(looks_at, torch.ones(1, 1, 15, 17), torch.tensor([0]), 5).shape == (1, 8, 9)
    assert occlusion(looks_at, torch.ones(1, 1, 12, 12), torch.tensor([0]), 1).shape == (1, 12, 12)
    with pytest.raises(ValueError, match="window=13 is not between 1 and 12"):
        occlusion(looks_at, torch.ones(1, 1, 12, 14), torch.tensor([0]), 13)


def test_a_model_with_attention_is_explained_too() -> None:
    model, images = tiny(mixers=(Pooling(), Pooling(), Attention(8), Attention(8))), torch.randn(1, 3, 64, 64)
    assert grad_cam(model, images, torch.tensor([2])).shape == (1, 4, 4)
