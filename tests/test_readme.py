"""Every command and code block of our pages is executed; those that train see small images, once."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from tests.pages import PAGES, PYTHON, README, ROOT, SERVED, SHELL, SHOWN, blocks, name, prose
from tests.published import PUBLISHED
from tests.tiny import command

from metaformer import count
from metaformer.lab import tables
from metaformer.lab.tables import markdown, model_table
from metaformer.zoo import ZOO

CODED = [page for page in PAGES if blocks(page)]
ALONE = [page for page in CODED if page not in SERVED]
LONG = {f"docs/{page}.md" for page in ("eval", "explain", "finetune", "many", "mixer", "recipes", "runs", "tune")}
"""Pages whose commands need a quarter of a minute or more."""


@pytest.mark.parametrize("page", CODED, ids=name)
def test_languages_are_known(page: Path) -> None:
    assert [block for block in blocks(page) if block.language not in SHELL | PYTHON | SHOWN] == []


def is_checked_otherwise(line: str) -> bool:
    """Whether a shell line installs or fetches, which no test does; what it names must be there."""
    words = line.partition("#")[0].split()
    if not words:
        return False
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        assert [t for t in targets if not re.search(rf"^{t}:", (ROOT / "Makefile").read_text(), re.MULTILINE)] == []
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\w+", "".join(re.findall(r"\[(.*?)\]", line)))) <= set(extras)
    else:
        return words[0] == "cd" or words[:2] == ["git", "clone"]
    return True


@pytest.mark.parametrize(
    ("line", "otherwise"), [("make demo  # x", True), ("pip install '.[dev]'", True), ("ls", False), ("", False)]
)
def test_what_is_checked_otherwise(line: str, otherwise: bool) -> None:
    assert is_checked_otherwise(line) is otherwise


@pytest.mark.parametrize("line", ["make nothing", "pip install metaformer[nothing]"])
def test_what_is_not_there_is_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        is_checked_otherwise(line)


def words_of_ours(line: str) -> list[str] | None:
    """What follows `metaformer` in a line that is this one command and asks nothing else of the shell, nor for processes."""
    quoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", line).partition("#")[0]
    words = shlex.split(line, comments=True)
    return words[1:] if words[:1] == ["metaformer"] and not re.search(r"[|&;<>$`*?~{\[\\]|devices=", quoted) else None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("metaformer eval runs/x  # why", ["eval", "runs/x"]),
        ("metaformer models 'a*' \"b?\"", ["models", "a*", "b?"]),
        ("metaformer eval x | head", None),
        ("metaformer eval runs/*", None),
        ("metaformer train x devices=2", None),
        ("python x.py", None),
    ],
)
def test_which_lines_are_ours_alone(line: str, words: list[str] | None) -> None:
    assert words_of_ours(line) == words


def run_shell(lines: list[str], where: str) -> None:
    """Runs lines of a shell; where all are commands of ours, in this process, in which importing is done."""
    ours = [words_of_ours(line) for line in lines]
    if None not in ours:
        for words in ours:
            code, _, err = command(*words or ())
            assert code == 0, f"{where}: {err}"
        return
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{where}: {done.stderr}"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("page", [pytest.param(p, marks=[pytest.mark.slow] * (name(p) in LONG), id=name(p)) for p in ALONE])
@pytest.mark.usefixtures("shell", "thread")
def test_every_block_runs(page: Path) -> None:
    for block in blocks(page):
        where = f"{name(page)}, line {block.line}"
        separator = " " if block.language in SHELL else ", "
        code = re.sub(r"\bepochs=\d+", f"epochs=1{separator}image_size=16", block.code)
        if block.language in SHELL:
            lines = [line for line in code.splitlines() if line.strip() and not is_checked_otherwise(line)]
            run_shell(lines, where)
        elif block.language in PYTHON:
            exec(compile(code, where, "exec"), {"__name__": "__main__"})


def test_the_model_table_is_the_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the published figures, which tests/core/test_count.py counts, of all but the small models."""
    known = {ZOO[name]: row for name, row in PUBLISHED.items()}
    monkeypatch.setattr(tables, "count", lambda model, size: known.get(model.config) or count(model, size))
    written = re.findall(r"<!-- models -->\n(.*?)\n<!-- /models -->", README.read_text(), re.DOTALL)
    assert written == [markdown(model_table())]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    local = [link.partition("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_mixer_of_one_s_own_takes_ten_lines() -> None:
    (block,) = [block for block in blocks(README) if "class " in block.code]
    lines = [line for line in block.code.splitlines() if line.strip()]
    assert "metaformer.train(" in block.code
    assert len(lines) <= 10
