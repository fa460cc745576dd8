"""Every model, name → config: the papers' tables as a table. v1 is arXiv 2111.11418, v2 is arXiv 2210.13452."""

from dataclasses import fields, replace
from fnmatch import fnmatchcase
from typing import Any

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.layers import GELU, MLN, LayerNorm, LinearHead, MLPHead, NoNorm, Scale
from metaformer.core.mixers import Attention, Identity, Mixer, Pooling, Random, SepConv, SpatialFC
from metaformer.core.spec import nearest

Size = tuple[tuple[int, ...], tuple[int, ...]]
Stages = tuple[Mixer, Mixer, Mixer, Mixer]

MAP = MLN(eps=1e-5, bias=True)
CHANNEL = LayerNorm(eps=1e-5, bias=True)


def v1(size: Size, mixers: Stages, scale: float, norm: MLN | LayerNorm, pos_embed: tuple[int, ...] = ()) -> MetaFormerConfig:
    """The first paper's frame: GELU, biases, LayerScale; no norm around the patches; the head normalises, then pools."""
    return MetaFormerConfig(
        depths=size[0], dims=size[1], mixers=mixers, pos_embed=pos_embed,
        norm=norm, activation=GELU(), mlp_bias=True, scales=(Scale(branch=scale),) * 4,
        patch_norm=NoNorm(), patch_init="torch", head_norm=norm, pool_first=False, head=LinearHead(),
    )  # fmt: skip


def v2(size: Size, mixers: Stages, norm: MLN | LayerNorm, head: LinearHead | MLPHead, stem_stride: int = 4) -> MetaFormerConfig:
    """The second paper's frame: StarReLU, no biases, ResScale in stages 3 and 4; the head pools, then normalises."""
    return MetaFormerConfig(
        depths=size[0], dims=size[1], mixers=mixers, stem_stride=stem_stride, norm=norm, head=head,
    )  # fmt: skip


def simple(size: Size, mixers: Stages, stem_stride: int = 4) -> MetaFormerConfig:
    """v2 with the simplest mixers: MLN, linear head."""
    return v2(size, mixers, MLN(eps=1e-6), LinearHead(), stem_stride)


def strong(size: Size, mixers: Stages, stem_stride: int = 4) -> MetaFormerConfig:
    """v2 with convolution and attention: LayerNorm, MLP head."""
    return v2(size, mixers, LayerNorm(eps=1e-6), MLPHead(), stem_stride)


P, C, A, II = Pooling(), SepConv(), Attention(), Identity()
BIASED = Attention(proj_bias=True)
IIII, PPPP, CCCC, CCAA = (II,) * 4, (P,) * 4, (C,) * 4, (C, C, A, A)
IIRR = (II, II, Random(grid=14), Random(grid=7))

# fmt: off
NARROW, WIDE = (64, 128, 320, 512), (96, 192, 384, 768)
S12, S24, S36 = ((2, 2, 6, 2), NARROW), ((4, 4, 12, 4), NARROW), ((6, 6, 18, 6), NARROW)
M36, M48      = ((6, 6, 18, 6), WIDE),  ((8, 8, 24, 8), WIDE)
S18, DEEP_S36 = ((3, 3, 9, 3), NARROW), ((3, 12, 18, 3), NARROW)
DEEP_M36      = ((3, 12, 18, 3), (96, 192, 384, 576))
DEEP_B36      = ((3, 12, 18, 3), (128, 256, 512, 768))
T6            = ((1, 1, 3, 1), (32, 64, 128, 192))

ZOO: dict[str, MetaFormerConfig] = {
    # v1                        size  mixers               LayerScale  norm
    "poolformer_s12":           v1(S12, PPPP,                    1e-5, MAP),
    "poolformer_s24":           v1(S24, PPPP,                    1e-5, MAP),
    "poolformer_s36":           v1(S36, PPPP,                    1e-6, MAP),
    "poolformer_m36":           v1(M36, PPPP,                    1e-6, MAP),
    "poolformer_m48":           v1(M48, PPPP,                    1e-6, MAP),
    "metaformer_id_s12":        v1(S12, IIII,                    1e-5, MAP),
    "metaformer_pppa_s12_224":  v1(S12, (P, P, P, BIASED),       1e-5, CHANNEL, pos_embed=(0, 0, 0, 7)),
    "metaformer_ppaa_s12_224":  v1(S12, (P, P, BIASED, BIASED),  1e-5, CHANNEL, pos_embed=(0, 0, 14, 0)),
    "metaformer_pppf_s12_224":  v1(S12, (P, P, P, SpatialFC(7)), 1e-5, MAP),
    "metaformer_ppff_s12_224":  v1(S12, (P, P, SpatialFC(14), SpatialFC(7)), 1e-5, MAP),
    # v2
    "identityformer_s12":       simple(S12, IIII),
    "identityformer_s24":       simple(S24, IIII),
    "identityformer_s36":       simple(S36, IIII),
    "identityformer_m36":       simple(M36, IIII),
    "identityformer_m48":       simple(M48, IIII),
    "randformer_s12":           simple(S12, IIRR),
    "randformer_s24":           simple(S24, IIRR),
    "randformer_s36":           simple(S36, IIRR),
    "randformer_m36":           simple(M36, IIRR),
    "randformer_m48":           simple(M48, IIRR),
    "poolformerv2_s12":         simple(S12, PPPP),
    "poolformerv2_s24":         simple(S24, PPPP),
    "poolformerv2_s36":         simple(S36, PPPP),
    "poolformerv2_m36":         simple(M36, PPPP),
    "poolformerv2_m48":         simple(M48, PPPP),
    "convformer_s18":           strong(S18, CCCC),
    "convformer_s36":           strong(DEEP_S36, CCCC),
    "convformer_m36":           strong(DEEP_M36, CCCC),
    "convformer_b36":           strong(DEEP_B36, CCCC),
    "caformer_s18":             strong(S18, CCAA),
    "caformer_s36":             strong(DEEP_S36, CCAA),
    "caformer_m36":             strong(DEEP_M36, CCAA),
    "caformer_b36":             strong(DEEP_B36, CCAA),
    # ours, for images of about 32 pixels and quick experiments: v2's frame with a stem of stride 2
    "identityformer_t6":        simple(T6, IIII, stem_stride=2),
    "randformer_t6":            simple(T6, (II, II, Random(grid=4), Random(grid=2)), stem_stride=2),
    "poolformerv2_t6":          simple(T6, PPPP, stem_stride=2),
    "convformer_t6":            strong(T6, CCCC, stem_stride=2),
    "caformer_t6":              strong(T6, CCAA, stem_stride=2),
}

