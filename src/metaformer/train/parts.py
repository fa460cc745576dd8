"""Which part of a model learns: `learn=` and `freeze_norms=` of a recipe."""

from typing import TypeVar, cast

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from metaformer.config import Recipe, read_learn
from metaformer.core.lora import add_update, takes_update
from metaformer.core.model import MetaFormer
from metaformer.dense.model import Dense
from metaformer.weights.peer_head import classifiers
from metaformer.weights.pretrained import Kept

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""torch's; any other is told by its name, which ends in Norm, Norm2d or the like."""
Learner = TypeVar("Learner", bound=nn.Module)


def choose_parts(model: Kept, recipe: Recipe) -> tuple[str, ...]:
    """Freezes what is not to learn, in place, and adds low-rank updates; how much learns, as a sentence, unless all does.

    With learn=lora norms, biases, scales, activations and depthwise kernels learn whole: they are a small part of a model, and
    bring low-rank updates closer to training all (LongLoRA, arXiv 2309.12307, section 3.3). What did not learn
    before, such as RandFormer's matrices, does not learn now. Raises ValueError where the model has no such part.
    """
    if learns_whole(recipe):
        return ()
    total = sum(p.numel() for p in model.parameters())
    kind, number = read_learn(recipe.learn)
    parts = learning_parts(model, recipe.learn)
    whole = {id(p) for part in parts for p in part.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in whole and not (kind == "lora" and _is_small(parameter)):
            parameter.requires_grad_(False)
    if recipe.freeze_norms:
        for norm in model.modules():
            if _is_norm(norm):
                for parameter in norm.parameters(recurse=False):
                    parameter.requires_grad_(False)
    if kind == "lora":
        _add_updates(model, parts, number)
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    norms = ", norms frozen" if recipe.freeze_norms else ""
    return (f"learn={recipe.learn}{norms}: {learning:,} parameters learn, {learning / total:.2%} of the model's {total:,}",)


def learns_whole(recipe: Recipe) -> bool:
    """Whether nothing of the model is frozen."""
    return recipe.learn == "all" and not recipe.freeze_norms


def learning_parts(model: Kept, learn: str) -> list[nn.Module]:
    """What of a model learns whole. Raises ValueError where the model has no such part.

    Of ours, a stage is its stem or downsampling with its blocks, so the last 4 of 4 are all; the head is its norm and its
    classifier. Of timm's, the head is what timm calls the classifier. Of a detector or segmenter it is all but the backbone.
    """
    kind, number = read_learn(learn)
    if kind == "all":
        return [model]
    if isinstance(model, Dense):
        return _dense_parts(model, learn)
    if not isinstance(model, MetaFormer):
        if kind == "last":
            raise ValueError(f"learn={learn} is for our models: {model.config.name} is timm's, and takes head, lora or all")
        return classifiers(model)
    stages = len(model.stages)
    if number > stages and kind == "last":
        raise ValueError(f"learn={learn} is for models of more stages: this one has {stages}")
    return [*model.stages[stages - number :], model.head] if kind == "last" else [model.head]


def training_mode(model: Learner, recipe: Recipe) -> Learner:
    """Puts the model into training mode and returns it; norms of frozen parts go on with the means and variances they have."""
    model.train()
    parts = learning_parts(cast(Kept, model), recipe.learn)
    learning = {id(module) for part in parts for module in part.modules()}
    for module in model.modules():
        if isinstance(module, _NormBase) and (recipe.freeze_norms or id(module) not in learning):
            module.eval()
    return model


def _dense_parts(model: Dense, learn: str) -> list[nn.Module]:
    """All but the backbone, and of that with last:N the last N stages."""
    kind, number = read_learn(learn)
    above = [model.backbone.norms, *(part for name, part in model.named_children() if name != "backbone")]
    if kind != "last":
        return above
    body = model.backbone.body
    if not isinstance(body, MetaFormer):
        raise ValueError(f"learn={learn} is for our backbones, and this one is timm's: it takes head, lora or all")
    stages = len(body.stages)
    if number > stages:
        raise ValueError(f"learn={learn} is for models of more stages: this one has {stages}")
    return [*body.stages[stages - number :], *above]


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, NORMS) or type(module).__name__.rstrip("123d").endswith("Norm")


def _is_small(parameter: nn.Parameter) -> bool:
    """Whether it has one dimension, or is a kernel over single channels."""
    return parameter.ndim < 2 or (parameter.ndim == 4 and parameter.shape[1] == 1)


def _add_updates(model: Kept, parts: list[nn.Module], rank: int) -> None:
    """Gives every linear layer and convolution outside `parts` an update. Raises ValueError where there is none."""
    whole = {id(module) for part in parts for module in part.modules()}
    body = [module for module in model.modules() if id(module) not in whole and takes_update(module)]
    if not body:
        raise ValueError("learn=lora is for linear layers and convolutions: this model has none before its head")
    for module in body:
        add_update(module, rank)
