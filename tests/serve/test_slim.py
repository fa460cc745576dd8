"""The distribution without torch: what it brings is what serving a file imports, and it answers as all of metaformer does."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from PIL import Image
from tests.pages import ROOT
from tests.photos import photo
from tests.serving import COLOURS, Served, coloured

import metaformer
from metaformer import Predictor
from metaformer.serve.answer import Classifier, open_answerer
from metaformer.serve.settings import Running

SLIM = ROOT / "slim"
PACKAGE = ROOT / "src" / "metaformer"
SAID = tomllib.loads((SLIM / "pyproject.toml").read_text())
WHOLE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LISTED = SAID["tool"]["hatch"]["build"]["hooks"]["custom"]["modules"]
MODULES = [PACKAGE / module for module in LISTED if module.endswith(".py")]
UV = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
NOTING = """
import os, sys

class Noting:
    @staticmethod
    def find_spec(name, path=None, target=None):
        with open(os.environ["NOTED"], "a") as out:
            out.write(name + chr(10))

sys.meta_path.insert(0, Noting)
"""
"""Notes every module that is looked for, in this process and those that it starts."""
HEAVY = {
    "torch",
    "torchvision",
    "scipy",
    "matplotlib",
    "pyarrow",
    "sklearn",
    "timm",
    "safetensors",
    "huggingface_hub",
    "pandas",
}


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (20, 12)) -> bytes:
    """A PNG."""
    out = BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def ask_everything(served: Served) -> None:
    """What any client may ask, answered right."""
    status, answer = served.ask("/predict?top=2", picture((10, 200, 30)), "image/png")
    assert (status, answer["results"][0]["label"], len(answer["results"][0]["top"])) == (200, "green", 2)
    form = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="%s"\r\n\r\n%s\r\n' % (name, data)
        for name, data in ((b"a.png", picture((200, 0, 0))), (b"b.png", b"nothing"))
    )
    status, answer = served.ask("/predict", form + b"--x--\r\n", "multipart/form-data; boundary=x")
    assert status == 200
    assert [(one["name"], one.get("label"), "error" in one) for one in answer["results"]] == [
        ("a.png", "red", False),
        ("b.png", None, True),
    ]
    assert [served.ask(path, b"x")[0] for path in ("/embed", "/explain", "/predict?masks=no", "/predict?model=no")] == [
        422, 422, 422, 404,
    ]  # fmt: skip
    assert [served.ask(path)[0] for path in ("/", "/page/page.js", "/healthz", "/metrics", "/openapi.json")] == [200] * 5
    status, answer = served.ask("/models")
    assert (answer["models"][0]["classes"], answer["models"][0]["engine"]) == (COLOURS, "onnxruntime")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a process that notes what it imports, from the sources."""
    (tmp_path / "sitecustomize.py").write_text(NOTING)
    paths = [str(tmp_path), str(SLIM), str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "NOTED": str(tmp_path / "noted")}


def test_it_brings_what_serving_a_file_imports(tmp_path: Path, environment: dict[str, str]) -> None:
    """Not a module more or less, in the front and in the model's process; and none of them is heavy."""
    file = coloured(tmp_path / "colours.onnx")
    served = Served([sys.executable, "-m", "metaformer_slim", str(file)], tmp_path, environment)
    try:
        ask_everything(served)
    finally:
        code = served.close()
    assert code == 0
    noted = set((tmp_path / "noted").read_text().split())
    ours = {PACKAGE.parent / name.replace(".", "/") for name in noted if re.match(r"metaformer(\.|$)", name)}
    files = {path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in ours}
    needed, brought = {file for file in files if file.is_file()}, set(MODULES)
    assert (needed - brought, brought - needed) == (set(), set()), "slim/pyproject.toml lists other modules than are needed"
    assert noted & HEAVY == set()
    assert {"onnxruntime", "numpy", "PIL"} <= noted


