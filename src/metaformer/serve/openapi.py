"""The OpenAPI description: FastAPI's of the paths that it answers, and the three verbs with examples for every status."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from metaformer.serve import schemas
from metaformer.serve.jobs import KINDS, MASKS, Kind, Model
from metaformer.serve.queries import MOST_TOP, able
from metaformer.serve.settings import Limits

Json = dict[str, Any]
REFS = "#/components/schemas/{model}"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR42mNgGAWDDTAyAAAA0AABxPw7ygAAAABJRU5ErkJggg=="
ABOUT = """Images in, answers out. An image that cannot be read is an answer with an `error`; the others of the request are
answered all the same. `Accept: application/msgpack` gets the same answer as msgpack, in which pictures are bytes."""
OPEN = ("/healthz", "/readyz")
DONE: dict[Kind, tuple[str, type, str]] = {
    "predict": ("Say what is on images", schemas.Predictions, "A class, objects or regions for each image."),
    "embed": ("Embed images", schemas.Embeddings, "What the model makes of each image before it decides."),
    "explain": ("Show where the model looked", schemas.Explanations, "Grad-CAM of each image."),
}
WRONG: dict[int, tuple[str, str, str]] = {
    400: ("The body cannot be read.", "bad_json", "The body is not JSON that can be read."),
    401: ("A key is missing or wrong.", "no_key", "Send a key, as Authorization: Bearer KEY or X-API-Key: KEY."),
    403: ("A page of elsewhere asks a service without keys.", "wrong_origin", "A page of 'https://example.org' asks, and …"),
    404: ("There is no such model or class.", "no_model", "There is no model 'fist': did you mean first?"),
    408: ("The body came too slowly.", "slow_body", "The body did not come within 20 s: 1024 bytes did."),
    413: ("Too many bytes or images.", "too_many", "A request has up to 64 images: send them in several."),
    415: ("The body is of a type that is not taken.", "wrong_type", "Content-Type 'text/plain' is not one of image/* …"),
    422: ("A value is not what it may be.", "bad_value", f"top='0' is not a whole number from 1 to {MOST_TOP}."),
    503: ("Too busy, starting or stopping.", "queue_full", "256 images wait for first: ask again when there is room."),
}
ID: Json = {
    "X-Request-ID": {"description": "In the log, too.", "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"}}
}
RETRY: Json = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
FIGURES: dict[int | str, Json] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


def errors(*statuses: int) -> dict[int | str, Json]:
    """Answers that are errors, each with an example."""
    return {status: _error(status) for status in statuses}


def _error(status: int) -> Json:
    told, code, message = WRONG[status]
    example = {"error": {"code": code, "message": message, "request_id": "0f3c2a1b9d8e7f60"}}
    content = {"schema": {"$ref": REFS.format(model="ErrorAnswer")}, "example": example}
    headers = ID | (RETRY if status == 503 else {})
    return {"description": told, "headers": headers, "content": {"application/json": content}}


def describe(app: FastAPI, models: Mapping[str, Model], limits: Limits, *, keys: bool) -> Json:
    """The whole description, of the models that are served; a verb that none of them can do is left out."""
    found = app.openapi()
    kinds = [kind for kind in KINDS if able(kind, models)]
    answers = [done for _, done, _ in DONE.values()]
    _, made = models_json_schema(
        [(one, "validation") for one in (*answers, schemas.Upload, schemas.ErrorAnswer)], ref_template=REFS
    )
    parts = found.get("components", {}).get("schemas", {}) | made["$defs"]
    paths = {f"/{kind}": {"post": _verb(kind, models, limits)} for kind in kinds} | found["paths"]
    about = found["info"] | {"description": ABOUT}
    described = found | {"info": about, "paths": paths, "components": {"schemas": parts}}
    return _locked(described) if keys else described


def _locked(described: Json) -> Json:
    """With both ways to send a key, on all paths but those that need none."""
    schemes = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    paths = {
        path: operations if path in OPEN else {
            method: operation | {"security": [{name: []} for name in schemes]} for method, operation in operations.items()
        }
        for path, operations in described["paths"].items()
    }  # fmt: skip
    return described | {"paths": paths, "components": described["components"] | {"securitySchemes": schemes}}


# --- a verb -----------------------------------------------------------------------------------------------------------


def _verb(kind: Kind, models: Mapping[str, Model], limits: Limits) -> Json:
    summary, answer, told = DONE[kind]
    content = {"schema": {"$ref": REFS.format(model=answer.__name__)}, "examples": _examples(kind)}
    both: Json = {"application/json": content, "application/msgpack": {"schema": {}}}
    done = {"description": told, "headers": ID, "content": both}
    return {
        "operationId": kind,
        "summary": summary,
        "description": told,
        "parameters": _parameters(kind, models),
        "requestBody": {"required": True, "description": _most(limits), "content": _bodies()},
        "responses": {"200": done} | {str(status): _error(status) for status in WRONG},
    }


def _most(limits: Limits) -> str:
    return f"Up to {limits.images} images and {limits.body} bytes; more is answered with 413."


def _parameters(kind: Kind, models: Mapping[str, Model]) -> list[Json]:
    names = able(kind, models)
    found = [
        _parameter("model", {"type": "string", "enum": names, "default": names[0]}, "Which model; the first one by default.")
    ]
    if kind == "predict":
        top = {"type": "integer", "minimum": 1, "maximum": MOST_TOP, "default": 5}
        score = {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5}
        found += [
            _parameter("top", top, "How many classes are told of an image; of classifiers."),
            _parameter("threshold", score, "Least score of objects that are told; of detectors."),
            _parameter(
                "masks",
                {"type": "string", "enum": list(MASKS), "default": MASKS[0]},
                "How outlines are told; of instance masks.",
            ),
        ]
    if kind == "explain":
        found.append(_parameter("label", {"type": "string"}, "The class to explain; by default the most probable one."))
    return found


def _parameter(name: str, schema: Json, told: str) -> Json:
    return {"name": name, "in": "query", "required": False, "description": told, "schema": schema}


def _bodies() -> Json:
    file = {"type": "string", "format": "binary"}
    one = file | {"minLength": 1}
    many = {"type": "array", "items": file, "minItems": 1}
    any_name = "Each part is a file with its filename. Its field may have any name; images stands for all of them."
    form = {
        "type": "object", "properties": {"images": many}, "required": ["images"], "additionalProperties": False,
        "description": any_name,
    }  # fmt: skip
    named = {"name": "a.png", "data": PNG}
    return {
        "image/*": {"schema": one},
        "application/octet-stream": {"schema": one},
        "multipart/form-data": {"schema": form, "encoding": {"images": {"contentType": "image/*, application/octet-stream"}}},
        "application/json": {
            "schema": {"$ref": REFS.format(model="Upload")},
            "examples": {
                "images": {"summary": "Images alone", "value": {"images": [PNG]}},
                "names": {"summary": "Images with names", "value": {"images": [named, PNG]}},
            },
        },
    }


def _examples(kind: Kind) -> Json:
    guess = {"label": "seven", "probability": 0.91}
    seen = {"name": "a.png", "width": 640, "height": 480}
    thing = {"label": "nut", "score": 0.93, "box": [12.0, 20.5, 80.0, 91.5]}
    outline = {"polygons": [[12.0, 20.5, 80.0, 20.5, 46.0, 91.5]]}
    region = {"label": "sky", "index": 1, "share": 0.4}
    unread = {"name": "b.png", "error": "is not an image that can be read"}
    said = {"model": "first", "seconds": 0.012}
    shown = {
        "predict": {
            "classes": {"task": "classification", "results": [{"name": "a.png", **guess, "top": [guess]}, unread]},
            "objects": {"task": "detection", "results": [{**seen, "objects": [thing]}]},
            "outlines": {"task": "instances", "results": [{**seen, "objects": [thing | outline]}]},
            "regions": {"task": "segmentation", "results": [{**seen, "png": PNG, "regions": [region]}]},
        },
        "embed": {"embeddings": {"dimensions": 4, "results": [{"name": "a.png", "embedding": [0.12, -0.5, 0.03, 0.88]}]}},
        "explain": {"maps": {"results": [{**seen, **guess, "box": [80.0, 0.0, 560.0, 480.0], "heat": PNG}]}},
    }  # fmt: skip
    return {name: {"value": said | value} for name, value in shown[kind].items()}
