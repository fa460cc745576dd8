"""`fuse`: exact algebra on a copy of a model, one small pass each, whose docstring is its derivation.

Written there: n(x) is a norm's standardised map (mean 0, variance 1), w and b its weight and bias; ⊙ is by channel; a
residual is y = t ⊙ x + g ⊙ branch(norm(x)), with shortcut scale t and branch scale g, each 1 where it is absent.
What a pass does not know, such as a mixer of a user's own, it leaves as it is.
"""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from metaformer.core.layers import MLP, ChannelNorm, MapNorm, SquaredReLUAct, StarReLUAct
from metaformer.core.mixers import AttentionMixer, PoolingMixer, SepConvMixer
from metaformer.core.model import MetaFormer
from metaformer.data.preprocess import Preprocess
from metaformer.infer.folding import (
    MLP_HEAD,
    AffineResidual,
    MixedResidual,
    Pixels,
    ShiftedSquaredReLU,
    Standardise,
    add_bias,
    affine,
    first_linear,
    head_linear,
    is_made_of,
    is_pointwise,
    keeps_constants,
    last_linear,
    placed,
    residuals,
    scale_branch,
    scale_in,
    scale_out,
    shift_in,
)


class FusedMetaFormer(nn.Module):
    """A MetaFormer for inference only: `features(x)` and calling give what the model gave, with fewer operations.

    `removed` counts what was taken out, by pass.
    """

    def __init__(self, model: MetaFormer) -> None:
        super().__init__()
        self.config = model.config
        self.model = model
        self.removed: Counter[str] = Counter()

    def features(self, x: Tensor, stages: int | None = None) -> list[Tensor]:
        """As MetaFormer.features."""
        return self.model.features(x, stages)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def train(self, mode: bool = True) -> "FusedMetaFormer":
        """Raises ValueError for training: what was folded together cannot be learnt apart."""
        if mode:
            raise ValueError("a fused model is for inference: train the model that it was made of")
        return super().train(mode)

    def extra_repr(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in self.removed.items())


def fuse(model: MetaFormer | FusedMetaFormer, preprocess: Preprocess | None = None) -> FusedMetaFormer:
    """The same function with fewer operations, on a copy; `.removed` says what was taken out.

    With `preprocess`, images go in as they are stored, (B, C, H, W) of bytes 0 to 255. Fusing what is fused gives a copy.
    Raises ValueError for a model in training mode, whose norms and dropout are another function, and for a second
    preprocessing.
    """
    if model.training:
        raise ValueError("fuse is for inference: call model.eval() first")
    if isinstance(model, FusedMetaFormer):
        fused = deepcopy(model)
    else:
        fused = FusedMetaFormer(deepcopy(model)).eval().requires_grad_(requires_grad=False)
        fused.model.to(memory_format=torch.channels_last)
        apart: set[nn.Module] = set()
        for residual in residuals(fused.model):  # a branch that several share would have all their norms folded into it
            residual.branch = deepcopy(residual.branch) if residual.branch in apart else residual.branch
            apart.add(residual.branch)
    with torch.no_grad():
        for name, step in PASSES.items():
            fused.removed[name] += step(fused.model)
        if preprocess is not None:
            fold_pixels(fused.model, preprocess)
            fused.removed["input normalisations"] += 1
    fused.removed += Counter()  # drops what is zero
    return fused


# --- the passes -------------------------------------------------------------------------------------------------------


