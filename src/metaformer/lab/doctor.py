"""What this machine and installation have."""

import importlib.metadata
import importlib.util
import os
import platform

import torch

from metaformer import __version__

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "scikit-learn", "matplotlib")
EXTRAS = {
    "dev": ("pytest", "hypothesis", "ruff", "pyrefly", "import-linter", "transformers"),
    "explain": ("captum",),
    "search": ("optuna",),
    "watch": ("mlflow", "tensorboard", "wandb"),
}


def examine() -> dict[str, str]:
    """Versions, devices, instruction sets, installed extras; a line each."""
    found = {
        "metaformer": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, {_bf16()}",
        "cuda": _cuda(),
        "mps": "yes" if torch.backends.mps.is_available() else "no",
    }
    found |= {name: _installed(name) or "not installed" for name in LIBRARIES}
    for extra, names in EXTRAS.items():
        missing = [name for name in names if _installed(name) is None]
        found[f"[{extra}]"] = f"lacks {', '.join(missing)}: pip install '.[{extra}]'" if missing else "installed"
    return found


def _bf16() -> str:
    return "bf16 in hardware" if torch.cpu._is_avx512_bf16_supported() else "no bf16 in hardware"


def _cuda() -> str:
    if not torch.cuda.is_available():
        return "no"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{', '.join(names)} (CUDA {torch.version.cuda})"


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
