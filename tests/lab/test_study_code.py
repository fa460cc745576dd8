"""The hash of what a user's code computes: what changes it, and what does not."""

from pathlib import Path

import pytest
from tests.tiny import forget

from metaformer.lab.study import Row, Study
from metaformer.lab.study_code import code_marks
from metaformer.own import ask

MINE = """
from torch import nn
from metaformer import Row, Study
from beside import SIZE

class Mine(nn.Conv2d):
    def __init__(self, dim):
        super().__init__(dim, dim, SIZE)

ROWS = (Row("a"),)
STUDY: Study = Study(name="s", rows=ROWS)
if __name__ == "__main__":
    print(STUDY)
"""


def mark(folder: Path, text: str = MINE, module: str = "mine.py") -> str:
    """As another process finds it, where the file holds this text."""
    forget(folder)
    (folder / "mine.py").write_text(text)
    ask([f"{module}:Mine"])
    return code_marks({"mixers": f"{module}:Mine"}, aside=(Row, Study))[module]


@pytest.fixture
def folder(own: Path) -> Path:
    """With a module that another one imports."""
    (own / "beside.py").write_text("SIZE = 1  # odd")
    return own


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("class Mine", "# better\n\nclass Mine"),
        ('Row("a"),', 'Row("a"), Row("b", {"mixers": Mine})'), ('name="s"', 'name="t"'),
        ("print(STUDY)", "print(ROWS)"), ("(dim, dim, SIZE)", "(\n            dim, dim, SIZE\n        )"),
    ],
)  # fmt: skip
def test_what_changes_nothing(folder: Path, old: str, new: str) -> None:
    assert MINE.replace(old, new) != MINE
    assert mark(folder, MINE.replace(old, new)) == mark(folder)


@pytest.mark.parametrize(("old", "new"), [("dim, SIZE", "dim, 2 * SIZE"), ("\nROWS", "\nMORE = 1\nROWS")])
def test_what_changes_it(folder: Path, old: str, new: str) -> None:
    assert mark(folder, MINE.replace(old, new)) != mark(folder)


def test_what_it_imports_from_its_folder_counts(folder: Path) -> None:
    before = mark(folder)
    (folder / "beside.py").write_text("SIZE = 1  # the same")
    assert mark(folder) == before
    (folder / "beside.py").write_text("SIZE = 3")
    assert mark(folder) != before


def test_what_is_installed_there_does_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment in the folder itself."""
    installed = folder / ".venv/lib/site-packages"
    installed.mkdir(parents=True)
    (folder / "beside.py").rename(installed / "beside.py")
    monkeypatch.syspath_prepend(installed)
    before = mark(folder)
    (installed / "beside.py").write_text("SIZE = 3")
    assert mark(folder) == before


def test_a_package_and_what_it_imports_relatively(folder: Path) -> None:
    package = folder / "packed"
    package.mkdir()
    (package / "__init__.py").touch()
    (folder / "beside.py").rename(package / "beside.py")
    (package / "mixers.py").write_text(MINE.replace("from beside", "from .beside"))
    before = mark(folder, module="packed.mixers")
    (package / "beside.py").write_text("SIZE = 3")
    assert mark(folder, module="packed.mixers") != before


def test_where_it_lies_does_not_count(folder: Path) -> None:
    before = mark(folder)
    (folder / "sub").mkdir()
    (folder / "beside.py").rename(folder / "sub/beside.py")
    (folder / "sub/mine.py").write_text(MINE)
    forget(folder)
    ask(["sub/mine.py:Mine"])
    assert code_marks(["sub/mine.py:Mine"], aside=(Row, Study)) == {"sub/mine.py": before}


def test_it_is_of_what_was_imported(folder: Path) -> None:
    """Whatever becomes of the file afterwards."""
    before = mark(folder)
    (folder / "mine.py").write_text(MINE.replace("dim, SIZE", "dim, 2 * SIZE"))
    assert code_marks(["mine.py:Mine"], aside=(Row, Study)) == {"mine.py": before}
