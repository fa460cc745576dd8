"""The command reference, from the commands themselves: what each takes, what it is by default, and an example."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from metaformer.cli import app

HEAD = """# Commands

Every command, as `metaformer COMMAND --help` tells it too. Settings are given as `key=value`, without dashes, and stand on
[a page of their own](settings.md). A mistake is answered with one sentence, and with the command that was meant.

"""

KINDS = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH"}


def verbs() -> Iterator[tuple[str, Any]]:
    """`train`, `data check` ... and their commands, in the order of the help."""

    def inside(group: Any, before: str) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from inside(command, f"{before}{name} ")
            elif not command.hidden:
                yield f"{before}{name}", command

    return inside(typer.main.get_command(app), "")


def example(verb: str, command: Any, pages: Sequence[str]) -> str:
    """A line that runs it: the one in what it says of itself, else the first in the pages, else the verb alone."""
    own = re.search(rf"(?<=: )metaformer {verb} [^;]*", command.help or "")
    if own:
        return own[0].strip()
    for text in pages:
        if found := re.search(rf"^metaformer {verb}(?: .*)?$", text, re.MULTILINE):
            return found[0].partition(" #")[0].rstrip()
    if not any(param.required for param in command.params):
        return f"metaformer {verb}"
    raise ValueError(f"metaformer {verb} has no example: write one in its docstring, or in a block of a page")


def commands_page(pages: Sequence[str]) -> str:
    """The page, in Markdown. `pages` are the others, in which examples are looked for."""
    found = list(verbs())
    table = "\n".join(
        f"| [`{verb}`](#metaformer-{verb.replace(' ', '-')}) | {cell(says(command))} |" for verb, command in found
    )
    sections = "\n\n".join(section(verb, command, example(verb, command, pages)) for verb, command in found)
    return f"{HEAD}| command | |\n|---|---|\n{table}\n\n{sections}\n"


def says(command: Any) -> str:
    """What a command says of itself, without its example."""
    text = " ".join((command.help or "").split())
    return re.sub(r": metaformer [^;]*", "", text).rstrip(".") + "."


def section(verb: str, command: Any, line: str) -> str:
    """One command: what it does, its example, its words and its options."""
    words = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
    called = " ".join([word_name(word) for word in words] + (["[OPTIONS]"] if options else []))
    rows = [f"| `{word_name(word)}` | {cell(word.help)}{default(word)} |" for word in words]
    rows += [f"| {option_names(option)} | {cell(option.help)}{default(option)} |" for option in options]
    table = "\n".join(["| option | |", "|---|---|", *rows]) if rows else ""
    return (
        f"## metaformer {verb}\n\n{says(command)}\n\n```text\nmetaformer {verb} {called}".rstrip()
        + f"\n```\n\n{table}\n\nAn example:\n\n```sh\n{line}\n```"
    )


def word_name(word: Any) -> str:
    """MODEL, or [MODEL] where it may be left out."""
    name = word.metavar or word.name.upper()
    return name if word.required or name.startswith("[") else f"[{name}]"


def option_names(option: Any) -> str:
    """`--name`, both ways of a switch, and what a value is."""
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    kind = option.metavar or ("" if option.is_flag else KINDS[option.type_descriptor.annotation])
    return f"{names} {kind}".rstrip()


def default(param: Any) -> str:
    """What it is unless given, where that is worth saying."""
    quiet = param.default is None or param.default == "" or isinstance(param.default, bool)
    return "" if quiet else f" By default `{param.default}`."


def cell(text: str | None) -> str:
    """Text for a table's cell, in which a bar would begin the next one and marks would mean something."""
    return re.sub(r"([|*_<>\[\]])", r"\\\1", " ".join((text or "").split()))
