"""What a detector or segmenter is, as data: DenseConfig, from a name such as retinanet/poolformer_s12, and written as JSON.

The defaults are the published ones: arXiv 2111.11418, section 4.2 and 4.3, and its code.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from metaformer.core import spec
from metaformer.core.architecture import NORMS, SPECS, MetaFormerConfig
from metaformer.core.layers import MLN, BatchNorm, GroupNorm, NoNorm, Norm
from metaformer.zoo import HEADS, get_config

VOID = 255
"""A pixel of a region map, (H, W) of class numbers, that nobody is asked about."""
TIMM = "timm:"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PLAIN: dict[str, Any] = {"head_channels": 256, "head_norm": NoNorm(), "head_dropout": 0.0}
# fmt: off
DEFAULTS: dict[str, dict[str, Any]] = {
    "retinanet":    PLAIN | {"anchor_scale": 4.0},
    "faster_rcnn":  PLAIN | {"anchor_scale": 8.0},
    "mask_rcnn":    PLAIN | {"anchor_scale": 8.0},
    "semantic_fpn": {"head_channels": 128, "head_norm": BatchNorm(), "head_dropout": 0.1},
    "upernet":      {"head_channels": 512, "head_norm": GroupNorm(), "head_dropout": 0.1},
}
# fmt: on
"""What a head has unless it is told otherwise. Published but for UPerNet: there batch norm would fail on a batch of one."""
SEGMENTERS = ("semantic_fpn", "upernet")
MOST_REGIONS = 255
"""Classes of a segmenter, whose answers are maps of bytes."""
CLASSIFIER = ("num_classes", "head", "head_norm", "head_dropout", "pool_first")
"""Fields of a MetaFormerConfig that are of its classifier, which a backbone does not have."""


@dataclass(frozen=True, kw_only=True)
class TimmConfig:
    """A backbone of timm's."""

    name: str
    in_chans: int = 3
    drop_path: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """What a model of boxes, instances or regions is. Norms may also be given as text, such as "GroupNorm(groups=16)"."""

    head: str
    """retinanet, faster_rcnn, mask_rcnn, semantic_fpn or upernet."""
    backbone: MetaFormerConfig | TimmConfig
    num_classes: int
    """Without a background. Of regions at most 255: a map's bytes are numbers of classes, and 255 is none."""
    channels: int = 256
    """Of the feature pyramid; UPerNet has one of its own, of head_channels."""
    map_norm: Norm = MLN(eps=1e-5, bias=True)
    """On each of the backbone's maps that is used."""
    head_channels: int = 256
    """Of the convolutions that the head has on the pyramid."""
    head_norm: Norm = NoNorm()
    """After each of them."""
    head_dropout: float = 0.0
    """Probability that a channel is left out before the classifier of regions; detectors have none."""
    anchor_scale: float = 8.0
    """Side of a detector's smallest anchor over the stride of its level."""
    mean: tuple[float, ...] = IMAGENET["mean"]
    """Of pixels between 0 and 1, with `std`: what bytes are normalised by."""
    std: tuple[float, ...] = IMAGENET["std"]

    def __post_init__(self) -> None:
        for name in ("map_norm", "head_norm"):
            object.__setattr__(self, name, _norm(name, getattr(self, name)))
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if self.head not in HEADS:
            raise ValueError(f"no head {self.head!r}{spec.nearest(self.head, list(HEADS))}")
        for name in ("num_classes", "channels", "head_channels"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name}={value!r} is not a whole number from 1 on")
        if self.task == "segmentation" and self.num_classes > MOST_REGIONS:
            raise ValueError(f"num_classes={self.num_classes} is too many for {self.head}: at most {MOST_REGIONS} are possible")
        if not 0 <= self.head_dropout < 1:
            raise ValueError(f"head_dropout={self.head_dropout} is not at least 0 and below 1")
        if not self.anchor_scale > 0:
            raise ValueError(f"anchor_scale={self.anchor_scale} is not above 0")
        chans = self.backbone.in_chans
        if not len(self.mean) == len(self.std) == chans or min(self.std) <= 0:
            raise ValueError(f"mean={self.mean}, std={self.std}: give {chans} of each, one a channel, std above 0")

    @property
    def task(self) -> str:
        """What the model is for: detection, instances or segmentation."""
        return "segmentation" if self.head in SEGMENTERS else "instances" if self.head == "mask_rcnn" else "detection"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; specs as text."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        norms = {name: spec.to_text(data[name]) for name in ("map_norm", "head_norm")}
        own = self.backbone
        backbone = {"timm": asdict(own)} if isinstance(own, TimmConfig) else own.to_dict()
        return data | norms | {"backbone": backbone, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "DenseConfig":
        """The config that `to_dict` wrote. Raises ValueError for unknown names."""
        known = [f.name for f in fields(cls)]
        for name in data:
            if name not in known:
                raise ValueError(f"a dense model has no {name!r}{spec.nearest(name, known)}")
        backbone = data["backbone"]
        made = TimmConfig(**backbone["timm"]) if "timm" in backbone else MetaFormerConfig.from_dict(backbone)
        read: dict[str, Any] = {**data, "backbone": made}
        return cls(**read)


def _norm(name: str, value: Any) -> Any:
    made = spec.from_text(value, SPECS) if isinstance(value, str) else value
    if not callable(made) or isinstance(made, tuple(set(SPECS.values()) - set(NORMS))):
        raise ValueError(f"{name}={value!r} is no norm: give {', '.join(cls.__name__ for cls in NORMS)}")
    return made


def get_dense_config(name: str, *, num_classes: int, in_chans: int = 3, **changes: Any) -> DenseConfig:
    """The config that `head/backbone` names, with fields of DenseConfig or of the backbone's changed.

    The backbone is a name of the zoo's, or `timm:` and a name of timm's. One of the zoo has a stem of stride 4 unless
    `stem_stride` says otherwise. Raises ValueError that names the nearest right name or field.
    """
    head, _, backbone = name.partition("/")
    if head not in HEADS:
        raise ValueError(f"no head {head!r} in {name!r}{spec.nearest(head, list(HEADS))}")
    if not backbone:
        get_config(name)  # which says what is missing
    own = {f.name for f in fields(DenseConfig)} - {"head", "backbone", "num_classes"}
    if head in SEGMENTERS and "anchor_scale" in changes:
        raise ValueError(f"{name} has no anchor_scale, which is for detectors")
    of_head: dict[str, Any] = {key: value for key, value in changes.items() if key in own}
    of_backbone = {key: value for key, value in changes.items() if key not in own}
    if in_chans != len(IMAGENET["mean"]):
        of_head = {"mean": (0.5,) * in_chans, "std": (0.25,) * in_chans} | of_head
    allowed = {f.name for f in fields(TimmConfig if backbone.startswith(TIMM) else MetaFormerConfig)} - {"name"}
    for key in of_backbone:
        if key in CLASSIFIER or key not in allowed:
            raise ValueError(f"{name} has no {key!r}{spec.nearest(key, sorted((allowed - set(CLASSIFIER)) | own))}")
    made: MetaFormerConfig | TimmConfig
    if backbone.startswith(TIMM):
        made = TimmConfig(name=backbone.removeprefix(TIMM), in_chans=in_chans, **of_backbone)
    else:
        made = get_config(backbone, **({"stem_stride": 4} | of_backbone), in_chans=in_chans, num_classes=0)
    changed: dict[str, Any] = DEFAULTS[head] | of_head
    return DenseConfig(head=head, backbone=made, num_classes=num_classes, **changed)
