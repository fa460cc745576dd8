"""A model cut into parts that run one after the other: stem, blocks, downsampling, head; of any model, by its containers."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

from torch import nn

from metaformer.core.architecture import MetaFormerConfig
from metaformer.core.model import Block, MetaFormer, Stage
from metaformer.core.spec import to_text

SILENT = (nn.Identity, nn.Dropout)
"""Modules that do nothing in inference: no part."""


FINE = ("bias", "qkv_bias", "proj_bias", "eps")
"""Options too fine for a name."""


@dataclass(frozen=True)
class Part:
    """A module of a model."""

    name: str
    """By which the model knows it, such as stages.0.blocks.1."""
    kind: str
    """What it is: a block's token mixer, stem, downsampling, head, else its class."""
    module: nn.Module


def parts(model: nn.Module) -> list[Part]:
    """In the order in which the model holds them. What is held outside of them, such as a class token, is in none."""
    kinds = {name: kind for at, one in model.named_modules() if isinstance(one, MetaFormer) for name, kind in _kinds(at, one)}
    return [
        Part(name, kinds.get(name, type(module).__name__), module)
        for name, module in _cut(model, "", top=True)
        if not isinstance(module, SILENT)
    ]


def _cut(module: nn.Module, at: str, *, top: bool = False) -> Iterator[tuple[str, nn.Module]]:
    called = not isinstance(module, nn.ModuleList)  # of a list only what is in it is called
    if called and not top and not _is_container(module):
        yield at, module
        return
    for name, child in module.named_children():
        yield from _cut(child, f"{at}.{name}" if at else name)


def _is_container(module: nn.Module) -> bool:
    """Whether blocks lie in it, at whatever depth, and it is none itself."""
    if isinstance(module, Block):
        return False
    if isinstance(module, Stage | MetaFormer):
        return True
    listed = isinstance(module, nn.Sequential | nn.ModuleList)
    return any(_is_container(child) or (listed and any(True for _ in child.children())) for child in module.children())


def _kinds(at: str, model: MetaFormer) -> Iterator[tuple[str, str]]:
    """What the parts of a MetaFormer are."""
    prefix = f"{at}." if at else ""
    mixers = iter(model.config.block_mixers())
    for number, stage in enumerate(model.stages):
        assert isinstance(stage, Stage)
        yield f"{prefix}stages.{number}.embed", "downsampling" if number else "stem"
        yield f"{prefix}stages.{number}.pos_embed", "position embedding"
        for place in range(len(stage.blocks)):
            yield f"{prefix}stages.{number}.blocks.{place}", mixer_name(next(mixers), model.config)
    yield f"{prefix}head", "head"


def mixer_name(mixer: object, config: MetaFormerConfig) -> str:
    """A block by its mixer, with the options that are not the usual ones: Pooling(window=5), or a class of the user's own."""
    return brief(mixer) if config.mlp_ratio else f"{brief(mixer)}, no MLP"


def brief(spec: object) -> str:
    """A spec's name with those of its options that differ from the defaults and are no biases; the name of a user's own."""
    text = to_text(spec)
    if ":" in text or not is_dataclass(spec):
        return text.rpartition(":")[2].rpartition(".")[2]
    usual = {field.name: field.default for field in fields(spec)}
    other = [f"{name}={value!r}" for name, value in vars(spec).items() if value != usual[name] and name not in FINE]
    return type(spec).__name__ + (f"({', '.join(other)})" if other else "")
