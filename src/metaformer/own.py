"""Code of the user's own that a text names, `mine.py:Shift` or `package.mixers:Shift`: found, imported once, remembered.

A command that names code runs it. A file that does so (recipe.json, model.json, study.json) only brings back what a command on
this machine has named before, in that very place and to the byte: a file from elsewhere runs nothing.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from metaformer.core.spec import OWN, REFERENCE, find_own, refusal
from metaformer.download import cache_folder

FAILURES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError, SyntaxError,
    TypeError, ValueError,
)  # fmt: skip
"""What code of the user's own may raise where it is wrong."""
READ: dict[str, str] = {}
"""The digest of each module in OWN, as it was imported."""


def ask(texts: Iterable[object]) -> None:
    """Imports and remembers the code that a person's words name. Raises ValueError with a sentence where it cannot be had."""
    for module, name in references(texts):
        load(module)
        home = getattr(find_own(module, name), "__module__", module)  # another one, where the name was imported from there
        if home != module and home in sys.modules and not home.startswith("metaformer."):
            load(home)


def bring(texts: Iterable[object]) -> tuple[str, ...]:
    """Imports the code that a file's words name, and says of each where it lies.

    Raises ValueError with a sentence where it is not here, or is not, to the byte, what a command has named before.
    """
    said: dict[str, str] = {}
    for module, name in references(texts):
        called = f"{module}:{name}"
        if (why := strange(module, f"metaformer mixer check {called} --quick")) is not None:
            raise ValueError(f"{refusal(called)}; {why}")
        if not _held(module):
            _import(module)
        find_own(module, name)
        said[called] = f"{called} is code of your own: {OWN[module].__file__}"
    return tuple(said.values())


def load(module: str) -> ModuleType:
    """The module that a person's words name, `mine.py` or `package.mixers`: imported once, and remembered.

    Raises ValueError with a sentence where it cannot be had.
    """
    if not _held(module):
        _import(module)
    if module in READ:
        with suppress(OSError):  # where nothing can be kept, the code is named again next time
            _memory().mkdir(parents=True, exist_ok=True)
            (_memory() / READ[module]).write_text(f"{OWN[module].__file__}\n", encoding="utf-8")
    return OWN[module]


def strange(module: str, to_run: str) -> str | None:
    """Why a file's words may not have a module run, with the command that may, or None where they may."""
    if _held(module):
        return None
    file = _find(module)
    if file is None:
        return f"there is no {module} in {Path.cwd()}: go to the folder that has it"
    if (_memory() / _digest(file)).is_file():
        return None
    return f"{file} was never named by a command, or has changed since; to run it as it is: {to_run}"


def changed(module: str) -> bool:
    """Whether the file of a module in OWN is another than was imported."""
    file = source_of(OWN[module])
    return file is not None and file.is_file() and READ.get(module) != _digest(file)


def _held(module: str) -> bool:
    """Whether it is imported, and not from another folder than the current one."""
    return module in OWN and _find(module) in (None, source_of(OWN[module]))


def references(value: object) -> Iterator[tuple[str, str]]:
    """Module and name of what a text, or texts in lists, tuples and dicts, calls code."""
    if isinstance(value, str):
        yield from ((found["module"], found["name"]) for found in REFERENCE.finditer(value))
    elif isinstance(value, dict):
        yield from references(list(value.values()))
    elif isinstance(value, Iterable):
        for item in value:
            yield from references(item)


def source_of(module: ModuleType) -> Path | None:
    """The file that a module is from; None of what is not written in Python, or in a notebook."""
    file: str | None = getattr(module, "__file__", None)
    return Path(file).resolve() if file is not None and file.endswith(".py") else None


def _find(module: str) -> Path | None:
    """The source of a module, without running anything; of a file as seen from the current folder."""
    if module.endswith(".py"):
        return Path(module).resolve() if Path(module).is_file() else None
    if module in sys.modules:
        return source_of(sys.modules[module])
    places: list[str] | None = [str(Path.cwd()), *sys.path]
    parts = module.split(".")
    found: Any = None
    for n in range(len(parts)):
        found = PathFinder.find_spec(".".join(parts[: n + 1]), places)
        if found is None:
            return None
        places = list(found.submodule_search_locations or ())
    return Path(found.origin).resolve() if found.origin and found.origin.endswith(".py") else None


def _import(module: str) -> None:
    """Runs it, once. Raises ValueError where it is not there or fails."""
    file, from_file = _find(module), module.endswith(".py")
    if from_file and file is None:
        raise ValueError(f"there is no {module} in {Path.cwd()}: name a file, mine.py:Shift, or a module, package.mixers:Shift")
    digest = None if file is None else _digest(file)
    try:
        with _seeing(Path.cwd(), *(() if file is None else (file.parent,))):
            OWN[module] = _from_file(module, file) if from_file and file is not None else import_module(module)
        if digest is not None:
            READ[module] = digest
    except FAILURES as error:
        lines = [one.lineno for one in extract_tb(error.__traceback__) if file is not None and one.filename == str(file)]
        where = f" (in its line {lines[-1]})" if lines else ""
        raise ValueError(f"{module} cannot be imported: {type(error).__name__}: {error}{where}") from error


def _from_file(name: str, file: Path) -> ModuleType:
    """The file as a module that is called as it was named, so that what it defines says so.

    Its own bytes are compiled: what lies in __pycache__ may be of others.
    """
    spec = spec_from_file_location(name, file)
    assert spec is not None
    made = module_from_spec(spec)
    sys.modules[name] = made  # where dataclasses and torch.compile look for it
    try:
        exec(compile(file.read_bytes(), file, "exec"), made.__dict__)
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


def _digest(file: Path) -> str:
    """Of its place and its bytes: a copy elsewhere has other neighbours, which it may import."""
    return hashlib.sha256(f"{file}\n".encode() + file.read_bytes()).hexdigest()
