"""Code of the user's own: what a command names is run and can be brought back; what only a file names is not."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tiny import CHANGES, QUICK, command, pairs, same, weights

import metaformer
from metaformer import MetaFormerConfig, Pooling, Predictor
from metaformer.core.architecture import SPECS
from metaformer.core.spec import OWN, from_text, to_text
from metaformer.own import ask, bring, references

MINE = """
from dataclasses import dataclass
from pathlib import Path
from torch import nn
from metaformer import Pooling

Path("ran").touch()

class Half(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 1)
    def forward(self, x):
        return self.conv(x) / 2

@dataclass(frozen=True)
class Times:
    factor: float = 0.5
    inner: Pooling = Pooling()
    def __call__(self, dim):
        return Half(dim)

FIXED = Times(3.0)

def plain(dim):
    return Half(dim)
"""


@pytest.fixture
def mine(here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file with mixers in the current folder, never named so far; nothing of it stays imported."""
    monkeypatch.setenv("METAFORMER_CACHE", str(tmp_path_factory.mktemp("cache")))
    (here / "mine.py").write_text(MINE)
    yield here / "mine.py"
    forget()


def forget() -> None:
    """As in another process."""
    for module in OWN:
        sys.modules.pop(module, None)
    OWN.clear()


# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mine.py:Half", [("mine.py", "Half")]),
        ("(Pooling(), a/b.py:C(x=2), p.q:R.S)", [("a/b.py", "C"), ("p.q", "R.S")]),
        ("Pooling(window=5)", []),
        ("mod:own.<locals>.<lambda>", []),
        ({"mixers": ["a:B", "Pooling()"], "dims": [1, 2]}, [("a", "B")]),
    ],
)
def test_what_a_text_names(text: object, found: list[tuple[str, str]]) -> None:
    assert list(references(text)) == found


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("mine.py:Half", "mine.py:Half"),
        ("mine.py:plain", "mine.py:plain"),
        ("mine.py:Times", "mine.py:Times(factor=0.5, inner=Pooling(window=3))"),
        ("mine.py:Times(2.0, inner=Pooling(5))", "mine.py:Times(factor=2.0, inner=Pooling(window=5))"),
        ("mine.py:FIXED", "mine.py:Times(factor=3.0, inner=Pooling(window=3))"),
    ],
)
@pytest.mark.usefixtures("mine")
def test_own_code_reads_back_from_its_text(text: str, again: str) -> None:
    ask([text])
    made = from_text(text, SPECS)
    assert to_text(made) == again
    assert from_text(again, SPECS) == made
    assert from_text(f"(Pooling(), {text})", SPECS) == (Pooling(), made)
    config = MetaFormerConfig(depths=(1,) * 4, dims=(8,) * 4, mixers=made)
    assert MetaFormerConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mine.py:Halve", "mine.py has no 'Halve', did you mean Half"),
        ("other.py:Half", "there is no other.py in .*: name a file, mine.py:Shift, or a module"),
        ("nowhere.at.all:Half", "nowhere.at.all cannot be imported: ModuleNotFoundError"),
        ("broken.py:Half", "broken.py cannot be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_what_a_command_names_wrongly(mine: Path, text: str, sentence: str) -> None:
    (mine.parent / "broken.py").write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(ValueError, match=sentence):
            ask([text])


@pytest.mark.parametrize("verb", ["train", "lr", "tune"])
def test_what_is_typed_is_run(mine: Path, verb: str) -> None:
    """And is not told that a file cannot bring it back."""
    text = "nothing.py:Half|Pooling()" if verb == "tune" else "nothing.py:Half"
    code, _, err = command(verb, "poolformerv2_t6", "data=digits", f"model.mixers={text}")
    assert code == 2
    assert err.startswith("metaformer: there is no nothing.py in ")


@pytest.mark.usefixtures("mine")
def test_only_a_spec_takes_options() -> None:
    ask(["mine.py:Half"])
    with pytest.raises(ValueError, match="only a spec takes options, a frozen dataclass"):
        from_text("mine.py:Half(2)", SPECS)


# --- trust ------------------------------------------------------------------------------------------------------------


def test_a_file_runs_only_what_a_command_has_named_to_the_byte(mine: Path) -> None:
    with pytest.raises(ValueError, match=r"which a file cannot bring back.*mine\.py was never named by a command"):
        bring(["mine.py:Half"])
    assert not (mine.parent / "ran").exists()
    ask(["mine.py:Half"])
    (mine.parent / "ran").unlink()
    forget()
    assert bring({"mixers": "mine.py:Half"}) == (f"mine.py:Half is code of your own: {mine}",)
    assert (mine.parent / "ran").exists()
    forget()
    mine.write_text(MINE + "\n")
    with pytest.raises(
        ValueError, match=r"has changed since; to run it as it is: metaformer mixer check mine\.py:Half --quick"
    ):
        bring(["mine.py:Half"])


def test_a_file_that_is_elsewhere(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(["mine.py:Half"])
    forget()
    (mine.parent / "sub").mkdir()
    monkeypatch.chdir(mine.parent / "sub")
    with pytest.raises(ValueError, match=r"go to the folder that has mine\.py, which .*sub is not"):
        bring(["mine.py:Half"])


def test_a_module_of_a_package_and_what_it_imports(mine: Path) -> None:
    package = mine.parent / "packed"
    package.mkdir()
    (package / "__init__.py").write_text("from packed.mixers import Half")
    (package / "mixers.py").write_text(MINE)
    with pytest.raises(ValueError, match="was never named"):
        bring(["packed.mixers:Half"])
    assert "packed" not in sys.modules
    ask(["packed:Half"])
    made = to_text(from_text("packed:Half", SPECS))
    assert made == "packed.mixers:Half"
    forget()
    assert bring([made])
    sys.modules.pop("packed")


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_with_a_mixer_of_one_s_own_from_the_command_line(mine: Path, fashion: str) -> None:
    changes = CHANGES | {"mixers": "(Pooling(), mine.py:Half, Pooling(), mine.py:Half)"}
    words = ["train", "poolformerv2_t6", *pairs(QUICK | {"data": fashion, "changes": changes, "epochs": 1})]
    code, _, err = command(*words, "name=one")
    assert code == 0, err
    run = metaformer.Run(Path("runs/one"))
    assert f"mine.py:Half is code of your own: {mine}" in (run.path / "log.txt").read_text()
    forget()
    assert command("eval", run.path)[0] == 0
    assert isinstance(Predictor(run.path), Predictor)
    forget()
    code, _, err = command("train", run.path / "recipe.json", "name=again")  # from the file alone
    assert code == 0, err
    assert same(weights(run.last), weights(Path("runs/again/last")))
    forget()
    mine.write_text(MINE + "\n")
    for verb in ("eval", "train"):
        code, _, err = command(verb, run.path / "recipe.json" if verb == "train" else run.path)
        assert code == 2
        assert "has changed since; to run it as it is: metaformer mixer check mine.py:Half --quick" in err
    mine.unlink()
    code, _, err = command("eval", run.path)
    assert code == 2
    assert "go to the folder that has mine.py" in err
    assert "Traceback" not in err
