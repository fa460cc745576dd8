"""Which device, and in what precision."""

import subprocess
import sys

import pytest
import torch

from metaformer.core.device import choose_device, choose_precision, keep_memory, with_threads


def there(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_fastest(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, chosen: str) -> None:
    there(monkeypatch, cuda=cuda, mps=mps)
    assert choose_device("auto") == torch.device(chosen)
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cuda", "device=cuda is not to be had here; there is: cpu"),
        ("cuda:1", "device=cuda:1 is not to be had here; there is: cpu"),
        ("mps", "device=mps is not to be had here"),
        ("tpu", "device=tpu is not to be had here"),
        ("cpu:x", "device=cpu:x is not a device, such as cpu or cpu:0"),
    ],
)
def test_what_is_not_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch, name: str, sentence: str) -> None:
    there(monkeypatch, cuda=False, mps=False)
    with pytest.raises(ValueError, match=f"^{sentence}"):
        choose_device(name)


@pytest.mark.parametrize("able", [True, False])
def test_auto_precision_is_what_the_hardware_multiplies(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able)
    for device in ("cpu", "cuda"):
        wanted = torch.bfloat16 if able and device == "cuda" else torch.float32
        assert choose_precision("auto", torch.device(device)) == wanted
        assert choose_precision("fp32", torch.device(device)) == torch.float32
        assert choose_precision("bf16", torch.device(device)) == torch.bfloat16
    assert choose_precision("auto", torch.device("mps")) == torch.float32


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), with_threads(before + 1):  # noqa: PT012  what is asked inside must be asked before the error
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
    with with_threads(None):
        assert torch.get_num_threads() == before


KEPT = """
import resource, torch
from metaformer.core.device import keep_memory
{call}
for _ in range(5):
    torch.empty(2**24).fill_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.empty(2**24).fill_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_that_is_kept_is_not_cleared_again() -> None:
    """Page faults of twenty blocks of 64 MiB that are freed at once."""
    faults = []
    for call in ("", "keep_memory()"):
        command = [sys.executable, "-c", KEPT.format(call=call)]
        done = subprocess.run(command, env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True)
        faults.append(int(done.stdout))
    assert faults[1] < faults[0] / 4


def test_keeping_memory_harms_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    keep_memory()
