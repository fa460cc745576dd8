"""What is rewritten for a runtime computes the same."""

import pytest
import torch
from tests.infer.test_fuse import FAMILIES, difference, images, model

from metaformer import Pooling, Scale, fuse
from metaformer.infer.convert import OverChannels, PooledResidual, for_openvino, is_fixed

pytestmark = pytest.mark.usefixtures("thread")


@pytest.mark.parametrize("name", FAMILIES)
def test_rewritten_for_openvino(name: str) -> None:
    plain = model(name)
    fused = fuse(plain)
    rewritten = for_openvino(fused)
    with torch.inference_mode():
        assert difference(rewritten(images(33)), plain(images(33))) < 1e-11
        assert torch.equal(fused(images(33)), fuse(plain)(images(33)))  # the fused one is as it was
    kinds = {type(part) for part in rewritten.modules()}
    assert (PooledResidual in kinds) == (name in ("poolformer_s12", "poolformerv2_s12", "metaformer_ppff_s12_224"))
    assert (OverChannels in kinds) == (name not in ("poolformer_s12", "metaformer_id_s12", "metaformer_ppff_s12_224"))


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("scale", [Scale(), Scale(shortcut=0.8, branch=0.5)])
def test_every_kind_of_pooling_block(residual: bool, scale: Scale) -> None:
    plain = model("poolformerv2_s12", scales=scale, residual=residual, mixers=Pooling())
    with torch.inference_mode():
        assert difference(for_openvino(fuse(plain))(images()), plain(images())) < 1e-11


def test_a_plain_model_is_rewritten_too() -> None:
    plain = model("caformer_s18", norm="LayerNorm(bias=True)")
    assert not is_fixed(plain)
    with torch.inference_mode():
        assert difference(for_openvino(plain)(images()), plain(images())) < 1e-11
