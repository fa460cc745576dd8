"""Class-activation maps, by value where the answer is known."""

import pytest
import timm
import torch
from torch import Tensor, nn

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.mixers import Pooling
from metaformer.core.model import MetaFormer
from metaformer.lab.cam import class_activation
from metaformer.weights.peers import Peer, PeerConfig

WEIGHT = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [-1.0, -1.0]])
IMAGE = torch.tensor([[[[1.0, 0.0], [2.0, 4.0]], [[0.0, 3.0], [1.0, 0.0]]]])


class Linear(nn.Module):
    """The image is the map; logits are a linear function of its means."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 3, bias=False)
        self.fc.weight.data.copy_(WEIGHT)

    def forward_features(self, x: Tensor) -> Tensor:
        return x * 1

    def forward_head(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


def test_a_linear_model_by_value() -> None:
    """Weights are those of the class, over the number of places, so the map is ReLU(Σ weight · channel) / its maximum."""
    maps = class_activation(Linear(), IMAGE.repeat(3, 1, 1, 1), torch.tensor([0, 1, 2]))
    first = IMAGE[0, 0] / 4  # class 0 is channel 0
    second = (2 * IMAGE[0, 1] - IMAGE[0, 0]).relu() / 6
    assert torch.allclose(maps, torch.stack([first, second, torch.zeros(2, 2)]))  # nothing speaks for class 2


def test_channels_last_and_tokens_give_the_same_map() -> None:
    class Last(Linear):
        num_features = 2

        def forward_features(self, x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1)

        def forward_head(self, x: Tensor) -> Tensor:
            return self.fc(x.mean((1, 2)))

    class Tokens(Linear):
        num_prefix_tokens = 1

        def forward_features(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).transpose(1, 2)
            return torch.cat([torch.full_like(tokens[:, :1], 9.0), tokens], 1)

        def forward_head(self, x: Tensor) -> Tensor:
            return self.fc(x[:, 1:].mean(1))

    wide = torch.cat([IMAGE, IMAGE], 3).repeat(1, 1, 2, 1)  # 4 places by 4, unlike its 2 channels
    expected = class_activation(Linear(), wide, torch.tensor([1]))
    for model in (Last(), Tokens()):
        assert torch.allclose(class_activation(model, wide, torch.tensor([1])), expected)


def tiny(side: int = 64) -> tuple[MetaFormer, Tensor]:
    torch.manual_seed(0)
    config = MetaFormerConfig(depths=(1,) * 4, dims=(8, 8, 16, 16), mixers=Pooling(), num_classes=5)
    return MetaFormer(config), torch.randn(2, 3, side, side)


def test_a_metaformer_is_explained_by_its_own_gradient() -> None:
    model, images = tiny(128)
    model.eval()
    features = model.features(images)[-1].detach().requires_grad_()
    logits = model.head(features)
    (gradient,) = torch.autograd.grad(logits[0, 3] + logits[1, 1], features)
    heat = (gradient.mean((2, 3), keepdim=True) * features).sum(1).relu().detach()
    found = class_activation(model, images, torch.tensor([3, 1]))
    assert found.shape == (2, 4, 4)
    assert torch.allclose(found, heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-30), atol=1e-5)


@pytest.mark.parametrize(("side", "places"), [(224, 7), (128, 4), (64, 4), (32, 4), (9, 2)])
def test_small_images_are_explained_by_an_earlier_stage(side: int, places: int) -> None:
    model, images = tiny(side)
    assert class_activation(model, images, torch.tensor([0, 1])).shape == (2, places, places)


def test_the_model_is_left_as_it_was() -> None:
    model, images = tiny()
    model.train()
    frozen = [parameter.requires_grad_(False) for parameter in model.parameters()]
    with torch.inference_mode():
        heat = class_activation(model, images, torch.tensor([0, 1]))
    assert 0 <= heat.min() <= heat.max() <= 1
    assert model.training
    assert not images.requires_grad
    assert all(parameter.grad is None for parameter in frozen)


PEERS = [
    ("convnext_atto", 128), ("mobilenetv3_small_050", 128), ("pvt_v2_b0", 128), ("resmlp_12_224", 64), ("resnet18", 128),
    ("resnet18", 32), ("vit_tiny_patch16_224", 64), pytest.param("swin_s3_tiny_224", 224, marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize(("name", "side"), PEERS)
def test_peers(name: str, side: int) -> None:
    """Convolutional, with channels last, of tokens with and without a class token."""
    assert timm.is_model(name)
    torch.manual_seed(0)
    model = Peer(PeerConfig(name=name, num_classes=4, in_chans=3, image_size=side))
    heat = class_activation(model, torch.randn(2, 3, side, side), torch.tensor([0, 3]))
    assert heat.shape[1:] == ((7, 7) if side == 224 else (4, 4))
    assert heat.isfinite().all()
    assert 0 <= heat.min() <= heat.max() <= 1


def test_what_has_no_map_is_said() -> None:
    with pytest.raises(ValueError, match="one place wide"):
        class_activation(Linear(), torch.randn(1, 2, 1, 7), torch.tensor([0]))
    with pytest.raises(ValueError, match="Flatten has no forward_features"):
        class_activation(nn.Flatten(), torch.randn(1, 2, 2, 2), torch.tensor([0]))

    class Odd(Linear):
        def forward_features(self, x: Tensor) -> Tensor:
            return x.flatten(2).transpose(1, 2)[:, :3]

        def forward_head(self, x: Tensor) -> Tensor:
            return self.fc(x.mean(1))

    with pytest.raises(ValueError, match="3 tokens of Odd are no square grid"):
        class_activation(Odd(), IMAGE, torch.tensor([0]))
