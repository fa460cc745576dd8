"""The application: every path, every answer, every refusal; validated against what it says of itself."""

import asyncio
import base64
import io
import json
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

import msgpack
import pytest
from PIL import Image
from pydantic import BaseModel
from tests.serve.client import Client, environment, png
from tests.serve.fake import MODELS, FakePool

from metaformer.serve import schemas
from metaformer.serve.app import Service
from metaformer.serve.logs import Log
from metaformer.serve.settings import Limits

LIMITS = Limits(images=4, queue=8, body=200_000)


def client(pool: FakePool | None = None, *, ready: bool = True, **options: Any) -> Client:
    """Of a service with a fake pool."""
    limits = options.pop("limits", LIMITS)
    return Client(Service(pool or FakePool(), limits, log=Log(io.StringIO()), **options), ready=ready)


def fault(answer: Any, status: int, code: str) -> str:
    """The sentence of an error, which is as it should be."""
    assert answer.status_code == status, answer.text
    error = schemas.ErrorAnswer.model_validate(answer.json()).error
    assert error.code == code
    assert error.request_id == answer.headers["x-request-id"]
    assert error.message.endswith((".", "?"))
    return error.message


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_predict(model: Any) -> None:
    answer = client().post(f"/predict?model={model.name}&top=2", content=png())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    said = schemas.Predictions.model_validate(answer.json())
    assert (said.model, said.task, len(said.results)) == (model.name, model.task, 1)
    (result,) = said.results
    assert result.name is None
    kinds = {"classification": schemas.Classified, "segmentation": schemas.Segmented}
    assert isinstance(result, kinds.get(model.task, schemas.Detected))


def test_many_images_are_answered_in_their_order_with_their_names() -> None:
    images = [png(i) for i in range(4)]
    one_by_one = [client().post("/predict", content=image).json()["results"][0] for image in images]
    files = [("images", (f"{i}.png", image, "image/png")) for i, image in enumerate(images)]
    together = client().post("/predict", files=files).json()["results"]
    assert together == [{**one, "name": f"{i}.png"} for i, one in enumerate(one_by_one)]
    assert len({one["label"] for one in together}) > 1
    body = {"images": [{"name": f"{i}.png", "data": base64.b64encode(image).decode()} for i, image in enumerate(images)]}
    assert client().post("/predict", json=body).json()["results"] == together


def test_what_is_no_image_is_an_answer_and_loses_no_other() -> None:
    answer = client().post("/predict", files=[("a", ("a", png())), ("b", ("b.txt", b"text")), ("c", ("c", png(9)))])
    assert answer.status_code == 200
    first, second, third = answer.json()["results"]
    assert second == {"name": "b.txt", "error": "cannot be read as an image"}
    assert "label" in first
    assert "label" in third


def test_what_is_no_base64_is_an_answer_too() -> None:
    pool = FakePool()
    good = base64.b64encode(png()).decode()
    first, second, third = client(pool).post(
        "/predict", json={"images": [good, {"name": "b", "data": "?"}, good]}
    ).json()["results"]  # fmt: skip
    assert second == {"name": "b", "error": "is not base64"}
    assert first == third
    assert [len(job.images) for job in pool.jobs] == [2]
    assert client(pool).post("/embed", json={"images": ["?"]}).json()["results"] == [{"name": None, "error": "is not base64"}]
    assert len(pool.jobs) == 1


def test_options_come_to_the_pool() -> None:
    pool = FakePool()
    asked = client(pool)
    asked.post("/predict?model=nuts&top=7&threshold=0.25&masks=rle", content=png())
    asked.post("/explain?label=digit+4", content=png())
    asked.post("/embed", content=png())
    jobs = [asdict(job) | {"images": len(job.images)} for job in pool.jobs]
    plain = {"images": 1, "top": 5, "threshold": 0.5, "masks": "polygons", "label": None}
    assert jobs == [
        plain | {"kind": "predict", "top": 7, "threshold": 0.25, "masks": "rle"},
        plain | {"kind": "explain", "label": "digit 4"},
        plain | {"kind": "embed"},
    ]


