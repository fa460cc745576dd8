"""Training recipes, name → Row: both papers' tables as tables, and ours. v1 is arXiv 2111.11418, v2 is arXiv 2210.13452.

A recipe of the papers has the name of the weights that it makes: `caformer_s18.in1k`. Where the papers and their code give
no settings (ImageNet-21K and what is fine-tuned from it) the choice is ours, and `source` says so.
"""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from metaformer.config import Recipe


@dataclass(frozen=True)
class Row:
    """A recipe, where it is from, and what it is to reach."""

    recipe: Recipe
    source: str
    expected: float | None = None
    """Top-1, mask or box AP or mIoU in percent, published for the papers' recipes, measured by us for ours; None where nobody
    says."""


V1, V2 = "arXiv 2111.11418, section 4.1", "arXiv 2210.13452, section 3"
OURS = "our choice; the papers' code has no settings for it"

SCRATCH = Recipe(
    model="caformer_s18", data="imagenet-1k", image_size=224, fit="crop", crop_fraction=1.0, normalise="imagenet",
    epochs=300, batch=4096,
    optimizer="adamw", lr=4e-3, schedule="epochwise", warmup_epochs=5.0, warmup_lr=1e-6, min_lr=1e-5,
    weight_decay=0.05, clip=None, ema=None,
    label_smoothing=0.1, crop=0.08, pad=0.0, flip=0.5, randaugment="rand-m9-mstd0.5-inc1", erase=0.25,
    mixup=0.8, cutmix=1.0,
)  # fmt: skip
"""What all runs from scratch on ImageNet-1K have in common; section 4.1 of v1 and v2's scripts."""

POOLFORMER = replace(SCRATCH, batch=1024, lr=1e-3)
SIMPLE = SCRATCH
CONVFORMER = replace(SCRATCH, warmup_epochs=20.0)
CAFORMER = replace(SCRATCH, warmup_epochs=20.0, optimizer="lamb", lr=8e-3, clip=1.0)
"""LAMB clips the global norm of the gradient itself."""

TUNED: dict[str, Any] = {
    "epochs": 30, "batch": 1024, "schedule": "constant", "warmup_epochs": 0.0, "mixup": 0.0, "cutmix": 0.0,
    "ema": 0.9999, "ema_warmup": False,
}  # fmt: skip
"""What fine-tuning changes."""
CONV_TUNED = replace(CONVFORMER, **TUNED, lr=5e-5)
CA_TUNED = replace(CAFORMER, **TUNED, lr=1e-4)

