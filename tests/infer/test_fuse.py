"""Fusing: the same function of every model, pass by pass, at the border too; and what it refuses."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from tests.fill import fill, filled_model
from tests.published import PUBLISHED
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import metaformer
from metaformer import Attention, DepthwiseConv, MaxPooling, MetaFormer, Pooling, Scale, SepConv, StarReLU, fuse
from metaformer.core.layers import SquaredReLUAct
from metaformer.data.preprocess import Preprocess
from metaformer.infer import fuse as module
from metaformer.infer.folding import AffineResidual, MixedResidual, ShiftedSquaredReLU
from metaformer.infer.fuse import PASSES, FusedMetaFormer

pytestmark = pytest.mark.usefixtures("thread")

TINY = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32), "num_classes": 5}
FAMILIES = [
    "poolformer_s12", "metaformer_id_s12", "metaformer_ppaa_s12_224", "metaformer_ppff_s12_224", "identityformer_s12",
    "randformer_s12", "poolformerv2_s12", "convformer_s18", "caformer_s18",
]  # fmt: skip


def images(size: int = 64, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model(name: str, dtype: torch.dtype = torch.float64, **changes: object) -> MetaFormer:
    """Far from its initialisation: no weight is 1, no bias 0, and batch norms have seen something."""
    made = metaformer.create_model(name, **(TINY | changes)).to(dtype).eval()
    with torch.no_grad():
        for key, parameter in made.named_parameters():
            parameter.copy_(fill(key, tuple(parameter.shape)))
        for key, buffer in made.named_buffers():
            if buffer.is_floating_point():
                value = fill(key, tuple(buffer.shape))
                buffer.copy_(value.abs() + 4 if key.endswith("var") else value)
    return made


def difference(one: Tensor, other: Tensor) -> float:
    """Greatest difference beside the greatest value."""
    return ((one - other).abs().max() / other.abs().max()).item()


LARGE = [pytest.param(name, marks=pytest.mark.slow) if row.parameters > 35e6 else name for name, row in PUBLISHED.items()]


@pytest.mark.parametrize("name", LARGE)
def test_every_published_model(name: str) -> None:
    plain = filled_model(name, torch.float64)
    fused = fuse(plain)
    with torch.inference_mode():
        x = images(batch=1)
        assert difference(fused(x), plain(x)) < 1e-10
    assert sum(fused.removed.values()) >= sum(plain.config.depths)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("dtype", "bound", "factor"), [(torch.float32, 2e-5, 2), (torch.bfloat16, 0.1, 2), (torch.float16, 0.02, 3)]
)
def test_lower_precisions(name: str, dtype: torch.dtype, bound: float, factor: int) -> None:
    """Fusing rounds in other places, so it may be nearer to float64 than the plain model or further, but not much."""
    exact, plain = model(name), model(name, dtype)
    with torch.inference_mode():
        x = images(batch=8).to(dtype)
        right = exact(x.double())
        ours, theirs = difference(fuse(plain)(x).double(), right), difference(plain(x).double(), right)
    assert ours < bound
    assert ours < factor * theirs + 1e-7


@pytest.mark.parametrize("size", [32, 33, 47, 64])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_size_and_every_map(name: str, size: int) -> None:
    plain = model(name)
    fused = fuse(plain)
    with torch.inference_mode():
        for ours, theirs in zip(fused.features(images(size)), plain.features(images(size)), strict=True):
            assert difference(ours, theirs) < 1e-11  # the whole map, so the border too


CHANGES = {
    "batch norm": {"norm": "BatchNorm()", "patch_norm": "BatchNorm()", "head_norm": "BatchNorm()"},
    "batch norm, pooling": {"norm": "BatchNorm()", "mixers": Pooling()},
    "batch norm, padded mixer": {"norm": "BatchNorm()", "mixers": DepthwiseConv(bias=True)},
    "norm with bias": {"norm": "MLN(bias=True)", "patch_norm": "LayerNorm(bias=True)"},
    "norm with bias, pooling": {"norm": "LayerNorm(bias=True)", "mixers": Pooling(window=5)},
    "map norm with bias, identity": {"norm": "MLN(bias=True)", "mixers": "Identity()"},
    "map norm with bias, padded mixer": {"norm": "MLN(bias=True)", "mixers": DepthwiseConv(bias=True)},
    "both scales": {"scales": Scale(shortcut=0.9, branch=0.5)},
    "both scales, pooling": {"scales": Scale(shortcut=0.9, branch=0.5), "norm": "MLN()", "mixers": Pooling()},
    "both scales, identity": {"scales": Scale(shortcut=0.9, branch=0.5), "norm": "MLN(bias=True)", "mixers": "Identity()"},
    "no shortcut": {"residual": False, "scales": Scale(branch=0.5), "norm": "MLN()", "mixers": Pooling()},
    "no shortcut, identity": {"residual": False, "norm": "MLN()", "mixers": "Identity()"},
    "max pooling": {"mixers": MaxPooling(), "norm": "MLN(bias=True)"},
    "biases": {"mlp_bias": True, "mixers": SepConv(bias=True)},
    "attention with biases": {"mixers": Attention(qkv_bias=True, proj_bias=True, head_dim=8)},
    "no norm": {"norm": "NoNorm()"},
    "no channel MLP": {"mlp_ratio": 0},
    "Fourier": {"mixers": "Fourier()", "norm": "LayerNorm(bias=True)"},
    "no classes": {"num_classes": 0},
    "stride 1": {"stem_stride": 1},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_whatever_the_frame_is_made_of(changes: dict[str, object]) -> None:
    plain = model("convformer_s18", **changes)
    with torch.inference_mode():
        assert difference(fuse(plain)(images(33)), plain(images(33))) < 1e-11


def head(**parts: nn.Module) -> Callable[[int, int, float], nn.Module]:
    """A classifier of one's own."""
    return lambda dim, classes, dropout: nn.Sequential(OrderedDict(parts))