TOP1: dict[str, tuple[float, float | None]] = {
    "poolformer_s12":     (77.2, None), "poolformer_s24":     (80.3, None), "poolformer_s36":     (81.4, None),
    "poolformer_m36":     (82.1, None), "poolformer_m48":     (82.5, None),
    "metaformer_id_s12":  (74.3, None), "metaformer_ppaa_s12_224": (81.0, None),
    "identityformer_s12": (74.6, None), "identityformer_s24": (78.2, None), "identityformer_s36": (79.3, None),
    "identityformer_m36": (80.0, None), "identityformer_m48": (80.4, None),
    "randformer_s12":     (76.6, None), "randformer_s24":     (78.2, None), "randformer_s36":     (79.5, None),
    "randformer_m36":     (81.2, None), "randformer_m48":     (81.4, None),
    "poolformerv2_s12":   (78.0, None), "poolformerv2_s24":   (80.7, None), "poolformerv2_s36":   (81.6, None),
    "poolformerv2_m36":   (82.2, None), "poolformerv2_m48":   (82.6, None),
    "convformer_s18":     (83.0, 84.4), "convformer_s36":     (84.1, 85.4), "convformer_m36":     (84.5, 85.6),
    "convformer_b36":     (84.8, 85.7),
    "caformer_s18":       (83.6, 85.0), "caformer_s36":       (84.5, 85.7), "caformer_m36":       (85.2, 86.2),
    "caformer_b36":       (85.5, 86.4),
}
"""Published ImageNet-1K top-1 at 224 and 384, in percent, trained on ImageNet-1K alone."""
# fmt: on


# fmt: off
DENSE_SCORES: dict[str, tuple[float, ...]] = {
    "retinanet/poolformer_s12":    (36.2,),
    "retinanet/poolformer_s24":    (38.9,),
    "retinanet/poolformer_s36":    (39.5,),
    "mask_rcnn/poolformer_s12":    (37.3, 34.6),
    "mask_rcnn/poolformer_s24":    (40.1, 37.0),
    "mask_rcnn/poolformer_s36":    (41.0, 37.7),
    "semantic_fpn/poolformer_s12": (37.2,),
    "semantic_fpn/poolformer_s24": (40.3,),
    "semantic_fpn/poolformer_s36": (42.0,),
    "semantic_fpn/poolformer_m36": (42.4,),
    "semantic_fpn/poolformer_m48": (42.7,),
}
# fmt: on
"""Published, in percent, section 4 of v1: box AP on COCO, and mask AP; mIoU on ADE20K."""

HEADS = ("retinanet", "faster_rcnn", "mask_rcnn", "semantic_fpn", "upernet")
"""Of boxes, instances and regions: every backbone has each of them, as `retinanet/poolformer_s12`."""


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a glob such as "caformer*", in the order of the papers' tables.

    As with paths, `*` does not match a slash: "retinanet/*" lists the detectors of that head, "*/caformer_s18" all heads.
    """
    head, slash, backbone = pattern.rpartition("/")
    names = [name for name in ZOO if fnmatchcase(name, backbone)]
    return [f"{h}/{name}" for h in HEADS if fnmatchcase(h, head) for name in names] if slash else names


def get_config(name: str, **changes: Any) -> MetaFormerConfig:
    """The config of a published model with some fields changed. Raises ValueError that names the nearest right name."""
    if name.rstrip("/") in HEADS:
        raise ValueError(f"{name} is a head and lacks a backbone, such as {name.rstrip('/')}/poolformer_s12")
    if name not in ZOO:
        raise ValueError(f"no model {name!r}{nearest(name, ZOO)}")
    options = [field.name for field in fields(MetaFormerConfig)]
    for key in changes:
        if key not in options:
            raise ValueError(f"a model has no {key!r}{nearest(key, options)}")
    return replace(ZOO[name], **changes)
