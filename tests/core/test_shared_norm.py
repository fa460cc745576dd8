"""Batch norms that count what all ranks have. Several processes are in tests/train/test_many.py; here it is one."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from metaformer.core.shared_norm import SharedBatchNorm, idle, share_statistics


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm2d(6), (5, 6, 3, 4)),
        (nn.BatchNorm2d(6, eps=1e-2, momentum=0.3), (2, 6, 1, 1)),
        (nn.BatchNorm1d(6), (5, 6)),
        (nn.BatchNorm1d(6), (5, 6, 7)),
        (BatchNormAct2d(6), (5, 6, 3, 4)),
    ],
)
def test_alone_it_is_the_norm_that_it_was(norm: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    shared = copy.deepcopy(norm)
    share_statistics(shared)
    assert isinstance(shared, SharedBatchNorm)
    x = (3 * torch.randn(shape) + 1).requires_grad_()
    y = x.detach().clone().requires_grad_()
    for _ in range(3):
        one, other = norm(x), shared(y)
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
        pull = torch.randn(shape)
        (one * pull).sum().backward()
        (other * pull).sum().backward()
    torch.testing.assert_close(y.grad, x.grad, rtol=1e-3, atol=1e-4)
    for (name, value), (same, tensor) in zip(norm.state_dict().items(), shared.state_dict().items(), strict=True):
        assert name == same
        torch.testing.assert_close(tensor, value)
    torch.testing.assert_close(shared.eval()(x), norm.eval()(x))


def test_where_no_rank_has_an_image_nothing_is_learnt() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    share_statistics(model)
    before = copy.deepcopy(model.state_dict())
    with idle(model):
        model(torch.randn(2, 3, 4, 4)).sum().mul(0).backward()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, momentum=None), nn.BatchNorm3d(3)])
def test_what_cannot_be_shared_is_refused(norm: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"BatchNorm.* cannot be shared by several processes: train this model in one"):
        share_statistics(nn.Sequential(nn.Conv2d(3, 3, 1), norm))
