"""The API reference and the settings, from the source: signatures and docstrings as they are written, nothing is imported."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from inspect import cleandoc
from pathlib import Path

import metaformer

SOURCE = Path(metaformer.__file__).parent
HOMES = {name: module for module, names in metaformer._HOME.items() for name in names.split()}
"""Each public name, and the module that it is defined in."""

GROUPS = {
    "Models": "zoo weights.create core.model core.architecture core.count",
    "Mixers": "core.mixers",
    "Norms, activations, scales, heads": "core.layers",
    "Data": "data",
    "Training": "lab.jobs runs lab.search lab.trials lab.soup lab.compare",
    "Judging": "infer.evaluate lab.judge lab.probe",
    "Predicting": "infer.predictor infer.dense infer.fuse infer.quantize",
    "Weights and files": "weights export",
}
"""Pages of the reference, and the modules, or rooms of them, whose names stand there. What is in none is under More."""
REST = "More"

HEAD = """# Python

Every public name, `metaformer.NAME`, with what its docstring says. B, C, H, W are batch, channels, height and width; N is a
number of tokens or images. What a person can do wrong raises `ValueError` with a sentence, a file or folder that is not there
`FileNotFoundError`; where other errors may come, it is said. v1 is [arXiv 2111.11418](https://arxiv.org/abs/2111.11418), v2
[arXiv 2210.13452](https://arxiv.org/abs/2210.13452).

"""

Definition = ast.FunctionDef | ast.ClassDef


@cache
def parsed(module: str) -> ast.Module:
    """The syntax tree of `core.count`, a module or a package of ours."""
    path = SOURCE.joinpath(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def definition(module: str, name: str) -> Definition:
    """Where a function or a class is defined."""
    return next(node for node in parsed(module).body if isinstance(node, Definition) and node.name == name)


@dataclass(frozen=True)
class Field:
    """A field of a class, as it is written."""

    name: str
    kind: str
    default: str | None
    says: str


def fields(node: ast.ClassDef) -> list[Field]:
    """The fields that a class declares, each with the text under it."""
    found = []
    for this, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(this, ast.AnnAssign) and isinstance(this.target, ast.Name) and not this.target.id.startswith("_"):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            default = None if this.value is None else ast.unparse(this.value)
            found.append(Field(this.target.id, ast.unparse(this.annotation).strip("'"), default, cleandoc(str(text))))
    return found


def methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """What may be called or read of it, and says what it is; a call of a mixer's spec makes the module and is no news."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and ast.get_docstring(item):
            if not item.name.startswith("_") or item.name == "__call__":
                yield item


def is_dataclass(node: ast.ClassDef) -> bool:
    """Whether its fields are what it is made of."""
    return any("dataclass" in ast.unparse(mark) for mark in node.decorator_list)


def arguments(node: ast.FunctionDef, method: bool) -> str:
    """The signature as it is written, without self."""
    written = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(written, ast.FunctionDef)
    if method and not any(ast.unparse(mark) == "staticmethod" for mark in node.decorator_list):
        written.args.args.pop(0)
    return unquoted(f"({ast.unparse(written.args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else ""))


def unquoted(signature: str) -> str:
    """Annotations that are texts only because of when they are read, without their quotes."""
    return re.sub(r"((?:: |-> |\[))'([A-Z][\w.\[\], |]*)'", r"\1\2", signature)


def made_of(module: str, node: ast.ClassDef) -> str:
    """What a class is called with."""
    if is_dataclass(node):
        keywords = "*, " if "kw_only=True" in ast.unparse(node.decorator_list[0]) else ""
        parts = []
        for base in node.bases:
            if isinstance(base, ast.Name) and any(
                isinstance(n, ast.ClassDef) and n.name == base.id for n in parsed(module).body
            ):
                inherited = definition(module, base.id)
                assert isinstance(inherited, ast.ClassDef)
                parts += fields(inherited)
        shown = [
            f"{f.name}: {f.kind}" + ("" if f.default is None else f" = {plain(f.default)}") for f in [*parts, *fields(node)]
        ]
        return f"({keywords}{', '.join(shown)})"
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return arguments(item, method=True).removesuffix(" -> None")
    return "()"


def plain(default: str) -> str:
    """A field's default: what a factory makes rather than the factory."""
    made = re.search(r"default_factory=(\w+)", default)
    if made:
        return f"{made[1]}()"
    given = re.search(r"field\(.*?default=([^,)]+)", default)
    return given[1] if given else default


def directive(kind: str, title: str, body: str, options: Iterable[str] = (), depth: int = 4) -> str:
    """A Markdown block of Sphinx's Python domain; what is inside another has fewer colons."""
    lines = [f"{':' * depth}{{py:{kind}}} {title}", *options, "", body.strip(), ":" * depth, ""]
    return "\n".join(lines)


def described(module: str, name: str) -> str:
    """A public name, whole."""
    node = definition(module, name)
    says = ast.get_docstring(node) or ""
    if isinstance(node, ast.FunctionDef):
        return directive("function", f"{name}{arguments(node, method=False)}", says)
    calls = any(method.name == "__call__" for method in node.body if isinstance(method, ast.FunctionDef))
    parts = [says]
    for field in fields(node):
        if field.says or not (is_dataclass(node) and calls):
            parts.append(directive("attribute", field.name, field.says, [f":type: {field.kind}"], 3))
    for method in methods(node):
        marks = {ast.unparse(mark) for mark in method.decorator_list}
        text = ast.get_docstring(method) or ""
        if marks & {"property", "cached_property"}:
            options = [f":type: {ast.unparse(method.returns)}"] if method.returns else []
            parts.append(directive("property", method.name, text, options, 3))
        else:
            options = [":classmethod:"] if "classmethod" in marks else []
            parts.append(directive("method", f"{method.name}{arguments(method, method=True)}", text, options, 3))
    return directive("class", f"{name}{made_of(module, node)}", "\n\n".join(parts))


def given_back(module: str, node: Definition) -> Iterator[tuple[str, str]]:
    """Classes of ours that a function gives, as module and name."""
    if not isinstance(node, ast.FunctionDef) or node.returns is None:
        return
    imported = {
        alias.asname or alias.name: (statement.module.removeprefix("metaformer."), alias.name)
        for statement in ast.walk(parsed(module))
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("metaformer.")
        for alias in statement.names
    }
    local = {item.name: (module, item.name) for item in parsed(module).body if isinstance(item, ast.ClassDef)}
    for name in re.findall(r"\b[A-Z]\w+", ast.unparse(node.returns)):
        home, origin = (imported | local).get(name, ("", ""))
        if home and name not in HOMES and any(isinstance(n, ast.ClassDef) and n.name == origin for n in parsed(home).body):
            yield home, origin


def group_of(module: str) -> str:
    """The page on which a module's names stand."""
    for group, modules in GROUPS.items():
        if any(module == known or module.startswith(f"{known}.") for known in modules.split()):
            return group
    return REST


def slug(group: str) -> str:
    """The page's name."""
    return "api-" + re.sub(r"\W+", "-", group.lower()).strip("-")


def first_line(module: str, name: str) -> str:
    """What a name says of itself, for a table's cell."""
    text = (ast.get_docstring(definition(module, name)) or "").partition("\n")[0]
    return text.replace("|", "\\|")


def reference_pages() -> dict[str, str]:
    """The texts of the pages by their names: one for each group, and `reference`, which lists them all."""
    groups: dict[str, list[str]] = {group: [] for group in [*GROUPS, REST]}
    for name, module in HOMES.items():
        groups[group_of(module)].append(name)
    groups = {group: names for group, names in groups.items() if names}
    pages = {slug(group): group_page(group, names) for group, names in groups.items()}
    tables = [
        f"## [{group}]({slug(group)}.md)\n\n| name | |\n|---|---|\n"
        + "\n".join(f"| {{py:obj}}`{name} <metaformer.{name}>` | {first_line(HOMES[name], name)} |" for name in names)
        for group, names in groups.items()
    ]
    tree = "```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"
    return pages | {"reference": HEAD + "\n\n".join(tables) + "\n\n" + tree}


def group_page(group: str, names: list[str]) -> str:
    """The names of a group, each followed by what it gives where that has no public name of its own."""
    parts, known = [f"# {group}\n\n```{{py:currentmodule}} metaformer\n```\n"], set[tuple[str, str]]()
    for name in names:
        parts.append(described(HOMES[name], name))
        for module, given in given_back(HOMES[name], definition(HOMES[name], name)):
            if (module, given) not in known:
                known.add((module, given))
                parts.append(f"`{name}` gives:\n\n{described(module, given)}")
    return "\n".join(parts)


def settings_page() -> str:
    """What a recipe may say, by the headings of its source."""
    node = definition("config", "Recipe")
    assert isinstance(node, ast.ClassDef)
    lines = (SOURCE / "config.py").read_text().splitlines()
    places = {
        item.target.id: item.lineno
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    text = f"# Settings\n\n{ast.get_docstring(node)}\n\nOn the command line `key=value`, in Python `metaformer.train(model, key=value)`."
    text += " A recipe's row may give others than these defaults; `metaformer settings` prints what is allowed.\n"
    heading = ""
    for field in fields(node):
        above = [line.strip() for line in lines[: places[field.name] - 1] if re.match(r"    # ", line)]
        if above and above[-1] != heading:
            heading = above[-1]
            text += f"\n## {heading.removeprefix('# ').capitalize()}\n\n| setting | default | |\n|---|---|---|\n"
        default = "" if field.default is None else f"`{plain(field.default)}`"
        says = " ".join(field.says.split()).replace("|", "\\|")
        text += f"| `{field.name}` | {default} | {says} |\n"
    return text
