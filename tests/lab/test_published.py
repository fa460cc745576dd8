"""Figure 1 of both papers: when its speeds are measured, and which ones are drawn."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.tiny import command

from metaformer.core.count import Count
from metaformer.lab import published
from metaformer.lab.study_speed import Speeds, known_speeds


def test_figure_one_is_drawn_from_what_was_measured_or_measures(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    speeds = Speeds({"caformer_s18": [1.0, 3.0, 2.0]}, {}, "how", "machine")

    def measured(folder: Path, *, device: str, anew: bool) -> Speeds:
        asked.append((str(folder), device, anew))
        (folder / "speeds.json").write_text(json.dumps(asdict(speeds)))
        return speeds

    monkeypatch.setattr(published, "measure_published", measured)
    monkeypatch.setattr(published, "figure_one", lambda models, *_, **__: asked.append({one.rate for one in models}))
    monkeypatch.setattr(published, "count", lambda *_: Count(1, 0, 1, 1, None, 0, {}))
    monkeypatch.setattr(published, "MetaFormer", lambda config: config)
    for words in ([], ["--measure", "device=cpu"], ["--draw"], ["--draw", "name=other"]):
        assert command("study", "figure1", "root=drawn", *words)[::2] == (0, "")
    rates = {None, 2.0}
    assert asked == [("drawn/figure1", "auto", False), rates, ("drawn/figure1", "cpu", True), rates, rates, {None}]
    (here / "drawn/figure1/speeds.json").write_text('{"of": "another version"}')
    assert known_speeds(here / "drawn/figure1") is None
