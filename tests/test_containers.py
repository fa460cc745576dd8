"""Images are linted here, not built: hadolint's rules and ours, what they name is there, and compose.yaml says what it must."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.dockered import faults, last_stage, steps
from tests.pages import ROOT

FOLDER = ROOT / "containers"
FILES = sorted(FOLDER.glob("*.Dockerfile"))
COMPOSE = FOLDER / "compose.yaml"
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


def stem(file: Path) -> str:
    return file.stem


def test_which_images_there_are() -> None:
    assert [file.stem for file in FILES] == ["cpu", "gpu", "slim"]


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
@pytest.mark.parametrize("file", FILES, ids=stem)
def test_hadolint_finds_nothing(file: Path) -> None:
    done = subprocess.run([str(HADOLINT), "--no-color", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", FILES, ids=stem)
def test_our_rules_are_kept(file: Path) -> None:
    assert faults(file) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("ARG BASE=python:3.12-slim-trixie", "ARG BASE=python", "tag"),
        ("ARG BASE=python:3.12-slim-trixie", "ARG BASE=python:latest", "tag"),
        ("ARG BASE=python:3.12-slim-trixie", "ARG BASE=host:5000/python", "tag"),
        ("USER 10001", "USER root", "root"),
        ("USER 10001", "", "root"),
        ("USER 10001", "ADD https://example.org/x /x\nUSER 10001", "add"),
        ("COPY src src", "COPY sources src", "source"),
        ("--no-cache-dir ", "", "cache"),
        ("EXPOSE 8000", "", "exposed"),
        ("/readyz", "/healthz", "health"),
        ('CMD ["--help"]', "CMD --help", "shell"),
        ("USER 10001", "USER 10001\nENV METAFORMER_KEYS=mine", "secret"),
        ("image.licenses=", "image.authors=", "labels"),
    ],
)
def test_a_rule_that_is_broken_is_noticed(old: str, new: str, fault: str, tmp_path: Path) -> None:
    text = (FOLDER / "cpu.Dockerfile").read_text()
    assert old in text
    spoilt = tmp_path / "Dockerfile"
    spoilt.write_text(text.replace(old, new))
    assert set(faults(spoilt)) == {fault}


def test_a_base_may_be_pinned_by_its_digest(tmp_path: Path) -> None:
    text = (FOLDER / "cpu.Dockerfile").read_text()
    (tmp_path / "Dockerfile").write_text(text.replace("slim-trixie", f"slim-trixie@sha256:{'0' * 64}"))
    assert faults(tmp_path / "Dockerfile") == []


@pytest.mark.parametrize("file", FILES, ids=stem)
def test_what_is_copied_is_sent_to_the_builder(file: Path) -> None:
    """.dockerignore keeps back all that it does not name."""
    assert IGNORED[1] == "*"
    sent = {line.removeprefix("!") for line in IGNORED if line.startswith("!")}
    copied = {
        word for step in steps(file) if step.what == "COPY" and "--from" not in step.words for word in step.words.split()[:-1]
    }
    assert copied <= sent
    assert copied


@pytest.mark.parametrize("file", FILES, ids=stem)
def test_the_tools_are_those_of_the_repository(file: Path) -> None:
    """One uv everywhere, the versions of the lock, and extras and packages that are in it."""
    text = file.read_text()
    assert re.findall(r"uv==[\d.]+", text) == re.findall(r"uv==[\d.]+", (ROOT / "Makefile").read_text())
    runs = " ".join(step.words for step in steps(file) if step.what == "RUN")
    assert "--constraints requirements.lock" in runs
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"--extra (\w+)", runs)) <= set(extras)
    locked = (ROOT / "requirements.lock").read_text()
    packages = runs.partition("--extra serve ")[2].partition("uv pip")[0].split()
    assert [name for name in packages if re.match(r"[a-z]", name) and f"\n{name}==" not in locked and name != "RUN"] == []


@pytest.mark.parametrize("file", FILES, ids=stem)
def test_stages_have_one_base_and_keep_no_tools(file: Path) -> None:
    """What builds stays behind; a virtual environment works only on the Python that it was made with."""
    found = steps(file)
    assert len({step.words.split()[0] for step in found if step.what == "FROM"}) == 1
    assert not any("pip" in step.words.split() for step in last_stage(found) if step.what == "RUN")


# --- compose ----------------------------------------------------------------------------------------------------------

SERVICE = {
    "build", "cap_drop", "command", "deploy", "image", "init", "pids_limit", "ports", "profiles", "read_only", "restart",
    "secrets", "security_opt", "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip
"""Keys of the Compose Specification that ours use; another one has to be looked up first."""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())


def test_compose_says_only_what_compose_knows(compose: dict[str, Any]) -> None:
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "secrets", "volumes"}
    assert set(compose["services"]) == {file.stem for file in FILES}
    for name, service in compose["services"].items():
        assert set(service) <= SERVICE
        assert service["profiles"] == [name]
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert (FOLDER / service["build"]["context"]).resolve() == ROOT
        assert all(isinstance(word, str) for key in ("command", "volumes", "ports", "tmpfs") for word in service[key])
        assert set(service["secrets"]) <= set(compose["secrets"])
        named = {volume.partition(":")[0] for volume in service["volumes"] if re.match(r"\w+:", volume)}
        assert named <= set(compose["volumes"])


def test_a_service_of_compose_can_do_little(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert all(volume.endswith(":ro") for volume in service["volumes"] if "/models" in volume)
        assert "environment" not in service


def test_compose_serves_what_model_names_out_of_models(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["command"][0] == f"/models/${{MODEL:-{'first' if name == 'gpu' else 'first.onnx'}}}"
        assert "${MODELS:-../models}:/models:ro" in service["volumes"]


def test_what_is_written_lies_in_a_volume(compose: dict[str, Any]) -> None:
    """With the rest read-only: each folder for a cache that an image names."""
    for file in FILES:
        words = " ".join(step.words for step in last_stage(steps(file)) if step.what == "ENV")
        caches = re.findall(r"\b(?!PATH)\w+=(/\S+)", words)
        mounted = [volume.split(":")[1] for volume in compose["services"][file.stem]["volumes"] if volume.startswith("cache:")]
        assert all(any(Path(cache).is_relative_to(folder) for folder in mounted) for cache in caches), caches


def test_it_is_told_to_stop_in_time(compose: dict[str, Any]) -> None:
    """Later than the service drains."""
    from metaformer.serve.settings import Limits

    assert all(int(service["stop_grace_period"].removesuffix("s")) > Limits().drain for service in compose["services"].values())


def test_keys_are_in_no_layer_and_no_commit(compose: dict[str, Any]) -> None:
    (source,) = {secret["file"] for secret in compose["secrets"].values()}
    assert source == "${KEYS:-../keys.txt}"
    assert "/keys.txt" in (ROOT / ".gitignore").read_text().splitlines()
    assert not any("keys" in line for line in IGNORED if line.startswith("!"))


def test_the_lines_that_build_them_name_them() -> None:
    for file in FILES:
        line = next(line for line in file.read_text().splitlines() if "docker build" in line)
        words = shlex.split(line.lstrip("# "))
        assert words == ["docker", "build", "-f", f"containers/{file.name}", "-t", f"metaformer:{file.stem}", "."]
