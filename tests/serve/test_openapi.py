"""The description is true: schemathesis asks all that it allows and forbids, and its examples are what its schemas say."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
from tests.serve.client import Client, png, running
from tests.serve.fake import MODELS, FakePool

from metaformer.serve.app import Service
from metaformer.serve.jobs import Model
from metaformer.serve.logs import Log
from metaformer.serve.settings import Limits

ST = Path(sys.executable).with_name("st")


def described(*models: Model, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """The description of a service with these models."""
    service = Service(FakePool(models or MODELS), Limits(images=4, queue=8), keys=keys, log=Log(io.StringIO()))
    answer = Client(service).get("/openapi.json", headers={"x-api-key": "".join(keys[:1])})
    assert answer.status_code == 200
    return dict(answer.json())


def validator(description: dict[str, Any], schema: dict[str, Any]) -> Any:
    """Of a schema within the description."""
    return jsonschema.Draft202012Validator(schema | {"components": description["components"]})


def schemathesis(folder: Path, *arguments: str, keys: str = "") -> None:
    """All default checks against a service of its own; what fails is shown."""
    schemes = f'[auth.openapi.bearer]\nbearer = "{keys}"\n[auth.openapi.header]\napi_key = "{keys}"\n'
    (folder / "schemathesis.toml").write_text(schemes if keys else "")
    with running(*(["--keys", keys] if keys else [])) as server:
        description = folder / "openapi.json"
        description.write_bytes(httpx2.get(f"{server.url}/openapi.json", headers={"x-api-key": keys}).content)
        command = [ST, "run", description, "--url", server.url, "--seed", "1", "--generation-database", "none", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert "Tested: 7" in done.stdout


def test_schemathesis_finds_nothing_at_once(tmp_path: Path) -> None:
    schemathesis(tmp_path, "--phases", "examples,fuzzing", "--max-examples", "8")


@pytest.mark.slow
@pytest.mark.parametrize("keys", ["", "a-key"])
def test_schemathesis_finds_nothing(tmp_path: Path, keys: str) -> None:
    schemathesis(tmp_path, "--max-examples", "150", keys=keys)


def test_examples_are_what_the_schemas_say() -> None:
    description = described()
    seen = 0
    for path, operations in description["paths"].items():
        for operation in operations.values():
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for content in (content for body in bodies for content in body.get("content", {}).values()):
                examples = [one["value"] for one in content.get("examples", {}).values()] + [
                    *filter(None, [content.get("example")])
                ]
                for example in examples:
                    validator(description, content["schema"]).validate(example)
                    seen += 1
            if path in ("/predict", "/embed", "/explain"):
                statuses = {"200", "400", "401", "403", "404", "408", "413", "415", "422", "503"}
                assert set(operation["responses"]) == statuses
                json = [one["content"]["application/json"] for one in operation["responses"].values()]
                assert all("example" in one or "examples" in one for one in json)
    assert seen > 30


def test_an_example_of_a_request_is_answered() -> None:
    content = described()["paths"]["/predict"]["post"]["requestBody"]["content"]
    service = Service(FakePool(), log=Log(io.StringIO()))
    for example in content["application/json"]["examples"].values():
        answer = Client(service).post("/predict", json=example["value"])
        assert [set(one) for one in answer.json()["results"]] == [{"name", "label", "probability", "top"}] * len(
            example["value"]["images"]
        )


@pytest.mark.parametrize(
    ("schema", "path"),
    [("Predictions", "/predict"), ("Embeddings", "/embed"), ("Explanations", "/explain"), ("Models", "/models")],
)
def test_answers_are_what_the_schemas_say(schema: str, path: str) -> None:
    description = described()
    check = validator(description, {"$ref": f"#/components/schemas/{schema}"})
    asked = Client(Service(FakePool(), log=Log(io.StringIO())))
    answer = asked.get(path) if path == "/models" else asked.post(path, files=[("a", ("a", png())), ("b", ("b", b"x"))])
    check.validate(answer.json())
    with pytest.raises(jsonschema.ValidationError):
        check.validate(answer.json() | {"more": 1})


def test_it_is_of_these_models() -> None:
    description = described(MODELS[2], MODELS[1])
    assert "/explain" not in description["paths"]
    model = description["paths"]["/embed"]["post"]["parameters"][0]
    assert model["schema"] == {"type": "string", "enum": ["other"], "default": "other"}
    model = description["paths"]["/predict"]["post"]["parameters"][0]
    assert model["schema"] == {"type": "string", "enum": ["nuts", "other"], "default": "nuts"}
    assert "Up to 4 images" in description["paths"]["/predict"]["post"]["requestBody"]["description"]


def test_the_form_says_that_its_fields_may_have_any_name() -> None:
    form = described()["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert "any name" in form["description"]


def test_keys_are_described_where_they_are_needed() -> None:
    assert "securitySchemes" not in described()["components"]
    description = described(keys=("one",))
    assert set(description["components"]["securitySchemes"]) == {"bearer", "header"}
    free = [
        path for path, operations in description["paths"].items() if not any("security" in one for one in operations.values())
    ]
    assert free == ["/healthz", "/readyz"]
