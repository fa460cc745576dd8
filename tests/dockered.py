"""Dockerfiles as instructions, and the rules that ours keep beside hadolint's."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from tests.pages import ROOT

TAGGED = re.compile(r"(?:[^\s/@]+/)*[^\s/:@]+(?::(?!latest\b)[\w.-]+(?:@sha256:[0-9a-f]{64})?|@sha256:[0-9a-f]{64})(?:\s|$)")
"""An image of a version or a digest, of whatever registry."""


@dataclass(frozen=True)
class Step:
    """An instruction, its lines joined: `COPY`, `src src`."""

    what: str
    words: str


def steps(file: Path) -> list[Step]:
    """In order, without comments. `${BASE}` in a FROM is what its ARG says."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE))
    found = [Step(*line.strip().split(maxsplit=1)) for line in joined.splitlines() if line.strip()]
    given = dict(step.words.split("=", 1) for step in found if step.what == "ARG" and "=" in step.words)
    return [Step(step.what, _filled(step.words, given)) if step.what == "FROM" else step for step in found]


def _filled(words: str, given: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: given.get(match[1], match[0]), words)


def last_stage(found: list[Step]) -> list[Step]:
    """What is in the image that is made."""
    return found[max(place for place, step in enumerate(found) if step.what == "FROM") :]


def is_exec_form(words: str) -> bool:
    """Whether a command is a JSON list of texts, which no shell stands in front of."""
    try:
        read = json.loads(words)
    except ValueError:
        return False
    return isinstance(read, list) and all(isinstance(word, str) for word in read)


def faults(file: Path, sources: Path = ROOT) -> list[str]:
    """What breaks our rules: a word for each, as in `root`."""
    found = steps(file)
    image = {step.what: step.words for step in last_stage(found)}
    wrong = []
    for step in found:
        if step.what == "FROM" and not TAGGED.match(step.words):
            wrong.append("tag")
        if step.what == "ADD":
            wrong.append("add")
        if step.what == "COPY" and "--from" not in step.words:
            taken = [word for word in step.words.split()[:-1] if not word.startswith("--")]
            wrong += ["source"] * any(not (sources / word).exists() for word in taken)
        if step.what == "RUN" and re.search(r"\bpip3? install\b", re.sub(r"\buv pip\b", "uv", step.words)):
            wrong += ["cache"] * ("--no-cache-dir" not in step.words)
        if step.what in ("ARG", "ENV") and re.search(r"(?i)(key|token|secret|password)s?\s*=", step.words):
            wrong.append("secret")
    wrong += ["root"] * (image.get("USER", "0").partition(":")[0] in ("0", "root"))
    wrong += ["exposed"] * ("EXPOSE" not in image)
    wrong += ["labels"] * ("org.opencontainers.image.licenses" not in image.get("LABEL", ""))
    health = image.get("HEALTHCHECK", "").partition("CMD ")[2]
    wrong += ["health"] * ("/readyz" not in health or not is_exec_form(health))
    wrong += ["shell"] * any(not is_exec_form(image.get(what, "")) for what in ("ENTRYPOINT", "CMD"))
    return wrong
