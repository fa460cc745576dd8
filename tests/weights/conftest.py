"""A hub on this machine, an empty cache, no waiting; nothing contacts another machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hub import Hub, serving

from metaformer import download

VARIABLES = ("METAFORMER_WEIGHTS", "METAFORMER_OFFLINE", "HF_HUB_OFFLINE", "XDG_CACHE_HOME", "HF_TOKEN")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """It stands for Hugging Face and for all other servers."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with serving() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.address)
        template = f"{made.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", made.address)  # read once, when it is imported
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("METAFORMER_MIRROR", made.address)
        yield made
