"""The models here are tiny: one thread, as more only wait for each other."""

from collections.abc import Iterator

import pytest
from tests.tiny import one_core


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_core():
        yield
