"""The API reference and the settings, from the source: signatures and docstrings as they are written, nothing is imported."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from inspect import cleandoc
from pathlib import Path

import metaformer
from metaformer.recipes import SMALL

SOURCE = Path(metaformer.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
HOMES = {name: module for module, names in metaformer._HOME.items() for name in names.split()}
"""Each public name, and the module that it is defined in."""

GROUPS = {
    "Models": "weights.create zoo core.model core.architecture core.count",
    "Mixers": "core.mixers",
    "Norms, activations, scales, heads": "core.layers",
    "Data": "data",
    "Training": "lab.jobs runs lab.search lab.trials lab.soup lab.compare",
    "Studies": "lab.study lab.study_report",
    "Judging, explaining, inspecting": "infer.evaluate lab.judge lab.probe lab.explain lab.inspect",
    "Predicting, serving": "infer.predictor infer.dense infer.fuse infer.quantize infer serve",
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

SETTINGS = """# Settings

Everything that decides how a run turns out: on the command line `key=value`, in Python `metaformer.train(model, key=value)`.
The defaults are those for small images; the recipe that the data chooses may give others ([Recipes](recipes.md)).
`metaformer settings` prints this list too, with what is allowed, and `model.<field>=` changes any field of the model's config.
"""
BAR = "\\|"

Definition = ast.FunctionDef | ast.ClassDef


@cache
def parsed(module: str) -> ast.Module:
    """The syntax tree of `core.count`, a module or a package of ours."""
    path = SOURCE.joinpath(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def definition(module: str, name: str) -> Definition:
    """Where a function or a class is defined."""
    return next(node for node in parsed(module).body if isinstance(node, Definition) and node.name == name)


def docstring(node: Definition) -> str:
    """What it says of itself."""
    return markdown(ast.get_docstring(node) or "")


def markdown(text: str) -> str:
    """A text of the source for a page: stars and angles outside code are meant, and a page that is named is linked."""

    def link(match: re.Match[str]) -> str:
        return f"[{match[0]}]({match[1]}.md)" if (ROOT / match[0]).exists() else match[0]

    parts = re.split(r"(`[^`]+`)", text)
    escaped = "".join(part if part.startswith("`") else re.sub(r"([*<])", r"\\\1", part) for part in parts)
    return re.sub(r"docs/(\w+)\.md", link, escaped)


class Constants(ast.NodeTransformer):
    """Puts values in the place of a module's constants."""

    def __init__(self, module: str) -> None:
        self.known = {
            target.id: item.value
            for item in parsed(module).body
            if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)
            for target in item.targets
            if isinstance(target, ast.Name)
        }

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.known.get(node.id, node)


@dataclass(frozen=True)
class Field:
    """A field of a class, as it is written."""

    name: str
    kind: str
    default: str | None
    says: str


def fields(module: str, node: ast.ClassDef) -> list[Field]:
    """The fields that a class declares, each with the text under it, after those of its base in the same module."""
    found = [one for base in node.bases for item in parsed(module).body
             if isinstance(item, ast.ClassDef) and item.name == ast.unparse(base) for one in fields(module, item)]  # fmt: skip
    for this, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(this, ast.AnnAssign) and isinstance(this.target, ast.Name) and not this.target.id.startswith("_"):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            default = None if this.value is None else plain(ast.unparse(Constants(module).visit(this.value)))
            found.append(Field(this.target.id, ast.unparse(this.annotation).strip("'"), default, markdown(cleandoc(str(text)))))
    return found


def methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """What may be called or read of it, and says what it is; a call of a mixer's spec makes the module and is no news."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and (not item.name.startswith("_") or item.name == "__call__") and docstring(item):
            yield item


def is_dataclass(node: ast.ClassDef) -> bool:
    """Whether its fields are what it is made of."""
    return any("dataclass" in ast.unparse(mark) for mark in node.decorator_list)


def arguments(module: str, node: ast.FunctionDef, *, method: bool) -> str:
    """The signature as it is written, without self."""
    written = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(written, ast.FunctionDef)
    if method and not any(ast.unparse(mark) == "staticmethod" for mark in node.decorator_list):
        written.args.args.pop(0)
    constants = Constants(module)
    written.args.defaults = [constants.visit(value) for value in written.args.defaults]
    written.args.kw_defaults = [value and constants.visit(value) for value in written.args.kw_defaults]
    return unquoted(f"({ast.unparse(written.args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else ""))


def unquoted(signature: str) -> str:
    """Annotations that are texts only because of when they are read, without their quotes."""
    return re.sub(r"((?:: |-> |\[))'([A-Z][\w.\[\], |]*)'", r"\1\2", signature)


def made_of(module: str, node: ast.ClassDef) -> str:
    """What a class is called with."""
    if is_dataclass(node):
        keywords = "*, " if "kw_only=True" in ast.unparse(node.decorator_list[0]) else ""
        shown = [f"{f.name}: {f.kind}" + ("" if f.default is None else f" = {f.default}") for f in fields(module, node)]
        return f"({keywords}{', '.join(shown)})"
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return arguments(module, item, method=True).removesuffix(" -> None")
    return "()"


def plain(default: str) -> str | None:
    """A field's default: what a factory makes rather than the factory; None where there is none."""
    made = re.search(r"default_factory=(\w+)", default)
    if made:
        return f"{made[1]}()"
    given = re.search(r"field\(.*?default=([^,)]+)", default)
    return given[1] if given else None if default.startswith("field(") else default


def directive(kind: str, title: str, body: str, options: Iterable[str] = (), depth: int = 4) -> str:
    """A Markdown block of Sphinx's Python domain; what is inside another has fewer colons."""
    lines = [f"{':' * depth}{{py:{kind}}} {title}", *options, "", body.strip(), ":" * depth, ""]
    return "\n".join(lines)


def described(module: str, name: str) -> str:
    """A public name, whole."""
    node = definition(module, name)
    says = docstring(node)
    if isinstance(node, ast.FunctionDef):
        return directive("function", f"{name}{arguments(module, node, method=False)}", says)
    calls = any(method.name == "__call__" for method in node.body if isinstance(method, ast.FunctionDef))
    told = [one for one in fields(module, node) if one.says or not (is_dataclass(node) and calls)]
    parts = [says, *(directive("attribute", one.name, one.says, [f":type: {one.kind}"], 3) for one in told)]
    for method in methods(node):
        marks = {ast.unparse(mark) for mark in method.decorator_list}
        text = docstring(method)
        if marks & {"property", "cached_property"}:
            options = [f":type: {ast.unparse(method.returns)}"] if method.returns else []
            parts.append(directive("property", method.name, text, options, 3))
        else:
            options = [":classmethod:"] if "classmethod" in marks else []
            parts.append(directive("method", f"{method.name}{arguments(module, method, method=True)}", text, options, 3))
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


def place(module: str) -> tuple[int, str]:
    """Where a module's names stand: a number to sort by, and the page."""
    rooms = [(known, group) for group, modules in GROUPS.items() for known in modules.split()]
    for number, (known, group) in enumerate(rooms):
        if module == known or module.startswith(f"{known}."):
            return number, group
    return len(rooms), REST


def slug(group: str) -> str:
    """The page's name."""
    return "api-" + re.sub(r"\W+", "-", group.lower()).strip("-")


def first_line(module: str, name: str) -> str:
    """What a name says of itself, for a table's cell."""
    text = docstring(definition(module, name)).partition("\n")[0]
    return text.replace("|", "\\|")


def reference_pages() -> dict[str, str]:
    """The texts of the pages by their names: one for each group, and `reference`, which lists them all."""
    places = {name: place(module) for name, module in HOMES.items()}
    groups = dict[str, list[str]]()
    for name in sorted(HOMES, key=lambda name: places[name][0]):
        groups.setdefault(places[name][1], []).append(name)
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
    """What a recipe may say, by the headings of its source; its defaults are the row's for small images, as the command's."""
    node = definition("config", "Recipe")
    assert isinstance(node, ast.ClassDef)
    lines = (SOURCE / "config.py").read_text().splitlines()[node.lineno :]
    headings, heading = dict[str, str](), ""
    for line in lines:
        heading = line.removeprefix("    # ") if line.startswith("    # ") else heading
        if found := re.match(r"    (\w+): ", line):
            headings.setdefault(found[1], heading)
    text = SETTINGS
    for before, field in zip([None, *fields("config", node)], fields("config", node), strict=False):
        if before is None or headings[before.name] != headings[field.name]:
            text += f"\n## {headings[field.name].capitalize()}\n\n| setting | default | |\n|---|---|---|\n"
        value = "" if field.default is None else f"`{str(getattr(SMALL, field.name)).lower()}`"
        text += f"| `{field.name}` | {value} | {' '.join(field.says.split()).replace('|', BAR)} |\n"
    return text
