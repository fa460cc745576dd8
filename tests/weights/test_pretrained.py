"""A model in a folder: what is written is read back, also where two names share a tensor."""

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from metaformer import create_model
from metaformer.train.optim import Average
from metaformer.weights import pretrained
from metaformer.weights.convert import convert
from metaformer.weights.pretrained import read_pretrained, save_file, save_pretrained


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


@pytest.mark.skipif(os.name == "nt", reason="there are no such modes")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_weights_are_for_whom_the_umask_says(tmp_path: Path, mask: int, mode: int) -> None:
    model, before = create_model("identityformer_t6", dims=(8, 8, 8, 8), num_classes=3), os.umask(mask)
    try:
        for _ in range(2):  # the second time over the first
            save_pretrained(model, tmp_path / "model")
            save_file(model, tmp_path / "single.safetensors", {})
        convert(tmp_path / "model", tmp_path / "again", to="ours")
    finally:
        os.umask(before)
    files = {str(file.relative_to(tmp_path)): stat.S_IMODE(file.stat().st_mode) for file in tmp_path.rglob("*.*")}
    names = ("model/model.safetensors", "model/model.json", "single.safetensors", "again/model.safetensors", "again/model.json")
    assert files == dict.fromkeys(names, mode)


def test_a_disk_that_fails_leaves_no_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O: full (os error 28)")

    monkeypatch.setattr(pretrained, "save_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        save_file(shared(), tmp_path / "single.safetensors", {})
    assert list(tmp_path.iterdir()) == []
