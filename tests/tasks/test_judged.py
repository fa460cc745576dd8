"""Figures of objects and regions do not depend on how many processes judge them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.judged import summaries


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_have_the_figures_of_one(tmp_path: Path, count: int) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    subprocess.run([*torchrun, "-m", "tests.judged", str(tmp_path)], check=True, cwd=Path(__file__).parents[2])
    alone = json.loads(json.dumps(summaries()))
    assert [json.loads(path.read_text()) for path in sorted(tmp_path.iterdir())] == [alone] * count
