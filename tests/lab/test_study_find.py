"""Which study words mean: named, in a file, in a module, or a mixer's beside built-in ones."""

from pathlib import Path

import pytest
from tests.rows import OWN, resolved

from metaformer import Attention, DepthwiseConv, Identity, Pooling, Row
from metaformer.lab.studies import STUDIES
from metaformer.lab.study import Study
from metaformer.lab.study_find import find_study

SPEC = """
from dataclasses import dataclass
from torch import nn

@dataclass(frozen=True)
class Near:
    grid: int
    reach: int = 17
    def __call__(self, dim):
        return nn.Identity()

def plain(dim):
    return nn.Identity()
"""


@pytest.fixture
def nothing(own: Path) -> Path:
    """A file with a mixer and a study."""
    (own / "nothing.py").write_text(OWN)
    return own / "nothing.py"


def test_a_study_in_a_file(nothing: Path) -> None:
    study, file = find_study("nothing.py", STUDIES)
    assert (study.name, file) == ("nothing", Path("nothing.py"))
    assert find_study("nothing.py:STUDY", STUDIES)[0] is study
    assert find_study(str(nothing), STUDIES)[0].name == "nothing"


def test_a_study_in_a_module(nothing: Path) -> None:
    study, file = find_study("nothing:STUDY", STUDIES)
    assert (study.name, file) == ("nothing", None)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nrom", "no study 'nrom', did you mean norm"),
        ("nothing.py:STUDI", "nothing.py has no study or mixer 'STUDI', did you mean STUDY"),
        ("nothing.py:Nothin", "nothing.py has no study or mixer 'Nothin', did you mean Nothing"),
        ("none.py", "there is no none.py in "),
        ("no_such_module:STUDY", "no_such_module cannot be imported: ModuleNotFoundError: No module named"),
        ("none_in.py", "none_in.py has 0 studies \\(none\\): say which, none_in.py:NAME$"),
        ("mixer_in.py", "mixer_in.py has no study: name a mixer in it, mixer_in.py:Near, to see it beside built-in ones"),
        ("two_in.py", r"two_in.py has 2 studies \(STUDY, OTHER\): say which, two_in.py:NAME$"),
    ],
)
def test_what_is_no_study(nothing: Path, what: str, said: str) -> None:
    (nothing.parent / "none_in.py").touch()
    (nothing.parent / "mixer_in.py").write_text(SPEC)
    (nothing.parent / "two_in.py").write_text(OWN + "\nOTHER = Study(name='other', rows=(Row('pooling'),))\n")
    with pytest.raises(ValueError, match=f"^{said}"):
        find_study(what, STUDIES)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("STUDY = Stduy()", "NameError: name 'Stduy' is not defined"),
        ("def f(:", "SyntaxError: invalid syntax"),
        (
            "from metaformer import Study\nSTUDY = Study(name='empty', rows=())",
            r"ValueError: the study 'empty' needs rows.* \(in its line 2\)$",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_a_sentence(nothing: Path, code: str, said: str) -> None:
    nothing.write_text(code)
    with pytest.raises(ValueError, match=rf"^nothing\.py cannot be imported: {said}"):
        find_study("nothing.py", STUDIES)
    nothing.write_text(OWN)
    assert find_study("nothing.py", STUDIES)[0].name == "nothing"


def test_a_mixer_alone_is_a_study(nothing: Path) -> None:
    study, file = find_study("nothing.py:Nothing", STUDIES)
    assert (study.name, file) == ("nothing", Path("nothing.py"))
    built_in = {"pooling": Pooling(), "identity": Identity(), "depthwise": DepthwiseConv(), "attention": Attention()}
    *others, mine = resolved(study)
    assert {entry.row: entry.shape and entry.shape.mixers[0] for entry in others} == built_in
    assert (mine.row, mine.recipe.changes) == ("Nothing", {"mixers": f"({', '.join(4 * ['nothing.py:Nothing'])})"})
    assert study.base("Nothing") == "pooling"
    assert nothing.is_file()


def test_a_mixer_with_options_and_a_function(own: Path) -> None:
    (own / "mine.py").write_text(SPEC)
    near, plain = (
        resolved(find_study(f"mine.py:{name}", STUDIES)[0], size=28)[-1] for name in ("Near(grid=5, reach=7)", "plain")
    )
    assert near.row == "Near"
    assert [repr(mixer) for mixer in near.shape.mixers] == [f"Near(grid={side}, reach=7)" for side in (14, 7, 4, 2)]  # pyrefly: ignore
    assert plain.recipe.changes["mixers"].startswith("(mine.py:plain, ")


def test_a_named_study_is_in_no_file() -> None:
    assert find_study("mine", {"mine": Study(name="mine", rows=(Row("a"),))})[1] is None