# fmt: off
FROM_SCRATCH: tuple[tuple[str, Recipe, float, float, float, float], ...] = (
    # model                recipe      judging crop  drop path  head dropout  top-1
    ("poolformer_s12",     POOLFORMER,  0.90,         0.1,       0.0,          77.2),
    ("poolformer_s24",     POOLFORMER,  0.90,         0.1,       0.0,          80.3),
    ("poolformer_s36",     POOLFORMER,  0.90,         0.2,       0.0,          81.4),
    ("poolformer_m36",     POOLFORMER,  0.95,         0.3,       0.0,          82.1),
    ("poolformer_m48",     POOLFORMER,  0.95,         0.4,       0.0,          82.5),
    ("identityformer_s12", SIMPLE,      1.0,          0.1,       0.0,          74.6),
    ("identityformer_s24", SIMPLE,      1.0,          0.1,       0.0,          78.2),
    ("identityformer_s36", SIMPLE,      1.0,          0.2,       0.0,          79.3),
    ("identityformer_m36", SIMPLE,      1.0,          0.3,       0.0,          80.0),
    ("identityformer_m48", SIMPLE,      1.0,          0.4,       0.0,          80.4),
    ("randformer_s12",     SIMPLE,      1.0,          0.1,       0.0,          76.6),
    ("randformer_s24",     SIMPLE,      1.0,          0.1,       0.0,          78.2),
    ("randformer_s36",     SIMPLE,      1.0,          0.2,       0.0,          79.5),
    ("randformer_m36",     SIMPLE,      1.0,          0.3,       0.0,          81.2),
    ("randformer_m48",     SIMPLE,      1.0,          0.3,       0.0,          81.4),
    ("poolformerv2_s12",   SIMPLE,      1.0,          0.1,       0.0,          78.0),
    ("poolformerv2_s24",   SIMPLE,      1.0,          0.1,       0.0,          80.7),
    ("poolformerv2_s36",   SIMPLE,      1.0,          0.2,       0.0,          81.6),
    ("poolformerv2_m36",   SIMPLE,      1.0,          0.3,       0.0,          82.2),
    ("poolformerv2_m48",   SIMPLE,      1.0,          0.4,       0.0,          82.6),
    ("convformer_s18",     CONVFORMER,  1.0,          0.2,       0.0,          83.0),
    ("convformer_s36",     CONVFORMER,  1.0,          0.3,       0.0,          84.1),
    ("convformer_m36",     CONVFORMER,  1.0,          0.4,       0.0,          84.5),
    ("convformer_b36",     CONVFORMER,  1.0,          0.6,       0.0,          84.8),
    ("caformer_s18",       CAFORMER,    1.0,          0.15,      0.0,          83.6),
    ("caformer_s36",       CAFORMER,    1.0,          0.3,       0.4,          84.5),
    ("caformer_m36",       CAFORMER,    1.0,          0.4,       0.4,          85.2),
    ("caformer_b36",       CAFORMER,    1.0,          0.6,       0.5,          85.5),
)
FINE_TUNED: tuple[tuple[str, Recipe, float, float, float, float, float], ...] = (
    #                                                          top-1 of 1K at 384; of 21K, then 1K at 224 and at 384
    # model                recipe      drop path  head dropout  in1k_384   in21k_ft_in1k   in21k_ft_in1k_384
    ("convformer_s18",     CONV_TUNED,  0.3,       0.4,          84.4,      83.7,           85.0),
    ("convformer_s36",     CONV_TUNED,  0.5,       0.4,          85.4,      85.4,           86.4),
    ("convformer_m36",     CONV_TUNED,  0.8,       0.5,          85.6,      86.1,           86.9),
    ("convformer_b36",     CONV_TUNED,  0.8,       0.5,          85.7,      87.0,           87.6),
    ("caformer_s18",       CA_TUNED,    0.3,       0.4,          85.0,      84.1,           85.4),
    ("caformer_s36",       CA_TUNED,    0.5,       0.4,          85.7,      85.8,           86.9),
    ("caformer_m36",       CA_TUNED,    0.7,       0.4,          86.2,      86.6,           87.5),
    ("caformer_b36",       CA_TUNED,    0.8,       0.5,          86.4,      87.4,           88.1),
)
PRETRAINED: tuple[tuple[str, Recipe, float], ...] = (
    # model                recipe      drop path
    ("convformer_s18",     CONVFORMER,  0.0),
    ("convformer_s36",     CONVFORMER,  0.1),
    ("convformer_m36",     CONVFORMER,  0.2),
    ("convformer_b36",     CONVFORMER,  0.3),
    ("caformer_s18",       CAFORMER,    0.0),
    ("caformer_s36",       CAFORMER,    0.1),
    ("caformer_m36",       CAFORMER,    0.2),
    ("caformer_b36",       CAFORMER,    0.3),
)
"""Ours: fourteen times the images, so less of what keeps a model from learning them by heart."""
# fmt: on

SMALL = Recipe(model="caformer_t6")
"""For many small images (digits, Fashion-MNIST, CIFAR-10)."""

PHOTOS = Recipe(
    model="caformer_t6", recipe="photos", epochs=60, batch=32, lr=1e-3, warmup_epochs=5.0,
    crop=0.35, pad=0.0, randaugment="rand-m6-mstd0.5-inc1", drop_path=0.1,
)  # fmt: skip
"""For some hundreds or thousands of photographs of all sizes."""


SLIM = {"channels": "128", "head_channels": "128", "head_norm": "GroupNorm(groups=16)"}
"""A head that costs a third of the published ones, and less than the backbones that it stands on."""

OBJECTS = Recipe(
    model="retinanet/poolformerv2_t6", recipe="objects", changes=SLIM, image_size=512, epochs=100, batch=8,
    lr=1e-3, warmup_epochs=5.0, layer_decay=0.9, ema=0.998, pad=0.0, label_smoothing=0.0,
)  # fmt: skip
"""For a few hundred images with objects: mosaic and large-scale jitter; norms that do not depend on the batch."""

REGIONS = replace(
    OBJECTS, model="semantic_fpn/poolformerv2_t6", recipe="regions", augment="regions", batch=4, head_dropout=0.1,
)  # fmt: skip
"""For a few hundred images with regions: other sizes, crops, mirrors, other light."""

COCO = Recipe(
    model="retinanet/poolformer_s12", data="coco:coco", weights="in1k", image_size=800, augment="coco",
    normalise="imagenet", epochs=12, batch=16, lr=1e-4, schedule="steps", warmup_epochs=0.068, warmup_lr=1e-7,
    weight_decay=1e-4, clip=None, drop_path=0.0, pad=0.0, label_smoothing=0.0,
)  # fmt: skip
"""v1, section 4.2: a warm-up of 500 steps of 7,330 in an epoch."""

