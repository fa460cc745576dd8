"""The bench: ours and timm's side by side, a row each, in a file."""

import json
from pathlib import Path

import pytest

from metaformer.lab.bench import BASE, main


@pytest.mark.slow
def test_bench_measures_both_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--models", "poolformerv2_s12", "--batch", "2", "--size", "32", "--rounds", "2", "--precision", "fp32"]
    main([*options, "--device", "cpu", "--out", str(tmp_path / "bench.json")])
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [(row["job"], row["contestant"]) for row in found["rows"]] == [
        (job, f"{owner} {how}") for job in ("predict", "train") for owner in ("ours", "timm") for how in ("eager", "compiled")
    ]
    for row in found["rows"]:
        assert row["images_per_second"] > 0
        assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        assert (row["ratio"] == 1.0) == (row["contestant"] == BASE)
    assert (found["batch"], found["size"]) == (2, 32)
    assert "| poolformerv2_s12 | train | ours compiled |" in capsys.readouterr().out