def test_outlines_as_asked() -> None:
    (one,) = client().post("/predict?model=nuts&threshold=0.7", content=png()).json()["results"]
    assert [thing["score"] for thing in one["objects"]] == [0.9]
    assert "polygons" in one["objects"][0]
    (one,) = client().post("/predict?model=nuts&masks=rle", content=png()).json()["results"]
    assert [set(thing) for thing in one["objects"]] == [{"label", "score", "box", "rle"}] * 2


def test_embed_and_explain() -> None:
    said = schemas.Embeddings.model_validate(client().post("/embed?model=other", content=png()).json())
    assert (said.model, said.dimensions) == ("other", 4)
    assert isinstance(said.results[0], schemas.Embedded)
    assert len(said.results[0].embedding) == 4
    maps = schemas.Explanations.model_validate(client().post("/explain", content=png()).json())
    assert isinstance(maps.results[0], schemas.Explained)
    with Image.open(io.BytesIO(base64.b64decode(maps.results[0].heat))) as heat:
        assert (heat.mode, heat.size) == ("L", (32, 32))


@pytest.mark.parametrize(("path", "picture"), [("/predict?model=streets", "png"), ("/explain", "heat"), ("/embed", "")])
@pytest.mark.parametrize("accept", ["application/msgpack", "application/x-msgpack, application/json;q=0.5"])
def test_msgpack_is_the_same_answer(path: str, picture: str, accept: str) -> None:
    packed = client().post(path, content=png(), headers={"accept": accept})
    assert packed.headers["content-type"] == "application/msgpack"
    said, plain = msgpack.unpackb(packed.content), client().post(path, content=png()).json()
    if picture:
        raw = said["results"][0][picture]
        assert raw.startswith(b"\x89PNG")
        said["results"][0][picture] = base64.b64encode(raw).decode()
    assert {**said, "seconds": 0} == {**plain, "seconds": 0}


def test_numbers_that_json_has_not_are_null() -> None:
    pool = FakePool()

    async def odd(model: str, job: Any, deadline: float) -> list[dict[str, Any]]:
        return [{"embedding": [float("nan"), float("inf"), 1.5]}]

    pool.ask = odd  # type: ignore[method-assign]
    assert client(pool).post("/embed", content=png()).json()["results"][0]["embedding"] == [None, None, 1.5]


def test_models() -> None:
    said = schemas.Models.model_validate(client(keys=("one",)).get("/models", headers={"x-api-key": "one"}).json())
    assert (said.default, said.keys, said.limits.images) == ("digits", True, 4)
    assert [model.name for model in said.models] == [model.name for model in MODELS]
    assert said.models[0].model_dump() == asdict(MODELS[0]) | {"classes": list(MODELS[0].classes)}


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mood", "status", "code", "retry"),
    [
        ("full", 503, "queue_full", "2"),
        ("opening", 503, "starting", "3"),
        ("late", 503, "late", "1"),
        ("lost", 503, "worker_lost", "1"),
        ("unable", 422, "unable", None),
    ],
)
def test_what_the_pool_refuses(mood: str, status: int, code: str, retry: str | None) -> None:
    answer = client(FakePool(mood=mood)).post("/predict", content=png())
    fault(answer, status, code)
    assert answer.headers.get("retry-after") == retry


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/predict", "POST"),
        ("DELETE", "/embed", "POST"),
        ("OPTIONS", "/explain", "POST"),
        ("POST", "/models", "GET"),
        ("TRACE", "/readyz", "GET, HEAD"),
    ],
)
def test_wrong_methods(method: str, path: str, allow: str) -> None:
    answer = client().request(method, path)
    fault(answer, 405, "wrong_method")
    assert answer.headers["allow"] == allow


def test_monitors_may_ask_for_the_head_alone() -> None:
    service = Service(FakePool(), log=Log(io.StringIO()))
    assert Client(service).request("HEAD", "/healthz").status_code == 200
    assert Client(service).request("HEAD", "/readyz").status_code == Client(service).get("/readyz").status_code
    assert set(Client(service).get("/openapi.json").json()["paths"]["/readyz"]) == {"get"}


def test_other_paths() -> None:
    assert "there are /predict, /embed" in fault(client().get("/nowhere"), 404, "no_path")
    fault(client().get("/docs"), 404, "no_path")
    for path in ("/predict/", "/Predict"):
        assert fault(client().post(path, content=png()), 404, "no_path").endswith("did you mean /predict?")


