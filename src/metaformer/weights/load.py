"""Reads weights of any known format into a model: all of them fit, or a list says what does not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.model import MetaFormer
from metaformer.dense.config import DenseConfig
from metaformer.dense.model import Dense
from metaformer.weights.adapt import Change, adaptation, classifier_keys
from metaformer.weights.files import Source, bad_values, open_weights
from metaformer.weights.formats import BODY, FORMATS, rename
from metaformer.weights.match import Shapes, alike, as_given, find_format, own_shapes

Model = TypeVar("Model", bound=MetaFormer | Dense)
Weights = str | Path | Mapping[str, Any] | Source
"""A file, a folder, or tensors by name."""


WHOLE = (torch.int64,)
"""What counts: BatchNorm's batches."""


@dataclass(frozen=True)
class Report:
    """What was read into a model."""

    format: str
    """Whose names they were: ours, v1, v2, timm, transformers, mmpretrain, mmdet or mmseg."""
    part: str
    """Which part of a checkpoint they were, such as `model_ema`; empty where the file holds nothing else."""
    notes: tuple[str, ...]
    """What was changed to make them fit, a sentence each."""
    answers: bool = True
    """Whether the classifier is theirs too."""


@dataclass(frozen=True)
class Plan:
    """Where each tensor of a source goes."""

    format: str
    keys: dict[str, str]
    """Their name → ours."""
    changes: dict[str, Change]
    """Our name → what makes a tensor fit that does not as it is."""


def load_weights(model: Model, source: Weights, *, adapt: bool = False, ema: bool | None = None, finite: bool = True) -> Model:
    """Fills `model` in place from a file, a folder or a state dict, and returns it.

    The format is recognised by its names: ours, the two papers' published code, timm, transformers, mmpretrain; of dense
    models mmdetection's and mmsegmentation's. Matrices become 1×1 convolutions. `adapt=True` also makes weights fit other
    classes, channels or places, and a dense model take a classifier's for its backbone: `fit_weights` tells how.
    `ema=True` takes a checkpoint's moving average, False its other weights, None the average where there is one.
    `finite=False` lets NaN and infinity in.
    Raises FileNotFoundError; ValueError that lists what is missing, unexpected or of another shape, and then nothing was
    changed; ValueError that names the tensor with NaN or infinity, and then the model may be filled in part.
    """
    fit_weights(model, source, adapt=adapt, ema=ema, finite=finite)
    return model


def fit_weights(
    model: MetaFormer | Dense,
    source: Weights,
    *,
    adapt: bool = False,
    ema: bool | None = None,
    finite: bool = True,
) -> Report:
    """As `load_weights`, and tells what was read and what was changed on the way."""
    own = model.state_dict()
    if any(tensor.is_meta for tensor in own.values()):
        raise ValueError('a model on the meta device holds no weights: model.to_empty(device="cpu") gives it room for them')
    given = source if isinstance(source, Source) else open_weights(source, ema=ema)
    plan = make_plan(given.shapes, {key: tuple(tensor.shape) for key, tensor in own.items()}, model.config, adapt=adapt)
    notes = tuple(dict.fromkeys(change.note() for change in plan.changes.values()))
    with torch.no_grad():
        for key, tensor in read_planned(given, plan, finite=finite):
            shared = tensor.untyped_storage().data_ptr() == own[key].untyped_storage().data_ptr()
            own[key].copy_((tensor.clone() if shared else tensor).view(own[key].shape))
    answers = all(change.apply is not None for change in plan.changes.values())
    return Report(plan.format, given.part, notes, answers)


