"""Studies that are committed: their tables follow from their results, and nothing of a machine's folders is in them."""

import re
import shutil
from pathlib import Path

import pytest

import metaformer
from metaformer.lab import study_report
from metaformer.lab.study_asked import Wanted, known_of
from metaformer.lab.study_results import FILE

DOCS = Path(__file__).parents[2] / "docs"
COMMITTED = sorted(file.parent for file in DOCS.glob("studies/*/study.json"))
LARGEST = 2 * 2**20
"""Bytes of a folder."""


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_committed_tables_follow_from_committed_results(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_report.study_plots, "accuracy", lambda *_: None)
    monkeypatch.setattr(study_report.study_plots, "learning", lambda *_: None)
    shutil.copytree(folder, tmp_path / folder.name)
    metaformer.study(tmp_path / folder.name, train=False)
    for name in ("table.md", "table.csv", "table.tex", "claims.md"):
        if (folder / name).exists():
            assert (tmp_path / folder.name / name).read_text() == (folder / name).read_text(), name


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_a_page_has_the_verdicts(folder: Path) -> None:
    """As they are written beside the results, so that no page tells of others."""
    pages = "\n".join(page.read_text() for page in DOCS.glob("*.md")).splitlines()
    verdicts = (folder / "claims.md").read_text().splitlines() if (folder / "claims.md").exists() else []
    assert [line for line in verdicts if line.startswith("|") and line not in pages] == []


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_a_committed_folder_is_small_of_no_machine_and_whole_where_it_has_tables(folder: Path) -> None:
    known = known_of(folder, {}, Wanted())
    drawn = {
        name for name in ("table.md", "table.csv", "table.tex", "accuracy.png", "learning.png") if (folder / name).exists()
    }
    assert len(drawn) == (0 if known.left else 5)
    assert {path.stem for path in (folder / "right").iterdir()} == {one.key for one in known.results if one.top1 is not None}
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < LARGEST
    for file in (folder / FILE, folder / "study.json"):
        assert re.findall(r'"data": "[^"]*[:/][^"]*"', file.read_text()) == []
    assert not (folder / "runs").exists()