def fold_batch_norms(model: MetaFormer) -> int:
    """In inference a batch norm is a ⊙ x + c, with a = w / √(v + ε) and c = b − a ⊙ m of its running mean m, variance v.

    After a convolution (the stem's) that is W' = diag(a) W, bias' = a ⊙ bias + c; before a pointwise map W' = W diag(a),
    bias' = bias + W c; before pooling, c cancels and a joins the branch's scale. Before a padded convolution it stays,
    because c would be missing in the padding.
    """
    done = 0
    stem: Any = model.stages[0].embed
    if known := affine(stem.norm):
        a, c = known
        scale_out(stem.conv, a)
        add_bias(stem.conv, c)
        stem.norm = nn.Identity()
        done += 1
    for residual in residuals(model):
        known = affine(residual.norm)
        if known is None:
            continue
        a, c = known
        layer = first_linear(residual.branch)
        if layer is not None and is_pointwise(layer):
            shift_in(layer, c)
            scale_in(layer, a)
        elif type(residual.branch) is PoolingMixer and keeps_constants(residual.branch.pool):
            scale_branch(residual, a)
        else:
            continue
        residual.norm = nn.Identity()
        done += 1
    layer, known = head_linear(model.head), affine(model.head.norm)
    if known and layer is not None:
        a, c = known
        shift_in(layer, c)
        scale_in(layer, a)
        model.head.norm = nn.Identity()
        done += 1
    return done


def fold_pooling(model: MetaFormer) -> int:
    """A pooling branch is pool(z) − z, z = w ⊙ n(x) + b. Pooling keeps constants, so b cancels: it is w ⊙ (pool(n) − n).

    With one mean μ and deviation σ for the whole map, μ is such a constant too: pool(n) − n = (pool(x) − x) / σ, and
    y = t ⊙ x + g ⊙ w ⊙ (pool(x) − x) / σ = (t − a) ⊙ x + a ⊙ pool(x) with a = g ⊙ w / σ; nothing is normalised.
    """
    done = 0
    for parent, name, residual in placed(model):
        norm, mixer = residual.norm, residual.branch
        if type(mixer) is not PoolingMixer or not keeps_constants(mixer.pool):
            continue
        if type(norm) is MapNorm:
            setattr(parent, name, MixedResidual(residual, norm, mixer.pool))
        elif type(norm) is ChannelNorm:
            scale_branch(residual, norm.weight)
            residual.norm = Standardise(norm)
        else:
            continue
        done += 1
    return done


def fold_identities(model: MetaFormer) -> int:
    """An identity branch is the norm itself: y = t ⊙ x + g ⊙ (w ⊙ (x − μ) / σ + b) = (t + a) ⊙ x − a μ + g ⊙ b."""
    done = 0
    for parent, name, residual in placed(model):
        if type(residual.branch) is nn.Identity and type(residual.norm) is MapNorm:
            setattr(parent, name, AffineResidual(residual, residual.norm))
            done += 1
    return done


def fold_norms(model: MetaFormer) -> int:
    """L(w ⊙ n(x) + b) = L'(n(x)): W' = W diag(w), bias' = bias + W b.

    A padded convolution takes w too, for w ⊙ 0 = 0, but not b, which is not in the padding: there a norm with bias stays.
    The head's norm goes into the classifier also where the mean over places lies between, which keeps constants.
    """
    done = 0
    embeds: list[Any] = [stage.embed for stage in model.stages]
    places: chain[tuple[Any, Any]] = chain(
        ((residual, first_linear(residual.branch)) for residual in residuals(model)),
        ((embed, embed.conv) for embed in embeds[1:]),
        ((model.head, head_linear(model.head)),),
    )
    for owner, layer in places:
        norm = owner.norm
        if layer is None or type(norm) not in (MapNorm, ChannelNorm) or (norm.bias is not None and not is_pointwise(layer)):
            continue
        if norm.bias is not None:
            shift_in(layer, norm.bias)
        scale_in(layer, norm.weight)
        owner.norm = Standardise(norm)
        done += 1
    mlp: Any = model.head.classifier
    if is_made_of(mlp, MLP_HEAD) and mlp.norm.elementwise_affine:  # it has a norm of its own
        if mlp.norm.bias is not None:
            shift_in(mlp.fc, mlp.norm.bias)
        scale_in(mlp.fc, mlp.norm.weight)
        mlp.norm = nn.LayerNorm(list(mlp.norm.normalized_shape), mlp.norm.eps, elementwise_affine=False)
        done += 1
    return done


