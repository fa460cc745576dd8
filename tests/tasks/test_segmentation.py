"""What segmentation asks a GPU for while it learns."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from metaformer.tasks.segmentation import Segmentation


@dataclass(frozen=True, eq=False)
class Batch:
    images: list[Tensor]
    truths: list[Tensor] | Tensor
    samples: Tensor | None = None


def test_pixels_are_counted_and_a_gpu_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.randint(0, 3, (5, 8, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    maps[:, 0] = 255
    asked: list[Tensor] = []
    read = Tensor.__int__
    monkeypatch.setattr(Tensor, "__int__", lambda tensor: asked.append(tensor) or read(tensor))
    task = Segmentation(("road", "sky", "tree"))
    assert task.count(Batch([], maps)) == 5 * 7 * 9
    assert task.count(Batch([], [maps[0], maps[1, :3]])) == 7 * 9 + 2 * 9
    assert len(asked) == 2
    assert task.count(Batch([], [])) == 0


def test_an_epoch_has_no_boundaries() -> None:
    """They take most of the time, and mIoU alone says which epoch is the best."""

    class Answer:
        def judged(self, place: int, truth: Tensor) -> tuple[Tensor, Tensor]:
            return torch.tensor(3.0), torch.zeros_like(truth)

    class Always(torch.nn.Module):
        def forward(self, images: list[Tensor]) -> Answer:
            return Answer()

    maps = [torch.zeros(4, 4, dtype=torch.uint8), torch.eye(4, dtype=torch.uint8)]
    done = Segmentation(("road", "sky")).evaluate(Always(), [Batch(maps, maps, torch.arange(2))])
    assert done.loss == pytest.approx(6 / 32)
    assert done.scores["miou"] == pytest.approx(100 * (28 / 32) / 2)
    assert done.boundary is None
