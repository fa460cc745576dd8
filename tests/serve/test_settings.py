"""What a service is told: sentences for what cannot be."""

from typing import Any

import pytest

from metaformer.serve.jobs import Asked, Job
from metaformer.serve.settings import Limits, Running


@pytest.mark.parametrize(
    ("kind", "wrong", "told"),
    [
        (Limits, {"body": 0}, "body=0 is not a whole number of 1 or more"),
        (Limits, {"queue": 2.5}, "queue=2.5 is not a whole number"),
        (Limits, {"images": True}, "images=True is not a whole number"),
        (Limits, {"queue": 8}, "queue=8 has no room for a request of images=64"),
        (Limits, {"deadline": 0}, "deadline=0 is not a number of seconds over 0"),
        (Limits, {"deadline": float("inf")}, "deadline=inf is not"),
        (Limits, {"drain": -1}, "drain=-1 is not a number of seconds from 0 on"),
        (Running, {"batch": 0}, "batch=0 is not"),
        (Running, {"threads": 0}, "threads=0 is not"),
        (Running, {"wait": 2}, "wait=2 is longer than a person waits"),
        (Asked, {"kind": "guess"}, "kind='guess' is not one of predict, embed, explain"),
        (Asked, {"masks": "png"}, "masks='png' is not one of polygons, rle"),
        (Asked, {"top": 0}, "top=0 is not"),
        (Asked, {"threshold": float("nan")}, "threshold=nan is not between 0 and 1"),
    ],
)
def test_what_cannot_be_is_a_sentence(kind: Any, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}"):
        kind(**wrong)


def test_a_job_is_asked_as_it_says() -> None:
    assert Job("explain", (b"x",), 2, 0.25, "rle", "cat").asked == Asked("explain", 2, 0.25, "rle", "cat")
    with pytest.raises(ValueError, match="one image at least"):
        Job("predict", ())
    with pytest.raises(ValueError, match=r"^top=0"):
        Job("predict", (b"x",), top=0)