def read_planned(given: Source, plan: Plan, *, finite: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Our names and tensors, one by one. Raises ValueError where one has NaN or infinity and `finite` forbids it."""
    for name, tensor in given.tensors():
        key = plan.keys.get(name)
        change = plan.changes.get(key or "")
        if key is None or (change is not None and change.apply is None):
            continue
        if finite and not (tensor.is_floating_point() or tensor.dtype in WHOLE):
            raise ValueError(f"{name} holds {tensor.dtype}: weights are floating-point numbers")
        if finite and any(bad_values(tensor)):
            nan, inf = bad_values(tensor)
            held = f"{nan:,} NaN and {inf:,} infinite values of {tensor.numel():,}"
            raise ValueError(f"{name} holds {held}: these weights are spoilt; finite=False lets them in")
        yield key, tensor if change is None or change.apply is None else change.apply(tensor)


# --- what fits --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Misfits:
    """Their names of what does not fit."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)


def make_plan(given: Shapes, own: Shapes, config: MetaFormerConfig | DenseConfig, *, adapt: bool = False) -> Plan:
    """Matches names and shapes of a source and of a model. Raises ValueError that lists what does not fit."""
    plan, misfits = _match(given, own, config, adapt=adapt)
    if not misfits:
        return plan
    theirs = {name: own[key] for name, key in plan.keys.items()}
    shapes = [f"{name}: file {list(given[name])}, model {list(theirs[name])}" for name in misfits.misshapen]
    hint = "" if adapt or _match(given, own, config, adapt=True)[1] else "\nadapt=True makes them fit"
    raise ValueError(
        f"these weights do not fit (read as format {plan.format!r})"
        + _listed("missing", misfits.missing)
        + _listed("unexpected", misfits.unexpected)
        + _listed("of another shape", shapes)
        + hint
    )


def _match(given: Shapes, own: Shapes, config: MetaFormerConfig | DenseConfig, *, adapt: bool) -> tuple[Plan, Misfits]:
    if isinstance(config, DenseConfig):
        return _match_dense(given, own, config, adapt=adapt)
    format = find_format(given) or _nearest_format(given, own, config)
    keys = {rename(key, format, config): key for key in own}
    missing, unexpected = keys.keys() - given.keys(), given.keys() - keys.keys()
    misshapen = {name for name in keys.keys() & given.keys() if not alike(given[name], own[keys[name]])}
    changes: dict[str, Change] = {}
    if adapt:
        for name in sorted(misshapen):
            change = adaptation(keys[name], given[name], own[keys[name]])
            if change is not None:
                changes[keys[name]] = change
        misshapen = {name for name in misshapen if keys[name] not in changes}
        head = {rename(key, format, config): key for key in classifier_keys(config)}
        if config.num_classes == 0 and unexpected & head.keys():
            changes["head.classifier"] = Change(lambda: "classifier: left out, the model has none", None)
            unexpected -= head.keys()
        elif head.keys() <= missing:
            note = f"classifier: new, of {config.num_classes} classes, the file has none"
            changes["head.classifier"] = Change(lambda: note, None)
            missing -= head.keys()
    return Plan(format, keys, changes), Misfits(sorted(missing), sorted(unexpected), sorted(misshapen))


def _match_dense(given: Shapes, own: Shapes, config: DenseConfig, *, adapt: bool) -> tuple[Plan, Misfits]:
    format = find_format(given, config)
    if adapt and format is None and find_format(given) and isinstance(config.backbone, MetaFormerConfig):
        return _match_backbone(given, own, config.backbone)
    format = format or "ours"
    keys = {rename(key, format, config): key for key in own}
    unused = "backbone.norm0." if config.head == "retinanet" else "-"  # theirs has it where it was not told to leave it out
    missing = keys.keys() - given.keys()
    unexpected = {name for name in given.keys() - keys.keys() if not name.startswith(unused)}
    misshapen = {name for name in keys.keys() & given.keys() if not alike(given[name], own[keys[name]])}
    found = {keys[name]: adaptation(keys[name], given[name], own[keys[name]]) for name in sorted(misshapen) if adapt}
    changes = {key: change for key, change in found.items() if change is not None}
    misshapen = {name for name in misshapen if keys[name] not in changes}
    return Plan(format, keys, changes), Misfits(sorted(missing), sorted(unexpected), sorted(misshapen))


def _match_backbone(given: Shapes, own: Shapes, config: MetaFormerConfig) -> tuple[Plan, Misfits]:
    """A classifier's weights for the backbone of a dense model; the rest of it stays as it is."""
    format = find_format(given) or "ours"
    classifier = as_given(config, given, format)
    head = {rename(key, format, classifier) for key in own_shapes(classifier) if key.startswith("head.")}
    body = {key.removeprefix(BODY): shape for key, shape in own.items() if key.startswith(BODY)}
    rest = {name: shape for name, shape in given.items() if name not in head}
    plan, misfits = _match(rest, body, replace(config, num_classes=0), adapt=True)
    changes = {BODY + key: change for key, change in plan.changes.items()}
    changes["head"] = Change(lambda: "backbone: read; what is above it is new, the file has a classifier", None)
    return Plan(format, {name: BODY + key for name, key in plan.keys.items()}, changes), misfits


def _nearest_format(given: Shapes, own: Shapes, config: MetaFormerConfig) -> str:
    """For weights without a stem."""
    return max(FORMATS, key=lambda format: len({rename(key, format, config) for key in own} & given.keys()))


def _listed(what: str, names: list[str], most: int = 8) -> str:
    if not names:
        return ""
    more = f"\n    and {len(names) - most} more" if len(names) > most else ""
    return f"\n  {what} ({len(names)}):" + "".join(f"\n    {name}" for name in names[:most]) + more
