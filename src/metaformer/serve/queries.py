"""What a request asks for after the question mark: read strictly, refused with the word that was meant."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from metaformer.serve.jobs import MASKS, Kind, Masks, Model
from metaformer.serve.refusals import Refusal, meant, quoted

PARAMETERS: dict[Kind, tuple[str, ...]] = {
    "predict": ("model", "top", "threshold", "masks"),
    "embed": ("model",),
    "explain": ("model", "label"),
}
MOST_TOP = 1000
"""Classes told of an image: of 64 images and 21,841 classes all would be gigabytes, here and in the model's process."""
NUMBER = re.compile(r"\+?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


@dataclass(frozen=True)
class Query:
    """What is asked of which model; what is not given is as in `Job`."""

    model: Model
    top: int = 5
    threshold: float = 0.5
    masks: Masks = "polygons"
    label: str | None = None


def read_query(kind: Kind, query: bytes, models: Mapping[str, Model]) -> Query:
    """The query of a path. Raises Refusal: 422 for what cannot be, 404 for a model or class that there is not."""
    given = _pairs(kind, query) if query else {}
    model = _model(kind, given.get("model"), models)
    return Query(model, _top(given), _threshold(given), _masks(given), _label(given.get("label"), model))


def _pairs(kind: Kind, query: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=16)
    except ValueError as error:
        raise Refusal(422, "bad_query", "the query is not up to 16 parameters in UTF-8") from error
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in PARAMETERS[kind]:
            said = meant(name, PARAMETERS[kind], f"/{kind} takes")
            raise Refusal(422, "unknown_parameter", f"there is no parameter {quoted(name)}: {said}")
        if name in given:
            raise Refusal(422, "bad_query", f"{name} is given twice")
        given[name] = value
    return given


def able(kind: Kind, models: Mapping[str, Model]) -> list[str]:
    """Names of the models that can do it, in their order."""
    return [name for name, model in models.items() if _can(kind, model)]


def _can(kind: Kind, model: Model) -> bool:
    return {"predict": True, "embed": model.embeds > 0, "explain": model.explains}[kind]


def _model(kind: Kind, name: str | None, models: Mapping[str, Model]) -> Model:
    able_ones = able(kind, models)
    if name is None:
        if not able_ones:
            raise Refusal(422, "unable", f"no model here can {kind}, as only runs of classifiers can")
        return models[able_ones[0]]
    if name not in models:
        raise Refusal(404, "no_model", f"there is no model {quoted(name)}: {meant(name, models, 'there are')}")
    if name not in able_ones:
        others = f"; {', '.join(able_ones)} can" if able_ones else ""
        raise Refusal(422, "unable", f"the model {name} cannot {kind}, as only runs of classifiers can{others}")
    return models[name]


def _top(given: Mapping[str, str]) -> int:
    text = given.get("top", "5")
    if not re.fullmatch(r"\+?\d{1,12}", text, re.ASCII) or not 1 <= int(text) <= MOST_TOP:
        raise Refusal(422, "bad_value", f"top={quoted(text)} is not a whole number from 1 to {MOST_TOP}")
    return int(text)


def _threshold(given: Mapping[str, str]) -> float:
    text = given.get("threshold", "0.5")
    if len(text) > 64 or not NUMBER.fullmatch(text) or not 0 <= float(text) <= 1:
        raise Refusal(422, "bad_value", f"threshold={quoted(text)} is not a number from 0 to 1")
    return float(text)


def _masks(given: Mapping[str, str]) -> Masks:
    text = given.get("masks", "polygons")
    for masks in MASKS:
        if text == masks:
            return masks
    raise Refusal(422, "bad_value", f"masks={quoted(text)} is not one of {', '.join(MASKS)}")


def _label(text: str | None, model: Model) -> str | None:
    if text is not None and text not in model.classes:
        said = meant(text, model.classes, "its classes are")
        raise Refusal(404, "no_class", f"the model {model.name} has no class {quoted(text)}: {said}")
    return text
