"""A model in a folder: what is written is read back, also where two names share a tensor."""

from pathlib import Path

import torch
from torch import nn

from metaformer import create_model
from metaformer.train.optim import Average
from metaformer.weights.pretrained import read_pretrained, save_pretrained


def shared() -> nn.Module:
    """One mixer for all blocks."""
    torch.manual_seed(0)
    mixer = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    return create_model("identityformer_t6", dims=(8, 8, 8, 8), num_classes=3, mixers=lambda dim: mixer)


def test_a_shared_tensor_is_saved_and_read(tmp_path: Path) -> None:
    model = shared()
    save_pretrained(model, tmp_path, {"classes": ["a", "b", "é"]})
    again, about = read_pretrained(
        tmp_path, shared().apply(lambda m: nn.init.zeros_(m.weight) if hasattr(m, "weight") else None)
    )
    assert about["classes"] == ["a", "b", "é"]
    assert all(
        torch.equal(one, other) for one, other in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_a_shared_tensor_is_averaged_once() -> None:
    model = shared()
    average = Average(model, 0.9)
    mixer = model.stages[0].blocks[0].mixer.branch.weight
    before = mixer.detach().clone()
    with torch.no_grad():
        mixer += 1
    average.update(model, step=1000)
    moved = average.model.stages[0].blocks[0].mixer.branch.weight - before
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1))
