"""What the doctor finds."""

import platform

import pytest
import torch

import metaformer
from metaformer.lab import doctor


def test_examine() -> None:
    found = doctor.examine()
    assert (found["metaformer"], found["python"]) == (metaformer.__version__, platform.python_version())
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert (found["cuda"] == "no") is not torch.cuda.is_available()
    assert torch.backends.cpu.get_cpu_capability() in found["processor"]
    assert set(doctor.LIBRARIES) < found.keys()
    assert all(found.values())


def test_what_lacks_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"dev": ("pytest", "no-such-package")})
    monkeypatch.setattr(doctor, "LIBRARIES", ("numpy", "no-such-library"))
    found = doctor.examine()
    assert found["[dev]"] == "lacks no-such-package: pip install '.[dev]'"
    assert found["no-such-library"] == "not installed"


def test_devices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"GPU {i}")
    assert doctor.examine()["cuda"].startswith("GPU 0, GPU 1 (CUDA ")
    for able in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda able=able: able)
        assert ("no bf16 in hardware" in doctor.examine()["processor"]) is not able
