"""Our pages, the fenced code in them, and the lines of it that call the command."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SERVED = [ROOT / "docs" / "serve.md"]
"""Pages whose blocks ask a service: tests/test_served.py runs them."""
SHELL, PYTHON, SHOWN = {"sh", "bash"}, {"python"}, {"text", "console", "json"}
FENCED = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STARTERS = ("exec", "nohup", "python", "srun", "time", "torchrun")
"""What may stand before the command, beside options and variables."""
ENDS = ("|", "||", "&", "&&", ";", ">")


@dataclass(frozen=True)
class Block:
    """Fenced code."""

    language: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    """In order. A fence that does not open or close a block is an error."""
    text = page.read_text()
    found = [Block(match[1], match[2], text.count("\n", 0, match.start()) + 1) for match in FENCED.finditer(text)]
    assert 2 * len(found) == len(re.findall(r"^\s*```", text, re.MULTILINE)), f"{page}: a fence is not closed"
    return found


def prose(page: Path) -> str:
    """What is not fenced."""
    return FENCED.sub("", page.read_text())


def name(page: Path) -> str:
    """As it is called from the root."""
    return str(page.relative_to(ROOT))


def typed(line: str) -> list[str] | None:
    """What follows `metaformer` in a line of a shell, up to the next command; None where the line calls something else."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a quotation mark alone, as in what is printed
        return None
    if "metaformer" not in words:
        return None
    place = words.index("metaformer")
    if any(word not in STARTERS and not re.match(r"-|\w+=", word) for word in words[:place]):
        return None
    after = words[place + 1 :]
    return after[: next((i for i, word in enumerate(after) if word in ENDS), len(after))]


def lines(block: Block) -> list[str]:
    """With those that a backslash continues joined."""
    return block.code.replace("\\\n", " ").splitlines()
