"""Every published file of weights, as rows of a table: which model, trained on what, where it is, how to feed it.

125 files hold 65 sets of weights: the two papers' own files, and the same values as timm, transformers and mmpretrain
publish them. Sources: the papers' code (github.com/sail-sg/poolformer, github.com/sail-sg/metaformer), timm's
`models/metaformer.py`, mmpretrain's `configs/poolformer/metafile.yml`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from metaformer.weights.imagenet import class_names, synsets
from metaformer.zoo import TOP1, ZOO

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels; every published model is fed with them."""

V1 = "https://github.com/sail-sg/poolformer/releases/download/v1.0"
OPENMMLAB = "https://download.openmmlab.com/mmclassification/v0/poolformer"

# fmt: off
TAGS: dict[str, tuple[str, str, int, int]] = {
    # tag                   v2's file ends     timm's tag                  side  classes
    "in1k":               ("",                "sail_in1k",                  224,   1000),
    "in1k_384":           ("_384",            "sail_in1k_384",              384,   1000),
    "in21k":              ("_in21k",          "sail_in22k",                 224,  21841),
    "in21k_ft_in1k":      ("_in21ft1k",       "sail_in22k_ft_in1k",         224,   1000),
    "in21k_ft_in1k_384":  ("_384_in21ft1k",   "sail_in22k_ft_in1k_384",     384,   1000),
}
"""What the weights were trained on. timm says 22k for the same 21,841 classes."""
DEFAULT = "in1k"
"""The tag that `weights=True` and a bare model name stand for: ImageNet-1K alone, at 224 pixels."""

CROP = {
    "poolformer_m36": 0.95, "poolformer_m48": 0.95,
    "metaformer_pppa_s12_224": 0.95, "metaformer_ppaa_s12_224": 0.95, "metaformer_ppff_s12_224": 0.95,
}
"""The share of a resized image's side that is kept, where it is not 0.9 (v1) or 1.0 (v2)."""

TOP1_21K: dict[str, tuple[float, float]] = {
    "convformer_s18": (83.7, 85.0), "convformer_s36": (85.4, 86.4),
    "convformer_m36": (86.1, 86.9), "convformer_b36": (87.0, 87.6),
    "caformer_s18":   (84.1, 85.4), "caformer_s36":   (85.8, 86.9),
    "caformer_m36":   (86.6, 87.5), "caformer_b36":   (87.4, 88.1),
}
"""Published ImageNet-1K top-1 at 224 and 384, in percent, trained on ImageNet-21K and fine-tuned; arXiv 2210.13452."""

MMPRETRAIN = {"s12": "f8d83051", "s24": "d7055904", "s36": "d78ff3e8", "m36": "c55e0949", "m48": "9378f3eb"}
"""The first digits of each file's SHA-256, which its name ends with."""
# fmt: on


@dataclass(frozen=True)
class Published:
    """One file of weights that somebody publishes."""

    model: str
    tag: str
    format: str
    """How its keys read: v1, v2, timm, transformers or mmpretrain."""
    where: str
    """A Hugging Face repository, or the address that the file lies under."""
    file: str
    size: int
    """Side of the images in pixels."""
    num_classes: int
    crop_fraction: float
    """Resize the short side to floor(size / this), bicubic, then crop the centre."""
    top1: float | None
    """Published ImageNet-1K top-1 in percent."""
    licence: str = "Apache-2.0"

    @property
    def name(self) -> str:
        """`caformer_s18.in1k`."""
        return f"{self.model}.{self.tag}"

    @property
    def on_hub(self) -> bool:
        """Whether it is in a Hugging Face repository."""
        return "://" not in self.where

    @property
    def classes(self) -> tuple[str, ...]:
        """ImageNet's names, in the order of the logits."""
        return class_names(self.num_classes)

    @property
    def preprocess(self) -> dict[str, Any]:
        """How images are made ready, as `Preprocess.from_dict` takes it."""
        return {"size": self.size, "mean": list(MEAN), "std": list(STD), "fit": "crop", "crop_fraction": self.crop_fraction}

    def about(self) -> dict[str, Any]:
        """What stands beside weights in a folder, in model.json: task, classes, preprocessing, figures. JSON-ready."""
        source = f"{self.where}/{self.file}"
        return {
            "task": "classification", "classes": list(self.classes), "synsets": list(synsets(self.num_classes)),
            "preprocess": self.preprocess, "weights": self.name, "source": source, "licence": self.licence,
            "published_top1": self.top1,
        }  # fmt: skip


