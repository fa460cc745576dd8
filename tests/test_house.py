"""The house: rooms, arrows, what an import costs, and what is never written."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import metaformer

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "metaformer"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def sources() -> Iterator[tuple[str, str]]:
    """Path from src, and text, of every module."""
    for path in sorted(SRC.rglob("*.py")):
        yield str(path.relative_to(SRC.parent)), path.read_text()


# --- what an import costs ---------------------------------------------------------------------------------------------


HEAVY = {"PIL", "huggingface_hub", "matplotlib", "numpy", "safetensors", "sklearn", "timm", "torch", "torchvision"}


def heavy_imports(*arguments: str) -> set[str]:
    """Which heavy packages a new interpreter loads when it is run with these arguments."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return HEAVY & {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}


def test_import_is_light() -> None:
    assert heavy_imports("-c", "import metaformer") == set()


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_cli_answers_without_torch(option: str) -> None:
    assert heavy_imports("-m", "metaformer", option) == set()


def test_model_needs_torch_alone() -> None:
    made = heavy_imports("-c", "import metaformer; metaformer.create_model('caformer_t6')")
    assert "torch" in made
    assert made <= {"torch", "numpy", "safetensors"}  # torch itself loads numpy


def test_listing_weights_asks_no_hub() -> None:
    assert heavy_imports("-m", "metaformer", "weights") <= {"torch", "numpy", "safetensors"}


def test_public_names_resolve() -> None:
    assert metaformer.__all__
    assert [name for name in metaformer.__all__ if not hasattr(metaformer, name)] == []
    assert set(metaformer.__all__) <= set(dir(metaformer))


# --- the arrows between rooms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("core/layers.py", "import metaformer.zoo", "one way up"),
        ("zoo.py", "import metaformer.recipes", "one way up"),
        ("attic.py", "", "one way up"),
        ("core/layers.py", "import numpy", "core stands on torch alone"),
        ("config.py", "import torch", "a run is described without torch"),
        ("recipes.py", "import torch", "a run is described without torch"),
        ("tasks/other.py", "import metaformer.tasks.classification", "tasks do not know each other"),
        ("core/layers.py", "import metaformer.core.mixers", "no circles"),
    ],
)
def test_contract_catches(tmp_path: Path, file: str, line: str, contract: str) -> None:
    shutil.copytree(SRC, tmp_path / "metaformer", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "metaformer" / file).open("a") as module:
        module.write(f"\n{line}\n")
    linter = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", ROOT / "pyproject.toml"]
    done = subprocess.run(
        linter, env={"PYTHONPATH": str(tmp_path), "COLUMNS": "200"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.search(rf"^{contract}.* BROKEN\b", done.stdout, re.MULTILINE), done.stdout


def test_core_imports_torch_and_the_standard_library() -> None:
    allowed = sys.stdlib_module_names | {"torch", "metaformer"}
    found = {
        (name, module.split(".")[0])
        for name, text in sources()
        if name.startswith("metaformer/core/")
        for node in ast.walk(ast.parse(text))
        for module in imported(node)
    }
    assert found
    assert [(name, module) for name, module in sorted(found) if module not in allowed] == []


def imported(node: ast.AST) -> list[str]:
    """Modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


# --- how it is written ------------------------------------------------------------------------------------------------


def test_files_say_what_they_are_and_stay_short() -> None:
    silent = [name for name, text in sources() if not (ast.get_docstring(ast.parse(text)) or "").strip()]
    late = [name for name, text in sources() if not text.startswith('"""')]
    long = [name for name, text in sources() if text.count("\n") > 400]
    assert (silent, late, long) == ([], [], [])


def test_nothing_is_swallowed_printed_or_put_off() -> None:
    offences = []
    for name, text in sources():
        if re.search(r"\b(TODO|FIXME|XXX)\b", text):
            offences.append(f"{name}: put off")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ExceptHandler) and catches_all(node):
                offences.append(f"{name}:{node.lineno}: catches everything")
            if isinstance(node, ast.Name) and node.id == "print" and not name.endswith("/cli.py"):
                offences.append(f"{name}:{node.lineno}: prints")
    assert offences == []


def catches_all(handler: ast.ExceptHandler) -> bool:
    """Whether it is bare, or names Exception or BaseException, alone or in a tuple."""
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"} for kind in caught)


# --- what is published ------------------------------------------------------------------------------------------------


def test_version_is_one() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert PROJECT["version"] == metaformer.__version__
    assert f"\nversion: {metaformer.__version__}\n" in citation
    assert "## [Unreleased]" in changelog or f"## [{metaformer.__version__}]" in changelog


def test_lock_pins_everything_and_holds_no_address() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.match(r"[a-z0-9-]+==[\w.+!-]+( ; [^/]+)?$", line)] == []
    locked = {line.split("==")[0] for line in lines}
    extras = re.findall(r"--extra (\w+)", (ROOT / "Makefile").read_text())
    wanted = [*PROJECT["dependencies"], *(w for extra in extras for w in PROJECT["optional-dependencies"][extra])]
    assert {"dev", "fast"} <= set(extras)
    assert {re.split(r"[<>=! \[]", want)[0] for want in wanted} <= locked


def test_package_is_typed() -> None:
    assert (SRC / "py.typed").exists()