C, N = 32, 5  # TINY's
OWN: dict[str, dict[str, Any]] = {
    "an activation before": {"head": head(act=nn.GELU(), fc=nn.Linear(C, N))},
    "a norm, then an activation": {"head": head(fc1=nn.Linear(C, C), norm=nn.LayerNorm(C), act=nn.GELU(), fc=nn.Linear(C, N))},
    "another activation": {
        "head": head(fc1=nn.Linear(C, C), act=nn.GELU(), norm=nn.LayerNorm(C), dropout=nn.Dropout(), fc=nn.Linear(C, N))
    },
    "a norm without bias": {
        "head": head(
            fc1=nn.Linear(C, C), act=SquaredReLUAct(), norm=nn.LayerNorm(C, bias=False), dropout=nn.Dropout(),
            fc=nn.Linear(C, N),
        )
    },
    "a norm first": {"head": head(norm=nn.LayerNorm(C, bias=False), fc=nn.Linear(C, N))},
    "batch norms without weights": {"norm": lambda dim: nn.BatchNorm2d(dim, affine=False)},
    "batch norms of the batch": {"norm": lambda dim: nn.BatchNorm2d(dim, track_running_stats=False)},
    "such batch norms in the stem": {"patch_norm": lambda dim: nn.BatchNorm2d(dim, affine=False)},
    "such batch norms in the head": {"head_norm": lambda dim: nn.BatchNorm2d(dim, affine=False)},
    "a mixer that blocks share": {"mixers": cache(SepConv())},
    "convolutions of groups": {"mixers": lambda dim: nn.Conv2d(dim, dim, 3, padding=1, groups=4)},
    "depthwise convolutions": {"mixers": lambda dim: nn.Conv2d(dim, dim, 3, padding=1, groups=dim)},
    "padded pointwise convolutions": {
        "mixers": lambda dim: nn.Conv2d(dim, dim, 1, padding=1), "norm": "LayerNorm(bias=True)", "residual": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", OWN.values(), ids=OWN)
def test_parts_of_ones_own(changes: dict[str, Any]) -> None:
    """What is known by its type alone may be used in another way: then it is left as it is."""
    torch.manual_seed(0)
    plain = model("convformer_s18", **changes)
    with torch.inference_mode():
        assert difference(fuse(plain)(images(33)), plain(images(33))) < 1e-11


class Own(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim, 1, 1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x.roll(1, 2) * self.weight + 1


def test_a_mixer_of_ones_own_is_left_alone() -> None:
    plain = metaformer.create_model("convformer_s18", mixers=Own, **TINY).double().eval()
    with torch.inference_mode():
        assert difference(fuse(plain)(images()), plain(images())) < 1e-12


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None leans on another, and each takes something out of some model."""
    monkeypatch.setattr(module, "PASSES", {name: PASSES[name]})
    done = 0
    for changes in ({}, *CHANGES.values()):
        for family in ("caformer_s18", "poolformer_s12"):
            plain = model(family, **changes)
            fused = fuse(plain)
            done += fused.removed[name]
            with torch.inference_mode():
                assert difference(fused(images()), plain(images())) < 1e-11
    assert done


@pytest.mark.parametrize("name", FAMILIES)
def test_fusing_what_is_fused(name: str) -> None:
    once = fuse(model(name))
    twice = fuse(once)
    assert twice.removed == once.removed
    assert twice is not once
    with torch.inference_mode():
        assert torch.equal(once(images()), twice(images()))


def test_the_model_is_left_as_it_was() -> None:
    plain = model("caformer_s18")
    before = copy.deepcopy(plain.state_dict())
    fused = fuse(plain)
    assert all(torch.equal(before[key], value) for key, value in plain.state_dict().items())
    assert all(parameter.requires_grad for parameter in plain.parameters())
    assert not any(parameter.requires_grad for parameter in fused.parameters())


def test_what_was_removed() -> None:
    fused = fuse(model("caformer_s18", depths=(1, 1, 1, 1)))
    # norms: 8 half blocks, 3 downsamplings, the head and the one inside it; 4 MLPs and 2 SepConvs; 2 attentions
    assert dict(fused.removed) == {"norm weights": 13, "StarReLU scales": 6, "attention scales": 2}
    assert "13 norm weights" in repr(fused)
    assert dict(fuse(model("poolformer_s12", depths=(1, 1, 1, 1))).removed) == {
        "pooling norms": 4, "norm weights": 5, "branch scales": 4,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["poolformer_s12", "caformer_s18", "identityformer_t6"])
def test_bytes_go_in(name: str) -> None:
    preprocess = Preprocess(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    plain = model(name)
    pixels = torch.randint(0, 256, (2, 3, 33, 47), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        mean, std = (torch.tensor(value, dtype=torch.float64).view(3, 1, 1) for value in (preprocess.mean, preprocess.std))
        wanted = plain.features((pixels.double() / 255 - mean) / std)
        fused = fuse(plain, preprocess)
        for ours, theirs in zip(fused.features(pixels), wanted, strict=True):
            assert difference(ours, theirs) < 1e-10
    assert fused.removed["input normalisations"] == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_mean_colour_is_rounded_after_it_was_taken_away(dtype: torch.dtype) -> None:
    """123.675 in bfloat16 is 123.5: every place of every image would be too bright alike."""
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(-1, 3, -1, -1)
    mean = (0.485, 0.456, 0.406)
    fused = fuse(model("poolformer_s12", torch.promote_types(dtype, torch.float32)), Preprocess(16, mean, (0.2,) * 3))
    stem: Any = fused.to(dtype).model.stages[0].embed
    found, right = stem.conv[0](pixels), pixels - 255 * torch.tensor(mean, dtype=torch.float64).view(3, 1, 1)
    assert found.dtype == dtype
    assert difference(found.double(), right) <= torch.finfo(dtype).eps / 2 + 1e-7 * (dtype != torch.float64)
    torch.testing.assert_close(found, right.to(dtype), rtol=1e-6, atol=1e-5)  # also where a wrong mean would be far off: near 0


@pytest.mark.parametrize("name", ["poolformer_s12", "identityformer_s12"])
def test_deviations_whose_squares_leave_the_range_of_halves(name: str) -> None:
    """σ = 400: σ² = 160 000 > 65 504."""
    plain = model(name, torch.float32, norm="MLN()", residual=False)
    x = 400 * torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    mixers: list[Any] = [made.stages[0].blocks[0].mixer for made in (plain, fuse(plain).half().model)]
    with torch.inference_mode():
        assert difference(mixers[1](x.half()).float(), mixers[0](x)) < 5e-3
    assert type(mixers[1]) in (AffineResidual, MixedResidual)


def test_squares_that_leave_the_range_of_halves() -> None:
    squared = ShiftedSquaredReLU(torch.tensor([-0.5]).half())
    assert squared(torch.tensor([300.0, 2.0, -1.0]).half()).tolist() == [65504.0, 3.5, -0.5]  # the greatest half, as unfused


class NoFloat64(TorchDispatchMode):
    """As Apple's GPUs are: nothing of float64 on the device, here `meta`."""

    def __torch_dispatch__(self, call: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        made = call(*arguments, **(options or {}))
        if isinstance(made, Tensor) and made.device.type == "meta":
            assert made.dtype != torch.float64
        return made


def test_a_device_without_float64() -> None:
    plain = metaformer.create_model("poolformer_s12", **TINY).eval().to("meta")
    with NoFloat64():
        fused = fuse(plain, Preprocess(32, (0.5,) * 3, (0.2,) * 3)).half()
    assert fused(torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device="meta")).shape == (2, 5)


def test_what_is_refused() -> None:
    plain = model("caformer_s18")
    with pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
        fuse(plain.train())
    fused = fuse(plain.eval(), Preprocess(32, (0.5,) * 3, (0.2,) * 3))
    with pytest.raises(ValueError, match="for inference"):
        fused.train()
    with pytest.raises(ValueError, match="takes bytes already"):
        fuse(fused, Preprocess(32, (0.5,) * 3, (0.2,) * 3))
    with pytest.raises(ValueError, match="preprocessing of 1 channels for a model of 3"):
        fuse(plain, Preprocess(32, (0.5,), (0.2,)))


def test_a_star_relu_without_scale_is_left() -> None:
    plain = model("convformer_s18", activation=StarReLU(scale=0.0), mixers=SepConv(activation=StarReLU(scale=0.0, bias=0.5)))
    for part in plain.modules():
        if type(part).__name__ == "StarReLUAct":
            part.scale.data.zero_()
    with torch.inference_mode():
        assert difference(fuse(plain)(images()), plain(images())) < 1e-11


def test_fused_models_compile_export_and_copy() -> None:
    fused = fuse(model("caformer_s18", torch.float32), Preprocess(32, (0.5,) * 3, (0.2,) * 3))
    assert isinstance(copy.deepcopy(fused), FusedMetaFormer)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        exported = torch.export.export(fused, (pixels,), dynamic_shapes=(dynamic,)).module()
        other = torch.randint(0, 256, (3, 3, 96, 40), dtype=torch.uint8)
        torch.testing.assert_close(exported(other), fused(other), rtol=1e-4, atol=1e-5)
