"""What several tests share: a tiny data set, and a run on it."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pages import ROOT
from tests.tiny import QUICK, forget, one_core, write_fashion

import metaformer


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """As in a terminal: what a shell starts in the background, and what that starts, is deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A `data=` with 96 images to learn and 40 to judge."""
    return write_fashion(tmp_path_factory.mktemp("data") / "fashion")


@pytest.fixture(scope="session")
def run(fashion: str, tmp_path_factory: pytest.TempPathFactory) -> metaformer.Run:
    """A finished run of two epochs. Copy its folder to change anything in it."""
    with one_core():
        root = tmp_path_factory.mktemp("runs")
        return metaformer.train("caformer_t6", data=fashion, name="tiny", root=root, quiet=True, **QUICK)


@pytest.fixture
def thread() -> Iterator[None]:
    """One thread for the test."""
    with one_core():
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own(here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder for code of one's own, of which nothing is remembered, and nothing stays imported."""
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield here
    forget(here)


@pytest.fixture
def shell(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which `python` is this one, and `metaformer` is there, installed or not."""
    wrapper = here.parent / f"{here.name}-bin" / "metaformer"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m metaformer "$@"\n')
    wrapper.chmod(0o755)
    (wrapper.parent / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{wrapper.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}")
    return here
