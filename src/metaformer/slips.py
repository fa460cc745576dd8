"""What a mistyped command is answered with: one sentence, and the command that was meant where that can be told."""

import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import typer

from metaformer.config import KEYS


def sentence(error: Exception) -> str:
    """What an error says to a person: typer's in our words, of the system's the file and the reason."""
    if isinstance(error, typer.TyperException):
        return _of_words(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def corrected(said: str, words: list[str]) -> str:
    """The command as it was meant, where the sentence says what was mistyped (`'a'`) and for what (did you mean b?).

    And where settings were given as options: `--epochs 3` for epochs=3.
    """
    if said.endswith("without dashes"):
        return _told(_undashed(words), words)
    wrong, right = re.search(r"'([^']+)'", said), re.search(r"did you mean (\S+)\?$", said)
    if not (wrong and right):
        return ""
    part = re.compile(rf"(?<![\w-]){re.escape(wrong[1])}(?![\w-])")
    meant = [part.sub(lambda _: right[1], word) for word in words]
    return _told(meant, words)


def _told(meant: list[str], words: list[str]) -> str:
    return f"\n  metaformer {shlex.join(meant)}" if meant != words else ""


def _undashed(words: list[str]) -> list[str]:
    """Settings as key=value, with the value that was given after the key or as the next word; all else as it is."""
    rest, meant = iter(words), list[str]()
    for word in rest:
        key, equals, value = word.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        if not word.startswith("--") or key not in (*KEYS, "name", "root", "devices"):
            meant.append(word)
        else:
            meant.append(f"{key}={value if equals else next(rest, '...')}")
    return meant


def _of_words(error: typer.TyperException) -> str:
    """What is wrong with the words of a command: a verb, an option, a value, one too few or too many.

    typer makes none of the classes public that tell these apart, so what they say does; each has the context that it arose in.
    """
    said, context = error.format_message(), getattr(error, "ctx", None)
    if found := re.match(r"Option '(-\S+)' requires an argument", said):
        return f"{found[1]} needs a value after it"
    if context is None or not said:  # without any word typer has shown its help
        return said
    verb = _verb(context)
    if found := re.match(r"No such option: (-\S+)", said):
        options = [name for param in context.command.get_params(context) for name in param.opts if name.startswith("--")]
        return f"{verb} has no option '{found[1]}'{_nearest(found[1], options, 'it takes')}"
    if found := re.match(r"No such command '(.+?)'\.", said):
        return f"there is no command '{found[1]}'{_nearest(found[1], context.command.commands, 'there are')}"
    if found := re.match(r"Missing argument '(.+?)'", said):
        return f"{verb} needs {found[1].strip('[].').upper()}: metaformer {verb} {_arguments(context)}"
    if found := re.match(r"Missing option '(\S+?)'", said):
        return f"{verb} needs {found[1]}: metaformer {verb} --help tells what it may be"
    if found := re.match(r"Got unexpected extra argument(?:s|\(s\))? \((.+)\)", said):
        return f"{found[1]} is too much: metaformer {verb} {_arguments(context)}"
    if found := re.match(r"Invalid value for '(.+?)': (.+)", said):
        return f"{found[1]}: {found[2].rstrip('.')}"
    return f"{verb}: {said.rstrip('.')}"


def _verb(context: typer.Context) -> str:
    """`train`, `data check`; of the program itself its name."""
    words: list[str] = []
    at: Any = context
    while at.parent is not None:
        words.insert(0, at.info_name)
        at = at.parent
    return " ".join(words) or "metaformer"


def _arguments(context: typer.Context) -> str:
    """What a command takes beside options, in its order."""
    arguments = [param for param in context.command.params if param.param_type_name == "argument"]
    called = [(getattr(argument, "metavar", None) or str(argument.name).upper(), argument.required) for argument in arguments]
    return " ".join(name if required or name.startswith("[") else f"[{name}]" for name, required in called)


def _nearest(wrong: str, allowed: Iterable[str], what: str) -> str:
    """The one that was meant, else all that there are."""
    close = get_close_matches(wrong, allowed, n=1, cutoff=0.6)
    return f", did you mean {close[0]}?" if close else f": {what} {', '.join(allowed)}"