def _rows() -> Iterator[Published]:
    for model in ZOO:
        for tag in _tags(model):
            yield from _files(model, tag)


def _tags(model: str) -> list[str]:
    """Those that a model's weights are published under."""
    if model.endswith("_t6"):
        return []
    return list(TAGS) if model in TOP1_21K else [DEFAULT]


def _files(model: str, tag: str) -> Iterator[Published]:
    """The files of one set of weights, the best to read first: safetensors, then the papers' own."""
    ending, timm_tag, size, num_classes = TAGS[tag]
    family, _, variant = model.rpartition("_")
    first = family == "poolformer" or model.startswith("metaformer_")
    crop = CROP.get(model, 0.9) if first else 1.0

    def row(format: str, where: str, file: str) -> Published:
        return Published(model, tag, format, where, file, size, num_classes, crop, _top1(model, tag))

    if family in ("poolformer", "poolformerv2", "convformer", "caformer"):
        yield row("timm", f"timm/{model}.{timm_tag}", "model.safetensors")
    yield row("v1", V1, f"{model}.pth.tar") if first else row("v2", "sail/dl", f"{family}/{model}{ending}.pth")
    if family == "poolformer":
        yield row("transformers", f"sail/{model}", "pytorch_model.bin")
        digits = MMPRETRAIN[variant]
        yield row("mmpretrain", OPENMMLAB, f"poolformer-{variant}_3rdparty_32xb128_in1k_20220414-{digits}.pth")


def _top1(model: str, tag: str) -> float | None:
    if tag == "in21k":
        return None
    known = TOP1_21K if tag.startswith("in21k") else TOP1
    return known.get(model, (None, None))[tag.endswith("_384")]


ROWS: tuple[Published, ...] = tuple(_rows())


def find(model: str, tag: str | bool = True) -> Published:
    """The file to read for a model's weights; True is `in1k`, at 224 pixels.

    Where the same weights are published in several formats, safetensors come first; `in1k@v1` asks for one of them.
    Raises ValueError that names what there is.
    """
    mine = [row for row in ROWS if row.model == model]
    if not mine:
        raise ValueError(
            f"no weights are published for {model}: train it, metaformer train {model}, and name the run, "
            "or give a file; metaformer weights lists what is published"
        )
    wanted, _, format = (DEFAULT if isinstance(tag, bool) else tag).partition("@")
    tagged = [row for row in mine if row.tag == wanted]
    found = [row for row in tagged if format in ("", row.format)]
    if not tagged:
        tags = list(dict.fromkeys(row.tag for row in mine))
        near = get_close_matches(wanted, tags, n=1, cutoff=0.8)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(tags)}; a file's path also does"
        raise ValueError(f"{model} has no published weights {wanted!r}: {meant}")
    if not found:
        forms = ", ".join(f"{wanted}@{row.format}" for row in tagged)
        raise ValueError(f"{model} has no weights {tag!r}: there are {forms}")
    return found[0]


def list_weights(pattern: str = "*") -> list[Published]:
    """The rows whose model or `model.tag` matches a glob. Raises ValueError if none does."""
    found = [row for row in ROWS if fnmatchcase(row.model, pattern) or fnmatchcase(row.name, pattern)]
    if not found:
        near = get_close_matches(pattern, {row.model: None for row in ROWS}, n=1, cutoff=0.6)
        meant = f"did you mean {near[0]}?" if near else "metaformer weights lists all"
        raise ValueError(f"no published weights match {pattern!r}; {meant}")
    return found