def imported(module: Path) -> Iterator[str]:
    """What a module imports whenever it is imported itself."""
    for statement in ast.parse(module.read_text()).body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module is not None:
            yield statement.module


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_a_module_imports_only_what_comes_along(module: Path) -> None:
    distributions = {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in SAID["project"]["dependencies"]}  # type: ignore[index]
    known = distributions | {"PIL", "starlette", "pydantic", "pydantic_core", "click"} | set(sys.stdlib_module_names)
    for name in imported(module):
        if name.startswith("metaformer"):
            path = PACKAGE.parent / name.replace(".", "/")
            assert (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")) in MODULES, name
        else:
            assert name.partition(".")[0] in known, name


def test_it_says_the_same_as_the_whole() -> None:
    """Version, Pythons, licence, and bounds of dependencies."""
    own = SAID["project"]
    assert own["version"] == metaformer.__version__ == WHOLE["version"]
    assert (own["requires-python"], own["license"]) == (WHOLE["requires-python"], WHOLE["license"])
    extras = WHOLE["optional-dependencies"]
    bounds = {*WHOLE["dependencies"], *extras["serve"], *extras["fast"]}
    assert {*own["dependencies"], *own["optional-dependencies"]["openvino"]} <= bounds
    assert set(extras["serve"]) <= set(own["dependencies"])


def test_the_page_comes_along_as_it_is() -> None:
    assert [module for module in LISTED if not module.endswith(".py")] == ["serve/page"]
    assert find_spec("metaformer.serve.pages") is not None


def test_it_is_ready_without_running_what_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime prepares nothing for a size of batch; OpenVINO compiles each, before the first request needs it."""
    sizes = {}
    for engine in ("onnxruntime", "openvino"):
        opened = open_answerer("colours", str(coloured(tmp_path / "colours.onnx")), Running(engine=engine, batch=6))
        assert isinstance(opened, Classifier)
        asked = sizes[engine] = list[int]()
        logits = opened.predictor.logits
        monkeypatch.setattr(
            opened.predictor, "logits", lambda pixels, asked=asked, logits=logits: asked.append(len(pixels)) or logits(pixels)
        )
        enough, seconds = opened.warm()
        assert (enough in (1, 2, 4, 6), seconds > 0) == (True, True)
    assert sizes["onnxruntime"][:5] == [1, 1, 1, 2, 2]  # it prepares nothing for a size
    assert sizes["openvino"][:8] == [1, 2, 4, 6, 1, 1, 2, 2]


# --- in an environment of its own -------------------------------------------------------------------------------------


def uv(*words: object, **environment: str) -> str:
    """What uv prints."""
    done = subprocess.run(
        [str(UV), *map(str, words)], capture_output=True, text=True, check=False, env=os.environ | environment, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One built from the repository, one from the archive of sources."""
    root = tmp_path_factory.mktemp("wheels")
    uv("build", "--python", sys.executable, "--wheel", "--out-dir", root / "one", SLIM)
    uv("build", "--python", sys.executable, "--out-dir", root / "two", SLIM)
    (one,), (two,) = ((root / name).glob("*.whl") for name in ("one", "two"))
    return one, two


@pytest.fixture(scope="module")
def installed(wheels: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing else, at the versions of the lock."""
    root = tmp_path_factory.mktemp("slim") / "environment"
    uv("venv", "--python", sys.executable, root)
    uv("pip", "install", "--constraints", ROOT / "requirements.lock", wheels[0], VIRTUAL_ENV=str(root))
    return root


def bare() -> dict[str, str]:
    """Variables, but none that would lend it our modules."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}


def refused(command: Path, *words: object) -> str:
    """The sentence with which it ends, exit code 2."""
    done = subprocess.run(
        [str(command), *map(str, words)], capture_output=True, text=True, check=False, env=bare(), timeout=120
    )
    assert done.returncode == 2, done
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.skipif(UV is None, reason="there is no uv")
def test_what_is_built_is_what_is_listed(wheels: tuple[Path, Path]) -> None:
    names = [set(ZipFile(wheel).namelist()) for wheel in wheels]
    assert names[0] == names[1]
    page = {f"serve/page/{file.name}" for file in (PACKAGE / "serve" / "page").iterdir()}
    wanted = {f"metaformer/{name}" for name in {module for module in LISTED if module.endswith(".py")} | page}
    assert {name for name in names[0] if ".dist-info/" not in name} == wanted | {"metaformer_slim.py"}
    assert any(name.endswith("licenses/LICENSE") for name in names[0])


@pytest.mark.slow
@pytest.mark.skipif(UV is None, reason="there is no uv")
def test_it_is_small(installed: Path) -> None:
    """At most 600 MB, with everything that it needs; benchmarks/slim.py measures it."""
    (packages,) = installed.glob("lib/python*/site-packages")
    assert sum(file.stat().st_size for file in packages.rglob("*") if file.is_file()) <= 600e6
    assert {path.name for path in packages.iterdir()} & HEAVY == set()


@pytest.mark.slow
@pytest.mark.skipif(UV is None, reason="there is no uv")
@pytest.mark.usefixtures("thread")
def test_it_answers_as_the_predictor_does(installed: Path, run: metaformer.Run, tmp_path: Path) -> None:
    """Of a model that was trained and exported, where nothing of torch is; and it stops with 0 when it is told to."""
    file = tmp_path / "served.onnx"
    metaformer.export(run.path, "onnx", file)
    images = [photo(tmp_path / f"{number}.png", number).read_bytes() for number in range(3)] + [b"not an image"]
    served = Served([str(installed / "bin" / "metaformer-slim"), str(file)], tmp_path, bare())
    try:
        answers = [served.ask("/predict", image)[1]["results"][0] for image in images]
        said = served.ask("/models")[1]
    finally:
        code = served.close()
    assert code == 0
    for answer, right in zip(answers, Predictor(file)(images), strict=True):
        wanted: dict[str, Any] = {"name": None, **right.to_dict()}
        del wanted["path"]
        assert answer == wanted | ({"error": wanted["error"].removeprefix("image: ")} if "error" in wanted else {})
    assert (said["models"][0]["engine"], said["models"][0]["embeds"]) == ("onnxruntime", 0)


@pytest.mark.slow
@pytest.mark.skipif(UV is None, reason="there is no uv")
def test_what_needs_torch_is_refused_in_a_sentence(installed: Path, run: metaformer.Run, tmp_path: Path) -> None:
    command = installed / "bin" / "metaformer-slim"
    for source in (run.path, coloured(tmp_path / "objects.onnx", dense={"task": "detection"}), "caformer_s18"):
        said = refused(command, source)
        assert said.startswith(f"metaformer-slim: {source} needs all of metaformer, which is not installed"), said
    assert refused(command, tmp_path / "none.onnx") == f"metaformer-slim: no file {tmp_path / 'none.onnx'}"
    assert "openvino is not installed" in refused(command, coloured(tmp_path / "a.onnx"), "--engine", "openvino")