def fold_star_relus(model: MetaFormer) -> int:
    """Between two pointwise maps, L(s · r + b) = L'(r), r = relu(x)²: W' = s W, bias' = bias + b W 1.

    Before a padded convolution (SepConv's) only s can go: the padding is 0, not s · 0 + b, so what belongs to b differs
    along the border. There L(s · r + b) = L'(r + b / s) with W' = s W, whose padding is 0 as before; s = 0 stays.
    """
    done = 0
    for module in model.modules():
        if type(module) is MLP and type(module.act) is StarReLUAct and type(module.fc2) is nn.Conv2d:
            shift_in(module.fc2, module.act.bias.expand(module.fc2.in_channels))
            scale_in(module.fc2, module.act.scale.expand(module.fc2.in_channels))
            module.act = SquaredReLUAct()
        elif type(module) is SepConvMixer and type(module.act) is StarReLUAct and module.act.scale.item() != 0:
            scale, bias = module.act.scale, module.act.bias
            scale_in(module.dw, scale.expand(module.dw.in_channels))
            module.act = ShiftedSquaredReLU((bias / scale).detach()) if bias.item() else SquaredReLUAct()
        else:
            continue
        done += 1
    return done


def fold_branch_scales(model: MetaFormer) -> int:
    """g ⊙ L(x) = L'(x) for the last map of a branch: W' = diag(g) W, bias' = g ⊙ bias. LayerScale and BranchScale.

    The shortcut's scale stays: t ⊙ x + f is one multiplication and addition, and what follows needs the sum itself.
    """
    done = 0
    for residual in residuals(model):
        layer = last_linear(residual.branch)
        if residual.scale is not None and layer is not None:
            scale_out(layer, residual.scale)
            residual.scale = None
            done += 1
    return done


def fold_attention_scales(model: MetaFormer) -> int:
    """softmax(q kᵀ / √d) = softmax(q' kᵀ) with q' = q / √d: the rows of q in the projection are divided by √d."""
    done = 0
    for mixer in model.modules():
        if type(mixer) is AttentionMixer and mixer.scale is None and type(mixer.qkv) is nn.Conv2d:
            width = mixer.proj.in_channels
            scale = torch.ones(3 * width, dtype=mixer.qkv.weight.dtype, device=mixer.qkv.weight.device)
            scale[:width] = mixer.head_dim**-0.5
            scale_out(mixer.qkv, scale)
            mixer.scale = 1.0
            done += 1
    return done


def fold_pixels(model: MetaFormer, preprocess: Preprocess) -> None:
    """The stem of normalised bytes, L((u / 255 − m) / d) = L'(u − 255 m): W' = W diag(1 / (255 d)).

    255 m is taken from the image and not put into the bias: the padding is 0 after normalisation, which is 255 m before
    it, so a bias would be wrong along the border; of three channels the subtraction costs nothing.
    Raises ValueError where the image is normalised inside already, or its channels are not the model's.
    """
    embed: Any = model.stages[0].embed
    if isinstance(embed.conv, nn.Sequential):
        raise ValueError("this model takes bytes already: it was fused with its preprocessing")
    if len(preprocess.mean) != model.config.in_chans:
        raise ValueError(f"preprocessing of {len(preprocess.mean)} channels for a model of {model.config.in_chans}")
    weight = embed.conv.weight
    scale = 1 / (255 * torch.tensor(preprocess.std, dtype=torch.float64))  # on the processor: Apple's GPUs have no float64
    scale_in(embed.conv, scale.to(weight.dtype).to(weight.device))
    embed.conv = nn.Sequential(Pixels(preprocess.mean, weight), embed.conv)


PASSES: dict[str, Callable[[MetaFormer], int]] = {
    "batch norms": fold_batch_norms,
    "pooling norms": fold_pooling,
    "identity norms": fold_identities,
    "norm weights": fold_norms,
    "StarReLU scales": fold_star_relus,
    "branch scales": fold_branch_scales,
    "attention scales": fold_attention_scales,
}
"""In this order: branch scales last, because pooling's and batch norms' weights become such scales."""
