"""Code of the user's own that a text names, `mine.py:Shift` or `package.mixers:Shift`: found, imported once, remembered.

A command that names code runs it. A file that does so (recipe.json, model.json) only brings back what a command on this
machine has named before, to the byte: a file from elsewhere runs nothing.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from metaformer.core.spec import OWN, REFERENCE, find_own, refusal
from metaformer.download import cache_folder

FAILURES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError, SyntaxError,
    TypeError, ValueError,
)  # fmt: skip
"""What code of the user's own may raise where it is wrong."""


def ask(texts: Iterable[object]) -> None:
    """Imports and remembers the code that a person's words name. Raises ValueError with a sentence where it cannot be had."""
    for module, name in references(texts):
        if module not in OWN:
            _import(module)
        made = find_own(module, name)
        home = getattr(made, "__module__", module)  # another one, where the name was imported from there
        if home not in OWN and home in sys.modules and not home.startswith("metaformer."):
            OWN[home] = sys.modules[home]
        for known in (module, home):
            if known in OWN:
                _remember(OWN[known])


def bring(texts: Iterable[object]) -> tuple[str, ...]:
    """Imports the code that a file's words name, and says of each where it lies.

    Raises ValueError with a sentence where it is not here, or is not, to the byte, what a command has named before.
    """
    said: dict[str, str] = {}
    for module, name in references(texts):
        called = f"{module}:{name}"
        if module not in OWN:
            file = _find(module)
            if file is None:
                raise ValueError(f"{refusal(called)}; or go to the folder that has {module}, which {Path.cwd()} is not")
            if not (_memory() / _digest(file)).is_file():
                to_run = f"to run it as it is: metaformer mixer check {called} --quick"
                raise ValueError(f"{refusal(called)}; {file} was never named by a command, or has changed since; {to_run}")
            _import(module)
        find_own(module, name)
        said[called] = f"{called} is code of your own: {OWN[module].__file__}"
    return tuple(said.values())


def references(value: object) -> Iterator[tuple[str, str]]:
    """Module and name of what a text, or texts in lists, tuples and dicts, calls code."""
    if isinstance(value, str):
        yield from ((found["module"], found["name"]) for found in REFERENCE.finditer(value))
    elif isinstance(value, dict):
        yield from references(list(value.values()))
    elif isinstance(value, Iterable):
        for item in value:
            yield from references(item)


def _find(module: str) -> Path | None:
    """The source of a module, without running anything; of a file as seen from the current folder."""
    if module.endswith(".py"):
        return Path(module).resolve() if Path(module).is_file() else None
    places: list[str] | None = [str(Path.cwd()), *sys.path]
    parts = module.split(".")
    found: Any = None
    for n in range(len(parts)):
        found = PathFinder.find_spec(".".join(parts[: n + 1]), places)
        if found is None:
            return None
        places = list(found.submodule_search_locations or ())
    return Path(found.origin) if found.origin and found.origin.endswith(".py") else None


def _import(module: str) -> None:
    """Runs it, once. Raises ValueError where it is not there or fails."""
    file = _find(module)
    if module.endswith(".py") and file is None:
        raise ValueError(f"there is no {module} in {Path.cwd()}: name a file, mine.py:Shift, or a module, package.mixers:Shift")
    try:
        with _seeing(Path.cwd(), *(() if file is None else (file.parent,))):
            OWN[module] = _from_file(module, file) if module.endswith(".py") and file is not None else import_module(module)
    except FAILURES as error:
        raise ValueError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error


def _from_file(name: str, file: Path) -> ModuleType:
    """The file as a module that is called as it was named, so that what it defines says so."""
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    made = module_from_spec(spec)
    sys.modules[name] = made  # where dataclasses and torch.compile look for it
    try:
        spec.loader.exec_module(made)
    except FAILURES:
        del sys.modules[name]
        raise
    return made


@contextmanager
def _seeing(*folders: Path) -> Iterator[None]:
    """With these folders where modules are looked for, as a script has its own."""
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        yield
    finally:
        sys.path[:] = before


def _memory() -> Path:
    """A file for each source that a command has named, called by its digest."""
    return cache_folder() / "code"


def _remember(module: ModuleType) -> None:
    source: str | None = getattr(module, "__file__", None)
    if source is None or not source.endswith(".py"):
        return
    file = Path(source)
    with suppress(OSError):  # where nothing can be kept, the code is named again next time
        _memory().mkdir(parents=True, exist_ok=True)
        (_memory() / _digest(file)).write_text(f"{file.resolve()}\n", encoding="utf-8")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
