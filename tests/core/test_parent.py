"""Nothing outlives the process that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system has no such way")

CHILD = "from metaformer.core.parent import die_with_parent; die_with_parent({}); print('alive', flush=True); input()"


def test_it_ends_with_its_parent_however_that_ends() -> None:
    start = f"subprocess.Popen([sys.executable, '-c', {CHILD.format('')!r}])"
    code = f"import subprocess, sys; print({start}.pid, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path("/proc") / parent.stdout.readline().strip()
        assert parent.stdout.readline() == "alive\n"
        assert child.exists()
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        until = time.monotonic() + 10
        while child.exists() and "State:\tZ" not in (child / "status").read_text():
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.parametrize(("parent", "code", "said"), [(None, 1, "alive\n"), (1, -signal.SIGKILL, "")])
def test_where_the_parent_is_dead_already_it_ends_at_once(parent: int | None, code: int, said: str) -> None:
    parent = os.getpid() if parent is None else parent
    child = subprocess.run(
        [sys.executable, "-c", CHILD.format(parent)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (child.returncode, child.stdout) == (code, said)
