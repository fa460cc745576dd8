"""Linear CKA: by the formula, and where its value is known."""

import pytest
import torch
from torch import Tensor

from metaformer.lab.similarity import Similarity, gram, hsic


def alike(one: Tensor, other: Tensor, batch: int = 16) -> float:
    similarity = Similarity()
    for first, second in zip(one.split(batch), other.split(batch), strict=True):
        similarity.add([first], [second])
    return similarity.value().item()


@pytest.fixture
def features() -> Tensor:
    return torch.randn(32, 6, 3, 3, generator=torch.Generator().manual_seed(0)).double()


def test_features_are_as_themselves(features: Tensor) -> None:
    assert alike(features, features) == pytest.approx(1)


def test_turned_moved_and_scaled_features_are_the_same(features: Tensor) -> None:
    turn, _ = torch.linalg.qr(torch.randn(54, 54, generator=torch.Generator().manual_seed(1)).double())
    turned = 3 * features.flatten(1) @ turn + torch.arange(54)
    assert alike(features, turned) == pytest.approx(1)
    squeezed = features.flatten(1) @ torch.diag(torch.linspace(0, 9, 54).double().exp())
    assert alike(features, squeezed) < 0.9  # no rotation


def test_unrelated_features_have_nothing_in_common() -> None:
    """Without bias: far more channels than images, where the plain estimate says nearly 1."""
    draw = torch.Generator().manual_seed(0)
    one, other = (torch.randn(64, 500, generator=draw) for _ in range(2))
    assert abs(alike(one, other)) < 0.1
    centred = [x - x.mean(0) for x in (one, other)]
    plain = (centred[0].t() @ centred[1]).square().sum() / torch.stack([(x.t() @ x).norm() for x in centred]).prod()
    assert plain > 0.8


def test_of_many_images_it_is_the_plain_formula() -> None:
    """‖YᵀX‖² / (‖XᵀX‖ · ‖YᵀY‖) of centred features, Kornblith et al. 2019, section 3: its bias is about 1 / images."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(800, 6, generator=draw).double() @ torch.randn(6, 6, generator=draw).double()
    y = x[:, :4].relu() + torch.randn(800, 4, generator=draw).double()
    one, other = (features - features.mean(0) for features in (x, y))
    plain = (other.t() @ one).norm() ** 2 / ((one.t() @ one).norm() * (other.t() @ other).norm())
    assert 0.2 < plain < 0.9
    assert alike(x, y, 800) == pytest.approx(plain.item(), abs=0.01)


def test_hsic_by_its_sums_over_places() -> None:
    """Song et al. 2012, theorem 2, as sums over distinct images instead of products of matrices."""
    draw = torch.Generator().manual_seed(0)
    n = 6
    k, m = (gram(torch.randn(n, 4, generator=draw)) for _ in range(2))
    both = trio = quartet = 0.0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        both += (k[i, j] * m[i, j]).item()
                        trio += (k[i, j] * m[i, q]).item()
                        quartet += (k[i, j] * m[q, r]).item()
    count = n * (n - 1) * (n - 2) * (n - 3)
    assert hsic(k, m).item() == pytest.approx((both + quartet - 2 * trio) / count)


def test_minibatches_sum_before_they_divide(features: Tensor) -> None:
    """Σ HSIC(K, L) / √(Σ HSIC(K, K) · Σ HSIC(L, L)), Nguyen et al. 2021."""
    other = features.flatten(1)[:, :20] + torch.randn(32, 20, generator=torch.Generator().manual_seed(2)).double()
    pairs = [(gram(x), gram(y)) for x, y in zip(features.split(8), other.split(8), strict=True)]
    both = sum(hsic(k, m) for k, m in pairs)
    ones, others = (sum(hsic(pair[place], pair[place]) for pair in pairs) for place in (0, 1))
    assert alike(features, other, 8) == pytest.approx((both / (ones * others) ** 0.5).item())


def test_levels_make_rows_and_columns(features: Tensor) -> None:
    similarity = Similarity()
    similarity.add([features, features.square()], [features, torch.zeros(32, 2), features.square()])
    found = similarity.value()
    assert found.shape == (2, 3)
    assert torch.allclose(found[:, 1], torch.zeros(2).double())  # does not depend on the image
    assert torch.allclose(found[[0, 1], [0, 2]], torch.ones(2).double())
