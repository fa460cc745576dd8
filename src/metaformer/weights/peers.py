"""timm's models under our roof, so that a peer is trained, judged and used by the same tool: `timm:resnet18`."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from metaformer.weights.imagenet import class_names, synsets

PREFIX = "timm:"


@dataclass(frozen=True, kw_only=True)
class PeerConfig:
    """What it takes to make a model of timm's."""

    name: str
    num_classes: int
    in_chans: int
    image_size: int
    drop_path: float = 0.0
    head_dropout: float = 0.0
    """timm's drop_rate, which some of its architectures apply in their blocks too."""


class Peer(nn.Module):
    """timm's model of that name. Raises ValueError where timm has none, or none for that image size."""

    def __init__(self, config: PeerConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _make(config)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def forward_map(self, x: Tensor) -> Tensor:
        """What the model has before its head, as timm lays it out."""
        return self.model.forward_features(x)


def peer_size(name: str) -> int:
    """The side in pixels that timm's model was made for."""
    import timm

    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return 224 if known is None else known.input_size[-1]


def create_published_peer(name: str) -> tuple[Peer, dict[str, Any]]:
    """timm's model with the weights that timm publishes for it, and what is to know of them: ImageNet's classes, preprocessing.

    Raises ValueError where there are none of ImageNet-1K, OSError where they cannot be fetched.
    """
    import timm

    try:
        known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError as error:  # a tag that the model has not
        raise ValueError(f"{PREFIX}{name}: {str(error).splitlines()[0]}") from error
    if known is None or not known.has_weights or known.num_classes != 1000:
        near = get_close_matches(name, timm.list_pretrained(), n=1, cutoff=0.6)
        meant = f", did you mean {PREFIX}{near[0]}?" if near else ""
        raise ValueError(f"timm publishes no weights of ImageNet-1K for {PREFIX + name!r}{meant}")
    channels, _, size = known.input_size
    peer = Peer(PeerConfig(name=name, num_classes=1000, in_chans=channels, image_size=size))
    peer.model.load_state_dict(timm.create_model(name, pretrained=True).state_dict())
    fed = {"size": size, "mean": list(known.mean), "std": list(known.std), "fit": "crop", "crop_fraction": known.crop_pct}
    about = {"task": "classification", "classes": list(class_names(1000)), "synsets": list(synsets(1000)), "preprocess": fed}
    return peer, about


def _make(config: PeerConfig) -> Any:
    import timm

    if not timm.is_model(config.name):
        near = get_close_matches(config.name, timm.list_models(), n=1, cutoff=0.6)
        raise ValueError(f"timm has no model {PREFIX + config.name!r}{f', did you mean {PREFIX}{near[0]}?' if near else ''}")
    options: dict[str, Any] = {"num_classes": config.num_classes, "in_chans": config.in_chans}
    if config.head_dropout:
        options["drop_rate"] = config.head_dropout
    known = timm.get_pretrained_cfg(config.name)
    if known is not None and known.fixed_input_size:
        options["img_size"] = config.image_size
    try:
        try:
            return timm.create_model(config.name, drop_path_rate=config.drop_path, **options)
        except TypeError as error:
            if "drop_path_rate" not in str(error):
                raise
            return timm.create_model(config.name, **options)  # not every architecture has drop path
    except (AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(f"timm's {config.name} cannot be made for {config.image_size} pixels: choose image_size=") from error
