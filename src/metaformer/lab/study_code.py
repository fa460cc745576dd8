"""What code of the user's own computes, as a hash: its source without comments and studies, and what it imports nearby."""

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType

from metaformer.core.spec import OWN
from metaformer.own import references, source_of

GUARD = "__name__ == '__main__'"


def code_marks(value: object, aside: tuple[type, ...] = ()) -> dict[str, str]:
    """The hash of each module that texts name, imported already; what is of types `aside` in them decides nothing."""
    return {module: _mark(OWN[module], aside) for module, _ in references(value)}


@cache
def _mark(module: ModuleType, aside: tuple[type, ...]) -> str:
    """Of the module as it was when this was first asked."""
    texts = sorted(_bare(tree, one, aside) for one, tree in _family(module))
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _family(module: ModuleType) -> Iterator[tuple[ModuleType, ast.Module]]:
    """It, and what it imports from its own folder and folders in that, and so on."""
    first = source_of(module)
    if first is None:
        return
    seen, left = {first}, [(module, first)]
    while left:
        one, file = left.pop()
        tree = ast.parse(file.read_bytes())
        yield one, tree
        for name in _imported(tree, one):
            other = sys.modules.get(name)
            source = None if other is None or name.partition(".")[0] == "metaformer" else source_of(other)
            if other is not None and source is not None and source not in seen and _near(source, first):
                seen.add(source)
                left.append((other, source))


def _near(source: Path, first: Path) -> bool:
    """Whether it is the user's too, and not of an environment that lies there."""
    return source.is_relative_to(first.parent) and "site-packages" not in source.relative_to(first.parent).parts


def _imported(tree: ast.Module, module: ModuleType) -> Iterator[str]:
    """Names of all modules that are imported anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (not node.level or module.__package__):
            base = resolve_name("." * node.level + (node.module or ""), module.__package__)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _bare(tree: ast.Module, module: ModuleType, aside: tuple[type, ...]) -> str:
    """Its source without comments, without what is of types `aside`, and without what it does only where it is a script."""
    kept = []
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        values = [getattr(module, target.id, None) for target in targets if isinstance(target, ast.Name)]
        guarded = isinstance(node, ast.If) and ast.unparse(node.test) == GUARD
        if not guarded and not (values and all(_is(value, aside) for value in values)):
            kept.append(node)
    return ast.unparse(ast.Module(kept, []))


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    """Whether it is of these types, or holds nothing else."""
    if isinstance(value, (tuple, list)) and value:
        return all(_is(one, kinds) for one in value)
    return isinstance(value, kinds)