def test_an_error_closes_a_connection_on_which_more_would_come() -> None:
    answer = client().post("/predict?top=0", content=png())
    fault(answer, 422, "bad_value")
    assert answer.headers["connection"] == "close"
    answer = client().post("/predict", content=b"x", headers={"content-type": "text/plain"})
    fault(answer, 415, "wrong_type")
    assert "connection" not in answer.headers


def test_limits() -> None:
    fault(client().post("/predict", content=b"x" * 200_001), 413, "too_large")
    fault(client().post("/predict", files=[("a", ("a", b"x"))] * 5), 413, "too_many")


# --- keys, origins, ids, headers --------------------------------------------------------------------------------------


def test_with_keys_all_but_health_needs_one() -> None:
    asked = client(keys=("one", "two"))
    for method, path in (
        ("POST", "/predict"),
        ("POST", "/embed"),
        ("GET", "/models"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
    ):
        answer = asked.request(method, path)
        fault(answer, 401, "no_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    fault(asked.get("/nowhere"), 401, "no_key")
    assert asked.get("/healthz").status_code == asked.get("/readyz").status_code == 200
    assert asked.get("/").status_code != 401
    assert asked.get("/page/nothing").status_code == 404
    assert asked.post("/predict", content=png(), headers={"authorization": "Bearer two"}).status_code == 200
    fault(asked.post("/predict", content=png(), headers={"authorization": "Bearer three"}), 401, "no_key")


def test_other_pages_may_not_ask_unless_told() -> None:
    here = {"origin": "https://example.org"}
    answer = client().post("/predict", content=png(), headers=here)
    fault(answer, 403, "wrong_origin")
    assert "access-control-allow-origin" not in answer.headers
    asked = client(keys=("one",), origins=("https://example.org",))
    answer = asked.post("/predict", content=png(), headers=here)
    fault(answer, 401, "no_key")
    assert answer.headers["access-control-allow-origin"] == "https://example.org"
    wanted = here | {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    asking = asked.request("OPTIONS", "/predict", headers=wanted)
    assert (asking.status_code, asking.headers["access-control-allow-origin"]) == (200, "https://example.org")
    elsewhere = asked.post("/predict", content=png(), headers={"origin": "https://example.com"})
    assert "access-control-allow-origin" not in elsewhere.headers


@pytest.mark.parametrize(
    ("host", "origin", "code"),
    [
        ("localhost:8000", "http://localhost:8000", ""),
        ("127.0.0.1:8000", "", ""),
        ("127.8.9.1", "http://127.8.9.1", ""),
        ("[::1]:8000", "http://[::1]:8000", ""),
        ("a.localhost:80", "", ""),
        ("LOCALHOST", "http://localhost", ""),
        ("localhost:8000", "http://localhost:3000", "wrong_origin"),  # another program of this machine
        ("localhost:8000", "https://example.com", "wrong_origin"),
        ("localhost:8000", "null", "wrong_origin"),  # a file, or a frame that is shut off
        ("example.com:8000", "http://example.com:8000", "wrong_host"),  # a name that was made to mean this machine
        ("example.com", "", "wrong_host"),
        ("127.0.0.1.example.com", "", "wrong_host"),
        ("localhost.example.com", "", "wrong_host"),
        ("192.168.0.7:8000", "", "wrong_host"),
        ("localhost@example.com", "", "wrong_host"),
        ("localhost:8000", "https://example.org", "allowed"),
        ("example.org", "https://example.org", "allowed"),
    ],
)
def test_without_keys_a_browser_is_led_here_by_no_page_of_elsewhere(host: str, origin: str, code: str) -> None:
    headers = {"host": host} | ({"origin": origin} if origin else {})
    asked = client(origins=("https://example.org",)) if code == "allowed" else client()
    for answer in (asked.post("/predict", content=png(), headers=headers), asked.get("/models", headers=headers)):
        if code.startswith("wrong"):
            fault(answer, 403, code)
        else:
            assert answer.status_code == 200
    assert client(origins=("*",)).post("/predict", content=png(), headers=headers).status_code == 200
    assert client(keys=("k",)).post("/predict", content=png(), headers=headers | {"x-api-key": "k"}).status_code == 200
    assert asked.get("/readyz", headers=headers).status_code == asked.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize("origin", ["example.org", "https://example.org/", "https://a b", "null", ""])
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ValueError, match="is not an origin such as"):
        Service(FakePool(), origins=(origin,))


def test_ids_and_headers() -> None:
    for path in ("/healthz", "/models", "/predict", "/nowhere"):
        answer = client().get(path, headers={"x-request-id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert client().get("/healthz", headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"


# --- phases -----------------------------------------------------------------------------------------------------------


def test_starting_ready_draining() -> None:
    pool = FakePool()
    asked = client(pool, ready=False)
    assert (asked.get("/readyz").status_code, asked.get("/readyz").json()) == (503, {"status": "starting"})
    assert asked.get("/healthz").json() == {"status": "alive"}
    answer = asked.post("/predict", content=png())
    fault(answer, 503, "starting")
    assert answer.headers["retry-after"] == "2"
    asyncio.run(asked.service.start())
    assert (asked.get("/readyz").status_code, asked.get("/readyz").json()) == (200, {"status": "ready"})
    pool.ready = False  # one of its processes is replaced: others answer
    assert (asked.get("/readyz").status_code, asked.get("/readyz").json()) == (503, {"status": "starting"})
    assert asked.post("/predict", content=png()).status_code == 200
    asyncio.run(asked.service.stop(1.0))
    assert (asked.get("/readyz").status_code, asked.get("/readyz").json()) == (503, {"status": "draining"})
    answer = asked.post("/predict", content=png())
    fault(answer, 503, "draining")
    assert answer.headers["retry-after"] == "5"


def test_a_lifespan_starts_and_stops_the_pool() -> None:
    pool = FakePool()
    said: list[Any] = []

    async def receive() -> Any:
        assert pool.ready or not said
        return {"type": "lifespan"}

    async def send(message: Any) -> None:
        said.append(message)

    asyncio.run(Service(pool, LIMITS)({"type": "lifespan"}, receive, send))
    assert [message["type"] for message in said] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert pool.stopped is not None
    said.clear()
    asyncio.run(Service(FakePool(mood="broken"), LIMITS)({"type": "lifespan"}, receive, send))
    assert said == [{"type": "lifespan.startup.failed", "message": "there is no model in runs/first"}]


def test_a_client_that_hangs_up_frees_its_places() -> None:
    pool, stream = FakePool(seconds=30.0), io.StringIO()
    service = Service(pool, LIMITS, log=Log(stream))
    sent: list[Any] = []

    async def hang_up() -> None:
        await service.start()
        messages = [{"type": "http.request", "body": png(), "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            while not pool.busy:
                await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": []}
        await service(scope, receive, send)

    began = time.monotonic()
    asyncio.run(hang_up())
    assert time.monotonic() - began < 5
    assert (pool.cancelled, pool.busy, service.asking, sent) == (1, 0, 0, [])
    assert json.loads(stream.getvalue())["status"] == 499


def test_a_server_that_gives_up_still_answers() -> None:
    service = Service(FakePool(seconds=30.0), LIMITS, log=Log(io.StringIO()))
    sent: list[Any] = []

    async def give_up() -> None:
        await service.start()
        done = asyncio.Event()

        async def receive() -> Any:
            if done.is_set():
                await asyncio.sleep(60)
            done.set()
            return {"type": "http.request", "body": png(), "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": []}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(service(scope, receive, send), 0.3)

    asyncio.run(give_up())
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["error"]["code"] == "draining"


# --- the house --------------------------------------------------------------------------------------------------------


def test_the_front_knows_no_torch_and_no_decoder() -> None:
    code = (
        "import sys, metaformer.serve.app, metaformer.serve.pool, metaformer.serve.server\n"
        "print(*{'numpy', 'torch', 'PIL', 'onnxruntime', 'openvino', 'typer', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_schemas_are_strict() -> None:
    models = [one for one in vars(schemas).values() if isinstance(one, type) and issubclass(one, BaseModel)]
    assert len(models) > 20
    assert [one for one in models if one is not BaseModel and one.model_config.get("extra") != "forbid"] == []
