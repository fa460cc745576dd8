"""Alone there is nobody to ask; several processes are in tests/train/test_many.py."""

import os

import pytest
import torch

from metaformer.core import ranks as core_ranks
from metaformer.core.ranks import ALONE, Ranks, own_device, together


def test_alone_everything_is_ones_own() -> None:
    with together() as ranks:
        assert ranks == ALONE
    assert ALONE.first
    assert (ALONE.sum(3), ALONE.most(2), ALONE.gathered("a"), ALONE.told("b")) == (3, 2, ["a"], "b")
    values = torch.ones(2)
    assert ALONE.total(values) is values
    ALONE.wait()


@pytest.mark.parametrize(("told", "known"), [(None, None), ("123", 123)])
def test_a_process_of_torchrun_s_ends_with_it(monkeypatch: pytest.MonkeyPatch, told: str | None, known: int | None) -> None:
    """Whose number only our own launcher tells; what such a process starts itself is not told."""
    asked: list[int | None] = []

    def ask(parent: int | None) -> None:
        asked.append(parent)
        raise KeyboardInterrupt  # before there is anything to join

    monkeypatch.setattr(core_ranks, "started_together", lambda: True)
    monkeypatch.setattr(core_ranks, "die_with_parent", ask)
    if told is not None:
        monkeypatch.setenv("METAFORMER_LAUNCHER", told)
    with pytest.raises(KeyboardInterrupt), together():
        pass
    assert asked == [known]
    assert "METAFORMER_LAUNCHER" not in os.environ


def test_a_device_is_each_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert own_device(cpu, Ranks(1, 2, 2)) == cpu
    assert own_device(gpu, ALONE) == gpu
    assert chosen == []
    assert own_device(gpu, Ranks(1, 2, 2)) == torch.device("cuda", 1)
    assert own_device(gpu, Ranks(5, 8, 2)) == torch.device("cuda", 1)  # of the third machine
    assert chosen == [torch.device("cuda", 1)] * 2
    with pytest.raises(ValueError, match=r"3 processes here, but 2 GPUs: devices=2 is the most, or device=cpu"):
        own_device(gpu, Ranks(1, 3, 3))
    with pytest.raises(ValueError, match=r"device=cuda:1 is one GPU for 2 processes: device=cuda gives each its own"):
        own_device(torch.device("cuda:1"), Ranks(1, 2, 2))
    with pytest.raises(ValueError, match=r"device=mps is one process's alone: device=cpu trains in 2"):
        own_device(torch.device("mps"), Ranks(1, 2, 2))
