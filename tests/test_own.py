"""Code of the user's own: what a command names is run and can be brought back; what only a file names is not."""

import pickle
import py_compile
import signal
import sys
from copy import deepcopy
from dataclasses import replace
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from PIL import Image
from tests.tiny import CHANGES, QUICK, after_steps, begin, command, finish, forget, pairs, same, weights

import metaformer
from metaformer import MetaFormerConfig, Pooling, Predictor
from metaformer.core.architecture import SPECS
from metaformer.core.spec import from_text, to_text
from metaformer.own import ask, bring, changed, references
from metaformer.recipes import SMALL

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
def mine(own: Path) -> Path:
    """A file with mixers in the current folder, never named so far."""
    (own / "mine.py").write_text(MINE)
    return own / "mine.py"


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
    forget(mine.parent)
    assert bring({"mixers": "mine.py:Half"}) == (f"mine.py:Half is code of your own: {mine}",)
    assert (mine.parent / "ran").exists()
    forget(mine.parent)
    mine.write_text(MINE + "\n")
    with pytest.raises(
        ValueError, match=r"has changed since; to run it as it is: metaformer mixer check mine\.py:Half --quick"
    ):
        bring(["mine.py:Half"])


def test_a_file_that_is_elsewhere(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(["mine.py:Half"])
    forget(mine.parent)
    (mine.parent / "sub").mkdir()
    monkeypatch.chdir(mine.parent / "sub")
    with pytest.raises(ValueError, match=r"there is no mine\.py in .*sub: go to the folder that has it"):
        bring(["mine.py:Half"])


def test_a_copy_elsewhere_is_not_what_was_named(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has other neighbours, which it may import. Named again, it is known there."""
    ask(["mine.py:Half"])
    forget(mine.parent)
    (mine.parent / "sub").mkdir()
    monkeypatch.chdir(mine.rename(mine.parent / "sub" / "mine.py").parent)
    (mine.parent / "ran").unlink()
    with pytest.raises(ValueError, match=r"sub/mine\.py was never named by a command"):
        bring(["mine.py:Half"])
    assert not Path("ran").exists()
    ask(["mine.py:Half"])
    forget(mine.parent)
    assert bring(["mine.py:Half"])


def test_what_lies_in_pycache_is_not_run(mine: Path) -> None:
    """It may be of others, and says nothing of the source that is known."""
    evil = mine.with_name("evil.txt")
    evil.write_text(MINE.replace("ran", "evil"))
    cached = cache_from_source(str(mine))
    py_compile.compile(str(evil), cfile=cached, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    ask(["mine.py:Half"])
    assert {file.name for file in mine.parent.iterdir()} == {"mine.py", "evil.txt", "__pycache__", "ran"}


def test_two_files_of_one_name(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are two modules, as seen from one folder and from two."""
    for folder, factor in (("a", 2), ("b", 4)):
        (mine.parent / folder).mkdir()
        (mine.parent / folder / "mine.py").write_text(MINE.replace("/ 2", f"/ {factor}"))
    ask(["a/mine.py:Half", "b/mine.py:Half"])
    one, other = (from_text(f"{folder}/mine.py:Half", SPECS) for folder in "ab")
    assert one is not other
    assert {to_text(one), to_text(other)} == {"a/mine.py:Half", "b/mine.py:Half"}
    monkeypatch.chdir(mine.parent / "a")
    ask(["mine.py:Half"])
    here = from_text("mine.py:Half", SPECS)
    monkeypatch.chdir(mine.parent / "b")
    bring(["mine.py:Half"])  # b/mine.py was named
    assert from_text("mine.py:Half", SPECS) is not here


def test_it_is_imported_once_and_known_to_have_changed(mine: Path) -> None:
    """As all that Python imports: a process goes on with what it began with."""
    ask(["mine.py:Half"])
    before = from_text("mine.py:Half", SPECS)
    assert not changed("mine.py")
    mine.write_text(MINE.replace("/ 2", "/ 4"))
    ask(["mine.py:Half"])
    bring(["mine.py:Half"])
    assert from_text("mine.py:Half", SPECS) is before
    assert changed("mine.py")
    mine.unlink()
    assert not changed("mine.py")


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
    forget(mine.parent)
    assert bring([made])
    sys.modules.pop("packed")


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_with_a_mixer_of_one_s_own_from_the_command_line(mine: Path, fashion: str) -> None:
    changes = CHANGES | {"mixers": "(Pooling(), mine.py:Half, Pooling(), mine.py:Half)"}
    words = ["train", "poolformerv2_t6", *pairs(QUICK | {"data": fashion, "changes": changes, "epochs": 1})]
    code, _, err = command(*words, "name=one")
    assert code == 0, err
    run = metaformer.Run(Path("runs/one"))
    assert f"mine.py:Half is code of your own: {mine}" in (run.path / "log.txt").read_text()
    forget(mine.parent)
    assert command("eval", run.path)[0] == 0
    assert isinstance(Predictor(run.path), Predictor)
    forget(mine.parent)
    code, _, err = command("train", run.path / "recipe.json", "name=again")  # from the file alone
    assert code == 0, err
    assert same(weights(run.last), weights(Path("runs/again/last")))
    forget(mine.parent)
    mine.write_text(MINE + "\n")
    for verb in ("eval", "train"):
        code, _, err = command(verb, run.path / "recipe.json" if verb == "train" else run.path)
        assert code == 2
        assert "has changed since; to run it as it is: metaformer mixer check mine.py:Half --quick" in err
    mine.unlink()
    code, _, err = command("eval", run.path)
    assert code == 2
    assert "go to the folder that has it" in err
    assert "Traceback" not in err


def test_a_run_that_was_cut_short_goes_on(mine: Path, fashion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another process, to the same weights, with a file of its own module beside it."""
    mine.write_text(MINE.replace("/ 2", "* HALF").replace("Path(", "from beside import HALF\nPath("))
    (mine.parent / "beside.py").write_text("HALF = 0.5\n")
    ask(["mine.py:Half"])
    changes = CHANGES | {"mixers": "mine.py:Half"}
    recipe = replace(SMALL, model="poolformerv2_t6", **(QUICK | {"data": fashion, "changes": changes, "epochs": 1}))
    whole = begin(recipe, Path("whole"))
    after_steps(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        begin(recipe, Path("cut"))
    forget(mine.parent)
    assert same(weights(finish(Path("cut/run")).last), weights(whole.last))


@pytest.mark.slow
def test_exported_files_of_a_run(mine: Path, fashion: str) -> None:
    """A graph needs no code; a file of weights does, and says so."""
    changes = CHANGES | {"mixers": "mine.py:Times(2.0)"}
    code, _, err = command(
        "train", "poolformerv2_t6", *pairs(QUICK | {"data": fashion, "changes": changes, "epochs": 1}), "name=one"
    )
    assert code == 0, err
    Image.new("L", (28, 28), 90).save("photo.png")
    said = {}
    for ending, format in (("onnx", "onnx"), ("safetensors", "safetensors")):
        forget(mine.parent)
        assert command("export", "runs/one", format, f"one.{ending}")[0] == 0
    for source in ("runs/one", "one.onnx", "one.safetensors"):
        forget(mine.parent)
        code, said[source], err = command("predict", source, "photo.png", "--top", 1)
        assert code == 0, err
    assert len({text.split()[-2] for text in said.values()}) == 1
    mine.rename(mine.with_name("gone.py"))
    forget(mine.parent)
    assert command("predict", "one.onnx", "photo.png")[0] == 0
    code, _, err = command("predict", "one.safetensors", "photo.png")
    assert code == 2
    assert "there is no mine.py in " in err


def test_a_class_that_was_renamed(mine: Path) -> None:
    """Is told with its nearest name, once the file is known as it is."""
    ask(["mine.py:Half"])
    mine.write_text(MINE.replace("Half", "Halved"))
    forget(mine.parent)
    with pytest.raises(ValueError, match="has changed since"):
        bring(["mine.py:Half"])
    ask(["mine.py:Halved"])
    with pytest.raises(ValueError, match=r"^mine\.py has no 'Half', did you mean Halved\?$"):
        bring(["mine.py:Half"])


def test_specs_are_copied_and_pickled(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder is among those in which Python looks for modules."""
    ask(["mine.py:Half"])
    spec = from_text("mine.py:Times(2.0)", SPECS)
    assert deepcopy(spec) == spec
    monkeypatch.syspath_prepend(mine.parent)
    assert pickle.loads(pickle.dumps(spec)) == spec