ADE20K = replace(
    COCO, model="semantic_fpn/poolformer_s12", data="ade20k:ade20k", image_size=512, augment="ade20k", epochs=63, batch=32,
    lr=2e-4, schedule="poly", warmup_epochs=0.0, min_lr=0.0, head_dropout=0.1,
)  # fmt: skip
"""v1, section 4.3: 40,000 steps are 63.3 epochs of 20,210 images; 63 are 39,816."""


MASKS = replace(COCO, lr=2e-4, warmup_lr=2e-7)

# fmt: off
DENSE: tuple[tuple[str, Recipe, str, float], ...] = (
    # model                       recipe  section  box AP, mask AP or mIoU
    ("retinanet/poolformer_s12",    COCO,   "4.2",  36.2),
    ("retinanet/poolformer_s24",    COCO,   "4.2",  38.9),
    ("retinanet/poolformer_s36",    COCO,   "4.2",  39.5),
    ("mask_rcnn/poolformer_s12",    MASKS,  "4.2",  34.6),
    ("mask_rcnn/poolformer_s24",    MASKS,  "4.2",  37.0),
    ("mask_rcnn/poolformer_s36",    MASKS,  "4.2",  37.7),
    ("semantic_fpn/poolformer_s12", ADE20K, "4.3",  37.2),
    ("semantic_fpn/poolformer_s24", ADE20K, "4.3",  40.3),
    ("semantic_fpn/poolformer_s36", ADE20K, "4.3",  42.0),
    ("semantic_fpn/poolformer_m36", ADE20K, "4.3",  42.4),
    ("semantic_fpn/poolformer_m48", ADE20K, "4.3",  42.7),
)
# fmt: on


def _dense(model: str, base: Recipe, section: str, score: float) -> Row:
    """A published detector's or segmenter's."""
    name = f"{model}.{base.data.partition(':')[0]}"
    return Row(replace(base, model=model, recipe=name), f"arXiv 2111.11418, section {section}", score)


def _scratch(model: str, recipe: Recipe, crop: float, drop_path: float, head_dropout: float, top1: float) -> Row:
    source = V1 if recipe is POOLFORMER else V2
    return Row(_named(model, "in1k", recipe, drop_path, head_dropout, crop_fraction=crop), source, top1)


def _tuned(model: str, base: Recipe, drop_path: float, head_dropout: float, *top1: float) -> dict[str, Row]:
    """At 384 from ImageNet-1K as published; from ImageNet-21K at both sizes with the same settings, which is our choice."""

    def recipe(tag: str, size: int, weights: str) -> Recipe:
        return _named(model, tag, base, drop_path, head_dropout, image_size=size, weights=weights)

    return {
        f"{model}.in1k_384": Row(recipe("in1k_384", 384, "in1k"), V2, top1[0]),
        f"{model}.in21k_ft_in1k": Row(recipe("in21k_ft_in1k", 224, "in21k"), OURS, top1[1]),
        f"{model}.in21k_ft_in1k_384": Row(recipe("in21k_ft_in1k_384", 384, "in21k"), OURS, top1[2]),
    }


def _pretrained(model: str, base: Recipe, drop_path: float) -> Row:
    return Row(_named(model, "in21k", base, drop_path, 0.0, data="imagenet-21k", epochs=90, warmup_epochs=5.0), OURS)


def _named(model: str, tag: str, base: Recipe, drop_path: float, head_dropout: float, **settings: Any) -> Recipe:
    return replace(base, model=model, recipe=f"{model}.{tag}", drop_path=drop_path, head_dropout=head_dropout, **settings)


ROWS: dict[str, Row] = {
    "small": Row(SMALL, "ours; docs/results.md", 99.4),
    "photos": Row(PHOTOS, "ours"),
    **{f"{row[0]}.in1k": _scratch(*row) for row in FROM_SCRATCH},
    **{name: made for row in FINE_TUNED for name, made in _tuned(*row).items()},
    **{f"{row[0]}.in21k": _pretrained(*row) for row in PRETRAINED},
    "objects": Row(OBJECTS, "ours"),
    "regions": Row(REGIONS, "ours"),
    **{f"{row[0]}.{row[1].data.partition(':')[0]}": _dense(*row) for row in DENSE},
}

RECIPES: dict[str, Recipe] = {name: row.recipe for name, row in ROWS.items()}


def no_recipe(name: str) -> ValueError:
    """What is wrong with a name that no recipe has."""
    close = get_close_matches(name, RECIPES, n=1, cutoff=0.6)
    return ValueError(f"no recipe {name!r}" + (f", did you mean {close[0]}?" if close else "; metaformer recipes lists all"))
