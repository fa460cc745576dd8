"""A classifier to look into: the model, its classes, and how images are made ready for it; ours or timm's, with weights."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from metaformer.core.device import choose_device
from metaformer.data.preprocess import Preprocess
from metaformer.infer.about import is_dense_source, read_about
from metaformer.infer.exported import is_exported
from metaformer.infer.source import open_source
from metaformer.weights.peers import PREFIX, create_published_peer
from metaformer.weights.pretrained import Model
from metaformer.zoo import HEADS


@dataclass(frozen=True)
class Classifier:
    """A model in evaluation mode on its device."""

    name: str
    model: Model
    classes: tuple[str, ...]
    preprocess: Preprocess
    several: bool
    """Whether an image may have several labels."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def number(self, label: str) -> int:
        """Which of its classes that is. Raises ValueError for none."""
        if label not in self.classes:
            near = get_close_matches(label, self.classes, n=1, cutoff=0.6)
            few = ", ".join(self.classes[:10]) + (" ..." if len(self.classes) > 10 else "")
            raise ValueError(f"{label!r} is no class of {self.name}" + (f", did you mean {near[0]}?" if near else f": {few}"))
        return self.classes.index(label)


def open_model(source: str | Path, model: Model | None, device: str) -> tuple[Model, dict[str, Any]]:
    """As `open_source`; `timm:NAME` is timm's model with the weights that timm publishes."""
    if not str(source).startswith(PREFIX):
        return open_source(source, model, device)
    peer, about = create_published_peer(str(source).removeprefix(PREFIX))
    return peer.eval().to(choose_device(device)), about


def open_classifier(source: str | Path, model: Model | None = None, device: str = "auto") -> Classifier:
    """Raises ValueError or OSError with a sentence, also for what has no gradients or is no classifier."""
    if is_exported(source):
        raise ValueError(
            f"{source} is for a runtime, which has no gradients: explain the run or model that it was exported from"
        )
    if is_dense_source(source) or (not Path(source).exists() and str(source).partition("/")[0] in HEADS):
        raise ValueError(
            f"{source} finds objects or regions, and what is explained are classifiers' answers: "
            f"metaformer predict {source} IMAGE... draws its own, metaformer inspect {source} looks into it"
        )
    made, about = open_model(source, model, device)
    known = read_about(about, source, made.config.num_classes)
    return Classifier(str(source), made, known.classes, known.preprocess, known.several)
