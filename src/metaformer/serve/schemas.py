"""What goes in and out, for readers, validators and the OpenAPI description. Answers are not validated on their way out."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_NAME = 255
"""Characters of an image's name."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Base64 = Annotated[str, Field(min_length=1, json_schema_extra={"contentEncoding": "base64"})]
"""Looked at when it is decoded: what is none of it is that image's error."""
Phase = Literal["ready", "starting", "draining"]
Share = Annotated[float, Field(ge=0, le=1)]


# --- in ---------------------------------------------------------------------------------------------------------------


class NamedImage(_Strict):
    """An image and what its answer shall call it."""

    name: Annotated[str, Field(max_length=MOST_NAME)] | None = None
    data: Base64


class Upload(_Strict):
    """Images as JSON."""

    images: Annotated[list[Base64 | NamedImage], Field(min_length=1, fail_fast=True)]


# --- out --------------------------------------------------------------------------------------------------------------


class Unread(_Strict):
    """Of an image that cannot be read: why, in a sentence."""

    name: str | None
    error: str


class Guess(_Strict):
    """A class and how probable it is."""

    label: str
    probability: Share


class Classified(_Strict):
    """What one image shows, the most probable class first. A classifier of several labels may find none."""

    name: str | None
    label: str | None
    probability: Share | None
    top: list[Guess]


class Rle(_Strict):
    """COCO's compressed run lengths, column by column."""

    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    counts: str


class Thing(_Strict):
    """An object: its box as left, top, right, bottom, and of instance masks its outline."""

    label: str
    score: Share
    box: Annotated[list[float], Field(min_length=4, max_length=4)]
    polygons: list[list[float]] | None = None
    rle: Rle | None = None


class Detected(_Strict):
    """Objects of one image, in pixels of the image as it is shown, upright."""

    name: str | None
    width: int
    height: int
    objects: list[Thing]


class Region(_Strict):
    """A class that is there, and what share of the image it covers."""

    label: str
    index: int
    share: Share


class Segmented(_Strict):
    """Each pixel's class: a grey PNG of class numbers, as base64 (in msgpack: bytes)."""

    name: str | None
    width: int
    height: int
    png: str
    regions: list[Region]


class Embedded(_Strict):
    """What the model makes of an image before it decides."""

    name: str | None
    embedding: list[float]


class Explained(_Strict):
    """Where the model looked: Grad-CAM as a grey PNG in base64, which lies over `box` of the upright image."""

    name: str | None
    label: str
    probability: Share
    width: int
    height: int
    box: Annotated[list[float], Field(min_length=4, max_length=4)]
    heat: str


class Predictions(_Strict):
    """One record for each image, in their order."""

    model: str
    task: Literal["classification", "detection", "instances", "segmentation"]
    seconds: float
    results: list[Classified | Detected | Segmented | Unread]


class Embeddings(_Strict):
    """One embedding for each image, in their order."""

    model: str
    dimensions: int
    seconds: float
    results: list[Embedded | Unread]


class Explanations(_Strict):
    """One map for each image, in their order."""

    model: str
    seconds: float
    results: list[Explained | Unread]


class ServedModel(_Strict):
    """A model that is served."""

    name: str
    source: str
    task: str
    classes: list[str]
    size: int | None
    engine: str
    precision: str
    several: bool
    embeds: int
    explains: bool


class ServedLimits(_Strict):
    """Most that is taken: bytes, pixels, images, seconds."""

    body: int
    image: int
    pixels: int
    images: int
    queue: int
    deadline: float
    read: float
    drain: float


class Models(_Strict):
    """What is served, and within which limits."""

    models: list[ServedModel]
    default: str
    limits: ServedLimits
    keys: bool
    status: Phase


class Health(_Strict):
    """The process is there."""

    status: Literal["alive"] = "alive"


class Readiness(_Strict):
    """Whether requests are answered."""

    status: Phase


class Fault(_Strict):
    """What went wrong."""

    code: str
    message: str
    request_id: str


class ErrorAnswer(_Strict):
    """Every answer that is no success."""

    error: Fault
